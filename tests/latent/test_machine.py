"""A machine's causes, its steady state, and what must hold for every point and GPU."""

from dataclasses import replace

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from pytest_joules import Point, catalog
from pytest_joules.errors import InvalidPoint
from pytest_joules.latent import (
    DiffusionMachine,
    fitted_gpus,
    machine,
    parameters_of,
    predict,
    predicted,
)
from pytest_joules.tasks import Lengths

QWEN = Point(model="Qwen/Qwen3-32B", batch_size=64)
LANGUAGE = [m for m in catalog.models().values() if m.architecture != "diffusion"]
DIFFUSION = [m for m in catalog.models().values() if m.architecture == "diffusion"]

points = st.one_of(
    st.builds(
        lambda model, gpus, batch: Point(
            model=model.model_id, task=model.tasks[0], num_gpus=gpus, batch_size=batch
        ),
        st.sampled_from(LANGUAGE),
        st.sampled_from([1, 2, 4, 8]),
        st.integers(1, 4096),
    ),
    st.builds(
        lambda model, gpus, batch: Point(
            model=model.model_id, task=model.tasks[0], num_gpus=gpus, batch_size=batch
        ),
        st.sampled_from(DIFFUSION),
        st.sampled_from([1, 2, 4, 8]),
        st.integers(1, 32),
    ),
)
gpus = st.sampled_from(["h100", "b200", "h200", "l40s"])


def fitting(point, gpu):
    made = machine(point, gpu)
    assume(made.max_batch_size() > 0)
    return made


@settings(max_examples=200)
@given(point=points, gpu=gpus)
def test_energy_is_positive_and_power_never_above_the_limit(point, gpu):
    made = fitting(point, gpu)
    found = predicted(made)
    limit_w = made.num_gpus * made.parameters.gpu.tdp_w
    assert 0 < found.power_w <= limit_w * (1 + 1e-9)
    assert found.energy_per_work_unit_j > 0
    assert found.mean_batch_size <= min(point.batch_size, found.max_batch_size) + 1e-9
    assert found.power_w == pytest.approx(
        found.energy_per_work_unit_j * found.throughput_work_units_per_s
    )


@settings(max_examples=100)
@given(point=points, gpu=gpus)
def test_terms_add_up(point, gpu):
    found = predicted(fitting(point, gpu))
    step_s = found.mean_batch_size / found.throughput_work_units_per_s
    assert sum(found.terms_s.values()) == pytest.approx(step_s)
    energy_j = found.energy_per_work_unit_j * found.mean_batch_size
    assert sum(found.terms_j.values()) == pytest.approx(energy_j)
    assert min(found.terms_s.values()) >= 0
    assert min(found.terms_j.values()) >= 0


@settings(max_examples=50)
@given(point=points, gpu=gpus, factor=st.floats(0.1, 1.0))
def test_less_memory_never_lets_more_fit(point, gpu, factor):
    made = fitting(point, gpu)
    if isinstance(made, DiffusionMachine):
        small = replace(made.parameters, usable_memory_ratio=0.9 * factor)
        assert made.but(parameters=small).max_batch_size() <= made.max_batch_size()
    else:
        assert made.but(kv_memory_factor=factor).max_batch_size() <= made.max_batch_size()


@settings(max_examples=50)
@given(point=points, gpu=gpus, factor=st.floats(0.4, 1.0))
def test_a_lower_limit_costs_time_and_holds(point, gpu, factor):
    made = fitting(point, gpu)
    low = predicted(made.but(power_limit_factor=factor))
    assert low.power_w <= made.num_gpus * made.parameters.gpu.tdp_w * factor * (1 + 1e-9)
    assert (
        low.throughput_work_units_per_s <= predicted(made).throughput_work_units_per_s * 1.001
    )


@settings(max_examples=50)
@given(point=points, gpu=gpus)
def test_lower_clocks_take_longer_at_less_power(point, gpu):
    made = fitting(point, gpu)
    slow = predicted(made.but(clock_factor=0.7))
    assert slow.throughput_work_units_per_s < predicted(made).throughput_work_units_per_s
    assert slow.power_w < predicted(made).power_w


def test_static_power_raises_energy_by_its_share():
    made = machine(QWEN, "h100")
    before, after = (each.step(1, 100) for each in (made, made.but(static_power_factor=1.1)))
    share = before.terms_j["static"] / before.energy_j
    assert before.uncapped_power_w < 0.75 * made.power_limit_w
    assert after.energy_j / before.energy_j - 1 == pytest.approx(0.1 * share, rel=0.1)


def test_precision_overhead_is_of_fp8_alone():
    bf16 = machine(QWEN, "h100")
    fp8 = machine(QWEN.but(precision="fp8"), "h100")
    heavy = {"precision_overhead_factor": 2.0}
    assert predicted(bf16.but(**heavy)) == predicted(bf16)
    assert predicted(fp8.but(**heavy)).terms_s["precision"] == pytest.approx(
        2 * predicted(fp8).terms_s["precision"]
    )


def test_a_slower_input_starves_the_batch_and_is_named():
    point = Point(model="Qwen/Qwen3-VL-8B-Instruct", task="video-chat", batch_size=64)
    made = machine(point, "h100")
    slow = predicted(made.but(input_rate_factor=0.1))
    assert slow.binds == "input"
    assert slow.mean_batch_size < predicted(made).mean_batch_size
    assert slow.throughput_work_units_per_s == pytest.approx(
        made.output_tokens / made.but(input_rate_factor=0.1).input_s_per_request, rel=0.1
    )


def test_longer_answers_fit_fewer():
    made = machine(QWEN, "b200")
    longer = made.but(output_tokens=2 * made.output_tokens)
    assert longer.max_batch_size() < made.max_batch_size()


def test_memory_binds_where_the_batch_does_not_fit():
    found = predict(QWEN.but(batch_size=4096), "b200")
    assert found.binds == "memory"
    assert found.mean_batch_size == found.max_batch_size


def test_what_does_not_fit_is_an_error_with_the_remedy():
    with pytest.raises(InvalidPoint, match=r"does not fit.*more GPUs"):
        predict(Point(model="meta-llama/Llama-3.1-405B-Instruct"), "h100")


def test_lengths_of_the_point_stand_before_the_tasks():
    point = QWEN.but(input_tokens=Lengths(mean=1000), output_tokens=Lengths(mean=3000))
    made = machine(point, "h100")
    assert made.prompt_tokens == 1000
    assert made.output_tokens == 3000
    assert made.mean_context_tokens == 2500


def test_a_gpu_that_was_not_measured_borrows_rates_and_has_no_known_error():
    assert set(fitted_gpus()) == {"b200", "h100"}
    h100, h200 = parameters_of("h100"), parameters_of("h200")
    assert h200.weight_bandwidth_ratio == h100.weight_bandwidth_ratio
    found = predict(QWEN, "h200")
    assert (found.basis, found.known_error) == ("h100", None)
    assert found.throughput_work_units_per_s > predict(
        QWEN.but(batch_size=found.point.batch_size), "h100"
    ).throughput_work_units_per_s * 0.999  # fmt: skip


def test_an_unknown_gpu_and_a_wrong_kind_are_errors():
    with pytest.raises(InvalidPoint, match="gpu 'b300' is unknown"):
        predict(QWEN, "b300")
    with pytest.raises(InvalidPoint, match="is a language model"):
        predict(QWEN.but(task="text-to-image"), "h100")
