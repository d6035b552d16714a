"""The arithmetic of the claims, on results small enough to work by hand."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_joules.claims import batch_size, multi_gpu, precision
from pytest_joules.claims.dataset import Curve, Dataset, number
from pytest_joules.claims.matching import Constraints, matched
from pytest_joules.claims.registry import CLAIMS
from pytest_joules.claims.rules import share_percent, summary, trend
from pytest_joules.errors import NotMeasured
from pytest_joules.result import Result
from tests.fakes.results import make_result

GPT_OSS = "openai/gpt-oss-120b"
MOE = "Qwen/Qwen3-235B-A22B-Thinking-2507-FP8"


def curve(*energies: float, model: str = "m/one", num_gpus: int = 1) -> Curve:
    """Make a curve over batch sizes 1, 2, 4, ..."""
    rows = tuple(
        make_result(energy, model=model, batch_size=2**index, num_gpus=num_gpus)
        for index, energy in enumerate(energies)
    )
    return Dataset(results=rows).curves[0]


def test_a_trend_counts_steps_and_ends() -> None:
    """Falling: 3 of 4 steps (4>2, 2>1, not 1>3, then 5>3 in the other), 2 of 2 ends."""
    assert trend([curve(4, 2, 1, 3), curve(5, 3)], "energy_per_work_unit_j", sign=-1) == {
        "steps %": 75.0,
        "ends %": 100.0,
    }


def test_a_step_that_stands_still_follows_no_trend() -> None:
    for sign in (1, -1):
        assert trend([curve(2, 2)], "energy_per_work_unit_j", sign=sign)["steps %"] == 0


def test_a_curve_of_one_batch_size_has_no_trend() -> None:
    with pytest.raises(NotMeasured, match="no pair"):
        trend([curve(2)], "energy_per_work_unit_j", sign=1)


def test_repeats_of_a_batch_size_are_averaged() -> None:
    """1 J at batch 1; 0.6 and 1.6 J at batch 2 are 1.1 J: it rises."""
    rows = tuple(
        make_result(energy, batch_size=batch) for energy, batch in ((1, 1), (0.6, 2), (1.6, 2))
    )
    (only,) = Dataset(results=rows).curves
    assert only.by_batch_size("energy_per_work_unit_j") == {1: 1.0, 2: 1.1}


@given(st.lists(st.booleans(), min_size=1))
def test_a_share_is_a_percentage_of_all(cases: list[bool]) -> None:
    assert share_percent(cases) == 100 * cases.count(True) / len(cases)


def test_a_summary_by_hand() -> None:
    assert summary([-10.0, 0.0, 4.0, 6.0]) == {
        "wins": 1,
        "n": 4,
        "min %": -10.0,
        "max %": 6.0,
        "median %": 2.0,
    }


@pytest.mark.parametrize("judge", [share_percent, summary])
def test_nothing_compared_is_no_answer(judge: Callable[[list[float]], object]) -> None:
    with pytest.raises(NotMeasured):
        judge([])


def test_the_minimum_is_over_batch_sizes_and_gpu_counts() -> None:
    rows = (
        make_result(3.0, batch_size=8),
        make_result(2.0, batch_size=16, num_gpus=2),
        make_result(1.0, batch_size=16, gpu="h100"),
        make_result(0.5, batch_size=16, task="problem-solving"),
    )
    model = rows[0].point.model
    found = Dataset(results=rows).minimum("text-conversation", gpu="b200", model=model)
    assert found.energy_per_token_j == 2.0


def test_a_matched_comparison_by_hand() -> None:
    """Up to 50 ms B200 has 2 J, H100 1.6 J: 25 % more; up to 100 ms 1 J: 37.5 % less."""
    rows = (
        make_result(2.0, batch_size=8, median_itl_s=0.05),
        make_result(1.0, batch_size=16, median_itl_s=0.1),
        make_result(1.6, batch_size=8, median_itl_s=0.04, gpu="h100"),
        make_result(0.1, batch_size=16, median_itl_s=0.3, gpu="h100"),
        make_result(9.0, model="m/only-b200", median_itl_s=0.01),
    )
    constraints = Constraints(
        tasks=("text-conversation",), limits_s=(0.03, 0.05, 0.1), quantity="median_itl_s"
    )
    found = matched(Dataset(results=rows), constraints)

    assert [each.limit_s for each in found] == [0.05, 0.1]
    assert [each.reduction_percent for each in found] == pytest.approx([-25.0, 37.5])


def fp8_pair(
    batch: int, measured: float, *, change: float, model: str = "m/one"
) -> list[Result]:
    fields = {"batch_size": batch, "mean_batch_size": measured}
    return [
        make_result(1.0, model=model, **fields),
        make_result(1.0 + change, model=f"{model}-FP8", precision="fp8", **fields),
    ]


def test_fp8_pairs_are_binned_by_the_measured_batch() -> None:
    """Batch 8 measures 7.9 and is in no bin; 16 measures 15.9: one loss of 25 %."""
    rows = (*fp8_pair(8, 7.9, change=0.5), *fp8_pair(16, 15.9, change=0.25))
    found = CLAIMS["P-E8"].rule(Dataset(results=rows))
    assert (found["wins"], found["n"], found["max %"]) == (0, 1, 25.0)


@pytest.mark.parametrize(
    ("measured", "claim_id"),
    [(8.01, "P-E8"), (16.0, "P-E8"), (16.01, "P-E17"), (64.0, "P-E17"), (64.01, "P-E65"),
     (256.0, "P-E65")],
)  # fmt: skip
def test_bins_are_open_below_and_closed_above(measured: float, claim_id: str) -> None:
    data = Dataset(results=tuple(fp8_pair(32, measured, change=-0.5)))
    for each in ("P-E8", "P-E17", "P-E65"):
        if each == claim_id:
            assert CLAIMS[each].rule(data)["wins"] == 1
        else:
            with pytest.raises(NotMeasured):
                CLAIMS[each].rule(data)


def test_qwen3_coder_480b_is_not_among_the_pairs() -> None:
    coder = "Qwen/Qwen3-Coder-480B-A35B-Instruct"
    data = Dataset(results=tuple(fp8_pair(32, 32, change=-0.5, model=coder)))
    assert precision.pairs(data) == []


def test_every_pair_of_gpu_counts_is_compared_at_equal_batch() -> None:
    rows = tuple(
        make_result(float(num_gpus), num_gpus=num_gpus, batch_size=batch)
        for num_gpus, batch in ((1, 8), (2, 8), (4, 8), (4, 16))
    )
    found = multi_gpu.scaled_pairs(Dataset(results=rows), "b200", tasks=["text-conversation"])
    counts = [(one.point.num_gpus, other.point.num_gpus) for one, other in found]
    assert sorted(counts) == [(1, 2), (1, 4), (2, 4)]


def moe(energy: float, itl_s: float, *, num_gpus: int, gpu: str = "b200") -> Result:
    """Make a point of Figure 9; its batch size tells points of a curve apart."""
    return make_result(
        energy,
        model=MOE,
        task="problem-solving",
        num_gpus=num_gpus,
        gpu=gpu,
        median_itl_s=itl_s,
        batch_size=round(1 / energy * 64),
    )


def test_a_curve_dominates_where_no_point_is_better_in_both() -> None:
    """(2 J, 30 ms) and (3 J, 20 ms) dominate 2 of 4: not (1.9, 90), not (2.5, 25)."""
    best = (moe(2, 0.030, num_gpus=4), moe(3, 0.020, num_gpus=4))
    others = (
        moe(2, 0.035, num_gpus=2),
        moe(4, 0.020, num_gpus=8, gpu="h100"),
        moe(1.9, 0.090, num_gpus=2),
        moe(2.5, 0.025, num_gpus=2),
    )
    found = CLAIMS["N9"].rule(Dataset(results=(*best, *others)))
    assert found == {"dominated %": 50.0}


def test_energy_between_curves_is_interpolated_in_its_logarithm() -> None:
    """Half way between 1 J at 20 ms and 4 J at 40 ms stand 2 J: 2.1 J is above, 1.9 below."""
    four = (moe(1, 0.020, num_gpus=4), moe(4, 0.040, num_gpus=4))
    two = (moe(16, 0.020, num_gpus=2), moe(8, 0.040, num_gpus=2))
    h100 = tuple(
        moe(energy, itl_s, num_gpus=8, gpu="h100")
        for energy, itl_s in ((2.1, 0.030), (1.9, 0.030), (2.0, 0.050))
    )
    found = CLAIMS["N13"].rule(Dataset(results=(*four, *two, *h100)))
    assert found == {"between %": 50.0, "points": 2}


def test_saturation_is_the_first_batch_whose_doubling_saves_little() -> None:
    """Savings 50, 20, 9 and 30 %: from the third batch size on little is saved."""
    coder = "Qwen/Qwen3-Coder-30B-A3B-Instruct"
    rows = tuple(
        make_result(energy, model=coder, task="code-completion", batch_size=batch)
        for batch, energy in ((64, 10.0), (128, 5.0), (256, 4.0), (512, 3.64), (1024, 2.548))
    )
    assert CLAIMS["B8"].rule(Dataset(results=rows)) == {"batch size": 256}


def test_linearity_by_hand() -> None:
    """A straight line has R2 1; (1, 2, 4 -> 1, 1, 3) has cov^2/(var var) = 4.6667^2/(...)."""
    straight = [
        make_result(1.0, batch_size=b, throughput_work_units_per_s=3.0 * b + 1)
        for b in (1, 2, 4)
    ]
    bent = [
        make_result(1.0, batch_size=b, throughput_work_units_per_s=t)
        for b, t in ((1, 1.0), (2, 1.0), (4, 3.0))
    ]
    r2 = [
        batch_size.r_squared(Dataset(results=tuple(rows)).curves[0])
        for rows in (straight, bent)
    ]
    # x: mean 7/3, squares 14/3; y: mean 5/3, squares 8/3; products 10/3: (10/3)^2/(14/3 x 8/3).
    assert r2 == pytest.approx([1.0, 100 / 112])


def test_a_plain_number_is_what_the_result_says() -> None:
    row = make_result(0.5, median_itl_s=0.02, mean_output_tokens=10.0)
    for name in ("power_w", "throughput_per_watt", "median_itl_s", "energy_per_response_j"):
        assert number(row, name) == getattr(row, name)


def test_a_number_that_is_not_there_is_not_measured() -> None:
    with pytest.raises(NotMeasured, match="median_itl_s is not in this live result"):
        number(make_result(), "median_itl_s")


def test_rows_that_are_missing_are_named() -> None:
    data = Dataset(results=(make_result(),))
    with pytest.raises(NotMeasured, match="task=gpqa gpu=h100 model=m num_gpus=2"):
        data.curves_of("gpqa", gpu="h100", model="m", num_gpus=2)
    with pytest.raises(NotMeasured, match="1 x b200: no row at batch size 9"):
        data.curves[0].at(9)
