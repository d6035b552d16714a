"""Records what GPUs draw while something else happens, on the monotonic clock.

``nvml`` and ``sampler`` are the only modules that know NVML and Zeus, and only the
sampler's own process loads Zeus: what Zeus remembers of an earlier failure cannot reach the
next recording.
"""

import json
import os
import select
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from pytest_joules.counter import GPU_CHANGED
from pytest_joules.errors import FormatError, MeterError, is_expected
from pytest_joules.meter import so_far
from pytest_joules.meter.rapl import POWERCAP
from pytest_joules.trace import GpuIdentity, GpuTrace, MeterTrace, Reading

__tracebackhide__ = is_expected

PERIOD_S = 0.025
"""Between two readings of the energy counter. Counters tick about every 100 ms (A100, H100):
four readings a tick tell when it ticked to 25 ms, which is 0.04 % of a 60 s window."""

POWER_EVERY_S = 0.1
"""Between two readings of power, which is only checked against the counter."""

START_TIMEOUT_S = 60.0
END_TIMEOUT_S = 10.0


class Recording(Protocol):
    """What a meter has read."""

    def trace(self) -> MeterTrace:
        """Return all readings so far; complete once the recording has ended."""
        ...

    def energy_so_far_j(self) -> float | None:
        """Return what all GPUs have drawn since it began; cheap, for display only."""
        ...


class Meter(Protocol):
    """Tells which GPUs there are, and records what they draw."""

    def identify(self) -> tuple[GpuIdentity, ...]:
        """Return every GPU that CUDA makes visible, each once, in CUDA's order.

        Raises:
            MeterError: There is none, or they cannot be told apart or asked.
        """
        ...

    def recording(self, uuids: Sequence[str]) -> AbstractContextManager[Recording]:
        """Record these GPUs inside the block.

        The first readings are there when the block begins and the last ones are made when
        it ends. What goes wrong in between is told by the trace.

        Raises:
            MeterError: They cannot be measured; on entering.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class ZeusMeter:
    """NVIDIA GPUs, through Zeus's device layer and NVML."""

    period_s: float = PERIOD_S
    power_every_s: float = POWER_EVERY_S
    powercap: Path = POWERCAP

    def identify(self) -> tuple[GpuIdentity, ...]:
        """Return every GPU that CUDA makes visible, each once, in CUDA's order.

        Raises:
            MeterError: There is none, or they cannot be told apart or asked.
        """
        from pytest_joules.meter import nvml  # noqa: PLC0415  loads pynvml, so not at import

        with nvml.session():
            return tuple(nvml.identity(handle) for _, handle in nvml.visible())

    @contextmanager
    def recording(self, uuids: Sequence[str]) -> Iterator["SamplerRecording"]:
        """Record these GPUs inside the block.

        Raises:
            MeterError: They cannot be measured.
        """
        require_distinct(uuids)
        with tempfile.TemporaryDirectory(prefix="joules-meter-") as folder:
            recording = SamplerRecording(folder=Path(folder))
            with recording.sampling(
                uuids=tuple(uuids),
                period_s=self.period_s,
                power_every_s=self.power_every_s,
                powercap=str(self.powercap),
            ):
                yield recording


def require_distinct(uuids: Sequence[str]) -> None:
    """Refuse to record nothing, or a GPU twice.

    Raises:
        MeterError: ``uuids`` is empty or repeats itself.
    """
    if not uuids:
        raise MeterError("No GPU was named: there would be nothing to record. Name one.")
    for uuid in uuids:
        if uuids.count(uuid) > 1:
            raise MeterError(
                f"{uuid} is named {uuids.count(uuid)} times: its energy would count as "
                "often. Name every GPU once."
            )


