"""Observation 4: batch size trades latency and power for energy (section 4.1)."""

from collections.abc import Mapping, Sequence
from statistics import fmean, median

from pytest_joules.claims.claim import (
    AtLeast,
    Between,
    Claim,
    Equal,
    Quantity,
    Scalar,
    Status,
    Variant,
)
from pytest_joules.claims.dataset import (
    CODE_COMPLETION,
    LLM_TASKS,
    MLLM_TASKS,
    PROBLEM_SOLVING,
    Curve,
    Dataset,
)
from pytest_joules.claims.rules import ENERGY, trend
from pytest_joules.errors import NotMeasured

_R1 = "deepseek-ai/DeepSeek-R1-0528"
_CODER = "Qwen/Qwen3-Coder-30B-A3B-Instruct"
_LINEAR_R2 = 0.99
_SATURATED_SAVING = 0.10
_LEAST_GAIN, _MOST_GAIN = 3, 5
_SHOWN_FROM = 128


def _r1(dataset: Dataset) -> Curve:
    return dataset.curve(PROBLEM_SOLVING, gpu="b200", model=_R1, num_gpus=8)


def _coder(dataset: Dataset) -> Curve:
    return dataset.curve(CODE_COMPLETION, gpu="b200", model=_CODER, num_gpus=1)


def _energy_falls(dataset: Dataset) -> Mapping[str, Scalar]:
    """Every curve (task, model, GPU, number of GPUs) of the three LLM tasks.

    Share of adjacent batch sizes, and of smallest against largest, where energy per token
    falls.
    """
    return trend(dataset.curves_of(LLM_TASKS), ENERGY, sign=-1)


def _latency_rises(dataset: Dataset) -> Mapping[str, Scalar]:
    """As B1: median inter-token latency rises."""
    return trend(dataset.curves_of(LLM_TASKS), "median_itl_s", sign=1)


def _throughput_rises(dataset: Dataset) -> Mapping[str, Scalar]:
    """As B1: throughput rises."""
    return trend(dataset.curves_of(LLM_TASKS), "throughput_work_units_per_s", sign=1)


def _power_rises(dataset: Dataset) -> Mapping[str, Scalar]:
    """As B1: power rises."""
    return trend(dataset.curves_of(LLM_TASKS), "power_w", sign=1)


def _elsewhere(quantity: str, sign: int) -> tuple[Variant, ...]:
    def with_multimodal(dataset: Dataset) -> Mapping[str, Scalar]:
        return trend(dataset.curves_of((*LLM_TASKS, *MLLM_TASKS)), quantity, sign=sign)

    def of_figure_4(dataset: Dataset) -> Mapping[str, Scalar]:
        return trend((_r1(dataset), _coder(dataset)), quantity, sign=sign)

    return (
        Variant(name="with image and video chat", rule=with_multimodal),
        Variant(name="the two curves of Figure 4", rule=of_figure_4),
    )


def _gain(curve: Curve) -> float:
    energies = list(curve.by_batch_size(ENERGY).values())
    return energies[0] / min(energies)


def _figure_gains(dataset: Dataset) -> Mapping[str, Scalar]:
    """Energy per token at the smallest batch size over the least of the curve.

    For the two curves of Figure 4.
    """
    return {"DeepSeek R1": _gain(_r1(dataset)), "Qwen 3 Coder 30B": _gain(_coder(dataset))}


def _all_gains(dataset: Dataset) -> Mapping[str, Scalar]:
    """All curves of the three LLM tasks."""
    gains = [_gain(curve) for curve in dataset.curves_of(LLM_TASKS)]
    return {
        "curves": len(gains),
        "least": min(gains),
        "median": median(gains),
        "most": max(gains),
        "3 to 5": sum(_LEAST_GAIN <= gain <= _MOST_GAIN for gain in gains),
        "3 and more": sum(gain >= _LEAST_GAIN for gain in gains),
    }


def _linear(dataset: Dataset) -> Mapping[str, Scalar]:
    """8 x B200: least-squares line of throughput over batch size.

    Linear if its R2 is 0.99 or more.
    """
    return {"linear": r_squared(_r1(dataset)) >= _LINEAR_R2}


def _figure_r_squared(dataset: Dataset) -> Mapping[str, Scalar]:
    return {
        "R2 DeepSeek R1": r_squared(_r1(dataset)),
        "R2 Qwen 3 Coder 30B": r_squared(_coder(dataset)),
    }


def r_squared(curve: Curve) -> float:
    """Return how well a straight line of throughput over batch size fits, 0 to 1."""
    values = curve.by_batch_size("throughput_work_units_per_s")
    x, y = list(values), list(values.values())
    covariance = _covariance(x, y)
    return covariance**2 / (_covariance(x, x) * _covariance(y, y))


def _covariance(x: Sequence[float], y: Sequence[float]) -> float:
    mean_x, mean_y = fmean(x), fmean(y)
    return sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True))


