"""The launches of one comparison, and which of them count."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from statistics import median

from pytest_joules.gate.decision import GROWN
from pytest_joules.gate.design import SMALL_BASELINE
from pytest_joules.gate.launch_value import LaunchValue, PooledNoise
from pytest_joules.result import Reason


@dataclass(frozen=True, kw_only=True)
class Launches:
    """Everything one comparison has seen so far."""

    baseline: Sequence[LaunchValue] = ()
    """Stored launches of the old stack, of this GPU or another."""

    old: Sequence[LaunchValue] = ()
    """Launches of the old stack in this session."""

    new: Sequence[LaunchValue] = ()
    """Launches of the stack under test in this session."""

    has_old: bool = False
    """Whether the old stack can be launched in this session."""

    gpu_uuids: tuple[str, ...] = ()
    """Boards of this session; taken from its launches once there are any."""

    elsewhere: PooledNoise = field(default_factory=PooledNoise)
    """Noise between this session's launches of other points; watched for growth only."""


def counted_launches(launches: Launches) -> Launches:
    """Leave out disturbed launches and baselines of other boards."""
    board = _board(launches)
    return replace(
        launches,
        baseline=[
            launch
            for launch in _undisturbed(launches.baseline)
            if board is None or launch.gpu_uuids == board
        ],
        old=_undisturbed(launches.old),
        new=_undisturbed(launches.new),
        has_old=launches.has_old or bool(launches.old),
    )


def _undisturbed(group: Iterable[LaunchValue]) -> list[LaunchValue]:
    return [launch for launch in group if not launch.must_repeat]


def num_disturbed(group: Iterable[LaunchValue]) -> int:
    """Count launches that were set aside because of bursts."""
    return sum(launch.must_repeat for launch in group)


def _board(launches: Launches) -> tuple[str, ...] | None:
    """Return this session's boards; ``None`` while nothing has been launched."""
    for launch in (*launches.new, *launches.old):
        return launch.gpu_uuids
    return launches.gpu_uuids or None


def spread_ratio(counted: Launches) -> float:
    """Compare the spread inside windows with the baseline's; 1 where it cannot be told."""
    before = [launch.spread for launch in counted.baseline if launch.spread is not None]
    now = [v.spread for v in (*counted.old, *counted.new) if v.spread is not None]
    if not before or not now or not median(before):
        return 1.0
    return median(now) / median(before)


def broken(launches: Launches) -> tuple[Reason, ...]:
    """Say why the launches cannot be compared at all; empty where they can."""
    groups = {"baseline": launches.baseline, "old": launches.old, "new": launches.new}
    reasons = [
        Reason(
            code="launch-unusable",
            text=f"{name} launch {i + 1} {problem}; measure it again.",
        )
        for name, group in groups.items()
        for i, launch in enumerate(group)
        if (problem := _problem(launch))
    ]
    boards = {launch.gpu_uuids for launch in (*launches.old, *launches.new)}
    if launches.gpu_uuids:
        boards.add(launches.gpu_uuids)
    if len(boards) > 1:
        named = " and ".join(sorted(", ".join(board) or "unknown" for board in boards))
        text = (
            f"launches of one comparison ran on different GPUs ({named}), which differ by "
            "several percent; run all of them on the same GPU."
        )
        reasons.append(Reason(code="boards-differ", text=text))
    return (*reasons, *_set_otherwise(launches))


def _set_otherwise(launches: Launches) -> Iterator[Reason]:
    """Find settings that changed between launches: the baseline's are looked at only once."""
    seen = (*launches.baseline, *launches.old, *launches.new)
    for name in ("power_limit_w", "mig"):
        values = {value for each in seen if (value := getattr(each, name)) is not None}
        if len(values) > 1:
            named = " and ".join(map(str, sorted(values)))
            text = (
                f"{name} was {named} in launches of one comparison; set the GPU as it was "
                "(`nvidia-smi -pl`, `-mig`), let nothing change it, and run again."
            )
            yield Reason(code="settings-differ", text=text)


def _problem(launch: LaunchValue) -> str:
    if not launch.is_finite:
        return "has no positive finite energy per work unit"
    return "" if launch.is_valid else "broke the validity contract"


def notes_on(launches: Launches, counted: Launches) -> tuple[Reason, ...]:
    """Say what a reader should know about the launches that counted and those that did not."""
    board = _board(launches)
    others = sum(board is not None and v.gpu_uuids != board for v in launches.baseline)
    means = sum(v.from_mean for v in (*counted.baseline, *counted.old, *counted.new))
    ratio = spread_ratio(counted)
    texts = {
        "other-gpu": f"{others} stored launches are of another GPU and were not used."
        if others
        else "",
        "small-baseline": f"the baseline holds {len(counted.baseline)} launch(es) of this GPU; "
        f"more than {SMALL_BASELINE} are needed to start from it, better 8."
        if 0 < len(counted.baseline) <= SMALL_BASELINE
        else "",
        "from-mean": f"{means} launches have no sub-windows; their published mean was used "
        "and nothing could be clipped."
        if means
        else "",
        "noise-grown": f"sub-windows spread {ratio:.1f} times as far as the baseline's, so the "
        "noise between launches was assumed to have grown alike."
        if ratio > GROWN
        else "",
    }
    return tuple(Reason(code=code, text=text) for code, text in texts.items() if text)
