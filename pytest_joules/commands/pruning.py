"""``joules baseline prune``: drop runs of a baseline, for a stated reason."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pytest_joules import baseline
from pytest_joules.baseline import Entry
from pytest_joules.commands.answer import Answer
from pytest_joules.commands.baselines import now, require_reason, stored
from pytest_joules.errors import BaselineMissing, ConfigurationError, is_expected
from pytest_joules.point import Point
from pytest_joules.result import Result
from pytest_joules.units import counted, percent

__tracebackhide__ = is_expected


@dataclass(frozen=True, kw_only=True)
class Rule:
    """Which runs stay."""

    newest: int | None = None
    """How many of the last runs; ``None`` keeps all."""

    board: str = ""
    """UUID of a GPU that they must have been measured on; empty for any."""

    def __post_init__(self) -> None:
        if self.newest is None and not self.board:
            raise ConfigurationError(
                "nothing to prune by; give --keep=N, --board=UUID or both."
            )
        if self.newest is not None and self.newest < 1:
            raise ConfigurationError(f"--keep={self.newest}: keep at least one run.")

    def kept(self, runs: tuple[Result, ...]) -> tuple[Result, ...]:
        """Return the runs that stay, in their order."""
        boards = [run.provenance.context.gpu_uuids for run in runs]
        on_board = [
            run
            for run, uuids in zip(runs, boards, strict=True)
            if not self.board or self.board in uuids
        ]
        return tuple(on_board[-self.newest :] if self.newest else on_board)


def pruned(what: str, rule: Rule, *, root: Path, reason: str, does: bool) -> Answer:
    """Drop the runs that a rule does not keep; tell what it did or would do.

    A calibration of the old runs goes with them; the reason is stored with the move.

    Args:
        what: A point's id, a baseline file, or empty for everything below ``root``.
        rule: Which runs stay.
        root: Folder of the baselines.
        reason: Why; stored.
        does: Whether to write; else it is only told what would be dropped.

    Raises:
        ConfigurationError: The reason is empty, or a point would lose all of its runs:
            nothing was changed.
        BaselineMissing: There is no such baseline.
        BaselineError: A file cannot be written; it is as it was.
    """
    require_reason(reason)
    prune = Pruning(what=what, rule=rule, reason=reason.strip())
    changes = prune.changes(root)
    if does:
        for path in changes:
            baseline.rewrite(path, lambda found: {**found, **prune.of(path, found)})  # noqa: B023  called at once
    told = [each for entries in changes.values() for each in entries.items()]
    return Answer(
        lines=[*(_line(*each) for each in told), _closing(len(told), does=does)],
        values=[_values(*each, does=does) for each in told],
    )


@dataclass(frozen=True, kw_only=True)
class Pruning:
    """What is pruned, how, and why."""

    what: str
    rule: Rule
    reason: str

    def changes(self, root: Path) -> Mapping[Path, Mapping[Point, Entry]]:
        """Return what each file would hold of the points that change."""
        found = [each for each in stored(root) if self._is_meant(*each[:2])]
        if not found:
            raise BaselineMissing(
                f"{self.what or root}: no baseline; see `joules baseline list`."
            )
        every = {path: self.of(path, baseline.entries(path)) for path, _, _ in found}
        return {path: entries for path, entries in every.items() if entries}

    def of(self, path: Path, found: Mapping[Point, Entry]) -> dict[Point, Entry]:
        """Return the entries of one file that change."""
        kept = {
            point: self._kept(point, entry)
            for point, entry in found.items()
            if self._is_meant(path, point)
        }
        return {
            point: self._moved(found[point], runs)
            for point, runs in kept.items()
            if runs != found[point].runs
        }

    def _is_meant(self, path: Path, point: Point) -> bool:
        return self.what in {"", point.id, str(path)}

    def _kept(self, point: Point, entry: Entry) -> tuple[Result, ...]:
        kept = self.rule.kept(entry.runs)
        if not kept:
            raise ConfigurationError(
                f"{point.id}: no run is of board {self.rule.board}, so its baseline would be "
                "empty; nothing was changed. `joules baseline show` names the boards."
            )
        return kept

    def _moved(self, entry: Entry, kept: tuple[Result, ...]) -> Entry:
        number = counted(len(entry.runs), "run")
        words = f"{self.reason} (pruned: {len(kept)} of {number} kept)"
        return baseline.moved(entry, kept, reason=words, at=now())


def _line(point: Point, entry: Entry) -> str:
    move = entry.accepted[-1]
    return f"{point.id}: {percent(move.change)}, {move.reason}"


def _closing(number: int, *, does: bool) -> str:
    if not number:
        return "every run stays; nothing was changed."
    points = counted(number, "point")
    return f"{points} changed" if does else f"{points} would change; --yes does it."


def _values(point: Point, entry: Entry, *, does: bool) -> dict[str, Any]:
    move = entry.accepted[-1]
    return {
        "point": point.id,
        "num_runs": len(entry.runs),
        "change": move.change,
        "reason": move.reason,
        "is_done": does,
    }