def _unsaturated(dataset: Dataset) -> Mapping[str, Scalar]:
    """8 x B200: is the curve still falling at its end.

    Doubling to the largest batch size saves more than 10 % of the energy per token.
    """
    savings = _savings(_r1(dataset))
    return {"unsaturated": savings[max(savings)] > _SATURATED_SAVING}


def _last_saving(dataset: Dataset) -> Mapping[str, Scalar]:
    savings = _savings(_r1(dataset))
    return {"to batch size": 2 * max(savings), "saved %": 100 * savings[max(savings)]}


def _saturation(dataset: Dataset) -> Mapping[str, Scalar]:
    """1 x B200: the first batch size from which doubling saves little.

    Little is less than 10 % of the energy per token.
    """
    savings = _savings(_coder(dataset))
    flat = [batch for batch, saving in savings.items() if saving < _SATURATED_SAVING]
    return {"batch size": min(flat, default=0)}


def _coder_savings(dataset: Dataset) -> Mapping[str, Scalar]:
    return {
        f"{batch} to {2 * batch} saves %": 100 * saving
        for batch, saving in _savings(_coder(dataset)).items()
        if batch >= _SHOWN_FROM
    }


def _savings(curve: Curve) -> dict[int, float]:
    """Return the share of energy per token that doubling each batch size saves."""
    energies = curve.by_batch_size(ENERGY)
    savings = {
        batch: 1 - energies[2 * batch] / energies[batch]
        for batch in energies
        if 2 * batch in energies
    }
    if not savings:
        raise NotMeasured(f"{curve.name}: no batch size and its double.")
    return savings


_EVERY = (
    Quantity(name="steps %", published="always", criterion=AtLeast()),
    Quantity(name="ends %", published="always", criterion=AtLeast()),
)

CLAIMS = (
    Claim(
        id="B1",
        section="4.1, observation 4",
        text="energy per token falls with batch size",
        quantities=_EVERY,
        rule=_energy_falls,
        expected=Status.APPROXIMATELY,
        known={"steps %": 98.16},
        variants=_elsewhere(ENERGY, -1),
    ),
    Claim(
        id="B2",
        section="4.1, observation 4",
        text="median inter-token latency rises with batch size",
        quantities=_EVERY,
        rule=_latency_rises,
        expected=Status.APPROXIMATELY,
        known={"steps %": 96.73},
        variants=_elsewhere("median_itl_s", 1),
    ),
    Claim(
        id="B3",
        section="4.1, observation 4",
        text="throughput rises with batch size",
        quantities=_EVERY,
        rule=_throughput_rises,
        expected=Status.APPROXIMATELY,
        known={"steps %": 96.12},
        variants=_elsewhere("throughput_work_units_per_s", 1),
    ),
    Claim(
        id="B4",
        section="4.1, observation 4",
        text="power rises with batch size",
        quantities=_EVERY,
        rule=_power_rises,
        expected=Status.DOES_NOT_REPRODUCE,
        known={"steps %": 79.18, "ends %": 97.22},
        note="it rises from the smallest to the largest batch, not at each step: a saturated "
        "GPU is at its power limit",
        variants=_elsewhere("power_w", 1),
    ),
    Claim(
        id="B5",
        section="abstract, 4.1, observation 4",
        text="batch size can unlock a 3 to 5 times lower energy per token",
        quantities=(
            Quantity(name="DeepSeek R1", published="3 to 5", criterion=Between(3, 5)),
            Quantity(name="Qwen 3 Coder 30B", published="3 to 5", criterion=Between(3, 5)),
        ),
        rule=_figure_gains,
        expected=Status.DOES_NOT_REPRODUCE,
        known={"Qwen 3 Coder 30B": 7.545},
        note="most curves gain more than 5 times",
        variants=(Variant(name="all curves", rule=_all_gains),),
    ),
    Claim(
        id="B6",
        section="4.1, Figure 4a",
        text="DeepSeek R1's throughput is linear in batch size",
        quantities=(Quantity(name="linear", published=True, criterion=Equal()),),
        rule=_linear,
        variants=(Variant(name="R2", rule=_figure_r_squared),),
    ),
    Claim(
        id="B7",
        section="4.1, Figure 4a",
        text="DeepSeek R1 is not saturated at its largest batch size",
        quantities=(Quantity(name="unsaturated", published=True, criterion=Equal()),),
        rule=_unsaturated,
        variants=(Variant(name="the last doubling", rule=_last_saving),),
    ),
    Claim(
        id="B8",
        section="4.1, Figure 4b",
        text="Qwen 3 Coder 30B approaches saturation around batch size 512",
        quantities=(Quantity(name="batch size", published=512, criterion=Equal()),),
        rule=_saturation,
        variants=(Variant(name="by doubling", rule=_coder_savings),),
    ),
)
