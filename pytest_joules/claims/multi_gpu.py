"""Observation 8: more GPUs trade energy for latency, or unlock batches (section 4.5)."""

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise

from pytest_joules.claims.claim import (
    AtLeast,
    Claim,
    Equal,
    MoreThan,
    Printed,
    Quantity,
    Rule,
    Scalar,
    Status,
    Variant,
)
from pytest_joules.claims.dataset import (
    LLM_TASKS,
    MLLM_TASKS,
    PROBLEM_SOLVING,
    Curve,
    Dataset,
    cheapest,
)
from pytest_joules.claims.rules import same_batch_pairs, share_percent
from pytest_joules.result import Result

_GPT_OSS = "openai/gpt-oss-120b"
_MOE_235B_FP8 = "Qwen/Qwen3-235B-A22B-Thinking-2507-FP8"
_ALL_TASKS = (*LLM_TASKS, *MLLM_TASKS)
Pair = tuple[Result, Result]


def scaled_pairs(dataset: Dataset, gpu: str, *, tasks: Sequence[str]) -> list[Pair]:
    """Pair fewer and more GPUs of one task, model and batch size; every pair of counts."""
    curves = dataset.curves_of(tasks, gpu=gpu)
    return [
        pair
        for fewer in curves
        for more in curves
        if (fewer.task, fewer.model) == (more.task, more.model)
        and fewer.num_gpus < more.num_gpus
        for pair in same_batch_pairs(fewer, more)
    ]


def _more_energy(pair: Pair) -> bool:
    return pair[1].energy_per_token_j > pair[0].energy_per_token_j


def _less_latency(pair: Pair) -> bool:
    return pair[1].median_itl_s < pair[0].median_itl_s


def _scaling(
    gpu: str, holds: Callable[[Pair], bool], *, tasks: Sequence[str] = LLM_TASKS
) -> Rule:
    def share_of_pairs(dataset: Dataset) -> Mapping[str, Scalar]:
        """Three LLM tasks, pairs of the same task, model, GPU model and batch size.

        Every pair of GPU counts, more against fewer: share with higher energy per token
        (N1, N3) or lower median inter-token latency (N2, N4).
        """
        found = scaled_pairs(dataset, gpu, tasks=tasks)
        return {"%": share_percent(holds(pair) for pair in found)}

    return share_of_pairs


def _with_multimodal(gpu: str, holds: Callable[[Pair], bool]) -> tuple[Variant, ...]:
    rule = _scaling(gpu, holds, tasks=_ALL_TASKS)
    return (Variant(name="with image and video chat", rule=rule),)


def _gpt_oss(dataset: Dataset, gpu: str, num_gpus: int) -> Curve:
    return dataset.curve(PROBLEM_SOLVING, gpu=gpu, model=_GPT_OSS, num_gpus=num_gpus)


def _minimum_j(curve: Curve) -> float:
    return cheapest(curve.rows).energy_per_token_j


def _largest(curve: Curve) -> int:
    return curve.rows[-1].point.batch_size


def _largest_batches(dataset: Dataset) -> Mapping[str, Scalar]:
    """GPT OSS 120B, Problem Solving: the largest configured batch size of each sweep."""
    return {
        f"{num_gpus} x {gpu}": _largest(_gpt_oss(dataset, gpu, num_gpus))
        for gpu, num_gpus in (("b200", 1), ("h100", 1), ("h100", 2))
    }


def _unlocked(dataset: Dataset) -> Mapping[str, Scalar]:
    """As N5: minimum energy per token on 2 x H100 below that on 1 x H100."""
    one, two = (_minimum_j(_gpt_oss(dataset, "h100", count)) for count in (1, 2))
    return {"lower %": 100 * (1 - two / one)}


def _not_unlocked(dataset: Dataset) -> Mapping[str, Scalar]:
    """As N5: minimum energy per token on 2 x B200 over that on 1 x B200."""
    one, two = (_minimum_j(_gpt_oss(dataset, "b200", count)) for count in (1, 2))
    return {"ratio": two / one}


