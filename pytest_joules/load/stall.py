"""Notice a server that answers everything but the requests."""

import json
import os
from pathlib import Path
from time import monotonic
from typing import Any, Final

from pytest_joules.errors import LoadError, is_expected

__tracebackhide__ = is_expected

STALL_S: Final = 300.0
"""Seconds without any token, with requests in flight, after which a server is taken to hang.

Compiling kernels for a new shape, or preparing a batch of videos, takes a minute or two."""

_TAIL_BYTES: Final = 1 << 12


class Progress:
    """Follows the server's token counters in the file of its samples."""

    def __init__(self, samples: Path) -> None:
        self._samples = samples
        self._tokens, self._since_s = -1.0, monotonic()

    def require(self) -> None:
        """Look whether tokens were made lately; cheap.

        Raises:
            LoadError: None were for ``STALL_S``, though requests are in flight.
        """
        row = _last_row(self._samples)
        if "output_tokens" not in row:
            return  # a gap in the samples says nothing of tokens
        tokens, in_flight = _tokens(row), row["running"] + row["waiting"]
        if tokens != self._tokens or not in_flight:
            self._tokens, self._since_s = tokens, monotonic()
        elif monotonic() - self._since_s > STALL_S:
            raise LoadError(
                f"the server made no token for {STALL_S:g} s with {in_flight:.0f} requests in "
                "flight, though it tells its counters: it hangs. See the engine's log, and "
                "`dmesg` for Xid errors."
            )


def _tokens(row: dict[str, Any]) -> float:
    made: float = row["output_tokens"] + row["prompt_tokens"]
    return made


def _last_row(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        file.seek(0, os.SEEK_END)
        file.seek(max(0, file.tell() - _TAIL_BYTES))
        lines = file.read().split(b"\n")
    row: dict[str, Any] = json.loads(lines[-2]) if len(lines) > 1 else {}
    return row
