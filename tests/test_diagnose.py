"""Why energy changed: worked by hand, and identities that must hold for any two results."""

import math
from dataclasses import fields, replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pytest_joules.diagnose import diagnose
from pytest_joules.diagnose.cause import TITLES
from pytest_joules.diagnose.change import logarithmic_mean
from pytest_joules.diagnose.facts import facts
from pytest_joules.errors import ConfigurationError
from pytest_joules.point import Point
from pytest_joules.provenance import Identity, Provenance
from tests.fakes.results import make_evidence, make_result

CALM = {
    "mean_in_flight": 100.0,
    "mean_waiting": 0.0,
    "mean_prompt_tokens": 200.0,
    "busy_share": 1.0,
    "idle_power_w": 100.0,
    "mean_sm_clock_hz": 2e9,
    "power_capped_share": 0.0,
    "clock_event_reasons": 0,
    "preemptions": 0.0,
}


def side(*, power_w=500.0, step_s=0.02, batch=100.0, output=600.0, kv=0.5, **changes):
    """A result by the three parts of the identity: 500 W, 20 ms a step, 100 requests."""
    point = {k: changes.pop(k) for k in ("batch_size", "precision", "model") if k in changes}
    gpus = changes.pop("num_gpus", 1)
    limit_w = changes.pop("power_limit_w", 1000.0)
    throughput = batch / step_s
    made = make_result(
        power_w / throughput,
        throughput_work_units_per_s=throughput,
        mean_batch_size=batch,
        mean_output_tokens=output,
        kv_cache_usage=kv,
        evidence=make_evidence(
            **{**CALM, **changes},
            gpu_energy_j=(60 * power_w / gpus,) * gpus,
            work_units=60 * throughput,
            series_energy_j=(power_w,) * 60,
            series_work_units=(throughput,) * 60,
            num_requests=600,
            start_index=200,
            end_index=400,
        ),
        num_gpus=gpus,
        **{"batch_size": 100, **point},
    )
    identity = Identity(gpu_model="NVIDIA B200", num_gpus=gpus, power_limit_w=limit_w)
    return made.but(provenance=Provenance(identity=identity, context=made.provenance.context))


@pytest.mark.parametrize(
    ("task", "change"),
    [
        ("image-chat", {"num_images": 4}),
        ("image-chat", {"media": "/photos"}),
        ("video-chat", {"fps": 2}),
    ],
)
def test_what_requests_show_was_asked_for(task, change):
    base = Point(model="Qwen/Qwen3-VL-8B-Instruct", task=task, batch_size=100)
    then, now = side().but(point=base), side(step_s=0.03).but(point=base.but(**change))

    (cause,) = [c for c in diagnose([then], [now]).causes if c.code == "configuration"]

    assert {*change} < {sign.quantity for sign in cause.signs}


def contributions(then, now):
    return {cause.code: cause.contribution for cause in diagnose([then], [now]).causes}


# --- by hand ---------------------------------------------------------------------------------


def test_equal_results_have_no_causes():
    made = diagnose([side()], [side()])

    assert made.causes == ()
    assert made.ln_change == 0


def test_the_identity_is_power_times_step_over_batch():
    made = diagnose([side()], [side(power_w=550.0, step_s=0.03, batch=80.0)])

    assert made.ln_change == pytest.approx(math.log(1.1 * 1.5 / 0.8))
    assert made.ln_parts == pytest.approx((math.log(1.1), math.log(1.5), -math.log(0.8)))


def test_a_smaller_cache_keeps_its_shorter_steps_and_its_lower_power():
    # 80 run and 20 wait in a full cache; steps are 10 % shorter, power is 5 % lower.
    now = side(batch=80.0, step_s=0.018, power_w=475.0, mean_waiting=20.0, kv=0.98)

    told = contributions(side(), now)

    assert told == {"memory-capacity": pytest.approx(math.log(0.95 * 0.9 / 0.8))}


