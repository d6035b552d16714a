from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from pytest_joules.assess.energy import energy_curve, ticks, window_energy, work_curve
from pytest_joules.errors import LoadError, MeterError, NoSteadyState
from pytest_joules.steady_state import Window
from pytest_joules.trace import GpuTrace
from tests.fakes.traces import closed_loop, staircase

WINDOW = Window(start_s=5.0, end_s=15.0)


def constant(watts: float, index: int = 0, phase_s: float = 0.0) -> GpuTrace:
    return staircase(lambda t: watts * t, until_s=20, index=index, phase_s=phase_s)


def fifty_a_second(at: NDArray[np.float64]) -> NDArray[np.float64]:
    return 50 * at


def test_energy_per_work_unit_is_power_over_throughput() -> None:
    measured = window_energy([constant(200)], fifty_a_second, WINDOW)

    assert measured.window == WINDOW
    assert measured.gpu_energy_j == (2000.0,)
    assert measured.work_units == pytest.approx(500)
    assert measured.energy_per_work_unit_j == pytest.approx(4.0)


def test_edges_move_inwards_to_the_nearest_ticks() -> None:
    # Ticks at 5.0, 5.1, ... 14.9, 15.0
    measured = window_energy([constant(200)], fifty_a_second, Window(start_s=5.01, end_s=14.99))

    assert measured.window.start_s == pytest.approx(5.1)
    assert measured.window.end_s == pytest.approx(14.9)
    assert measured.gpu_energy_j == pytest.approx((1960.0,))


def test_ticks_are_the_readings_that_show_a_new_value() -> None:
    times, joules = ticks(constant(200).readings)

    # Read every 25 ms, the counter changes every fourth reading; the first reading is none.
    assert times[:3] == pytest.approx([0.1, 0.2, 0.3])
    assert joules[:3] == pytest.approx([20, 40, 60])


