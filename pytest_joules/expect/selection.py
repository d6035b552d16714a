"""Results chosen from many: the best that keeps the limits, and what two sweeps share."""

from collections.abc import Mapping, Sequence

from pytest_joules.errors import Incomparable, NoneQualifies, is_expected
from pytest_joules.expect.pairing import Names, names, require_one_kind, samples
from pytest_joules.expect.quantity import ENERGY, number, value, written
from pytest_joules.result import Result

__tracebackhide__ = is_expected


def common(
    a: Sequence[Result], b: Sequence[Result], *, by: Names = "batch_size"
) -> tuple[tuple[Result, ...], tuple[Result, ...]]:
    """Restrict two sweeps to the keys that both hold.

    Raises:
        Incomparable: They have none in common.
    """
    left, right = samples(a, by), samples(b, by)
    if not (shared := [key for key in left if key in right]):
        raise Incomparable(
            f"the sweeps have no {', '.join(names(by))} in common: {sorted(left)} and "
            f"{sorted(right)}."
        )
    ours, theirs = (
        tuple(result for key in shared for result in side[key]) for side in (left, right)
    )
    return ours, theirs


def best(
    results: Sequence[Result],
    *,
    gpu: str | None = None,
    quantity: str = ENERGY,
    **limits: float,
) -> Result:
    """Return the result with the lowest quantity among those that keep the limits.

    Limits are ``max_`` or ``min_`` before the name of any quantity, bounds included:

    >>> from tests.fakes.results import make_result
    >>> slow, fast = make_result(0.2, median_itl_s=0.12), make_result(0.3, median_itl_s=0.04)
    >>> best([slow, fast], gpu="b200", max_median_itl_s=0.1) is fast
    True

    Source:
        Observation 6 of the paper: minimum energy under a latency constraint.

    Raises:
        NoneQualifies: No result keeps the limits; says how near they came.
        NotMeasured: A result does not hold a quantity that was asked.
        Incomparable: Results mix GPUs, tasks or sources; or a limit is no quantity.
        InvalidMeasurement: One of them broke the validity contract.
    """
    if not (listed := [r for r in results if gpu is None or r.gpu == gpu]):
        seen = ", ".join(sorted({result.gpu for result in results})) or "none at all"
        raise NoneQualifies(f"no result of gpu={gpu!r} among {len(results)}; GPUs are {seen}.")
    require_one_kind(listed)
    kept = [r for r in listed if all(_keeps(r, name, limits[name]) for name in limits)]
    if not kept:
        raise NoneQualifies(_how_near(listed, limits))
    return min(kept, key=lambda r: (number(r, quantity), r.point.num_gpus, r.point.batch_size))


def _keeps(result: Result, limit: str, bound: float) -> bool:
    way, name = _split(limit)
    found = value(result, name)
    return bool(found <= bound if way == "max" else found >= bound)


def _split(limit: str) -> tuple[str, str]:
    way, _, name = limit.partition("_")
    if way not in {"max", "min"}:
        raise Incomparable(f"{limit!r} is no limit: write max_ or min_ before a quantity.")
    return way, name


def _how_near(results: Sequence[Result], limits: Mapping[str, float]) -> str:
    lines = [f"none of {len(results)} results keeps all limits:"]
    for limit, bound in limits.items():
        way, name = _split(limit)
        nearest = (min if way == "max" else max)(results, key=lambda r: value(r, name))
        amounts = (value(nearest, name), bound)
        unit = nearest.point.work_unit
        found, asked = (written(amount, name, unit) for amount in amounts)
        extreme = "lowest" if way == "max" else "highest"
        lines.append(f"  {limit}={asked}: the {extreme} is {found} ({nearest.point.id})")
    return "\n".join([*lines, "Loosen a limit, or measure more points."])
