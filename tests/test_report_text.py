import math
from dataclasses import replace

import pytest

from pytest_joules.expect.ordering import Ordering
from pytest_joules.plan import Costs, Pace, Stack, plan
from pytest_joules.point import Point
from pytest_joules.provenance import Context
from pytest_joules.report.text import describe_plan, explain, software_changes, table
from pytest_joules.verdict import Comparison, Verdict
from tests.fakes.results import make_result

QWEN = Point(model="Qwen/Qwen3-8B", batch_size=32)
WORSE = Comparison(
    point=QWEN,
    verdict=Verdict.REGRESSION,
    reference="baseline",
    change=0.1,
    low=0.08,
    high=0.12,
    tolerance=0.03,
    detectable=0.02,
    energy_per_work_unit_j=0.22,
    reference_energy_per_work_unit_j=0.2,
    num_launches=3,
    num_reference_launches=8,
    explanation="The whole interval is above the tolerance.",
)


def test_a_regression_is_told_with_numbers_reason_and_remedy() -> None:
    assert explain(WORSE).splitlines() == [
        "qwen3-8b-text-conversation-bf16-1gpu-b32: regression",
        "  energy per token +10.0 %: 200.0 mJ/token -> 220.0 mJ/token",
        "  The whole interval is above the tolerance.",
        (
            "  If intended, move the baseline (joules baseline accept --reason=...) and commit "
            "the diff."
        ),
    ]


@pytest.mark.parametrize("source", ["simulated", "fake"])
def test_what_is_no_measurement_says_so_in_its_first_line(source: str) -> None:
    assert explain(WORSE, source=source).startswith(f"{QWEN.id} [{source}]: regression\n")
    assert explain(WORSE, source="live") == explain(WORSE)

    ordering = Ordering(
        claim="a below b", by="", labels=("a", "b"), trials=(), required=1, source=source
    )
    assert ordering.describe() == f"a below b [{source}]: 0 of 0 hold, 1 needed."


@pytest.mark.parametrize(
    ("verdict", "hint"),
    [
        (Verdict.IMPROVEMENT, "joules baseline accept"),
        (Verdict.INCONCLUSIVE, "--joules-against=STACK"),
        (Verdict.INVALID, "measure again"),
    ],
)
def test_every_other_verdict_says_what_to_do(verdict: Verdict, hint: str) -> None:
    assert hint in explain(replace(WORSE, verdict=verdict)).splitlines()[-1]


def test_unchanged_gives_no_advice() -> None:
    lines = explain(replace(WORSE, verdict=Verdict.UNCHANGED, explanation="")).splitlines()

    assert len(lines) == 2


def test_a_change_that_was_not_estimated_is_not_told() -> None:
    unknown = replace(WORSE, change=math.nan, verdict=Verdict.INVALID)

    assert "energy per" not in explain(unknown)


def test_software_that_differs_is_told_line_by_line() -> None:
    def of(context: Context) -> object:
        result = make_result()
        return result.but(provenance=replace(result.provenance, context=context))

    ours = of(Context(driver="580", packages={"vllm": "0.33"}))
    theirs = of(Context(driver="580", packages={"vllm": "0.32", "torch": "2.11"}))

    assert software_changes(ours, theirs) == ["torch: 2.11 -> absent", "vllm: 0.32 -> 0.33"]
    assert software_changes(ours, ours) == []


def test_a_plan_is_told_with_its_cost() -> None:
    points = [*QWEN.sweep(batch_size=[8, 32]), QWEN.but(num_gpus=2)]

    made = plan(points, stack=Stack(name="new"), gpu="h200")

    # 90 s + 2 x 90 s = 4.5 min, and 90 s + 90 s on two GPUs = 6 min
    assert describe_plan(made) == [
        "vllm Qwen/Qwen3-8B bf16 on 1 x h200, stack new: about 4.5 GPU minutes",
        "    batch sizes 32, 8",
        "    90 s a point where it is not known how long answers take",
        "vllm Qwen/Qwen3-8B bf16 on 2 x h200, stack new: about 6.0 GPU minutes",
        "    batch sizes 32",
        "    90 s a point where it is not known how long answers take",
        "3 points, 2 launches, about 10.5 GPU minutes for one launch each",
    ]


def test_a_plan_tells_no_assumption_where_the_pace_is_known() -> None:
    known = Costs(pace=lambda *_: Pace(request_s=10, drain_s=20))
    made = replace(plan([QWEN], stack=Stack(), gpu="h200"), costs=known)

    assert not any("not known" in line for line in describe_plan(made))
    assert any("not known" in line for line in describe_plan(replace(made, costs=Costs())))


def test_a_plan_tells_the_tasks_of_a_launch_that_serves_several() -> None:
    points = QWEN.sweep(task=["problem-solving", "text-conversation"], batch_size=[8, 32])

    assert describe_plan(plan(points, stack=Stack(), gpu="h200"))[1:3] == [
        "    batch sizes 32, 8 of problem-solving",
        "    batch sizes 32, 8 of text-conversation",
    ]


def test_an_empty_plan_is_told() -> None:
    assert describe_plan(plan([], stack=Stack(), gpu="h200")) == [
        "0 points, 0 launches, about 0.0 GPU minutes for one launch each"
    ]


def test_a_table_aligns_the_first_column_left_and_the_others_right() -> None:
    rows = [("name", "n", "last"), ("a", "100", ""), ("longer", "1", "x")]

    assert table(rows) == ["name      n  last", "a       100", "longer    1     x"]
