"""What an interrupted session leaves to the one that goes on with it, put together as one.

Several workers of pytest-xdist may have measured it, each for itself. Two of them may even
have measured one server, on two boards, where one died and another did its tests again; all
launches of a server must run on one board, so only one worker's count then.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pytest_joules.contract import reason
from pytest_joules.errors import FormatError, is_expected
from pytest_joules.ledger import Judgement, Taken
from pytest_joules.plan import server_key
from pytest_joules.point import Point
from pytest_joules.record.costs import cost_of, costs_of
from pytest_joules.record.parts import parts
from pytest_joules.record.replaying import replayed
from pytest_joules.record.verdicts import told
from pytest_joules.result import Result

__tracebackhide__ = is_expected

NOTE = "taken-over"
ANEW = "measure all anew without --joules-resume"


@dataclass(frozen=True, kw_only=True)
class _Part:
    """What one process wrote."""

    results: Sequence[Result]
    """Its own after those that its session had taken over, which all parts share."""

    judgements: Sequence[Judgement]

    @property
    def ids(self) -> frozenset[int]:
        return frozenset(map(id, self.results))


def left_by(folder: Path) -> Taken:
    """Put together the finished, valid measurements of a session, and its verdicts.

    Raises:
        FormatError: The session is broken.
    """
    names = parts(folder)
    written = [_Part(results=each[0], judgements=each[2]) for each in told(folder)]
    every = {id(each): each for part in written for each in part.results}
    results = [each for each in every.values() if each.is_valid]
    place = {id(each): position for position, each in enumerate(results)}
    kept = _kept(written)
    aside = {id(written[0].results[i]) for i in cost_of(folder).get("set_aside", ())}
    costs = costs_of(folder)
    return Taken(
        session=folder.name,
        results=[_marked(each, folder.name) for each in results],
        judgements=[
            _moved(judgement, part, place)
            for name, part in zip(names, written, strict=True)
            for judgement in part.judgements
            # What the session itself had taken over, all its workers knew.
            if (not name or kept.get(server_key(judgement.comparison.point), part) is part)
            and _require_same(judgement, part, folder)
        ],
        set_aside=tuple(
            place[id(each)]
            for each in results
            if id(each) in aside or id(each) not in kept[server_key(each.point)].ids
        ),
        num_launches=sum(cost["num_launches"] for cost in costs),
        spent_gpu_s=sum(cost["spent_gpu_s"] or 0.0 for cost in costs),
    )


def _kept(written: Sequence[_Part]) -> Mapping[Point, _Part]:
    """Choose for each server the part that got furthest with it."""
    servers = {server_key(each.point) for part in written for each in part.results}
    return {
        server: max(written, key=lambda part: _progress(part, server)) for server in servers
    }


def _progress(part: _Part, server: Point) -> tuple[int, int]:
    judged = [j for j in part.judgements if server_key(j.comparison.point) == server]
    valid = [r for r in part.results if r.is_valid and server_key(r.point) == server]
    return len(judged), len(valid)


def _moved(judgement: Judgement, part: _Part, place: Mapping[int, int]) -> Judgement:
    """Let a verdict rest on the same results where all of them stand in one row."""
    rests_on = {
        place[id(each)]
        for position, each in enumerate(part.results[: judgement.num_results])
        if each.is_valid and position not in judgement.set_aside
    }
    count = max(rests_on, default=-1) + 1
    others = tuple(position for position in range(count) if position not in rests_on)
    return replace(judgement, num_results=count, set_aside=others)


def _require_same(judgement: Judgement, part: _Part, folder: Path) -> bool:
    """Refuse a verdict that does not come out of its stored results again.

    Raises:
        FormatError: It does not.
    """
    if not replayed(judgement, part.results).is_same:
        raise FormatError(
            f"{folder}: the verdict on {judgement.comparison.point.id} does not come out of "
            f"its results again; {ANEW}."
        )
    return True


def _marked(result: Result, name: str) -> Result:
    if any(note.code == NOTE for note in result.notes):
        return result
    seen = f"measured in session {name}, which was interrupted, and taken over by another."
    return result.but(notes=(*result.notes, reason(NOTE, seen)))
