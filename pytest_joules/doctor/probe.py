"""Records a GPU idle and under a command's load, for ``sensor`` to tell what its sensors do."""

import json
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from pytest_joules.doctor.sensor import LoadPhase, Sensor, sense
from pytest_joules.errors import MeterError, is_expected
from pytest_joules.meter import Meter, Recording, ZeusMeter
from pytest_joules.process import Supervised, supervised
from pytest_joules.steady_state import Window
from pytest_joules.units import si

__tracebackhide__ = is_expected

PERIOD_S = 0.002
"""Between two readings: fifty to a tick of 100 ms."""

BUSY_SHARE = 0.5
"""Of NVML's last sample period, from which on a load works and does not still start."""

START_S = 120.0
"""Longest time that a load may take to start: its libraries may come from a cold disk."""

_LOOK_S = 1.0

Wait = Callable[[float], None]


def probe(
    *,
    seconds: float,
    load: Sequence[str] = (),
    meter: Meter | None = None,
    wait: Wait = time.sleep,
    keep: Path | None = None,
) -> tuple[Sensor, ...]:
    """Watch every visible GPU, one after the other.

    Args:
        seconds: Length of each phase; a load runs for as long before its phase begins, and
            for longer where the GPU is not busy by then.
        load: Program that keeps the first GPU it sees busy until it is ended, with its
            arguments; none watches the GPU idle only.
        meter: What to read with.
        wait: How to let time pass.
        keep: Gets every reading, a JSON object a line, to be looked at again.

    Raises:
        MeterError: A GPU cannot be read, or the load ended by itself or never got to work.
        LaunchError: The load cannot be started.
    """
    reader = meter or ZeusMeter(period_s=PERIOD_S, power_every_s=PERIOD_S)
    if keep:
        keep.write_text("", encoding="utf-8")
    return tuple(
        _probe(reader, gpu.uuid, load, phases=_Phases(seconds, wait), keep=keep)
        for gpu in reader.identify()
    )


@dataclass(frozen=True)
class _Phases:
    """Lets time pass."""

    seconds: float
    wait: Wait

    def one(self) -> Window:
        return self.lasting(self.seconds)

    def lasting(self, seconds: float) -> Window:
        start_s = time.monotonic()
        self.wait(seconds)
        return Window(start_s=start_s, end_s=time.monotonic())


def _probe(
    meter: Meter, uuid: str, load: Sequence[str], *, phases: _Phases, keep: Path | None
) -> Sensor:
    with meter.recording([uuid]) as recording:
        idle, loaded = phases.one(), None
        if load:
            loaded = _loaded(load, uuid, recording=recording, phases=phases)
    (trace,) = recording.trace().gpus
    if keep:
        with keep.open("a", encoding="utf-8") as stream:
            rows = ({"gpu": uuid, **asdict(reading)} for reading in trace.readings)
            stream.writelines(json.dumps(row) + "\n" for row in rows)
    return sense(trace, idle, loaded)


def _loaded(
    load: Sequence[str], uuid: str, *, recording: Recording, phases: _Phases
) -> LoadPhase:
    env = {**os.environ, "CUDA_VISIBLE_DEVICES": uuid}
    with (
        tempfile.TemporaryDirectory(prefix="joules-probe-") as folder,
        supervised(load, env=env, log_path=Path(folder) / "load.log") as child,
    ):
        phases.one()  # it starts and warms up
        _require_running(child, load)
        _await_work(recording, child, load, phases=phases)
        steady = phases.one()
        _require_running(child, load)
        return LoadPhase(window=steady, pids=child.pids())


def _await_work(
    recording: Recording, child: Supervised, load: Sequence[str], *, phases: _Phases
) -> None:
    """Wait until kernels run most of the time; at once where NVML does not tell."""
    deadline_s = time.monotonic() + START_S
    while not _is_busy(recording):
        phases.lasting(_LOOK_S)
        _require_running(child, load)
        if time.monotonic() > deadline_s:
            raise MeterError(
                f"the load {' '.join(load)!r} did not keep the GPU busy within {START_S:g} s; "
                f"give one that does. Its last lines: {child.log_tail(5) or 'none'}"
            )


def _is_busy(recording: Recording) -> bool:
    (trace,) = recording.trace().gpus
    shares = [r.busy_share for r in trace.readings if r.busy_share is not None]
    return not shares or shares[-1] >= BUSY_SHARE


def _require_running(child: Supervised, load: Sequence[str]) -> None:
    code = child.returncode()
    if code is not None:
        raise MeterError(
            f"the load {' '.join(load)!r} ended with code {code} while it was needed; give "
            f"one that runs until it is ended. Its last lines: {child.log_tail(5) or 'none'}"
        )


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
        ("processes", _processes(sensor)),
    ]


def _processes(sensor: Sensor) -> str:
    """Say what a measurement here would meet; the words in brackets are its codes."""
    if sensor.shows_load is None:
        return "no load was named"
    own = "the load's is shown" if sensor.shows_load else "the load's is hidden"
    note = "" if sensor.shows_load else " (processes-unseen)"
    if not sensor.other_pids:
        return f"{own}{note}, and no other"
    others = ", ".join(map(str, sensor.other_pids))
    return f"{own}{note}, and {others} beside it, so no result is valid (foreign-process)"


def _or_untold(seconds: float | None, why: str) -> str:
    return f"not told: {why}" if seconds is None else si(seconds, "s")


def _ratio(value: float | None) -> str:
    return "not told: NVML gives no power" if value is None else f"{value:.3f}"
