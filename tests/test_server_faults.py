"""What a server can do wrong, through the real launch, load generator, sampler and meter.

The server is a program of its own that looks like vLLM from outside; the GPU is the mock NVML
library under the real Zeus. ``docs/faults.md`` holds the expected outcomes.
"""

import itertools
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from pytest_joules.engines.vllm import VllmEngine
from pytest_joules.errors import LaunchError, ServerDied
from pytest_joules.load import stall
from pytest_joules.measure import Failure, Outcome, measure
from pytest_joules.meter import ZeusMeter
from pytest_joules.plan import Launch, Stack
from pytest_joules.point import Point
from pytest_joules.procedure import Procedure
from pytest_joules.result import Result
from pytest_joules.rig import Rig
from pytest_joules.tasks import Lengths
from tests.engines import project
from tests.fakes.mock_nvml import MockNvml
from tests.fakes.vllm_program import make_stack, show

pytestmark = pytest.mark.takes_long

POINT = Point(
    model="org/model",
    batch_size=4,
    weights="dummy",
    num_requests=32,
    input_tokens=Lengths(mean=8, cv=0.5, longest=30),
    output_tokens=Lengths(mean=50, cv=0.5, shortest=10, longest=100),
)
QUICK = Procedure(min_window_s=1.0, deadline_s=30.0)
DISTURBED = {
    *project.DISTURBED,
    "meter-gap",
    "counter-disagrees",
    "power-unseen",
    "window-short",
}
"""What a machine may add that is busy with other tests."""

THERMAL, POWER_BRAKE, OTHER_PID = 0x40, 0x80, 1


def launch(stack: Stack, *points: Point) -> Launch:
    return Launch(points=points or (POINT,), stack=stack, gpu="h200")


# --- while it starts -----------------------------------------------------------------------


NOT_STARTED = {
    "oom-while-loading": (
        r"LaunchError: vLLM ended with code 1 .*\nCause: .*CUDA out of memory.*\nHint: ."
    ),
    "killed-while-loading": (
        r"LaunchError: vLLM was ended by signal 9 \(SIGKILL\) .*\nHint: .*out of memory"
    ),
}


@pytest.mark.parametrize("fault", NOT_STARTED)
def test_a_server_that_does_not_start(fault: str, tmp_path: Path) -> None:
    engine, stack = (
        VllmEngine(folder=tmp_path / "launches"),
        make_stack(tmp_path / "env", fault),
    )

    with pytest.raises(LaunchError) as raised, engine.started(launch(stack)):
        pytest.fail("it started")

    told = f"{raised.type.__name__}: {raised.value}"
    assert re.search(NOT_STARTED[fault], told), told


def test_a_server_that_starts_slowly_is_waited_for(tmp_path: Path) -> None:
    stack = make_stack(tmp_path / "env", "slow-start")

    with VllmEngine(folder=tmp_path / "launches").started(launch(stack)) as server:
        server.require_healthy()


# --- while it is measured, and lives on ----------------------------------------------------


@dataclass
class Machine:
    """One launch whose server and GPU show one fault after the other."""

    folder: Path
    stack: Stack
    mock: MockNvml

    def outcomes(self) -> Iterator[Outcome]:
        engine = VllmEngine(folder=self.folder / "launches")
        rig = Rig(engine=engine, meter=ZeusMeter(), procedure=QUICK)
        points = [POINT.but(num_requests=32 + number) for number in range(len(FAULTS))]
        yield from measure(launch(self.stack, *points), rig, {})

    def server(self, fault: str) -> None:
        show(self.folder / "env", fault)

    def gpu(self, **values: int) -> None:
        self.mock.set(0, **values)

    def wall_clock_steps(self, patch: pytest.MonkeyPatch) -> None:
        """Let it go back by an hour at each look, here and in every process that starts."""
        (self.folder / "sitecustomize.py").write_text(
            "import itertools, time\n"
            "backwards = itertools.count(10**9, -3600)\n"
            "time.time = lambda: next(backwards)\n"
        )
        patch.setenv("PYTHONPATH", str(self.folder))
        backwards = itertools.count(10**9, -3600)
        patch.setattr("time.time", lambda: next(backwards))


OF_THE_SERVER = (
    "none",
    "some-500",
    "every-500",
    "some-dropped",
    "every-dropped",
    "malformed-sse",
    "malformed-metrics",
    "no-metrics",
    "hang",
    "some-preemptions",
    "preemption-storm",
    "log-flood",
    "zombies",
)
OF_THE_MACHINE: dict[str, Callable[[Machine, pytest.MonkeyPatch], None]] = {
    "thermal-brake": lambda machine, _: machine.gpu(clock_event_reasons=THERMAL),
    "power-brake": lambda machine, _: machine.gpu(clock_event_reasons=POWER_BRAKE),
    "foreign-process": lambda machine, _: machine.mock.set_processes(0, [OTHER_PID]),
    "wall-clock": Machine.wall_clock_steps,
}
FAULTS = (*OF_THE_SERVER, *OF_THE_MACHINE)