def _traded(dataset: Dataset) -> Mapping[str, Scalar]:
    """As N5, 2 against 1 GPU at the same batch size.

    Share of batch sizes with higher energy per token and lower median inter-token latency.
    """
    shares: dict[str, Scalar] = {}
    for gpu in ("b200", "h100"):
        found = same_batch_pairs(_gpt_oss(dataset, gpu, 1), _gpt_oss(dataset, gpu, 2))
        traded = [_more_energy(pair) and _less_latency(pair) for pair in found]
        shares |= {f"{gpu} batch sizes": len(traded), f"{gpu} %": share_percent(traded)}
    return shares


def _case(dataset: Dataset, gpu: str, num_gpus: int) -> Curve:
    return dataset.curve(PROBLEM_SOLVING, gpu=gpu, model=_MOE_235B_FP8, num_gpus=num_gpus)


def _case_curves(dataset: Dataset) -> tuple[Curve, ...]:
    return dataset.curves_of(PROBLEM_SOLVING, model=_MOE_235B_FP8)


def _dominates(dataset: Dataset) -> Mapping[str, Scalar]:
    """Qwen 3 235B A22B Thinking FP8, Problem Solving.

    Share of the points of all other curves for which a point of 4 x B200 has neither more
    energy per token nor a higher median inter-token latency.
    """
    best = _case(dataset, "b200", 4)
    others = [row for curve in _case_curves(dataset) if curve != best for row in curve.rows]
    return {"dominated %": share_percent(_is_dominated(row, best.rows) for row in others)}


def _is_dominated(row: Result, by: Sequence[Result]) -> bool:
    return any(
        other.energy_per_token_j <= row.energy_per_token_j
        and other.median_itl_s <= row.median_itl_s
        for other in by
    )


def _lowest(dataset: Dataset) -> Mapping[str, Scalar]:
    """As N9: minimum energy per token of the 4 x B200 curve, in J.

    And whether it is the least of all curves.
    """
    lowest = _minimum_j(_case(dataset, "b200", 4))
    return {
        "J/token": lowest,
        "least of all": lowest == min(_minimum_j(c) for c in _case_curves(dataset)),
    }


def _fewer_gpus(dataset: Dataset) -> Mapping[str, Scalar]:
    """As N9, 2 x B200 against 4 x B200 at the same batch size.

    Share with less energy and higher median inter-token latency; and whether the sweep ends
    at a smaller batch.
    """
    two, four = (_case(dataset, "b200", count) for count in (2, 4))
    found = same_batch_pairs(two, four)
    return {
        "%": share_percent(_more_energy(pair) and _less_latency(pair) for pair in found),
        "ends at a smaller batch": _largest(two) < _largest(four),
    }


def _gpu_counts(dataset: Dataset) -> Mapping[str, Scalar]:
    """As N9: GPU counts of the data."""
    return {
        gpu: ", ".join(
            str(c.num_gpus)
            for c in sorted(_case_curves(dataset), key=lambda curve: curve.num_gpus)
            if c.gpu == gpu
        )
        for gpu in ("b200", "h100")
    }


def _between(dataset: Dataset) -> Mapping[str, Scalar]:
    """As N9, H100 points whose median inter-token latency lies within both B200 curves.

    Share with energy per token between them, log energy interpolated linearly over latency.
    """
    two, four = (_case(dataset, "b200", count) for count in (2, 4))
    cases = []
    for curve in _case_curves(dataset):
        for row in curve.rows if curve.gpu == "h100" else ():
            low, high = (_energy_at(each, row.median_itl_s) for each in (four, two))
            if low is not None and high is not None:
                cases.append(low <= row.energy_per_token_j <= high)
    return {"between %": share_percent(cases), "points": len(cases)}


def _energy_at(curve: Curve, itl_s: float) -> float | None:
    """Interpolate along a curve; ``None`` outside its latencies."""
    rows = sorted(curve.rows, key=lambda row: row.median_itl_s)
    for before, after in pairwise(rows):
        start, end = before.median_itl_s, after.median_itl_s
        if start <= itl_s <= end:
            share = (itl_s - start) / (end - start)
            low, high = (math.log(row.energy_per_token_j) for row in (before, after))
            return math.exp(low + share * (high - low))
    return None


