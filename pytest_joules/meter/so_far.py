"""What a sampler's file says of the energy so far, without reading all of it."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pytest_joules.trace import MeterTrace

_PIECE_BYTES = 32 * 1024
"""Holds a reading of each of sixteen GPUs."""


def energy_j(path: Path) -> float | None:
    """Return the joules between the first and last whole readings; ``None`` for none.

    Only the two ends of the file are read: it is asked while the sampler writes.
    """
    try:
        with path.open("rb") as stream:
            first = _energies(stream.read(_PIECE_BYTES), is_start=True)
            length = stream.seek(0, os.SEEK_END)
            stream.seek(max(0, length - _PIECE_BYTES))
            last = _energies(stream.read(), is_start=length <= _PIECE_BYTES)
    except OSError:
        return None
    earliest = dict(reversed(first))
    drawn_mj = [now - earliest[gpu] for gpu, now in dict(last).items() if gpu in earliest]
    return sum(drawn_mj) / 1000 if drawn_mj else None


def traced_j(trace: MeterTrace) -> float | None:
    """Return the same of a recording that has ended."""
    read = [gpu.readings for gpu in trace.gpus if gpu.readings]
    drawn_mj = [each[-1].energy_mj - each[0].energy_mj for each in read]
    return sum(drawn_mj) / 1000 if drawn_mj else None


def _energies(piece: bytes, *, is_start: bool) -> list[tuple[int, int]]:
    """Return ``(gpu, millijoules)`` of every whole line; a piece may begin inside one."""
    lines = piece.split(b"\n")[0 if is_start else 1 : -1]
    return [(row[0], row[3]) for row in _rows(lines) if isinstance(row[0], int)]


def _rows(lines: list[bytes]) -> Iterator[list[Any]]:
    return (json.loads(line) for line in lines)
