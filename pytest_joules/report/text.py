"""What a person reads about one comparison, result or plan; plain text, no decisions."""

import math
from collections.abc import Iterable, Sequence

from pytest_joules import pipelines
from pytest_joules.intervals import Interval
from pytest_joules.plan import Launch, Plan
from pytest_joules.provenance import differences
from pytest_joules.result import Result
from pytest_joules.units import counted, percent, si
from pytest_joules.verdict import Comparison, Verdict
from pytest_joules.visible import visible

UNREAL = {
    "fake": ": FAKE, a machine that does not exist; nothing was measured",
    "simulated": ": SIMULATED, nothing was measured",
}
"""What every report says of sources that are no measurement."""

_HINTS = {
    Verdict.REGRESSION: "If intended, move the baseline (joules baseline accept --reason=...) "
    "and commit the diff.",
    Verdict.IMPROVEMENT: "Baselines never move by themselves; accept the new level with "
    "`joules baseline accept`.",
    Verdict.INCONCLUSIVE: "Allow more launches (--joules-budget), compare side by side with "
    "--joules-against=STACK, or widen --joules-tolerance.",
    Verdict.INVALID: "Nothing was judged; measure again.",
    Verdict.UNCHANGED: "",
}


def explain(
    comparison: Comparison,
    software: Sequence[str] = (),
    why: Sequence[str] = (),
    *,
    source: str = "live",
) -> str:
    """Return the lines that a red test shows: verdict, numbers, software, what to do.

    Args:
        comparison: What was decided.
        software: Versions that differ.
        why: Lines of ``report.causes``.
        source: Of the new results; named where it is no measurement.
    """
    mark = f" [{source}]" if source in UNREAL else ""
    lines = [f"{comparison.point.id}{mark}: {comparison.verdict}", *_numbers(comparison)]
    changed = f"software: {'; '.join(software)}" if software else ""
    advice = (changed, comparison.explanation, _HINTS[comparison.verdict])
    told = (*advice[:2], *why, advice[2])
    lines += [f"  {visible(line)}" for line in told if line]
    return "\n".join(lines)


def _numbers(comparison: Comparison) -> list[str]:
    if math.isnan(comparison.change):
        return []
    per = comparison.point.work_unit
    then, now = (
        si(value, f"J/{per}", 4)
        for value in (
            comparison.reference_energy_per_work_unit_j,
            comparison.energy_per_work_unit_j,
        )
    )
    return [f"  energy per {per} {percent(comparison.change)}: {then} -> {now}"]


def software_changes(ours: Result, theirs: Result) -> list[str]:
    """Return one line for each version that differs between two results."""
    changed = differences(ours.provenance.context, theirs.provenance.context)
    return [
        visible(f"{name}: {old or 'absent'} -> {new or 'absent'}")
        for name, (old, new) in changed.items()
    ]


def describe_plan(made: Plan, *, num_launches: int | None = None) -> list[str]:
    """Return the lines of ``--joules-plan``.

    Args:
        made: The launches, each once.
        num_launches: How often each is made when recording; a check decides as it goes.
    """
    lines = [line for launch in made.launches for line in _describe_launch(made, launch)]
    num_points = sum(len(launch.points) for launch in made.launches)
    numbers = (num_points, len(made.launches))
    return [*lines, *plan_totals(numbers, made.total_gpu_minutes, num_launches)]


def plan_totals(
    numbers: tuple[int, int], gpu_minutes: float, num_launches: int | None
) -> list[str]:
    """Say what a plan comes to.

    Args:
        numbers: Of points, and of launches, each made once.
        gpu_minutes: Of those launches.
        num_launches: As for ``describe_plan``.
    """
    points, launches = numbers
    lines = [
        (
            f"{counted(points, 'point')}, {counted(launches, 'launch')}, about "
            f"{gpu_minutes:.1f} GPU minutes for one launch each"
        )
    ]
    if num_launches:
        lines.append(
            f"recording makes {counted(num_launches, 'launch')} of each: about "
            f"{num_launches * gpu_minutes:.1f} GPU minutes"
        )
    return lines


