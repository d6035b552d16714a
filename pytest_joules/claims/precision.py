"""Observation 7: FP8 against BF16 by batch size (section 4.4, Figure 7)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pytest_joules.claims.claim import (
    AtLeast,
    Claim,
    Counted,
    Printed,
    Quantity,
    Rule,
    Scalar,
    Status,
    Variant,
)
from pytest_joules.claims.dataset import (
    CODE_COMPLETION,
    LLM_TASKS,
    MLLM_TASKS,
    TEXT_CONVERSATION,
    Dataset,
)
from pytest_joules.claims.rules import (
    ENERGY,
    changes_percent,
    same_batch_pairs,
    share_percent,
    summary,
)
from pytest_joules.errors import NotMeasured
from pytest_joules.result import Result

_CODER = "Qwen/Qwen3-Coder-480B-A35B-Instruct"
_MOE_235B = "Qwen/Qwen3-235B-A22B-Instruct-2507"
_ITL = "median_itl_s"
_ALL_TASKS = (*LLM_TASKS, *MLLM_TASKS)
_FP8_SUFFIX = "-FP8"
_CROSSOVER = 32

Pair = tuple[Result, Result]


@dataclass(frozen=True, kw_only=True)
class Bin:
    """A range of batch sizes, open below and closed above."""

    above: float
    up_to: float

    def holds(self, batch_size: float) -> bool:
        """Tell whether a batch size is in it."""
        return self.above < batch_size <= self.up_to


_SMALL = Bin(above=8, up_to=16)
_MEDIUM = Bin(above=16, up_to=64)
_LARGE = Bin(above=64, up_to=256)
_BEYOND = Bin(above=256, up_to=float("inf"))


def pairs(dataset: Dataset, tasks: Sequence[str] = _ALL_TASKS) -> list[Pair]:
    """Pair BF16 and FP8 rows of one model, task, GPU, number of GPUs and batch size.

    Qwen 3 Coder 480B is left out: its FP8 weights ran with data-parallel attention.
    """
    bf16_curves = [c for c in dataset.curves_of(tasks) if c.model != _CODER]
    by_cell = {(c.task, c.model, c.gpu, c.num_gpus): c for c in dataset.curves_of(tasks)}
    found: list[Pair] = []
    for curve in bf16_curves:
        twin = by_cell.get((curve.task, curve.model + _FP8_SUFFIX, curve.gpu, curve.num_gpus))
        found += same_batch_pairs(curve, twin) if twin else []
    return found


def _binned(quantity: str, bounds: Bin, *, tasks: Sequence[str] = _ALL_TASKS) -> Rule:
    def by_measured_batch(dataset: Dataset) -> Mapping[str, Scalar]:
        """FP8 over BF16 of the same model, task, GPU.

        Number of GPUs and configured batch size, LLM and MLLM tasks without Qwen 3 Coder
        480B, binned by the measured batch size of the BF16 row (a configured batch of 8
        measures just under 8 and falls out of the first bin, found by search): wins, count,
        least, most and median change.
        """
        chosen = [
            pair for pair in pairs(dataset, tasks) if bounds.holds(_measured_batch(pair[0]))
        ]
        return summary(changes_percent(chosen, quantity))

    return by_measured_batch


def _by_configured(quantity: str, bounds: Bin) -> Rule:
    def by_configured_batch(dataset: Dataset) -> Mapping[str, Scalar]:
        chosen = [pair for pair in pairs(dataset) if bounds.holds(pair[0].point.batch_size)]
        return summary(changes_percent(chosen, quantity))

    return by_configured_batch


def _measured_batch(row: Result) -> float:
    if row.mean_batch_size is None:
        raise NotMeasured(f"{row.point.id}: the achieved batch size is not recorded.")
    return row.mean_batch_size


def _variants(quantity: str, bounds: Bin) -> tuple[Variant, ...]:
    with_eight = Bin(
        above=bounds.above - 1 if bounds is _SMALL else bounds.above, up_to=bounds.up_to
    )
    more = (
        (Variant(name="with batch 8", rule=_by_configured(quantity, with_eight)),)
        if bounds is _SMALL
        else ()
    )
    beyond = (
        (Variant(name="above 256", rule=_binned(quantity, _BEYOND)),)
        if bounds is _LARGE
        else ()
    )
    return (
        Variant(name="LLM tasks only", rule=_binned(quantity, bounds, tasks=LLM_TASKS)),
        Variant(name="by configured batch", rule=_by_configured(quantity, bounds)),
        *more,
        *beyond,
    )


def _crossover(dataset: Dataset) -> Mapping[str, Scalar]:
    """Qwen 3 235B A22B Instruct, Text Conversation, 8 x H100, same batch size.

    Share of batch sizes up to 16 where FP8 takes more energy per token and more time, and
    of those from 32 on where it takes less of both.
    """
    bf16, fp8 = (
        dataset.curve(TEXT_CONVERSATION, gpu="h100", model=model, num_gpus=8)
        for model in (_MOE_235B, _MOE_235B + _FP8_SUFFIX)
    )
    found = same_batch_pairs(bf16, fp8)
    small = [pair for pair in found if pair[0].point.batch_size < _CROSSOVER]
    large = [pair for pair in found if pair[0].point.batch_size >= _CROSSOVER]
    return {
        "loses up to 16 %": share_percent(_more_of_both(one, other) for one, other in small),
        "wins from 32 %": share_percent(_more_of_both(other, one) for one, other in large),
    }


def _more_of_both(one: Result, other: Result) -> bool:
    return (
        other.energy_per_token_j > one.energy_per_token_j
        and other.median_itl_s > one.median_itl_s
    )


def _worst_at_small(dataset: Dataset) -> Mapping[str, Scalar]:
    """As P-E8 and P-L8: the largest increases."""
    return {
        "more energy %": _binned(ENERGY, _SMALL)(dataset)["max %"],
        "slower %": _binned(_ITL, _SMALL)(dataset)["max %"],
    }


def _coder_pairs(dataset: Dataset) -> list[Pair]:
    bf16, fp8 = (
        dataset.curve(CODE_COMPLETION, gpu="b200", model=model, num_gpus=8)
        for model in (_CODER, _CODER + _FP8_SUFFIX)
    )
    return same_batch_pairs(bf16, fp8)


def _coder_share(dataset: Dataset, quantity: str, sign: int = 1) -> float:
    changes = changes_percent(_coder_pairs(dataset), quantity)
    return share_percent(sign * change > 0 for change in changes)


def _coder_energy(dataset: Dataset) -> Mapping[str, Scalar]:
    """Qwen 3 Coder 480B on 8 x B200, same batch size, FP8 with data-parallel attention.

    Share of batch sizes where FP8 takes more energy per token.
    """
    return {"more energy %": _coder_share(dataset, ENERGY)}


def _coder_time(dataset: Dataset) -> Mapping[str, Scalar]:
    """As P9: share of batch sizes where FP8 has the higher median inter-token latency."""
    return {"slower %": _coder_share(dataset, _ITL)}


def _coder_throughput(dataset: Dataset) -> Mapping[str, Scalar]:
    return {"lower %": _coder_share(dataset, "throughput_work_units_per_s", sign=-1)}


def _coder_p90(dataset: Dataset) -> Mapping[str, Scalar]:
    slower = [
        (fp8.latency.p90_itl_s or 0.0) > (bf16.latency.p90_itl_s or 0.0)
        for bf16, fp8 in _coder_pairs(dataset)
    ]
    return {"slower %": share_percent(slower)}


def _table(wins: int, n: int, *percents: int) -> tuple[Quantity, ...]:
    names = ("min %", "max %", "median %")
    return (
        Quantity(name="wins", published=wins, criterion=Counted()),
        Quantity(name="n", published=n, criterion=Counted()),
        *(
            Quantity(name=name, published=percent, criterion=Printed())
            for name, percent in zip(names, percents, strict=True)
        ),
    )


_SECTION = "4.4, table"

CLAIMS = (
    Claim(
        id="P-E8",
        section=_SECTION,
        text="energy of FP8 against BF16, batch 8 to 16",
        quantities=_table(0, 7, 13, 56, 30),
        rule=_binned(ENERGY, _SMALL),
        variants=_variants(ENERGY, _SMALL),
    ),
    Claim(
        id="P-L8",
        section=_SECTION,
        text="latency of FP8 against BF16, batch 8 to 16",
        quantities=_table(1, 7, -5, 26, 7),
        rule=_binned(_ITL, _SMALL),
        variants=_variants(_ITL, _SMALL),
    ),
    Claim(
        id="P-E17",
        section=_SECTION,
        text="energy of FP8 against BF16, batch 17 to 64",
        quantities=_table(6, 13, -12, 32, 1),
        rule=_binned(ENERGY, _MEDIUM),
        variants=_variants(ENERGY, _MEDIUM),
    ),
    Claim(
        id="P-L17",
        section=_SECTION,
        text="latency of FP8 against BF16, batch 17 to 64",
        quantities=_table(11, 13, -23, 12, -12),
        rule=_binned(_ITL, _MEDIUM),
        variants=_variants(_ITL, _MEDIUM),
    ),
    Claim(
        id="P-E65",
        section=_SECTION,
        text="energy of FP8 against BF16, batch 65 to 256",
        quantities=_table(11, 12, -29, 0, -11),
        rule=_binned(ENERGY, _LARGE),
        variants=_variants(ENERGY, _LARGE),
    ),
    Claim(
        id="P-L65",
        section=_SECTION,
        text="latency of FP8 against BF16, batch 65 to 256",
        quantities=_table(11, 12, -18, 3, -11),
        rule=_binned(_ITL, _LARGE),
        expected=Status.APPROXIMATELY,
        known={"median %": -11.74},
        variants=_variants(_ITL, _LARGE),
    ),
    Claim(
        id="P7",
        section="4.4, Figure 7",
        text="Qwen 3 235B A22B on 8 x H100: FP8 loses at batch 8 to 16 and wins from 32",
        quantities=(
            Quantity(name="loses up to 16 %", published="loses", criterion=AtLeast()),
            Quantity(name="wins from 32 %", published="wins", criterion=AtLeast()),
        ),
        rule=_crossover,
    ),
    Claim(
        id="P8",
        section="4.4, observation 7",
        text="at batch 8 to 16 FP8 takes up to 56 % more energy and is up to 26 % slower",
        quantities=(
            Quantity(name="more energy %", published=56, criterion=Printed()),
            Quantity(name="slower %", published=26, criterion=Printed()),
        ),
        rule=_worst_at_small,
    ),
    Claim(
        id="P9",
        section="4.4",
        text="Qwen 3 Coder 480B: FP8 takes more energy at every batch size",
        quantities=(Quantity(name="more energy %", published="all", criterion=AtLeast()),),
        rule=_coder_energy,
    ),
    Claim(
        id="P10",
        section="4.4",
        text="Qwen 3 Coder 480B: FP8 takes more time at every batch size",
        quantities=(Quantity(name="slower %", published="all", criterion=AtLeast()),),
        rule=_coder_time,
        expected=Status.DOES_NOT_REPRODUCE,
        known={"slower %": 66.67},
        note="the median misses stalls: by 90th percentile and by throughput it is slower at "
        "every batch size",
        variants=(
            Variant(name="90th percentile", rule=_coder_p90),
            Variant(name="throughput", rule=_coder_throughput),
        ),
    ),
)