def test_waiting_that_shrinks_with_the_batch_is_no_cause_of_its_own():
    # 2 ms of 20 ms waited become 1.7 ms of 17 ms, with 80 of 100 requests.
    then = side(busy_share=0.9)
    now = side(batch=80.0, mean_waiting=20.0, kv=0.98, step_s=0.017, busy_share=0.9)

    assert contributions(then, now) == {"memory-capacity": pytest.approx(math.log(0.85 / 0.8))}


def test_requests_that_wait_beside_a_free_cache_wait_for_slots():
    now = side(batch=80.0, mean_waiting=20.0, kv=0.4)

    assert contributions(side(), now) == {"engine-slots": pytest.approx(-math.log(0.8))}


def test_preemptions_tell_that_the_cache_was_too_small():
    now = side(batch=80.0, mean_waiting=20.0, kv=0.8, preemptions=9.0)

    assert list(contributions(side(), now)) == ["memory-capacity"]


def test_a_client_that_offers_less_is_found():
    now = side(batch=80.0, mean_in_flight=80.0)

    assert contributions(side(), now) == {"client-starved": pytest.approx(-math.log(0.8))}


def test_requests_held_up_before_the_engine_are_the_feeds():
    now = side(batch=80.0)  # 100 in flight, none waits in the engine

    assert contributions(side(), now) == {"input-feed": pytest.approx(-math.log(0.8))}


def test_two_reasons_for_a_smaller_batch_divide_it_by_requests():
    now = side(batch=80.0, mean_in_flight=95.0, mean_waiting=15.0, kv=0.99)

    told = contributions(side(), now)

    assert told["memory-capacity"] == pytest.approx(3 * told["client-starved"])
    assert sum(told.values()) == pytest.approx(-math.log(0.8))


def test_another_batch_that_was_asked_is_no_shortfall():
    now = side(batch=50.0, batch_size=50, mean_in_flight=50.0, step_s=0.016)

    assert list(contributions(side(), now)) == ["batch-asked"]


def test_steps_that_only_wait_longer_cost_static_power_alone():
    # 19 ms of kernels and 1 ms of waiting become 19 ms and 5 ms; energy per step grows by
    # 4 ms at 100 W: 10 J -> 10.4 J.
    now = side(step_s=0.024, power_w=10.4 / 0.024, busy_share=19 / 24)

    told = contributions(side(busy_share=0.95), now)

    assert told == {"gpu-waits": pytest.approx(math.log(1.04))}


def test_steps_that_are_longer_though_the_gpu_is_as_busy_are_its_own_work():
    now = side(step_s=0.024, busy_share=0.95)

    told = contributions(side(busy_share=0.95), now)

    # 0.05 of each step was waited: of the 4 ms more, 0.2 ms are waiting.
    assert told["gpu-waits"] == pytest.approx(0.0002 / logarithmic_mean(0.02, 0.024))
    assert sum(told.values()) == pytest.approx(math.log(1.2))
    assert max(told, key=told.get) == "gpu-work"


def test_idle_power_is_there_all_the_time():
    now = side(power_w=550.0, idle_power_w=150.0)

    told = contributions(side(), now)

    assert told == {"static-power": pytest.approx(math.log(1.1))}


def test_lower_clocks_take_longer_and_draw_less():
    now = side(step_s=0.021, power_w=420.0, mean_sm_clock_hz=1.8e9)

    told = contributions(side(), now)

    assert told == {"clocks": pytest.approx(math.log(420 / 500 * 1.05))}


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"power_capped_share": 0.9}, "power-cap"),
        ({"power_limit_w": 600.0}, "power-cap"),
        ({"clock_event_reasons": 0x40}, "thermal"),
        ({}, "clocks"),
    ],
)
def test_why_the_clocks_are_lower_is_told_by_the_gpu(change, code):
    now = side(step_s=0.022, mean_sm_clock_hz=1.8e9, **change)

    assert max(contributions(side(), now).items(), key=lambda each: each[1])[0] == code


def test_longer_answers_are_longer_contexts():
    now = side(step_s=0.022, output=1200.0)

    assert contributions(side(), now) == {"output-length": pytest.approx(math.log(1.1))}


