"""Records a GPU idle and under a command's load, for ``sensor`` to tell what its sensors do."""

import os
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from pytest_joules.doctor.sensor import Sensor, sense
from pytest_joules.errors import MeterError, is_expected
from pytest_joules.meter import Meter, ZeusMeter
from pytest_joules.process import Supervised, supervised
from pytest_joules.steady_state import Window
from pytest_joules.units import si

__tracebackhide__ = is_expected

PERIOD_S = 0.002
"""Between two readings: fifty to a tick of 100 ms."""

Wait = Callable[[float], None]


def probe(
    *,
    seconds: float,
    load: Sequence[str] = (),
    meter: Meter | None = None,
    wait: Wait = time.sleep,
) -> tuple[Sensor, ...]:
    """Watch every visible GPU, one after the other.

    Args:
        seconds: Length of each phase; a load runs for as long before its phase begins.
        load: Program that keeps the first GPU it sees busy until it is ended, with its
            arguments; none watches the GPU idle only.
        meter: What to read with.
        wait: How to let time pass.

    Raises:
        MeterError: A GPU cannot be read, or the load ended by itself.
        LaunchError: The load cannot be started.
    """
    reader = meter or ZeusMeter(period_s=PERIOD_S, power_every_s=PERIOD_S)
    return tuple(
        _probe(reader, gpu.uuid, load, phase=lambda: _phase(seconds, wait))
        for gpu in reader.identify()
    )


def _probe(
    meter: Meter, uuid: str, load: Sequence[str], *, phase: Callable[[], Window]
) -> Sensor:
    with meter.recording([uuid]) as recording:
        idle, loaded = phase(), None
        if load:
            with tempfile.TemporaryDirectory(prefix="joules-probe-") as folder:
                loaded = _loaded(load, uuid, log_path=Path(folder) / "load.log", phase=phase)
    return sense(recording.trace().gpus[0], idle, loaded)


def _loaded(
    load: Sequence[str], uuid: str, *, log_path: Path, phase: Callable[[], Window]
) -> Window:
    env = {**os.environ, "CUDA_VISIBLE_DEVICES": uuid}
    with supervised(load, env=env, log_path=log_path) as child:
        phase()  # it starts and warms up
        _require_running(child, load)
        steady = phase()
        _require_running(child, load)
    return steady


def _require_running(child: Supervised, load: Sequence[str]) -> None:
    code = child.returncode()
    if code is not None:
        raise MeterError(
            f"the load {' '.join(load)!r} ended with code {code} while it was needed; give "
            f"one that runs until it is ended. Its last lines: {child.log_tail(5) or 'none'}"
        )


def _phase(seconds: float, wait: Wait) -> Window:
    start_s = time.monotonic()
    wait(seconds)
    return Window(start_s=start_s, end_s=time.monotonic())


def described(sensor: Sensor) -> list[tuple[str, str]]:
    """Return what was seen as pairs of quantity and value, for a table."""
    loaded = sensor.load
    return [
        ("gpu", f"{sensor.name}, {sensor.uuid}, driver {sensor.driver}"),
        ("energy counter ticks every", si(sensor.tick_s, "s")),
        ("energy counter resolution", si(sensor.resolution_j, "J")),
        ("one reading of it takes", si(sensor.read_s, "s")),
        ("power changes every", _or_untold(sensor.power_period_s, "it never changed")),
        ("power is the mean of", _or_untold(sensor.power_window_s, "power varied too little")),
        ("idle power", si(sensor.idle.power_w, "W")),
        ("idle, power over counter", _ratio(sensor.idle.power_over_counter)),
        ("power under load", si(loaded.power_w, "W") if loaded else "no load was named"),
        (
            "under load, power over counter",
            _ratio(loaded.power_over_counter) if loaded else "no load was named",
        ),
    ]


def _or_untold(seconds: float | None, why: str) -> str:
    return f"not told: {why}" if seconds is None else si(seconds, "s")


def _ratio(value: float | None) -> str:
    return "not told: NVML gives no power" if value is None else f"{value:.3f}"
