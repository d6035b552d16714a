"""What a budget allows, to the second: a launch of two points at 60 s windows, on one GPU."""

import pytest

from pytest_joules.budget import Budget
from pytest_joules.errors import Inconclusive
from pytest_joules.plan import Stack, plan
from pytest_joules.point import Point

POINTS = tuple(Point(model="Qwen/Qwen3-8B", batch_size=b, num_gpus=2) for b in (64, 16))
LAUNCH = plan(POINTS, stack=Stack(), gpu="h200").launches[0]


# Two GPUs: 2 * (90 + 2 * (30 + 60)) = 540 GPU seconds, a point alone 180.
@pytest.mark.parametrize(
    ("spent_gpu_s", "is_affordable"), [(0.0, True), (60.0, True), (60.1, False), (1e9, False)]
)
def test_a_launch_needs_all_of_its_cost(spent_gpu_s, is_affordable):
    budget = Budget(gpu_minutes=10.0)

    assert budget.costs.gpu_minutes(LAUNCH) == 9.0
    assert budget.affords(LAUNCH, spent_gpu_s) is is_affordable
    if not is_affordable:
        with pytest.raises(Inconclusive, match=r"of 10 GPU minutes are spent.*about 9\.0"):
            budget.require(LAUNCH, spent_gpu_s)


@pytest.mark.parametrize(("spent_gpu_s", "is_allowed"), [(420.0, True), (420.1, False)])
def test_a_running_launch_needs_its_next_point_only(spent_gpu_s, is_allowed):
    budget = Budget(gpu_minutes=10.0)

    assert budget.points_gpu_s(POINTS, LAUNCH) == 360.0
    assert budget.allows(POINTS, LAUNCH, spent_gpu_s) is is_allowed
    assert budget.allows(POINTS[1:], LAUNCH, spent_gpu_s) is is_allowed
    assert budget.allows((), LAUNCH, spent_gpu_s)


def test_without_a_budget_everything_is_allowed():
    assert Budget().allows(POINTS, LAUNCH, 1e12)
    Budget().require(LAUNCH, 1e12)
