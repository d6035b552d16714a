"""What a campaign found, in Markdown: nothing but what its folder holds."""

import json
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from benchmarks.campaign.running import Campaign
from benchmarks.campaign.steps import Done
from pytest_joules import record
from pytest_joules.commands import fitting
from pytest_joules.errors import JoulesError
from pytest_joules.verdict import Verdict

_SESSIONS = Path(".joules") / "sessions"
_ALARMS = (Verdict.REGRESSION, Verdict.IMPROVEMENT)


def lines(out: Path) -> list[str]:
    """Return the whole report."""
    done = Campaign(out=out, gpu="").done()
    parts = (_steps, _sensor, _baselines, _same, _planted, _observations, _noise, _predicted)
    return [line for part in parts for line in [*part(out, done), ""]]


def _of(done: Mapping[str, Done], part: str) -> list[Done]:
    return sorted((d for d in done.values() if d.part == part), key=lambda d: d.began)


def _steps(out: Path, done: Mapping[str, Done]) -> Iterator[str]:
    del out
    yield f"# Campaign: {len(done)} steps"
    yield ""
    yield "| step | part | seconds | ended |"
    yield "|---|---|---|---|"
    for each in sorted(done.values(), key=lambda d: d.began):
        ended = "cut off" if each.cut_off else f"exit code {each.exit_code}"
        yield f"| {each.name} | {each.part} | {each.took_s:.0f} | {ended} |"


def _sensor(out: Path, done: Mapping[str, Done]) -> Iterator[str]:
    yield "## Sensors"
    for each in _of(done, "probe"):
        yield from ("", "```", (out / "steps" / f"{each.name}.log").read_text().strip(), "```")


def _baselines(out: Path, done: Mapping[str, Done]) -> Iterator[str]:
    del done
    files = sorted((out / "baselines").rglob("*.json"))
    yield "## Baselines"
    yield ""
    for path in files:
        yield f"- `{path.relative_to(out)}`"


def _same(out: Path, done: Mapping[str, Done]) -> Iterator[str]:
    """Count verdicts of a stack against itself, and what each took."""
    yield "## The stack against itself"
    steps = _of(done, "same")
    found: Counter[str] = Counter()
    undecided = 0
    for each in steps:
        verdicts = [v for name in each.sessions for v in _verdicts(out / _SESSIONS / name)]
        found.update(verdicts)
        undecided += max(0, _num_tests(out, each) - len(verdicts))
    total = sum(found.values()) + undecided
    alarms = sum(found[verdict] for verdict in _ALARMS)
    spent_s = sum(_spent_s(out, each) for each in steps)
    yield ""
    yield f"- {total} verdicts asked; {alarms} false alarms; {undecided} not decided in time"
    yield f"- verdicts: {', '.join(f'{n} {v}' for v, n in sorted(found.items())) or 'none'}"
    if total:
        yield f"- {spent_s / total:.0f} GPU seconds a verdict ({spent_s:.0f} in all)"


def _planted(out: Path, done: Mapping[str, Done]) -> Iterator[str]:
    yield "## Planted changes"
    yield ""
    for each in _of(done, "planted"):
        verdicts = [v for name in each.sessions for v in _verdicts(out / _SESSIONS / name)]
        reasons = sorted(
            {r for name in each.sessions for r in _reasons(out / _SESSIONS / name)}
        )
        # Pytest's 1 and this plugin's 6 stop a gate; 0 lets the change through.
        state = {0: "**missed**", 1: "found (red)", 6: "found (not green)"}.get(each.exit_code)
        state = "cut off" if each.cut_off else state or f"failed, exit code {each.exit_code}"
        told = ", ".join([*verdicts, *reasons]) or "nothing was judged: see the step's log"
        yield f"- {each.name}: {state}: {told}; {_spent_s(out, each):.0f} GPU seconds"


def _observations(out: Path, done: Mapping[str, Done]) -> Iterator[str]:
    yield "## Live forms of the paper's observations"
    yield ""
    for each in sorted(done.values(), key=lambda d: d.began):
        for name, outcome in _outcomes(out, each):
            if "observation" in name:
                yield f"- {name}: {outcome}"


def _noise(out: Path, done: Mapping[str, Done]) -> Iterator[str]:
    del done
    yield "## Noise, fitted to the unchanged launches"
    yield from _told(lambda: fitting.noise([str(out)]).lines)


def _predicted(out: Path, done: Mapping[str, Done]) -> Iterator[str]:
    del done
    yield "## Predicted before it was measured"
    path = out / "predicted.json"
    if not path.exists():
        yield from ("", "No prediction was written down.")
        return
    yield from _told(lambda: fitting.held(path, [str(out)]).lines)


def _told(job: Callable[[], Sequence[str]]) -> Iterator[str]:
    yield ""
    try:
        told = job()
    except JoulesError as error:
        yield str(error)
    else:
        yield from ("```", *told, "```")


def _verdicts(session: Path) -> list[str]:
    path = session / "verdicts.jsonl"
    if not path.exists():
        return []
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [row["comparison"]["verdict"] for row in rows]


def _reasons(session: Path) -> Iterator[str]:
    if record.is_session(session):
        for result in record.results_of(session):
            yield from (reason.code for reason in result.reasons)


def _spent_s(out: Path, each: Done) -> float:
    """Return what the step's sessions spent; of one that did not end, what the step took."""
    ends = [out / _SESSIONS / name / "end.json" for name in each.sessions]
    if not ends or not all(path.exists() for path in ends):
        return each.took_s
    return sum(json.loads(path.read_text())["spent_gpu_s"] for path in ends)


def _num_tests(out: Path, each: Done) -> int:
    return len(list(_outcomes(out, each)))


def _outcomes(out: Path, each: Done) -> Iterator[tuple[str, str]]:
    path = out / "steps" / f"{each.name}.xml"
    if not path.exists():
        return
    for case in ET.parse(path).getroot().iter("testcase"):
        bad = [child for child in case if child.tag in ("failure", "error", "skipped")]
        text = (bad[0].get("message") or "").splitlines() if bad else []
        outcome = f"{bad[0].tag}: {text[0] if text else ''}" if bad else "passed"
        module = (case.get("classname") or "").rsplit(".", 1)[-1]
        yield f"{module}::{case.get('name')}", outcome
