import math
from dataclasses import replace
from pathlib import Path

import pynvml
import pytest
from hypothesis import given
from hypothesis import strategies as st

import pytest_joules
from pytest_joules.contract import COUNTER_RULES
from pytest_joules.counter import (
    CounterLimits,
    counter_notes,
    counter_reasons,
    counter_tick_s,
    energy_at_ticks,
    meter_reasons,
)
from pytest_joules.counter.circumstances import BRAKES, GPU_CHANGED, POWER_CAP
from pytest_joules.errors import MeterError
from pytest_joules.trace import GpuIdentity, GpuTrace, MeterTrace, Reading

H200 = GpuIdentity(
    uuid="GPU-1",
    name="NVIDIA H200",
    memory_bytes=150 * 10**9,
    power_limit_w=700.0,
    mig=False,
    driver="590",
)
PACKAGE = Path(pytest_joules.__file__).parent
OWN = 4242
PERIOD_S, TICK_S = 0.025, 0.1


def readings(*values):
    """One reading every 25 ms with these counter values, in joules."""
    return [
        Reading(time_s=i / 40, took_s=0.0, energy_mj=round(1000 * joules))
        for i, joules in enumerate(values)
    ]


def trace(drawn_w=400.0, *, seconds=10.0, tick_s=TICK_S, error=None, gpu=H200, **of_reading):
    """A healthy GPU at constant power, its counter ticking on multiples of the tick."""
    per_tick = round(tick_s / PERIOD_S)
    full = {
        "power_w": drawn_w,
        "temperature_c": 60.0,
        "sm_clock_hz": 1.98e9,
        "clock_event_reasons": 0,
        "process_ids": (OWN,),
        **of_reading,
    }
    made = tuple(
        Reading(
            time_s=100 + i * PERIOD_S,
            took_s=0.0001,
            energy_mj=5_000_000 + round(1000 * drawn_w * tick_s * (i // per_tick)),
            **(full if i % 4 == 0 else {}),
        )
        for i in range(round(seconds / PERIOD_S) + 1)
    )
    return GpuTrace(gpu=gpu, readings=made, error=error)


def altered(made, change, start=0, *, stop=None):
    """Change the readings ``start:stop``."""
    new = list(made.readings)
    for i in range(start, len(new) if stop is None else stop):
        new[i] = change(new[i])
    return replace(made, readings=tuple(new))


def shifted(joules):
    return lambda reading: replace(reading, energy_mj=reading.energy_mj + round(1000 * joules))


def judge(made, start_s=100.0, end_s=110.0, **limits):
    return [
        reason.code
        for reason in counter_reasons(
            made, start_s=start_s, end_s=end_s, own_pids={OWN}, limits=CounterLimits(**limits)
        )
    ]


def notes(made):
    found = counter_notes(made, start_s=100.0, end_s=110.0, own_pids={OWN})
    return [note.code for note in found]


# --- ticks ---------------------------------------------------------------------------------


def test_edges_worked_by_hand():
    """Ticks at 50, 150 and 250 ms with 1, 3 and 4 J: from the first to the last, 7 J."""
    made = readings(10, 10, 11, 11, 11, 11, 14, 14, 14, 14, 18, 18)

    assert energy_at_ticks(made, 0.0, 0.275) == (0.05, 0.25, 7.0)
    assert counter_tick_s(made) == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("start_s", "end_s", "expected"),
    [
        pytest.param(0.05, 0.25, (0.05, 0.25, 7.0), id="edges-on-ticks-count"),
        pytest.param(0.051, 0.25, (0.15, 0.25, 4.0), id="first-tick-just-missed"),
        pytest.param(0.05, 0.249, (0.05, 0.15, 3.0), id="last-tick-just-missed"),
        pytest.param(-9.0, 9.0, (0.05, 0.25, 7.0), id="window-around-all"),
    ],
)
def test_edges_lie_inside_the_window(start_s, end_s, expected):
    made = readings(10, 10, 11, 11, 11, 11, 14, 14, 14, 14, 18, 18)

    assert energy_at_ticks(made, start_s, end_s) == expected


def test_the_reading_before_the_window_tells_whether_its_first_is_a_tick():
    """The value of 0.05 s stood since 0.025 s: the first tick inside is at 0.1 s."""
    made = readings(1, 2, 2, 2, 5, 5, 5, 9)

    assert energy_at_ticks(made, 0.05, 1.0) == (0.1, 0.175, 4.0)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        pytest.param((5, 5, 5, 5), "ticked 0 times", id="never"),
        pytest.param((5, 5, 6, 6), "ticked 1 times", id="once"),
        pytest.param((), "ticked 0 times", id="no-readings"),
        pytest.param((5, 6, 4, 7), "fell from 6000 mJ to 4000 mJ", id="fell"),
    ],
)
def test_no_energy_without_two_ticks_of_a_rising_counter(values, said):
    with pytest.raises(MeterError, match=said):
        energy_at_ticks(readings(*values), 0.0, 1.0)


