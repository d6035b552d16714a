"""The stored runs of a point, drawn: one row a run, its energy a mark on a shared scale."""

from collections.abc import Sequence

from pytest_joules.point import Point
from pytest_joules.report.text import table
from pytest_joules.result import Result
from pytest_joules.units import si

WIDTH = 30
"""Columns of the scale."""

_MARK, _LINE = "\N{BLACK CIRCLE}", "\N{MIDDLE DOT}"


def drawn(point: Point, runs: Sequence[Result]) -> list[str]:
    """Return a table of runs, oldest first, with their energy as marks.

    The scale spans the runs, but never less than 2 % of the lowest: launches of an idle
    machine would else look like a storm.
    """
    values = [run.energy_per_work_unit_j for run in runs]
    low, high = min(values), max(*values, 1.02 * min(values))
    unit = f"J/{point.work_unit}"
    boards = list(dict.fromkeys(run.provenance.context.gpu_uuids for run in runs))
    rows = [
        (
            run.provenance.context.recorded_at or "-",
            run.provenance.context.stack or "-",
            _board(boards.index(run.provenance.context.gpu_uuids)),
            si(value, unit, 4),
            si(run.power_w, "W"),
            marked((value - low) / (high - low)),
        )
        for run, value in zip(runs, values, strict=True)
    ]
    left, right = si(low, unit), si(high, unit)
    scale = left + right.rjust(WIDTH - len(left))
    head = ("measured", "stack", "board", "energy", "power", scale)
    named = [
        f"board {_board(index)}: {', '.join(board) or 'unknown'}"
        for index, board in enumerate(boards)
    ]
    return [*table([head, *rows]), *named]


def _board(index: int) -> str:
    return f"#{index + 1}"


def marked(share: float) -> str:
    """Draw one mark on a scale from 0 to 1.

    >>> marked(0.0)[:3], marked(1.0)[-3:], len(marked(0.5))
    ('●··', '··●', 30)
    """
    place = round(share * (WIDTH - 1))
    return _LINE * place + _MARK + _LINE * (WIDTH - 1 - place)