def _describe_launch(made: Plan, launch: Launch) -> list[str]:
    from pytest_joules.latent.memory import shortage  # noqa: PLC0415  loads scipy

    first = launch.largest
    engine = f"{first.engine} {first.model} {first.precision}"
    where = f"{first.num_gpus} x {launch.gpu}, stack {launch.stack.name}"
    cost = f"about {made.gpu_minutes(launch):.1f} GPU minutes"
    shown = list(dict.fromkeys(str(p.vision) for p in launch.points if p.vision))
    trusts = first.trust_remote_code  # of all points alike: they share a server
    return [
        visible(f"{engine} on {where}: {cost}"),
        *_describe_batches(launch),
        *(visible(f"    each request shows {each}") for each in shown),
        *_assumed(made, launch),
        *(visible(f"    {each}") for each in shortage(launch.points, launch.gpu)),
        *(["    runs code of the model's repository (trust_remote_code)"] * trusts),
    ]


def _describe_batches(launch: Launch) -> list[str]:
    """Return the batch sizes of a launch, a line for each task or shape of several."""
    shapes: dict[str, list[str]] = {}
    has_tasks = len({point.task for point in launch.points}) > 1
    for point in launch.points:
        is_diffusion = point.engine in pipelines.ENGINES
        task = f" of {point.task}" if has_tasks else ""
        shape = f" of {pipelines.shape(point)}" if is_diffusion else task
        shapes.setdefault(shape, []).append(str(point.batch_size))
    return [f"    batch sizes {', '.join(sizes)}{shape}" for shape, sizes in shapes.items()]


def _assumed(made: Plan, launch: Launch) -> list[str]:
    """Say that a time is assumed where nothing is known of it."""
    if all(made.costs.known(point, launch.gpu) is not None for point in launch.points):
        return []
    return [
        f"    {made.costs.assumed_s:g} s a point where it is not known how long answers take"
    ]


def rate(per_s: float, unit: str) -> str:
    """Write a throughput without a prefix: nobody thinks in milli-images.

    >>> rate(0.2, "image"), rate(1234.5, "token")
    ('0.2 image/s', '1234 token/s')
    """
    number = f"{per_s:.0f}" if per_s >= 100 else f"{per_s:.3g}"  # noqa: PLR2004  three digits
    return f"{number} {unit}/s"


def sampled(value_s: float | None, interval: Interval | None) -> str:
    """Write a latency with its sampling error; nothing where it was not measured.

    >>> sampled(0.0201, (0.0198, 0.0204)), sampled(0.5, (0.3, None))
    ('20.1 ms (19.8 ms to 20.4 ms)', '500 ms (300 ms or more)')
    """
    if value_s is None:
        return ""
    if interval is None:
        return si(value_s, "s")
    low, high = interval
    upper = "or more" if high is None else f"to {si(high, 's')}"
    return f"{si(value_s, 's')} ({si(low, 's')} {upper})"


def change(comparison: Comparison | None) -> str:
    """Write a change; nothing where none was estimated."""
    if comparison is None or math.isnan(comparison.change):
        return ""
    return percent(comparison.change)


def table(rows: Sequence[Sequence[str]], *, width: int | None = None) -> list[str]:
    """Align rows of cells in columns, the first to the left, the others to the right.

    Args:
        rows: Cells, the same number in each row; the first row is the head.
        width: Columns of the terminal: where a line is longer, each row's first cell gets a
            line of its own. ``None`` never does that.
    """
    lines = _aligned(rows)
    if width is None or max(map(len, lines)) <= width:
        return lines
    rest = _aligned([["", *row[1:]] for row in rows])
    return [line for row, tail in zip(rows, rest, strict=True) for line in (row[0], tail)]


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [_line(row, widths) for row in rows]


def _line(row: Iterable[str], widths: Sequence[int]) -> str:
    cells = list(zip(row, widths, strict=True))
    first, width = cells[0]
    return "  ".join([first.ljust(width), *(cell.rjust(w) for cell, w in cells[1:])]).rstrip()
