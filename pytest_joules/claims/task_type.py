"""Observation 1: task type heavily influences energy (section 3.1, Table 1)."""

from collections.abc import Mapping

from pytest_joules.claims.claim import (
    Claim,
    Counted,
    MoreThan,
    Printed,
    Quantity,
    Scalar,
    Variant,
)
from pytest_joules.claims.dataset import (
    PROBLEM_SOLVING,
    TEXT_CONVERSATION,
    Curve,
    Dataset,
)
from pytest_joules.claims.rules import ENERGY, mean, share_percent
from pytest_joules.result import Result

_GPU = "b200"
_QWEN = "Qwen/Qwen3-32B"
_PS, _TC = "problem solving", "text conversation"


def _means(dataset: Dataset, quantity: str) -> Mapping[str, float]:
    return {
        name: mean(dataset.minima(task, gpu=_GPU).values(), quantity)
        for name, task in ((_PS, PROBLEM_SOLVING), (_TC, TEXT_CONVERSATION))
    }


def _output_tokens(dataset: Dataset) -> Mapping[str, Scalar]:
    """B200, the minimum-energy-per-token configuration of each model.

    Mean over models of the mean output tokens.
    """
    return _means(dataset, "mean_output_tokens")


def _output_ratio(dataset: Dataset) -> Mapping[str, Scalar]:
    """As S1: the ratio of the two means, over different sets of models."""
    return {"ratio": _ratio(_means(dataset, "mean_output_tokens"))}


def _response_energy(dataset: Dataset) -> Mapping[str, Scalar]:
    """As S1: mean over models of energy per response, in J."""
    return _means(dataset, "energy_per_response_j")


def _response_ratio(dataset: Dataset) -> Mapping[str, Scalar]:
    """As S1: the ratio of the two means of energy per response."""
    return {"ratio": _ratio(_means(dataset, "energy_per_response_j"))}


def _token_ratio(dataset: Dataset) -> Mapping[str, Scalar]:
    """As S1: the ratio of the two means of energy per token."""
    return {"ratio": _ratio(_means(dataset, ENERGY))}


def _token_ratio_by_model(dataset: Dataset) -> Mapping[str, Scalar]:
    """Share of the models that ran both tasks with a ratio above 1."""
    pairs = _of_both_tasks(dataset)
    higher = [one.energy_per_work_unit_j > other.energy_per_work_unit_j for one, other in pairs]
    return {"models": len(pairs), "higher %": share_percent(higher)}


def _response_ratio_of_both(dataset: Dataset) -> Mapping[str, Scalar]:
    """The ratio of means over the models that ran both tasks."""
    pairs = _of_both_tasks(dataset)
    quantity = "energy_per_response_j"
    return {
        "ratio": mean((one for one, _ in pairs), quantity)
        / mean((other for _, other in pairs), quantity)
    }


def _of_both_tasks(dataset: Dataset) -> list[tuple[Result, Result]]:
    solving = dataset.minima(PROBLEM_SOLVING, gpu=_GPU)
    talking = dataset.minima(TEXT_CONVERSATION, gpu=_GPU)
    return [(solving[model], talking[model]) for model in solving if model in talking]


def _ratio(values: Mapping[str, float]) -> float:
    return values[_PS] / values[_TC]


def _qwen(dataset: Dataset, task: str) -> Curve:
    return dataset.curve(task, gpu=_GPU, model=_QWEN, num_gpus=1)


def _largest(dataset: Dataset, task: str) -> Result:
    return _qwen(dataset, task).rows[-1]


def _compared(solving: float, talking: float) -> Mapping[str, Scalar]:
    return {_TC: talking, _PS: solving, "ratio": solving / talking}


def _table_batch(dataset: Dataset) -> Mapping[str, Scalar]:
    """Qwen 3 32B on 1 x B200: the largest configured batch size of each sweep."""
    return _compared(
        _largest(dataset, PROBLEM_SOLVING).point.batch_size,
        _largest(dataset, TEXT_CONVERSATION).point.batch_size,
    )


def _table_at_largest(dataset: Dataset, quantity: str) -> Mapping[str, Scalar]:
    return _compared(
        getattr(_largest(dataset, PROBLEM_SOLVING), quantity),
        getattr(_largest(dataset, TEXT_CONVERSATION), quantity),
    )


