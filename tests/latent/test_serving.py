"""Each formula of serving a language model, worked by hand on a GPU with round figures."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_joules import Point
from pytest_joules.latent import LanguageArchitecture, architecture_of, parameters_of
from pytest_joules.latent import step as formulas
from pytest_joules.latent.serving import serving
from pytest_joules.tasks import Lengths

POINT = Point(model="made/up", batch_size=4, input_tokens=Lengths(mean=100))


def seconds(point, shape, p, *, batch=4, context=0.0, prefill=0.0):
    made = serving(point, shape, num_gpus=point.num_gpus, output_tokens=100)
    return formulas.step_s(made, p, batch, context=context, prefill=prefill)


def test_weights_are_read_once_whatever_the_batch(dense, ideal):
    """10 x (4 x 1000 x 1000 + 3 x 1000 x 2000) = 1e8 parameters, 2e8 bytes at 1e12 a second."""
    assert dense.always_read_params == 1e8
    assert seconds(POINT, dense, ideal, batch=1)["weights"] == pytest.approx(2e-4)
    assert seconds(POINT, dense, ideal, batch=64)["weights"] == pytest.approx(2e-4)


def test_keys_and_values_grow_with_batch_and_context(dense, ideal):
    """4 sequences x 200 tokens x 20,000 values x 2 bytes = 3.2e7 bytes."""
    assert seconds(POINT, dense, ideal, batch=4, context=200)["kv"] == pytest.approx(3.2e-5)


def test_arithmetic_of_decoding(dense, ideal):
    """Two operations a parameter: 4 x 2e8 at 1e15; attention 4 x 10 x 100 x 10 a token seen."""
    assert seconds(POINT, dense, ideal, batch=4)["arithmetic"] == pytest.approx(8e-7)
    with_context = seconds(POINT, dense, ideal, batch=4, context=1000)["arithmetic"]
    assert with_context == pytest.approx(8e-7 + 4 * 1000 * 4e4 / 1e15)


def test_fp8_halves_bytes_and_doubles_the_rate(dense, ideal):
    fp8 = seconds(POINT.but(precision="fp8"), dense, ideal, batch=4)
    assert fp8["weights"] == pytest.approx(1e-4)
    assert fp8["arithmetic"] == pytest.approx(4e-7)


def test_gpus_share_weights_and_exchange_twice_a_layer(dense, ideal):
    p = replace(ideal, collective_latency_s=1e-6, link_bytes_per_s=1e12)
    two = seconds(POINT.but(num_gpus=2), dense, p)
    assert two["weights"] == pytest.approx(1e-4)
    # 20 exchanges of a microsecond, and of 4 vectors of 1000 values of 2 bytes.
    assert two["collectives"] == pytest.approx(20e-6 + 20 * 4 * 2000 / 1e12)
    assert seconds(POINT, dense, p)["collectives"] == 0


def test_kv_heads_are_copied_beyond_their_number(dense):
    """Two KV heads on four GPUs: each GPU holds half of the keys and values, not a quarter."""
    few = replace(dense, num_kv_heads=2)
    four = serving(POINT.but(num_gpus=4), few, num_gpus=4, output_tokens=100)
    one = serving(POINT, few, num_gpus=1, output_tokens=100)
    assert four.kv_bytes_per_far_token == one.kv_bytes_per_far_token / 2


def sparse(dense):
    return LanguageArchitecture(
        **{
            **vars(dense),
            "intermediate_size": 0,
            "num_experts": 8,
            "experts_per_token": 2,
            "expert_intermediate_size": 500,
        }
    )


def test_experts_are_read_as_far_as_they_are_visited(dense, ideal):
    """Each of 8 is missed by one token with 3/4: 1 - 0.75 ** 3 of them are read by three."""
    shape = sparse(dense)
    assert shape.expert_params == 10 * 8 * 3 * 1000 * 500
    read = seconds(POINT, shape, ideal, batch=3)["experts"]
    assert read == pytest.approx((1 - 0.75**3) * shape.expert_params * 2 / 1e12)


def test_a_step_that_reads_a_prompt_visits_all_experts(dense, ideal):
    shape = sparse(dense)
    read = seconds(POINT, shape, ideal, batch=3, prefill=100)["experts"]
    assert read == pytest.approx(shape.expert_params * 2 / 1e12)


def test_attention_in_parallel_on_data_copies_its_weights(dense):
    point = POINT.but(num_gpus=4, data_parallel=4)
    four = serving(point, dense, num_gpus=4, output_tokens=100)
    mlp, attention = 2 * 6e7, 2 * 4e7
    assert four.dense_bytes == pytest.approx(mlp / 4 + attention)


def test_joules_of_a_step(dense, ideal):
    """0.1 x 1000 W for the step's time, 1e-12 J an operation, 1e-10 J a byte."""
    made = serving(POINT, dense, num_gpus=1, output_tokens=100)
    asked = {"context": 0.0, "prefill": 0.0}
    times = formulas.step_s(made, ideal, 4, **asked)
    joules = formulas.step_j(made, ideal, times, batch=4, **asked)
    assert joules["static"] == pytest.approx(100 * sum(times.values()))
    assert joules["arithmetic"] == pytest.approx(4 * 2e8 * 1e-12)
    assert joules["memory"] == pytest.approx(2e8 * 1e-10)


def test_an_input_that_is_late_starves_the_batch(dense, ideal):
    """One image a second and 100 tokens an answer: 100 tokens a second, however many asked."""
    point = POINT.but(task="image-chat")
    p = replace(
        ideal,
        input_s_per_request={"image-chat": 1.0},
        shared_input_s_per_request={},
        step_overhead_s=0.1,
    )
    made = serving(point, dense, num_gpus=1, output_tokens=100)
    asked = {"context": 1000.0}
    running = formulas.running_batch(made, p, 512.0, **asked)
    prefill = running * formulas.prompt_tokens(made, p) / 100
    step = sum(formulas.step_s(made, p, running, prefill=prefill, **asked).values())
    assert running < 30
    assert running / step == pytest.approx(100, rel=0.05)


def test_power_near_the_limit():
    assert formulas.capped_w(100.0, 1000.0) == pytest.approx(100.0)
    assert formulas.capped_w(1e6, 1000.0) == pytest.approx(1000.0)
    assert formulas.capped_w(1000.0, 1000.0) == pytest.approx(1000.0 * 2 ** (-1 / 8))


@given(batch=st.floats(1, 4096), context=st.floats(1, 1e5), prefill=st.floats(0, 1e5))
def test_arrays_and_numbers_give_the_same(batch, context, prefill):
    """The fit's code is the prediction's."""
    p = parameters_of("h100")
    shape = architecture_of("Qwen/Qwen3-30B-A3B-Instruct-2507")
    made = serving(POINT.but(num_gpus=2), shape, num_gpus=2, output_tokens=100)
    one = formulas.step_s(made, p, batch, context=context, prefill=prefill)
    asked = {"context": np.array([context] * 2), "prefill": np.array([prefill] * 2)}
    many = formulas.step_s(made, p, np.array([batch] * 2), **asked)
    assert all(np.allclose(many[cause], value) for cause, value in one.items())