def _percent(percent: int) -> tuple[Quantity, ...]:
    return (Quantity(name="%", published=percent, criterion=Printed()),)


def _yes(name: str) -> Quantity:
    return Quantity(name=name, published=True, criterion=Equal())


def _all(name: str) -> Quantity:
    return Quantity(name=name, published="all", criterion=AtLeast())


def _named(**values: Scalar) -> tuple[Quantity, ...]:
    return tuple(
        Quantity(name=name.replace("_", " "), published=value, criterion=Equal())
        for name, value in values.items()
    )


_SCALING = (
    ("N1", "B200", "take more energy", _more_energy, 100),
    ("N2", "B200", "reduce median inter-token latency", _less_latency, 81),
    ("N3", "H100", "take more energy", _more_energy, 93),
    ("N4", "H100", "reduce median inter-token latency", _less_latency, 100),
)

CLAIMS = (
    *(
        Claim(
            id=claim_id,
            section="4.5, observation 8",
            text=f"{gpu}: at the same batch size more GPUs {what} in {percent} % of cases",
            quantities=_percent(percent),
            rule=_scaling(gpu.lower(), holds),
            variants=_with_multimodal(gpu.lower(), holds),
        )
        for claim_id, gpu, what, holds, percent in _SCALING
    ),
    Claim(
        id="N5",
        section="4.5, Figure 8",
        text="GPT OSS 120B: largest batch sizes",
        quantities=(
            Quantity(name="1 x b200", published=3072, criterion=Equal()),
            Quantity(name="1 x h100", published=64, criterion=Equal()),
            Quantity(name="2 x h100", published=2048, criterion=Equal()),
        ),
        rule=_largest_batches,
    ),
    Claim(
        id="N6",
        section="4.5, observation 8",
        text="GPT OSS 120B: 2 x H100 reach 68 % lower minimum energy than 1 x H100",
        quantities=(Quantity(name="lower %", published=68, criterion=Printed()),),
        rule=_unlocked,
    ),
    Claim(
        id="N7",
        section="4.5",
        text="GPT OSS 120B: 2 x B200 do not reach lower energy than 1 x B200",
        quantities=(Quantity(name="ratio", published="> 1", criterion=MoreThan(1)),),
        rule=_not_unlocked,
    ),
    Claim(
        id="N8",
        section="4.5, Figure 8",
        text="GPT OSS 120B: a second GPU at the same batch size trades energy for time",
        quantities=(
            Quantity(name="b200 batch sizes", published=10, criterion=Equal()),
            _all("b200 %"),
            Quantity(name="h100 batch sizes", published=4, criterion=Equal()),
            _all("h100 %"),
        ),
        rule=_traded,
    ),
    Claim(
        id="N9",
        section="4.5, Figure 9",
        text="Qwen 3 235B A22B Thinking FP8: 4 x B200 Pareto-dominates",
        quantities=(_all("dominated %"),),
        rule=_dominates,
    ),
    Claim(
        id="N10",
        section="4.5, Figure 9",
        text="4 x B200 reaches the lowest energy, about 0.4 J/token",
        quantities=(
            Quantity(name="J/token", published=0.4, criterion=Printed(1)),
            _yes("least of all"),
        ),
        rule=_lowest,
    ),
    Claim(
        id="N11",
        section="4.5, Figure 9",
        text="2 x B200 takes less energy and more time than 4 x B200 at the same batch size, "
        "and stops at a smaller one",
        quantities=(_all("%"), _yes("ends at a smaller batch")),
        rule=_fewer_gpus,
    ),
    Claim(
        id="N12",
        section="4.5, Figure 9",
        text="Figure 9 shows 2 and 4 x B200, 2 and 8 x H100",
        quantities=_named(b200="2, 4", h100="2, 8"),
        rule=_gpu_counts,
        expected=Status.DOES_NOT_REPRODUCE,
        known={"h100": "4, 8"},
        note="the data hold 4 and 8 x H100, none of 2",
    ),
    Claim(
        id="N13",
        section="4.5, Figure 9",
        text="the H100 curves lie between the 4 x B200 and the 2 x B200 curve",
        quantities=(_all("between %"),),
        rule=_between,
    ),
)
