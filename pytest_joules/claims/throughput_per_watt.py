"""Appendix C: throughput per watt rises as energy per token falls."""

from collections.abc import Mapping

from pytest_joules.claims.claim import (
    AtLeast,
    Claim,
    Quantity,
    Scalar,
    Status,
    Variant,
)
from pytest_joules.claims.dataset import LLM_TASKS, Dataset
from pytest_joules.claims.rules import trend


def _rises(dataset: Dataset) -> Mapping[str, Scalar]:
    """As B1 on B200: tokens per second and watt rise.

    The paper shows four models and names none of them in its text, so all are taken.
    """
    return trend(dataset.curves_of(LLM_TASKS, gpu="b200"), "throughput_per_watt", sign=1)


def _on_h100(dataset: Dataset) -> Mapping[str, Scalar]:
    return trend(dataset.curves_of(LLM_TASKS, gpu="h100"), "throughput_per_watt", sign=1)


CLAIMS = (
    Claim(
        id="C1",
        section="C, Figure 12",
        text="throughput per watt rises with batch size",
        quantities=(
            Quantity(name="steps %", published="always", criterion=AtLeast()),
            Quantity(name="ends %", published="always", criterion=AtLeast()),
        ),
        rule=_rises,
        expected=Status.APPROXIMATELY,
        known={"steps %": 97.65},
        variants=(Variant(name="H100", rule=_on_h100),),
    ),
    Claim(
        id="C2",
        section="2",
        text="accelerators account for 50 to 70 % of datacenter power",
        quantities=(),
        expected=Status.NOT_TESTABLE,
        note="a citation of other work; no datacenter was measured",
    ),
)