def _table_tokens(dataset: Dataset) -> Mapping[str, Scalar]:
    """As T1a: mean output tokens at the largest batch size."""
    return _table_at_largest(dataset, "mean_output_tokens")


def _table_energy_at_128(dataset: Dataset) -> Mapping[str, Scalar]:
    """As T1a: energy per token at batch size 128, in J."""
    return _compared(
        _qwen(dataset, PROBLEM_SOLVING).at(128).energy_per_token_j,
        _qwen(dataset, TEXT_CONVERSATION).at(128).energy_per_token_j,
    )


def _table_energy(dataset: Dataset) -> Mapping[str, Scalar]:
    """As T1a: energy per token at the largest batch size, in J."""
    return _table_at_largest(dataset, "energy_per_token_j")


def _table_response(dataset: Dataset) -> Mapping[str, Scalar]:
    """As T1a: energy per response at the largest batch size, in J."""
    return _table_at_largest(dataset, "energy_per_response_j")


def _printed(decimals: int = 0, **published: float) -> tuple[Quantity, ...]:
    return tuple(
        Quantity(name=name.replace("_", " "), published=value, criterion=Printed(decimals))
        for name, value in published.items()
    )


def _table(
    talking: float, solving: float, *, ratio: float, decimals: int
) -> tuple[Quantity, ...]:
    return (
        *_printed(decimals, text_conversation=talking, problem_solving=solving),
        *_printed(0 if ratio == int(ratio) else 1, ratio=ratio),
    )


CLAIMS = (
    Claim(
        id="S1",
        section="3.1",
        text="mean output tokens of Problem Solving and Text Conversation",
        quantities=_printed(problem_solving=6988, text_conversation=717),
        rule=_output_tokens,
    ),
    Claim(
        id="S2",
        section="3.1, observation 1",
        text="Problem Solving generates 10 times the output tokens",
        quantities=_printed(ratio=10),
        rule=_output_ratio,
    ),
    Claim(
        id="S3",
        section="3.1",
        text="mean energy per response of Problem Solving and Text Conversation, in J",
        quantities=_printed(problem_solving=4625, text_conversation=184),
        rule=_response_energy,
    ),
    Claim(
        id="S4",
        section="abstract, 3.1, observation 1",
        text="Problem Solving takes 25 times the energy per response",
        quantities=_printed(ratio=25),
        rule=_response_ratio,
        variants=(Variant(name="models of both tasks", rule=_response_ratio_of_both),),
    ),
    Claim(
        id="S5",
        section="3.1, observation 1",
        text="Problem Solving takes more energy per token",
        quantities=(Quantity(name="ratio", published="> 1", criterion=MoreThan(1)),),
        rule=_token_ratio,
        variants=(Variant(name="by model", rule=_token_ratio_by_model),),
    ),
    Claim(
        id="T1a",
        section="Table 1",
        text="Qwen 3 32B: largest batch size",
        quantities=(
            Quantity(name=_TC, published=512, criterion=Counted()),
            Quantity(name=_PS, published=128, criterion=Counted()),
            Quantity(name="ratio", published=0.25, criterion=Printed(2)),
        ),
        rule=_table_batch,
    ),
    Claim(
        id="T1b",
        section="Table 1",
        text="Qwen 3 32B: mean output tokens",
        quantities=_table(627, 7035, ratio=11, decimals=0),
        rule=_table_tokens,
    ),
    Claim(
        id="T1c",
        section="Table 1",
        text="Qwen 3 32B: energy per token at batch size 128, in J",
        quantities=_table(0.209, 0.312, ratio=1.5, decimals=3),
        rule=_table_energy_at_128,
    ),
    Claim(
        id="T1d",
        section="Table 1",
        text="Qwen 3 32B: energy per token at the largest batch size, in J",
        quantities=_table(0.151, 0.312, ratio=2.1, decimals=3),
        rule=_table_energy,
    ),
    Claim(
        id="T1e",
        section="Table 1",
        text="Qwen 3 32B: energy per response, in J",
        quantities=_table(95, 2192, ratio=23, decimals=0),
        rule=_table_response,
    ),
)