def test_a_tick_seen_late_is_no_edge():
    """After a gap of 0.2 s the tick may have been any time in it: the next one is taken."""
    made = [
        Reading(time_s=t, took_s=0.0, energy_mj=mj)
        for t, mj in [
            (0.0, 0), (0.025, 0), (0.05, 0), (0.25, 9), (0.275, 9), (0.3, 10), (0.325, 10),
            (0.35, 10), (0.375, 12), (0.4, 12),
        ]
    ]  # fmt: skip

    assert energy_at_ticks(made, 0.0, 1.0) == (0.3, 0.375, 0.002)


def test_the_tick_is_infinite_when_the_counter_never_moved():
    assert math.isinf(counter_tick_s(readings(1, 1, 1)))
    assert math.isinf(counter_tick_s([]))


def test_a_stall_does_not_stretch_the_tick():
    made = readings(
        *[i // 4 for i in range(40)], *[10] * 100, *[10 + i // 4 for i in range(40)]
    )

    assert counter_tick_s(made) == pytest.approx(0.1)


@given(
    joules=st.lists(st.integers(1, 70_000), min_size=20, max_size=60),
    delays=st.lists(st.floats(0.0, 0.015), min_size=250, max_size=250),
    start=st.floats(0.0, 0.6),
    end=st.floats(1.4, 2.0),
)
def test_energy_between_ticks_is_the_counter_s_own(*, joules, delays, start, end):
    """Any increments, any jitter: compared with a staircase summed tick by tick."""

    def staircase(time_s):
        return sum(joules[: math.floor(time_s / TICK_S)])

    times = [i * PERIOD_S + delays[i] for i in range(math.floor(len(joules) * 4))]
    made = [Reading(time_s=t, took_s=0.0, energy_mj=staircase(t)) for t in times]

    edge_start, edge_end, energy_j = energy_at_ticks(made, start, end)

    assert start <= edge_start < edge_end <= end
    assert 1000 * energy_j == pytest.approx(staircase(edge_end) - staircase(edge_start))
    for edge in (edge_start, edge_end):  # no edge is farther from its tick than one period
        assert edge - TICK_S * math.floor(edge / TICK_S) <= PERIOD_S + 0.015 + 1e-9


# --- healthy -------------------------------------------------------------------------------


@given(
    power_w=st.floats(60.0, 700.0),
    tick_s=st.sampled_from([0.025, 0.05, 0.1, 0.2, 0.5]),
    start_s=st.floats(100.0, 103.0),
    length_s=st.floats(3.0, 7.0),
)
def test_a_healthy_gpu_breaks_no_rule(*, power_w, tick_s, start_s, length_s):
    assert judge(trace(power_w, tick_s=tick_s), start_s, start_s + length_s) == []


def test_a_healthy_gpu_leaves_no_note():
    assert notes(trace()) == []


# --- the counter, rule by rule -------------------------------------------------------------


@pytest.mark.parametrize(
    ("made", "code"),
    [
        pytest.param(replace(trace(), readings=()), "counter-missing", id="no-reading"),
        pytest.param(
            replace(trace(), readings=trace().readings[:1]), "counter-missing", id="one-reading"
        ),
        pytest.param(altered(trace(), shifted(-60), 200), "counter-backwards", id="fell"),
        pytest.param(altered(trace(), shifted(-0.001), 201), "counter-backwards", id="1-mJ"),
        pytest.param(altered(trace(), shifted(-7000), 200), "counter-reset", id="reset"),
        pytest.param(altered(trace(), shifted(1e9), 200), "counter-jump", id="1e9-J"),
        pytest.param(altered(trace(), shifted(80), 200), "counter-jump", id="jump-80-J"),
        pytest.param(trace(0.0), "counter-frozen", id="never-moved"),
        pytest.param(
            altered(trace(), lambda r: replace(r, energy_mj=7_000_000), 200),
            "counter-frozen",
            id="halfway",
        ),
        pytest.param(trace(20.0), "counter-below-idle", id="below-idle"),
        pytest.param(trace(800.0), "counter-above-limit", id="above-limit"),
        pytest.param(trace(power_w=500.0), "counter-disagrees", id="20%-less-than-power"),
        pytest.param(trace(power_w=300.0), "counter-disagrees", id="33%-more-than-power"),
    ],
)
def test_each_rule_alone(made, code):
    assert judge(made) == [code]


@pytest.mark.parametrize(
    ("joules", "expected"),
    [
        # On its tick the counter grows by 40 J anyway; 1.2 x 700 W x (25 + 100 ms) = 105 J.
        pytest.param(64.9, [], id="104.9-J"),
        pytest.param(65.1, ["counter-jump"], id="105.1-J"),
    ],
)
def test_how_far_a_counter_may_leap(joules, expected):
    assert judge(altered(trace(), shifted(joules), 200)) == expected


def test_a_leap_is_seen_where_nvml_tells_no_power_limit():
    gpu = replace(H200, power_limit_w=None)

    assert judge(trace(gpu=gpu)) == []
    assert judge(altered(trace(gpu=gpu), shifted(1e9), 200)) == ["counter-jump"]


@pytest.mark.parametrize(
    ("stop", "expected"),
    [
        # One value in the readings 200 to 211 is 275 ms, to 213 it is 325 ms; 3 ticks are 300.
        # Then it catches up, which is no leap.
        pytest.param(212, [], id="three-ticks"),
        pytest.param(214, ["counter-frozen"], id="more-than-three-ticks"),
    ],
)
def test_how_long_a_counter_may_stand(stop, expected):
    stood = altered(trace(), lambda r: replace(r, energy_mj=7_000_000), 200, stop=stop)

    assert judge(stood) == expected


@pytest.mark.parametrize(
    ("drawn_w", "expected"),
    [
        pytest.param(27.5, ["counter-below-idle"], id="under-4%-of-700-W"),
        pytest.param(28.5, [], id="over-4%"),
        pytest.param(769.0, [], id="under-110%"),
        pytest.param(771.0, ["counter-above-limit"], id="over-110%"),
    ],
)
def test_what_mean_power_is_believed(drawn_w, expected):
    assert judge(trace(drawn_w)) == expected


def test_a_known_idle_power_is_the_floor():
    assert judge(trace(89.0), idle_power_w=100.0) == ["counter-below-idle"]
    assert judge(trace(91.0), idle_power_w=100.0) == []


@pytest.mark.parametrize(
    ("power_w", "expected"),
    [
        # The edges, 9.9 s apart, are late by up to 25.1 ms: 0.254 % of 400 W are 1.01 W
        # on top of 3 % of the sampled power.
        pytest.param(387.5, [], id="12.5-W-of-12.6"),
        pytest.param(387.2, ["counter-disagrees"], id="12.8-W-of-12.6"),
        pytest.param(413.3, [], id="13.3-W-of-13.4"),
        pytest.param(413.6, ["counter-disagrees"], id="13.6-W-of-13.4"),
    ],
)
def test_how_far_counter_and_power_may_differ(power_w, expected):
    assert judge(trace(power_w=power_w)) == expected


def test_counter_and_power_may_differ_at_idle():
    """1.7 times, as was reported; 20 % of 700 W are 140 W."""
    idle = trace(80.0, power_w=80 / 1.7)

    assert judge(idle) == []
    assert notes(idle) == ["counter-unchecked"]
    assert judge(trace(141.0, power_w=141 / 1.7)) == ["counter-disagrees"]


def test_scattered_power_may_differ_by_its_standard_error():
    """Samples of 200 and 600 W by turns: 100 of them have a standard error of 20 W."""
    samples = iter(range(10_000))
    scattered = altered(
        trace(380.0),
        lambda r: (
            r if r.power_w is None else replace(r, power_w=200 + 400 * (next(samples) % 2))
        ),
    )

    assert judge(scattered) == []
    assert judge(scattered, disagreement_errors=0.3) == ["counter-disagrees"]


def test_a_counter_that_nothing_checks_is_not_believed():
    """Off by ten, with no power beside it, it looks like a quiet GPU."""
    assert judge(trace(power_w=None)) == ["power-unseen"]
    assert judge(trace(40.0, power_w=None)) == ["power-unseen"]
    assert notes(trace(power_w=None)) == []


def test_a_gpu_that_cannot_tell_its_power_is_noted():
    silent = trace(power_w=None, gpu=replace(H200, tells_power=False))

    assert judge(silent) == []
    assert notes(silent) == ["counter-unchecked"]


@pytest.mark.parametrize(
    ("start", "stop", "expected"),
    [
        # Power comes with every fourth reading, every 100 ms; the first tick is at 0.1 s.
        pytest.param(201, 280, [], id="2.0-s-without"),
        pytest.param(201, 284, ["power-unseen"], id="2.1-s-without"),
        pytest.param(0, 85, ["power-unseen"], id="2.1-s-at-the-start"),
        pytest.param(317, 401, ["power-unseen"], id="2.1-s-at-the-end"),
        pytest.param(0, 361, ["power-unseen"], id="of-the-last-second-only"),
    ],
)
def test_power_must_be_sampled_through_the_whole_window(start, stop, expected):
    made = altered(trace(), lambda r: replace(r, power_w=None), start, stop=stop)

    assert judge(made) == expected


@pytest.mark.parametrize(("number", "expected"), [(10, []), (9, ["power-unseen"])])
def test_how_many_samples_of_power_are_enough(number, expected):
    """Ticks from 0.1 s on; the last is at 0.1 x number."""
    made = trace(seconds=0.1 * number + 0.05)

    assert judge(made, 100.0, 100.0 + 0.1 * number + 0.05) == expected


@pytest.mark.parametrize(
    ("start", "stop", "expected"),
    [
        pytest.param(100, 138, [], id="0.975-s-inside"),
        pytest.param(100, 142, ["meter-gap"], id="1.075-s-inside"),
        pytest.param(0, 42, ["meter-gap"], id="at-the-start"),
        pytest.param(359, 401, ["meter-gap"], id="at-the-end"),
    ],
)
def test_readings_may_not_be_missing_for_long(start, stop, expected):
    made = trace()
    kept = made.readings[:start] + made.readings[stop:]

    assert judge(replace(made, readings=kept)) == expected


def test_a_window_shorter_than_the_tick_holds_no_energy():
    """Zeus tells 0 or 40 J of such windows; each of them is refused here."""
    made = trace()
    for i in range(300):
        start_s = 100.3 + 0.01 * i
        assert set(judge(made, start_s, start_s + 0.03)) & {"counter-coarse", "counter-missing"}
        with pytest.raises(MeterError, match="ticked"):
            energy_at_ticks(made.readings, start_s, start_s + 0.03)


def test_a_counter_that_ticks_once_a_window_is_coarse():
    assert judge(trace(tick_s=6.0), 101.0, 110.0) == ["counter-coarse"]


# --- circumstances -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("made", "code"),
    [
        pytest.param(trace(gpu=replace(H200, mig=True)), "mig-on", id="mig"),
        pytest.param(trace(error="GPU-1: NVML says 'GPU is lost'"), "gpu-lost", id="lost"),
        pytest.param(trace(error="the sampler ended early"), "meter-stopped", id="stopped"),
        pytest.param(trace(error=f"{GPU_CHANGED}: 700 W, 500 W"), "gpu-changed", id="changed"),
        pytest.param(trace(process_ids=(OWN, 7)), "foreign-process", id="foreign"),
        *(
            pytest.param(trace(clock_event_reasons=bit | 1), "clock-brake", id=name)
            for bit, name in BRAKES.items()
        ),
    ],
)
def test_each_circumstance_alone(made, code):
    assert judge(made) == [code]