def test_an_added_gpu_is_its_power_less_the_time_that_it_saves():
    now = side(num_gpus=2, power_w=900.0, step_s=0.015, idle_power_w=200.0)

    told = contributions(side(), now)

    assert told == {"parallelism": pytest.approx(math.log(1.8 * 0.75))}


def test_what_was_asked_otherwise_takes_what_nothing_else_explains():
    now = side(precision="fp8", step_s=0.021, power_w=560.0)

    (cause, *_) = diagnose([side()], [now]).causes

    assert cause.code == "configuration"
    assert cause.signs[0].quantity == "precision"
    assert (cause.signs[0].then, cause.signs[0].now) == ("bf16", "fp8")


def test_power_that_nothing_explains_is_unknown():
    assert contributions(side(), side(power_w=550.0)) == {
        "unknown": pytest.approx(math.log(1.1))
    }


def test_several_launches_count_with_their_mean():
    made = diagnose([side()], [side(power_w=550.0), side(power_w=450.0)])

    assert made.energy_j == pytest.approx(math.sqrt(0.11 * 0.09))


# --- unknown stays unknown -------------------------------------------------------------------

PLANTED = [
    (side(batch=80.0, mean_waiting=20.0, kv=0.98), "memory-capacity", "mean_waiting"),
    (side(batch=80.0, mean_in_flight=80.0), "client-starved", "mean_in_flight"),
    (side(batch=80.0), "input-feed", "mean_in_flight"),
    (side(step_s=0.024, busy_share=0.8), "gpu-waits", "busy_share"),
    (side(step_s=0.024), "gpu-work", "busy_share"),
    (side(power_w=550.0, idle_power_w=150.0), "static-power", "idle_power_w"),
    (side(power_w=450.0, mean_sm_clock_hz=1.8e9), "clocks", "mean_sm_clock_hz"),
]


@pytest.mark.parametrize(("now", "code", "field"), PLANTED)
def test_without_its_evidence_a_cause_is_not_named(now, code, field):
    assert diagnose([side()], [now]).causes[0].code == code

    blind = [
        each.but(evidence=replace(each.evidence, **{field: None})) for each in (side(), now)
    ]
    (first, *_) = diagnose(blind[:1], blind[1:]).causes

    assert first.code == "unknown"


def test_without_the_length_of_answers_longer_contexts_are_not_named():
    now = side(step_s=0.022, output=1200.0)
    blind = [each.but(mean_output_tokens=None) for each in (side(), now)]

    assert list(contributions(*blind)) == ["unknown"]


def test_published_results_have_no_evidence_and_give_the_identity_only():
    then, now = (each.but(evidence=None) for each in (side(), side(power_w=520.0, batch=90.0)))

    assert list(contributions(then, now)) == ["unknown"]


def test_without_a_batch_only_power_and_time_per_unit_are_told():
    made = diagnose([side().but(mean_batch_size=None)], [side(power_w=600.0)])

    assert [sign.quantity for sign in made.identity] == ["power", "step time"]
    assert sum(cause.contribution for cause in made.causes) == pytest.approx(math.log(1.2))


# --- identities ------------------------------------------------------------------------------

measured = st.fixed_dictionaries(
    {
        "power_w": st.floats(50, 5000),
        "step_s": st.floats(1e-3, 1.0),
        "batch": st.floats(0.5, 4096),
        "output": st.floats(1, 30_000),
        "kv": st.none() | st.floats(0, 1),
        "num_gpus": st.sampled_from([1, 2, 8]),
        "power_limit_w": st.none() | st.sampled_from([500.0, 1000.0]),
        "batch_size": st.integers(1, 4096),
        "precision": st.sampled_from(["bf16", "fp8"]),
        "mean_in_flight": st.none() | st.floats(0, 4096),
        "mean_waiting": st.none() | st.floats(0, 4096),
        "mean_prompt_tokens": st.none() | st.floats(1, 9000),
        "busy_share": st.none() | st.floats(0, 1),
        "idle_power_w": st.none() | st.floats(1, 900),
        "mean_sm_clock_hz": st.none() | st.floats(1e8, 3e9),
        "power_capped_share": st.none() | st.floats(0, 1),
        "clock_event_reasons": st.none() | st.integers(0, 255),
        "preemptions": st.none() | st.floats(0, 99),
    }
)


