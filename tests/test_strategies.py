import re

import pytest
from hypothesis import find, given, settings
from hypothesis import strategies as st

from pytest_joules import expect
from pytest_joules.errors import InvalidPoint, OrderingFailed
from pytest_joules.point import Point
from pytest_joules.strategies import points
from tests.fakes.results import make_result

QWEN = Point(model="Qwen/Qwen3-235B-A22B-Instruct-2507", num_gpus=8)
BATCHES = [8, 16, 32, 64, 96, 128, 192, 256]


def fp8_over_bf16(point: Point) -> float:
    """Planted: FP8 loses to batch 16 as the paper says, and at 128 and above on two GPUs."""
    if point.batch_size <= 16:
        return 1.3
    return 1.1 if point.num_gpus == 2 and point.batch_size >= 128 else 0.8


def require_fp8_wins(point: Point) -> None:
    values = {"batch_size": point.batch_size, "num_gpus": point.num_gpus}
    bf16 = make_result(1.0, **values)
    fp8 = make_result(fp8_over_bf16(point), precision="fp8", **values)
    expect.lower(fp8, bf16)


def test_a_false_property_shrinks_to_the_smallest_counter_example_and_prints_it() -> None:
    @settings(database=None, max_examples=500, derandomize=True)
    @given(point=points(QWEN, batch_size=[b for b in BATCHES if b >= 64], num_gpus=[8, 4, 2]))
    def fp8_never_loses_from_batch_64_on(point: Point) -> None:
        require_fp8_wins(point)

    with pytest.raises(OrderingFailed) as failure:
        fp8_never_loses_from_batch_64_on()

    printed = failure.value.__notes__[0]
    pasted = re.sub(r"\s+", " ", printed).partition("point=")[2].removesuffix(", )")
    assert pasted == (
        "Point(model='Qwen/Qwen3-235B-A22B-Instruct-2507', batch_size=128, num_gpus=2)"
    )
    assert eval(pasted) == QWEN.but(batch_size=128, num_gpus=2)


def test_a_true_property_holds() -> None:
    @settings(database=None, derandomize=True)
    @given(point=points(QWEN, batch_size=[64, 96], num_gpus=[2, 4, 8]))
    def fp8_wins_at_64_and_96(point: Point) -> None:
        require_fp8_wins(point)

    fp8_wins_at_64_and_96()


@pytest.mark.parametrize(
    ("axes", "smallest"),
    [
        pytest.param({"batch_size": [64, 8, 16]}, {"batch_size": 8}, id="small-batch"),
        pytest.param({"num_gpus": (8, 2, 4)}, {"num_gpus": 2}, id="few-gpus"),
        pytest.param({"precision": ["fp8", "bf16"]}, {"precision": "fp8"}, id="first-listed"),
        pytest.param({"batch_size": range(4, 9)}, {"batch_size": 4}, id="range"),
        pytest.param({"seed": 7}, {"seed": 7}, id="one-value"),
        pytest.param({"batch_size": st.integers(5, 50)}, {"batch_size": 5}, id="strategy"),
    ],
)
def test_an_axis_shrinks_towards(axes: dict[str, object], smallest: dict[str, object]) -> None:
    found = find(points(QWEN, **axes), lambda _: True)

    assert found == QWEN.but(**smallest)


def test_batch_shrinks_before_gpus_whatever_the_order_of_axes() -> None:
    space = points(QWEN, num_gpus=[1, 2], precision=["bf16", "fp8"], batch_size=[1, 2])

    found = find(space, lambda point: point.batch_size * point.num_gpus == 2)

    assert (found.batch_size, found.num_gpus, found.precision) == (1, 2, "bf16")


@given(point=points(QWEN, batch_size=BATCHES, num_gpus=[1, 2], tensor_parallel=[None, 2]))
def test_contradictions_are_left_out(point: Point) -> None:
    assert (point.tensor_parallel or 1) <= point.num_gpus
    assert point.but(batch_size=1, num_gpus=8, tensor_parallel=None) == QWEN


def test_wrong_axes_are_refused_when_the_strategy_is_made() -> None:
    with pytest.raises(InvalidPoint, match="no field batchsize"):
        points(QWEN, batchsize=[1])
    with pytest.raises(InvalidPoint, match=r"batch_size=\[\] lists no value"):
        points(QWEN, batch_size=[])
