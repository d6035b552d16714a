"""The worker's ends of the two pipes of its rank."""

import json
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

from pytest_joules.hiding import beginning

ORDERS = "orders.{rank}"
EVENTS = "events.{rank}"
_TEXT_CHARS = 2_000


class Channel:
    """Says events and hears orders; an exception that passes through it is said, too."""

    def __init__(self, folder: Path, *, rank: int) -> None:
        # The parent has both open for reading and writing, so neither open waits.
        self._events = (folder / EVENTS.format(rank=rank)).open("w", encoding="utf-8")
        self._orders = (folder / ORDERS.format(rank=rank)).open(encoding="utf-8")

    def __enter__(self) -> "Channel":  # noqa: PYI034  Self needs Python 3.11; stacks may be older
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is not None:
            self.say("error", text=beginning(f"{kind.__name__}: {error}", _TEXT_CHARS))

    def say(self, event: str, **facts: Any) -> None:
        """Tell the parent at once."""
        self._events.write(json.dumps({"event": event, **facts}) + "\n")
        self._events.flush()

    def orders(self) -> Iterator[Any]:
        """Yield orders until the parent closes the pipe or goes."""
        for line in self._orders:
            yield json.loads(line)
