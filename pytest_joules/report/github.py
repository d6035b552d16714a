"""What GitHub shows: a step summary, a comment's body, annotations on tests.

Names of others stand in code spans with every sign escaped, where Markdown, HTML, mentions
and links mean nothing; in annotations every sign that a workflow command reads is escaped.
"""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pytest_joules.digest import Digest, Failed, Row
from pytest_joules.report.causes import causes
from pytest_joules.report.text import UNREAL, change
from pytest_joules.units import counted, percent, si
from pytest_joules.verdict import Verdict
from pytest_joules.visible import lines, shortened, visible

MARK = "<!-- pytest-joules -->"
"""First line of a comment, by which a workflow finds its own to update it."""

_LONGEST = 200
_ORDER = (
    Verdict.REGRESSION,
    Verdict.INVALID,
    Verdict.INCONCLUSIVE,
    Verdict.IMPROVEMENT,
    Verdict.UNCHANGED,
)
_SIGNS = {
    Verdict.REGRESSION: "🔴",
    Verdict.INVALID: "⚫",
    Verdict.INCONCLUSIVE: "🟡",
    Verdict.IMPROVEMENT: "🟢",
    Verdict.UNCHANGED: "🟢",
}
_HEAD = ("", "verdict", "point", "change", "interval", "energy", "was", "launches")


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How much is listed; GitHub refuses longer texts."""

    rows: int
    failed: int


COMMENT = Limits(rows=40, failed=10)  # of 65,536 characters
STEP_SUMMARY = Limits(rows=500, failed=50)  # of 1 MiB


def comment(digest: Digest) -> str:
    """Return a comment's Markdown."""
    return f"{MARK}\n{markdown(digest, COMMENT)}"