ALIKE = {
    "power_w": 50.0,
    "step_s": 1.0,
    "batch": 2.0,
    "output": 1.0,
    "kv": None,
    "batch_size": 1,
}


@given(measured, measured)
def test_contributions_add_up_to_the_change(one, other):
    made = diagnose([side(**one)], [side(**other)])

    told = math.fsum(cause.contribution for cause in made.causes)
    assert told == pytest.approx(made.ln_change, abs=1e-9)
    assert math.fsum(made.ln_parts) == pytest.approx(made.ln_change, abs=1e-9)
    assert math.isfinite(told)


@given(measured, measured)
@example(one={**ALIKE, "batch_size": 625}, other={**ALIKE, "batch": 2.00001})
def test_swapping_the_sides_flips_every_sign(one, other):
    there = contributions(side(**one), side(**other))
    back = contributions(side(**other), side(**one))

    for code in {*there, *back}:
        assert there.get(code, 0.0) == pytest.approx(-back.get(code, 0.0), abs=1e-9)


@given(measured, measured)
def test_causes_are_ranked_and_each_has_evidence_and_a_next_step(one, other):
    causes = diagnose([side(**one)], [side(**other)]).causes

    sizes = [abs(cause.contribution) for cause in causes]
    assert sizes == sorted(sizes, reverse=True)
    assert len({cause.code for cause in causes}) == len(causes)
    assert all(cause.signs and cause.next_step and cause.title for cause in causes)


# --- refusals --------------------------------------------------------------------------------


def test_a_side_is_of_one_point():
    with pytest.raises(ConfigurationError, match="launches of one point"):
        facts([side(), side(batch_size=50)])
    with pytest.raises(ConfigurationError, match="no results"):
        facts([])


def test_images_are_not_explained_by_tokens():
    image = make_result(model="a/b", task="text-to-image")

    with pytest.raises(ConfigurationError, match="images"):
        diagnose([side()], [image])


def test_the_logarithmic_mean_of_1_and_e_is_e_minus_1():
    assert logarithmic_mean(math.e, 1.0) == pytest.approx(math.e - 1)
    assert logarithmic_mean(3.0, 3.0) == 3.0


def test_every_code_has_a_title_and_a_next_step():
    assert all(title and step.endswith(".") for title, step in TITLES.values())
    assert "energy_j" in {field.name for field in fields(facts([side()]))}


# --- impossible readings ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        ({"busy_share": -0.1}, "busy_share"),
        ({"busy_share": 1.5}, "busy_share"),
        ({"busy_share": math.nan}, "busy_share"),
        ({"busy_share": "all"}, "busy_share"),
        ({"mean_waiting": -5.0}, "waiting"),
        ({"mean_in_flight": 60.0}, "in_flight"),
        ({"mean_in_flight": math.inf}, "in_flight"),
        ({"idle_power_w": 600.0}, "idle_power_w"),
        ({"idle_power_w": True}, "idle_power_w"),
        ({"kv": 1.7}, "kv_cache_usage"),
        ({"output": -600.0}, "output_tokens"),
    ],
)
def test_an_impossible_reading_counts_as_not_measured(changed, field):
    found = facts([side(**changed)])

    assert getattr(found, field) is None
    known = diagnose([side()], [side(**changed)]).causes
    assert [cause.code for cause in known] == []


@pytest.mark.parametrize("batch", [0.0, -3.0, math.nan])
def test_an_impossible_batch_counts_as_not_measured(batch):
    assert facts([side().but(mean_batch_size=batch)]).batch is None


@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf])
@pytest.mark.parametrize("name", ["energy_per_work_unit_j", "throughput_work_units_per_s"])
def test_nothing_can_be_explained_of_an_impossible_energy(name, value):
    with pytest.raises(ConfigurationError, match=f"{name}={value}"):
        facts([side().but(**{name: value})])
