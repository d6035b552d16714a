"""Observation 5: active and total parameters both matter (section 4.2, Figure 5)."""

from collections.abc import Mapping

from pytest_joules.claims.claim import (
    Claim,
    Equal,
    MoreThan,
    Printed,
    Quantity,
    Scalar,
    Status,
    Variant,
)
from pytest_joules.claims.dataset import PROBLEM_SOLVING, TEXT_CONVERSATION, Dataset

_DENSE = ("Qwen/Qwen3-8B", "Qwen/Qwen3-14B", "Qwen/Qwen3-32B")
_DENSE_32B = "Qwen/Qwen3-32B"
_MOE_30B = "Qwen/Qwen3-30B-A3B-Thinking-2507"
_MOE_235B = "Qwen/Qwen3-235B-A22B-Thinking-2507"
_TALKING_TWINS = {
    _MOE_30B: "Qwen/Qwen3-30B-A3B-Instruct-2507",
    _MOE_235B: "Qwen/Qwen3-235B-A22B-Instruct-2507",
}


def _energy(dataset: Dataset, model: str, *, task: str = PROBLEM_SOLVING) -> float:
    return dataset.minimum(task, gpu="b200", model=model).energy_per_token_j


def _dense_rises(dataset: Dataset) -> Mapping[str, Scalar]:
    """Problem Solving, B200, minimum energy per token of each model.

    Rises from Qwen 3 8B over 14B to 32B.
    """
    energies = [_energy(dataset, model) for model in _DENSE]
    return {"rises": energies[0] < energies[1] < energies[2]}


def _dense_energies(dataset: Dataset) -> Mapping[str, Scalar]:
    return {
        f"{model.removeprefix('Qwen/Qwen3-')} J": _energy(dataset, model) for model in _DENSE
    }


def _small_moe(dataset: Dataset) -> Mapping[str, Scalar]:
    """As A1: Qwen 3 32B over 30B A3B Thinking."""
    return {"ratio": _energy(dataset, _DENSE_32B) / _energy(dataset, _MOE_30B)}


def _large_moe(dataset: Dataset) -> Mapping[str, Scalar]:
    """As A1: Qwen 3 235B A22B Thinking over 32B."""
    return {"ratio": _energy(dataset, _MOE_235B) / _energy(dataset, _DENSE_32B)}


def _talking(one: str, other: str) -> Variant:
    def on_text_conversation(dataset: Dataset) -> Mapping[str, Scalar]:
        first, second = (
            _energy(dataset, _TALKING_TWINS.get(model, model), task=TEXT_CONVERSATION)
            for model in (one, other)
        )
        return {"ratio": first / second}

    return Variant(name="Text Conversation", rule=on_text_conversation)


CLAIMS = (
    Claim(
        id="A1",
        section="4.2, Figure 5",
        text="energy per token of dense models rises with parameters",
        quantities=(Quantity(name="rises", published=True, criterion=Equal()),),
        rule=_dense_rises,
        variants=(Variant(name="energy per token", rule=_dense_energies),),
    ),
    Claim(
        id="A2",
        section="4.2, observation 5",
        text="30B A3B takes 3.56 times less energy per token than dense 32B",
        quantities=(Quantity(name="ratio", published=3.56, criterion=Printed(2)),),
        rule=_small_moe,
        variants=(_talking(_DENSE_32B, _MOE_30B),),
    ),
    Claim(
        id="A3",
        section="4.2",
        text="235B A22B takes more energy per token than dense 32B",
        quantities=(Quantity(name="ratio", published="> 1", criterion=MoreThan(1)),),
        rule=_large_moe,
        variants=(_talking(_MOE_235B, _DENSE_32B),),
    ),
    Claim(
        id="A4",
        section="4.2",
        text="235B A22B takes far less than a dense 235B model would",
        quantities=(),
        expected=Status.NOT_TESTABLE,
        note="no dense model of that size was measured; it could only be extrapolated",
    ),
)