def test_one_braked_reading_and_one_foreign_process_are_enough():
    once = altered(trace(), lambda r: replace(r, clock_event_reasons=0x40), 200, stop=201)
    guest = altered(trace(), lambda r: replace(r, process_ids=(OWN, 9)), 200, stop=201)

    assert judge(once) == ["clock-brake"]
    assert judge(guest) == ["foreign-process"]
    assert judge(once, 106.0) == judge(guest, 106.0) == []


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"power_limit_w": 500.0}, "power_limit_w was 700.0, meanwhile 500.0."),
        ({"mig": True}, "mig was False, meanwhile True."),
    ],
)
def test_a_setting_that_was_set_back_before_the_end_has_changed(changes, said):
    once = altered(trace(), lambda r: replace(r, **changes), 200, stop=201)
    told = counter_reasons(once, start_s=100.0, end_s=110.0, own_pids={OWN})

    assert [reason.code for reason in told] == ["gpu-changed"]
    assert said in told[0].text
    assert judge(once, 106.0) == []


def test_a_setting_that_nvml_does_not_tell_at_first_has_not_changed():
    untold = trace(gpu=replace(H200, power_limit_w=None), power_limit_w=700.0)

    assert judge(untold) == []


def test_harmless_clock_reasons_are_none():
    harmless = 0x1 | 0x2 | 0x4 | 0x10 | 0x100

    assert judge(trace(clock_event_reasons=harmless)) == []


