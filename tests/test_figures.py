import math

from hypothesis import given
from hypothesis import strategies as st

from pytest_joules.digest import Digest, rows_of
from pytest_joules.report.figures import figures, pareto
from pytest_joules.result import Reason, Timeline
from tests.fakes.digests import launch, make_timeline, of_stack
from tests.fakes.results import make_comparison, make_result

COSTS = st.lists(st.tuples(st.floats(0.1, 10), st.floats(0.1, 10)), max_size=30)


@given(COSTS)
def test_the_pareto_set_is_what_nothing_beats(costs: list[tuple[float, float]]) -> None:
    def beats(a: tuple[float, float], b: tuple[float, float]) -> bool:
        return a != b and a[0] <= b[0] and a[1] <= b[1]

    expected = {one for one in costs if not any(beats(other, one) for other in costs)}

    assert pareto(costs) == expected


def test_points_that_differ_in_batch_size_make_a_curve_in_order() -> None:
    results = [make_result(1.0 / b, batch_size=b, median_itl_s=b / 100) for b in (64, 8, 16)]
    (family,) = figures(rows_of(results, {}))["families"]

    (curve,) = family["curves"]
    assert family["name"] == "Qwen/Qwen3-8B, text-conversation"
    assert curve["batch"] == [8, 16, 64]
    assert curve["energy"] == [0.125, 0.0625, 0.015625]
    assert curve["row"] == [1, 2, 0]
    assert curve["pareto"] == [True, True, True]


def test_other_gpus_precisions_stacks_and_settings_are_other_curves() -> None:
    results = [
        make_result(batch_size=8),
        make_result(batch_size=8, precision="fp8"),
        make_result(batch_size=8, num_gpus=2),
        make_result(batch_size=8, max_model_len=4096),
        of_stack(make_result(batch_size=8), "old"),
        make_result(batch_size=8, source="fake", seed=3),
    ]
    (family,) = figures(rows_of(results, {}))["families"]

    assert [curve["label"] for curve in family["curves"]] == [
        "1 x b200, bf16, vllm",
        "1 x b200, fp8, vllm",
        "2 x b200, bf16, vllm",
        "1 x b200, bf16, vllm, max_model_len=4096",
        "1 x b200, bf16, vllm, stack old",
        "1 x b200, bf16, vllm, fake, seed=3",
    ]


def test_the_band_is_the_reference_within_tolerance() -> None:
    result = make_result(0.55)
    compared = make_comparison(result.point, reference_energy_per_work_unit_j=0.5)
    (family,) = figures(rows_of([result], {result.point: compared}))["families"]

    assert family["curves"][0]["band"] == [[0.485, 0.5, 0.515]]


def test_what_was_not_measured_is_null_and_invalid_points_are_on_no_frontier() -> None:
    nothing = make_result(math.nan, batch_size=8)
    broken = make_result(
        0.1, batch_size=16, median_itl_s=0.001, reasons=(Reason(code="mig-on", text="on"),)
    )
    good = make_result(0.5, batch_size=32, median_itl_s=0.1)
    (family,) = figures(rows_of([nothing, broken, good], {}))["families"]

    (curve,) = family["curves"]
    assert curve["energy"][0] is None
    assert curve["time"] == [None, 0.001, 0.1]
    assert curve["pareto"] == [False, False, True]


def test_the_last_valid_launch_is_drawn() -> None:
    point = make_result().point
    first, second = (
        launch(point, 1.0).but(timeline=make_timeline(power_w=watts)) for watts in (1, 200)
    )
    broken = launch(point, 1.0, reasons=(Reason(code="mig-on", text="on"),))

    (row,) = figures(rows_of([first, second, broken], {}))["rows"]

    assert min(row["timeline"]["power_w"]) > 100
    assert row["timeline"]["window_end_s"] == 80.0


def test_a_number_that_json_has_not_is_null() -> None:
    strange = Timeline(
        step_s=1.0, window_start_s=0, window_end_s=1, power_w=(math.nan, 1.0, None, math.inf)
    )
    (row,) = figures(rows_of([make_result(timeline=strange)], {}))["rows"]

    assert row["timeline"]["power_w"] == [None, 1.0, None, None]


def test_causes_are_those_of_the_diagnosis_and_add_up() -> None:
    point = make_result(batch_size=8).point
    old, new = of_stack(launch(point, 1.0), "old"), of_stack(launch(point, 1.1), "new")
    compared = make_comparison(point, reference="old", change=0.1)

    rows = figures(rows_of([new, old], {point: compared}))["rows"]

    assert math.isclose(sum(each["share"] for each in rows[0]["causes"]), math.log(1.1))
    assert rows[1]["causes"] == []


def test_no_results_have_no_figures() -> None:
    assert figures(Digest().rows) == {"families": [], "rows": []}