@dataclass(kw_only=True)
class SamplerRecording:
    """A sampler process and the file it writes."""

    folder: Path
    pid: int = 0
    """The sampler's process."""

    _failure: str | None = None
    _final: MeterTrace | None = field(default=None, repr=False)

    def trace(self) -> MeterTrace:
        """Return all readings so far; complete once the recording has ended."""
        return self._final or read_trace(self._readings_path, self._failure)

    def energy_so_far_j(self) -> float | None:
        """Return what the GPUs have drawn between their first and their last readings."""
        if self._final is not None:
            return so_far.traced_j(self._final)
        return so_far.energy_j(self._readings_path)

    @property
    def _readings_path(self) -> Path:
        return self.folder / "readings.jsonl"

    @property
    def _log_path(self) -> Path:
        return self.folder / "sampler.log"

    @contextmanager
    def sampling(self, **spec: Any) -> Iterator[None]:
        """Run the sampler inside the block.

        Raises:
            MeterError: It did not come to read every GPU.
        """
        child = self._start(**spec)
        self.pid = child.pid
        try:
            self._await_first_reading(child)
            yield
        finally:
            self._failure = self._end(child)
            if self._readings_path.exists():
                self._final = read_trace(self._readings_path, self._failure)

    def _start(self, **spec: Any) -> subprocess.Popen[bytes]:
        text = json.dumps({**spec, "path": str(self._readings_path)})
        with self._log_path.open("wb") as log:
            return subprocess.Popen(  # noqa: S603  this very interpreter, and our own text
                [sys.executable, "-m", "pytest_joules.meter.sampler", text],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=_sampler_environment(),
                start_new_session=True,  # Ctrl-C is the parent's to handle
            )

    def _await_first_reading(self, child: subprocess.Popen[bytes]) -> None:
        assert child.stdout
        ready, _, _ = select.select([child.stdout], [], [], START_TIMEOUT_S)
        answer = child.stdout.readline() if ready else b""
        if not answer:
            raise MeterError(
                f"The sampler made no reading within {START_TIMEOUT_S:g} s"
                f"{self._log_tail()}. See whether `nvidia-smi` answers, and run "
                "`joules doctor`."
            )
        error = json.loads(answer)["error"]
        if error:
            raise MeterError(error)

    def _end(self, child: subprocess.Popen[bytes]) -> str | None:
        """Close the sampler's pipe; return why its readings are not complete."""
        gone_before = child.poll()
        assert child.stdin
        assert child.stdout
        with suppress(BrokenPipeError):
            child.stdin.write(b"\n")
            child.stdin.flush()
        with suppress(BrokenPipeError):
            child.stdin.close()
        try:
            child.wait(END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
            return f"the sampler did not end within {END_TIMEOUT_S:g} s and was killed"
        finally:
            child.stdout.close()
        if gone_before is not None or child.returncode:
            return f"the sampler ended early with status {child.returncode}{self._log_tail()}"
        return None

    def _log_tail(self) -> str:
        lines = self._log_path.read_text(encoding="utf-8", errors="replace").splitlines()
        return f" ({lines[-1].strip()})" if lines else ""


def _sampler_environment() -> dict[str, str]:
    # Zeus would ask its daemon where one is named; the counters need none. The package may
    # be importable only because of this process's own path.
    env = {name: v for name, v in os.environ.items() if not name.startswith("ZEUSD_")}
    beside_the_package = str(Path(__file__).parents[2])
    folders = filter(None, (beside_the_package, env.get("PYTHONPATH")))
    env["PYTHONPATH"] = os.pathsep.join(folders)
    return env


def read_trace(path: Path, failure: str | None = None) -> MeterTrace:
    """Read a sampler's file; a last line that was cut off is left out.

    Args:
        path: The file.
        failure: Why the sampler itself ended early, for GPUs without an error of their own.

    Raises:
        FormatError: A whole line is not a reading.
    """
    gpus: dict[int, GpuIdentity] = {}
    readings: dict[int, list[Reading]] = {}
    errors: dict[int, str] = {}
    cpu: tuple[float | None, float | None] = (None, None)
    for line in _whole_lines(path):
        match line:
            case ["gpu", position, identity]:
                gpus[position] = _identity(identity)
                readings[position] = []
            case ["after", position, identity]:
                errors |= _change(position, gpus[position], _identity(identity))
            case ["error", position, text]:
                errors[position] = text
            case ["cpu", cpu_j, dram_j]:
                cpu = (cpu_j, dram_j)
            case [position, time_s, took_s, energy_mj, dict() as more]:
                readings[position].append(
                    Reading(time_s=time_s, took_s=took_s, energy_mj=energy_mj, **_tuples(more))
                )
            case _:
                raise FormatError(f"{path} holds the line {line!r}, which is no reading.")
    traces = (
        GpuTrace(gpu=gpu, readings=tuple(readings[i]), error=errors.get(i, failure))
        for i, gpu in sorted(gpus.items())
    )
    return MeterTrace(gpus=tuple(traces), cpu_energy_j=cpu[0], dram_energy_j=cpu[1])


def _whole_lines(path: Path) -> Iterator[list[Any]]:
    for line in path.read_bytes().splitlines(keepends=True):
        if line.endswith(b"\n"):
            yield json.loads(line)


def _identity(values: dict[str, Any]) -> GpuIdentity:
    links = tuple((uuid, kind) for uuid, kind in values.get("links", ()))
    return GpuIdentity(**{**values, "links": links})


def _tuples(values: dict[str, Any]) -> dict[str, Any]:
    return {key: tuple(v) if isinstance(v, list) else v for key, v in values.items()}


def _change(position: int, before: GpuIdentity, after: GpuIdentity) -> dict[int, str]:
    if before == replace(after, links=before.links):  # another GPU may be lost: not our change
        return {}
    return {position: f"{GPU_CHANGED}: it was {before}, it is {after}"}