def markdown(digest: Digest, limits: Limits = STEP_SUMMARY) -> str:
    """Return the digest as Markdown: verdicts, why they are red, software, failed tests."""
    ordered = sorted(digest.rows, key=_severity)
    parts = [
        f"## Energy: {_counts(digest)}",
        *_unreal(digest),
        _circumstances(digest),
        *_table(ordered, limits.rows),
        *_explanations(ordered, limits.failed),
        *_software(ordered, limits.rows),
        *_failed(digest.failed, limits.failed),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def annotations(digest: Digest, *, root: Path, workspace: Path) -> Iterator[str]:
    """Return workflow commands that mark each failed test on its line.

    Args:
        digest: Holds the tests.
        root: What their files are relative to.
        workspace: What GitHub's files are relative to.
    """
    unreal = "".join(f"{UNREAL[source].lstrip(': ')}.\n" for source in _unreal_sources(digest))
    for each in digest.failed:
        path = (root / each.file).resolve()
        inside = path.is_relative_to(workspace.resolve())
        file = str(path.relative_to(workspace.resolve())) if inside else each.file
        level = "warning" if each.is_undecided else "error"
        title = _property(shortened(f"{each.kind}: {each.test}", _LONGEST))
        place = f"file={_property(file)},line={each.line},title={title}"
        yield f"::{level} {place}::{_data(unreal + shortened(each.text, 10 * _LONGEST))}"


def _severity(row: Row) -> int:
    return _ORDER.index(Verdict(row.verdict)) if row.verdict else len(_ORDER)


def _counts(digest: Digest) -> str:
    number = Counter(row.verdict for row in digest.rows)
    told = [f"{number[each]} {each}" for each in _ORDER if number[each]]
    told += [f"{number['']} measured"] if number[""] else []
    told += [f"{counted(len(digest.failed), 'failed test')}"] if digest.failed else []
    return ", ".join(told) or "nothing was measured"


def _unreal(digest: Digest) -> Iterator[str]:
    for source in _unreal_sources(digest):
        yield f"> **Warning**{UNREAL[source]}."


def _unreal_sources(digest: Digest) -> list[str]:
    return [source for source in digest.sources if source in UNREAL]


def _circumstances(digest: Digest) -> str:
    said = digest.settings
    parts = [
        f"{name} {code(said[name])}" for name in ("gpu", "stack", "against") if said.get(name)
    ]
    parts += [f"source {code(source)}" for source in digest.sources]
    parts.append(counted(digest.num_launches, "launch"))
    if digest.spent_gpu_s is not None:
        parts.append(f"{digest.spent_gpu_s / 60:.1f} GPU minutes")
    return ", ".join(parts)


def _table(rows: Sequence[Row], most: int) -> Iterator[str]:
    if not rows:
        return
    cells = [_HEAD, ("---",) * len(_HEAD), *map(_cells, rows[:most])]
    yield "\n".join(f"| {' | '.join(each)} |" for each in cells)
    yield from _more(len(rows) - most, "row")


def _cells(row: Row) -> tuple[str, ...]:
    found, unit = row.comparison, f"J/{row.point.work_unit}"
    known = found is not None and not math.isnan(found.change)
    return (
        _SIGNS[Verdict(row.verdict)] if row.verdict else "",
        f"**{row.verdict}**" if row.verdict else "measured",
        code(f"{row.id} ({row.stack})" if row.stack else row.id),
        change(found),
        f"{percent(found.low)} to {percent(found.high)}" if found and known else "",
        si(row.energy_per_work_unit_j, unit),
        si(found.reference_energy_per_work_unit_j, unit) if found and known else "",
        str(len(row.judged)),
    )


def _explanations(rows: Sequence[Row], most: int) -> Iterator[str]:
    told = [row for row in rows if row.verdict in _ORDER[:3]]
    for row in told[:most]:
        yield f"### {_SIGNS[Verdict(row.verdict)]} {code(row.id)}"
        texts = [why.text for why in row.reasons] if not row.is_valid else []
        texts += [row.comparison.explanation] if row.comparison else []
        texts += causes(row.diagnosis) if row.diagnosis else []
        yield "\n".join(f"- {code(text.strip())}" for text in texts if text)
    yield from _more(len(told) - most, "explanation")


def _software(rows: Sequence[Row], most: int) -> Iterator[str]:
    changed = sorted({(name, *pair) for row in rows for name, pair in row.software.items()})
    if not changed:
        return
    cells = [
        ("software", "was", "is"),
        ("---",) * 3,
        *((code(a), code(b or "absent"), code(c or "absent")) for a, b, c in changed[:most]),
    ]
    yield "\n".join(f"| {' | '.join(each)} |" for each in cells)
    yield from _more(len(changed) - most, "difference")


def _failed(failed: Sequence[Failed], most: int) -> Iterator[str]:
    if not failed:
        return
    yield "### Failed tests"
    yield "\n".join(
        f"- {code(each.test)} ({code(f'{each.file}:{each.line}')}): {code(_flat(each.text))}"
        for each in failed[:most]
    )
    yield from _more(len(failed) - most, "failed test")


def _flat(text: str) -> str:
    r"""Put a message's lines one after the other; written out they would read ``\n``."""
    return " ".join(line.strip() for line in text.split("\n"))


def _more(number: int, noun: str) -> Iterator[str]:
    if number > 0:
        yield f"{counted(number, noun)} more: see the report (`--joules-report=report.html`)."


def code(text: str) -> str:
    """Return foreign text as a code span in which nothing has a meaning.

    >>> code("a|b <b>@me")
    '<code>a&#124;b &#60;b&#62;&#64;me</code>'
    """
    seen = shortened(visible(str(text)), _LONGEST)
    escaped = "".join(c if c.isalnum() or c in " ,-" else f"&#{ord(c)};" for c in seen)
    return f"<code>{escaped}</code>"


def _data(text: str) -> str:
    seen = lines(text).replace("\t", " ")
    return seen.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(visible(text)).replace(":", "%3A").replace(",", "%2C")
