"""What a campaign's steps are, which come next, and how long they take; pure."""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from pytest_joules import Point

PARTS = ("probe", "baseline", "same", "planted", "observation", "predicted")


@dataclass(frozen=True, kw_only=True)
class Step:
    """One command of the campaign; ``steps.toml`` says what the fields mean."""

    name: str
    part: str
    seconds: float
    most_seconds: float = 580.0
    command: tuple[str, ...] = ()
    pytest: tuple[str, ...] = ()
    beside: str = ""
    like: str = ""


@dataclass(frozen=True, kw_only=True)
class Done:
    """What became of a step; ``steps/<name>.json``."""

    name: str
    part: str
    exit_code: int
    took_s: float
    cut_off: bool = False
    """Whether it was ended before it had finished."""

    began: str = ""
    boot: str = ""
    """Names the start of the machine that it ran after."""

    sessions: tuple[str, ...] = ()
    """Stored sessions that it made."""


def read(path: Path) -> list[Step]:
    """Read the steps in order.

    Raises:
        ValueError: A step is not as it should be; names it.
    """
    rows = tomllib.loads(path.read_text(encoding="utf-8"))["steps"]
    steps = [_step(row) for row in rows]
    names = [step.name for step in steps]
    for step in steps:
        if names.count(step.name) > 1 or (step.like and step.like not in names):
            raise ValueError(f"step {step.name}: its name or that in like={step.like!r}.")
    return steps


def held_out(path: Path, points: Path) -> list[Mapping[str, Any]]:
    """Return the points that are predicted before they are measured, as JSON-ready values."""
    rows = tomllib.loads(path.read_text(encoding="utf-8")).get("held_out", [])
    of_text = tomllib.loads(points.read_text(encoding="utf-8")).get("text-conversation", {})
    return [Point.from_json({**of_text, **row}).as_json() for row in rows]


def _step(row: Mapping[str, Any]) -> Step:
    unknown = set(row) - {f.name for f in fields(Step)}
    if unknown or row.get("part") not in PARTS:
        raise ValueError(f"step {row.get('name')}: unknown part or fields {sorted(unknown)}.")
    if bool(row.get("command")) == bool(row.get("pytest")):
        raise ValueError(f"step {row['name']}: give it either command or pytest.")
    lists = {key: tuple(value) for key, value in row.items() if isinstance(value, list)}
    return Step(**{**row, **lists})


def expected_s(step: Step, done: Mapping[str, Done]) -> float:
    """Return how long a step should take: as its like did here, or as assumed."""
    seen = done.get(step.like or step.name)
    return seen.took_s if seen and not seen.cut_off else step.seconds


def following(steps: Sequence[Step], done: Mapping[str, Done], left_s: float) -> Step | None:
    """Return the first step that is not done and fits in what is left of the time.

    A later, shorter step is taken before an earlier one that no longer fits.
    """
    for step in steps:
        before = done.get(step.name)
        if (before is None or before.cut_off) and expected_s(step, done) <= left_s:
            return step
    return None


def told(steps: Sequence[Step], done: Mapping[str, Done]) -> list[str]:
    """Return the lines of the plan: each step with its minutes, and those still to go."""
    width = max(len(step.name) for step in steps)
    lines = []
    for step in steps:
        before = done.get(step.name)
        state = "" if before is None else "cut off" if before.cut_off else "done"
        minutes = expected_s(step, done) / 60
        lines.append(
            f"{step.name:{width}}  {step.part:11}  {minutes:5.1f} min  {state}".rstrip()
        )
    left = [s for s in steps if s.name not in done or done[s.name].cut_off]
    total = sum(expected_s(step, done) for step in left) / 60
    return [*lines, f"{len(left)} of {len(steps)} steps to go, about {total:.0f} GPU minutes"]