def test_the_bits_are_nvml_s():
    assert set(BRAKES) == {
        pynvml.nvmlClocksEventReasonHwSlowdown,
        pynvml.nvmlClocksEventReasonSwThermalSlowdown,
        pynvml.nvmlClocksEventReasonHwThermalSlowdown,
        pynvml.nvmlClocksEventReasonHwPowerBrakeSlowdown,
    }
    assert pynvml.nvmlClocksEventReasonSwPowerCap == POWER_CAP


@pytest.mark.parametrize(
    ("made", "code"),
    [
        pytest.param(trace(clock_event_reasons=0x4), "power-capped", id="power-cap"),
        pytest.param(trace(clock_event_reasons=None), "clocks-unseen", id="no-reasons"),
        pytest.param(trace(process_ids=()), "processes-unseen", id="no-processes-shown"),
        pytest.param(trace(process_ids=None), "processes-unseen", id="processes-not-told"),
        pytest.param(
            altered(trace(), lambda r: replace(r, temperature_c=64.0), 200),
            "temperature-drift",
            id="4-degrees",
        ),
        pytest.param(
            altered(trace(), lambda r: replace(r, sm_clock_hz=1.90e9), 200),
            "clock-drift",
            id="4%-slower",
        ),
    ],
)
def test_each_note_alone(made, code):
    assert notes(made) == [code]
    assert judge(made) == []


