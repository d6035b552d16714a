"""What a cell's running launch says, as what the session should hear of it."""

from collections.abc import Callable
from functools import partial

from pytest_joules import progress
from pytest_joules.errors import FormatError, is_expected
from pytest_joules.fleet import lines, wire
from pytest_joules.fleet.cell import Came, Cell, Drawn, Ended, Event, Went
from pytest_joules.measure import Failure
from pytest_joules.point import Point

__tracebackhide__ = is_expected

Announce = Callable[[progress.Event], None]


def followed(
    cell: Cell, told: lines.Message, *, at_s: float, announce: Announce
) -> Event | None:
    """Take a message of a cell that runs a launch.

    Args:
        cell: Who said it; remembers what of it is asked for later.
        told: What it said.
        at_s: When, on this machine's clock.
        announce: Tells people, once the session has got to it.

    Raises:
        FormatError: It is no message, or of a launch that nobody asked for.
    """
    name, key = cell.held.node.name, cell.key
    if key is None or cell.launch is None:
        raise FormatError(f"{name} said {dict(told)!r}, but was asked for no launch.")
    match told:
        case {"waits": text}:
            return Went(tell=partial(announce, _waited(cell, text, at_s)))
        case {"load": {"point": point, "min_window_s": window_s}}:
            cell.drawn = drawn = Drawn()
            began = progress.LoadBegins(
                point=Point.from_json(point),
                min_window_s=window_s,
                energy_j=lambda: drawn.energy_j,
                at_s=at_s,
            )
            return Went(tell=partial(announce, began))
        case {"energy_j": energy_j}:
            cell.drawn.energy_j = energy_j
            return None
        case {"outcome": values, "elapsed_s": elapsed_s}:
            outcome = wire.outcome_from(values, name)
            seen = outcome.error if isinstance(outcome, Failure) else outcome
            ends = progress.PointEnds(point=outcome.point, outcome=seen, at_s=at_s)
            tell = partial(announce, ends)
            return Came(key=key, outcome=outcome, elapsed_s=elapsed_s, tell=tell)
        case {"ended": {"elapsed_s": elapsed_s, "error": error}}:
            cell.runs = False
            why = lines.error_from(error, name) if error else None
            over = partial(announce, progress.LaunchEnds(at_s=at_s))
            return Ended(key=key, elapsed_s=elapsed_s, error=why, tell=over)
        case _:
            raise FormatError(f"{name} said {dict(told)!r}, which is unknown.")


def _waited(cell: Cell, text: str, at_s: float) -> progress.Event:
    """Others hold the GPUs, or no longer do; from then on the launch costs something."""
    cell.waits, cell.since_s = bool(text), at_s
    if not text:
        return progress.LeaseEnds(at_s=at_s)
    assert cell.launch is not None
    return progress.LeaseWaits(launch=cell.launch, text=text, at_s=at_s)