@pytest.fixture(scope="module")
def shown(
    tmp_path_factory: pytest.TempPathFactory, mock_nvml_library: Path
) -> dict[str, Outcome]:
    """Every fault's outcome: one launch, for none of these ends the server."""
    folder = tmp_path_factory.mktemp("faults")
    mock = MockNvml.create(folder / "gpu", mock_nvml_library, num_gpus=1)
    mock.set_power(0, 300.0)
    machine, found = Machine(folder, make_stack(folder / "env"), mock), {}
    with pytest.MonkeyPatch.context() as patch:
        mock.install(patch)
        patch.setattr(stall, "STALL_S", 1.0)
        outcomes = machine.outcomes()
        for name in FAULTS:
            machine.server(name if name in OF_THE_SERVER else "")
            machine.gpu(clock_event_reasons=0, num_processes=0)
            with pytest.MonkeyPatch.context() as for_this:
                if name in OF_THE_MACHINE:
                    OF_THE_MACHINE[name](machine, for_this)
                found[name] = next(outcomes)
        with pytest.raises(StopIteration):
            next(outcomes)
    left = [path for path in Path("/proc").glob("[0-9]*/environ") if _is_of(path, folder)]
    assert not left
    return found


def _is_of(environ: Path, folder: Path) -> bool:
    try:
        return str(folder).encode() in environ.read_bytes()
    except OSError:
        return False


def reasons(outcome: Outcome) -> set[str]:
    assert isinstance(outcome, Result), outcome
    return {reason.code for reason in outcome.reasons}


@pytest.mark.parametrize(
    "fault", ["none", "log-flood", "zombies", "some-preemptions", "wall-clock"]
)
def test_what_a_measurement_survives(fault: str, shown: dict[str, Outcome]) -> None:
    outcome = shown[fault]

    assert reasons(outcome) <= DISTURBED
    assert isinstance(outcome, Result)
    assert outcome.energy_per_token_j > 0
    notes = {note.code for note in outcome.notes}
    assert ("preempted" in notes) == (fault == "some-preemptions")


INVALID = {
    "some-500": "request-failed: [34] of 33 requests failed.*status 500: .*EngineDeadError",
    "some-dropped": "request-failed: .*requests failed.*server closed the connection",
    "malformed-sse": "request-failed: .*requests failed.*JSON",
    "preemption-storm": "batch-starved: asked for a batch of 4, [12]..*preempted",
    "thermal-brake": "clock-brake: .*thermal.*held the clocks down",
    "power-brake": "clock-brake: .*power brake.*held the clocks down",
    "foreign-process": "foreign-process: .*process 1 used the GPU",
}


@pytest.mark.parametrize("fault", INVALID)
def test_what_makes_a_measurement_invalid(fault: str, shown: dict[str, Outcome]) -> None:
    outcome = shown[fault]

    assert isinstance(outcome, Result), outcome
    told = [f"{reason.code}: {reason.text}" for reason in outcome.reasons]
    assert any(re.match(INVALID[fault], each) for each in told), told


ENDED = {
    "every-500": "LoadError: .*8 requests failed one after the other.*status 500",
    "every-dropped": "LoadError: .*8 requests failed one after .*server closed the connection",
    "malformed-metrics": "LoadError: .*/metrics cannot be read",
    "no-metrics": "LoadError: .*/metrics has no vllm:num_requests_running",
    "hang": "LoadError: .*made no token for 1 s with 4 requests in flight",
}


@pytest.mark.parametrize("fault", ENDED)
def test_what_ends_a_load(fault: str, shown: dict[str, Outcome]) -> None:
    outcome = shown[fault]

    assert isinstance(outcome, Failure), outcome
    told = f"{type(outcome.error).__name__}: {outcome.error}"
    assert re.match(ENDED[fault], told), told
    assert "Traceback" not in told


# --- while it is measured, and dies --------------------------------------------------------


DEAD = {
    "crash": r"ServerDied: vLLM ended with code 7 under load\.\nCause: .*engine core broke",
    "killed": r"ServerDied: vLLM was ended by signal 9 \(SIGKILL\) under load\.\nHint: ",
    "out-of-memory": (
        r"ServerDied: vLLM no longer answers /health\.\nCause: .*CUDA out of memory"
    ),
}


@pytest.mark.parametrize("fault", DEAD)
def test_a_server_that_dies_under_load(
    fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pytest_joules.engines.vllm._DYING_S", 0.5)
    stack = make_stack(tmp_path / "env")
    endless = POINT.but(num_requests=None)

    with VllmEngine(folder=tmp_path / "launches").started(launch(stack)) as running:
        show(tmp_path / "env", fault)
        with pytest.raises(ServerDied) as raised:
            running.drive(endless, min_window_s=60.0, deadline_s=120.0)

    told = f"{raised.type.__name__}: {raised.value}"
    assert re.match(DEAD[fault], told), told