def test_a_small_drift_is_not_worth_a_note():
    warmer = altered(trace(), lambda r: replace(r, temperature_c=62.9), 200)

    assert notes(altered(warmer, lambda r: replace(r, sm_clock_hz=1.95e9), 200)) == []


# --- all GPUs ------------------------------------------------------------------------------


def test_a_gpu_that_is_there_twice_is_counted_twice():
    twice = MeterTrace(gpus=(trace(), trace()))

    reasons = meter_reasons(twice, start_s=100.0, end_s=110.0, own_pids={OWN})

    assert [reason.code for reason in reasons] == ["gpu-twice"]


def test_every_gpu_is_judged():
    other = trace(0.0, gpu=replace(H200, uuid="GPU-2"))
    reasons = meter_reasons(
        MeterTrace(gpus=(trace(), other)), start_s=100.0, end_s=110.0, own_pids={OWN}
    )

    assert [reason.code for reason in reasons] == ["counter-frozen"]
    assert reasons[0].text.startswith("GPU-2: ")


def test_a_reason_gives_value_expectation_and_remedy():
    (reason,) = counter_reasons(
        altered(trace(), shifted(1e9), 200), start_s=100.0, end_s=110.0, own_pids={OWN}
    )

    assert "the counter rose by 1000 MJ in 125 ms" in reason.text
    assert "power limit of 700 W at most 105 J" in reason.text
    assert "Measure again" in reason.text


def test_every_rule_is_listed():
    source = "".join(
        (PACKAGE / name).read_text()
        for name in ("counter/__init__.py", "counter/circumstances.py")
    )
    notes_of_ours = {"counter-unchecked", "power-capped", "clocks-unseen", "processes-unseen"}

    for code in COUNTER_RULES:
        assert f'"{code}"' in source, f"{code} is listed, but no rule gives it"
    assert not notes_of_ours & set(COUNTER_RULES)