def test_work_and_energy_are_taken_at_the_same_edges() -> None:
    # Power and work both triple at 10 s: 10 J a unit all the time, but only where every
    # sub-window's energy and work begin and end together.
    def rising(at: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.where(at < 10, 10 * at, 100 + 30 * (at - 10))

    gpu = staircase(lambda t: 100 * t if t < 10 else 1000 + 300 * (t - 10), until_s=20)

    measured = window_energy([gpu], rising, Window(start_s=5.03, end_s=14.97))

    ratios = np.array(measured.series_energy_j) / np.array(measured.series_work_units)
    assert ratios == pytest.approx(10.0)
    assert measured.energy_per_work_unit_j == pytest.approx(10.0)
    assert len(ratios) == 9  # 9.8 s between ticks, sub-windows of a second and more


def test_sub_windows_add_up_to_the_window() -> None:
    gpus = [constant(200), constant(300, 1, phase_s=0.03)]

    measured = window_energy(gpus, fifty_a_second, WINDOW, sub_window_s=0.3)

    assert sum(measured.series_energy_j) == pytest.approx(sum(measured.gpu_energy_j))
    assert sum(measured.series_work_units) == pytest.approx(measured.work_units)


@pytest.mark.parametrize("phase_s", [0.0, 0.025, 0.05, 0.075])
def test_other_gpus_are_interpolated_at_the_first_ones_ticks(phase_s: float) -> None:
    gpus = [constant(200), constant(300, 1, phase_s=phase_s)]

    measured = window_energy(gpus, fifty_a_second, WINDOW)

    assert measured.gpu_energy_j == pytest.approx((2000.0, 3000.0))
    assert measured.energy_per_work_unit_j == pytest.approx(10.0)


@pytest.mark.parametrize(
    ("first", "last"), [pytest.param(0, 400, id="ends-early"), pytest.param(400, -1, id="late")]
)
@pytest.mark.parametrize("which", [0, 1])
def test_a_gpu_that_was_not_read_all_the_time_shortens_the_window(
    first: int, last: int, which: int
) -> None:
    # Read up to, or from, 10 s only: 5 s of the window are known, and nothing is guessed.
    gpus = [constant(200), constant(300, 1)]
    gpus[which] = replace(gpus[which], readings=gpus[which].readings[first:last])

    measured = window_energy(gpus, fifty_a_second, WINDOW)

    assert measured.window.duration_s == pytest.approx(5.0, abs=0.21)
    assert measured.energy_per_work_unit_j == pytest.approx(10.0)


def test_gpus_that_were_never_read_together_are_no_steady_state() -> None:
    one, other = constant(200), constant(300, 1)
    gpus = [
        replace(one, readings=one.readings[:300]),
        replace(other, readings=other.readings[400:]),
    ]

    with pytest.raises(NoSteadyState, match="only 0 ticks"):
        window_energy(gpus, fifty_a_second, WINDOW)


def test_a_tick_seen_after_a_gap_is_no_edge() -> None:
    # Nothing was read from 4.7 to 5.2 s; the value seen then is that of the tick at 5.2 or
    # up to half a second older: here the meter got the one of 4.8 s.
    gpu = constant(200)
    readings = [r for r in gpu.readings if not 4.7 < r.time_s < 5.2]
    stale = [
        replace(r, energy_mj=960_000) if r.time_s == pytest.approx(5.2) else r for r in readings
    ]

    measured = window_energy([replace(gpu, readings=tuple(stale))], fifty_a_second, WINDOW)

    assert measured.window.start_s > 5.2
    assert measured.energy_per_work_unit_j == pytest.approx(4.0, rel=0.005)


@given(watts=st.floats(50, 700), start_s=st.floats(1, 8), length_s=st.floats(2, 10))
def test_any_window_of_constant_power_gives_power_over_throughput(
    watts: float, start_s: float, length_s: float
) -> None:
    window = Window(start_s=start_s, end_s=start_s + length_s)

    measured = window_energy([constant(watts)], fifty_a_second, window)

    assert measured.energy_per_work_unit_j == pytest.approx(watts / 50, rel=1e-4)
    assert window.start_s <= measured.window.start_s
    assert measured.window.end_s <= window.end_s


def test_no_gpu_is_refused() -> None:
    with pytest.raises(MeterError, match="no GPU was read"):
        window_energy([], fifty_a_second, WINDOW)


@pytest.mark.parametrize("num_readings", [0, 1, 5])
def test_a_counter_with_fewer_than_two_ticks_is_refused(num_readings: int) -> None:
    gpu = constant(200)
    gpu = replace(gpu, readings=gpu.readings[:num_readings], error="GPU is lost")

    with pytest.raises(MeterError, match=r"GPU-0.*advanced \d times.*GPU is lost"):
        window_energy([gpu], fifty_a_second, WINDOW)


def test_a_frozen_counter_is_refused() -> None:
    with pytest.raises(MeterError, match=r"advanced 0 times in 801 readings; nothing"):
        energy_curve(constant(0))


@pytest.mark.parametrize("end_s", [5.04, 5.09])
def test_a_window_between_two_ticks_is_no_steady_state(end_s: float) -> None:
    with pytest.raises(NoSteadyState, match=r"only [01] ticks"):
        window_energy([constant(200)], fifty_a_second, Window(start_s=5.0, end_s=end_s))


@pytest.mark.parametrize("rate", [0.0, -1.0, float("nan")])
def test_a_window_without_work_is_no_steady_state(rate: float) -> None:
    with pytest.raises(NoSteadyState, match="no work unit"):
        window_energy([constant(200)], lambda at: at * rate, WINDOW)


def test_counters_that_fell_are_refused() -> None:
    falling = staircase(lambda t: 5000 - 100 * t, until_s=20)

    with pytest.raises(MeterError, match=r"fell by 1000\.000 J"):
        window_energy([falling], fifty_a_second, WINDOW)


def test_work_is_interpolated_between_samples() -> None:
    load = closed_loop([2.0] * 4, slots=1)  # 100 tokens in 2 s, sampled every 125 ms

    assert work_curve(load)(np.array([1.0, 1.06])) == pytest.approx([50.0, 53.0])


@pytest.mark.parametrize("moment_s", [-0.2, 8.5])
def test_work_outside_the_samples_is_not_guessed(moment_s: float) -> None:
    load = closed_loop([2.0] * 4, slots=1)

    with pytest.raises(LoadError, match=r"read from -0\.125 s to 8\.250 s only"):
        work_curve(load)(np.array([1.0, moment_s]))


@pytest.mark.parametrize("moment_s", [0.05, 20.1])
def test_energy_outside_the_ticks_is_not_guessed(moment_s: float) -> None:
    with pytest.raises(MeterError, match=r"GPU-0: the energy counter ticked from 0\.100 s"):
        energy_curve(constant(200))(np.array([moment_s]))


@pytest.mark.parametrize("samples", [slice(0, 0), slice(0, 1), slice(None, None, -1)])
def test_samples_that_make_no_curve_are_refused(samples: slice) -> None:
    load = closed_loop([2.0] * 4, slots=1)

    with pytest.raises(LoadError, match="which must be twice or more and in order of time"):
        work_curve(replace(load, server=load.server[samples]))
