"""Public fakes: a machine on a virtual clock, for testing energy tests without a GPU.

``FakeMachine`` has GPUs, an engine and a clock. Its engine serves requests in closed loop,
its meter reads counters that integrate the engine's power, and both return the same traces
as real ones, so plan, steady state, validity and verdict run unchanged on them.

Run any energy test on it with ``pytest -p pytest_joules.testing``: every line of output
then says *fake*, and what it records is kept apart from real baselines.
"""

import json
import os
import random
import uuid
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from pytest_joules import pipelines
from pytest_joules.batches import least_batches, num_missing
from pytest_joules.engines import Server
from pytest_joules.errors import LaunchError, ServerDied, is_expected
from pytest_joules.leases import Leases
from pytest_joules.options.frozen import Options
from pytest_joules.plan import Launch, Stack
from pytest_joules.point import Point, Request
from pytest_joules.point.checks import ENGINES
from pytest_joules.procedure import Procedure
from pytest_joules.rig import Rig
from pytest_joules.simulation.batching import Batching, Cost, Demand
from pytest_joules.simulation.meter import (
    ENGINE_PID,
    FULL_CLOCK_HZ,
    Clock,
    Draw,
    VirtualGpus,
    VirtualRecording,
)
from pytest_joules.simulation.traces import Disturbance, load_trace
from pytest_joules.sources.live import LiveSource
from pytest_joules.trace import BatchLoad, BatchTrace, GpuIdentity, Load, LoadTrace

__tracebackhide__ = is_expected

_IDLE_W = 150.0
_FIXED_IMAGES = 16
"""What every diffusion batch costs, in images of 1024 x 1024."""

Power = Callable[[Stack, Point], float]
"""Watts of one GPU while a stack serves a point."""


def saturating_power(stack: Stack, point: Point) -> float:
    """Default power of a fake GPU: 150 W idle, towards 650 W for large batches."""
    del stack
    return _IDLE_W + 500.0 * point.batch_size / (point.batch_size + 32)


@dataclass(kw_only=True)
class FakeMachine:
    """GPUs, engine and clock of a machine that does not exist.

    >>> machine = FakeMachine(gpu="h200")
    >>> machine.identify()[0].name
    'NVIDIA H200'
    """

    gpu: str = "h200"
    num_gpus: int = 8
    power_w: Power = saturating_power
    """Takes a stack and a point, returns a GPU's watts: let one stack draw more, and a check
    against another goes red."""

    step_s: float = 0.02
    """Duration of an engine step: each running request gets one token; in diffusion the step
    of one image of 1024 x 1024, beside that of 16 which every batch costs."""

    launch_noise: float = 0.0
    """Standard deviation of a launch's power, relative."""

    seed: int = 0
    fails_to_launch: str = ""
    """Where not empty: what the engine says instead of starting."""

    dies_after_requests: int | None = None
    """Kill the engine when so many requests of a load have finished."""

    largest_batch: int | None = None
    """Slots of the engine; more requests wait, as with too small a KV cache."""

    foreign_pids: tuple[int, ...] = ()
    """Other processes on every GPU."""

    held_memory_bytes: int = 0
    """Memory in use on every GPU, as if another process held it."""

    packages: Mapping[str, str] = field(default_factory=dict)
    """Versions that every stack tells besides its name."""

    launches: list[Launch] = field(default_factory=list)
    """Every launch made, for tests to look at."""

    boards: list[tuple[str, ...]] = field(default_factory=list)
    """UUIDs of the GPUs of every launch."""

    journal: Path | None = None
    """File to which every launch adds a line when it begins and one when it ends, so that
    processes that share the machine can be watched together."""

    name: str = "fake"
    attaches: bool = False
    clock: Clock = field(default_factory=Clock)
    gpus: VirtualGpus = field(init=False)

    def __post_init__(self) -> None:
        self.gpus = VirtualGpus(
            gpu=self.gpu,
            clock=self.clock,
            num_gpus=self.num_gpus,
            idle_w=_IDLE_W,
            held_memory_bytes=self.held_memory_bytes,
            foreign_pids=self.foreign_pids,
        )

    def identify(self) -> tuple[GpuIdentity, ...]:
        """Return the machine's GPUs, as a meter does."""
        return self.gpus.identify()

    def recording(self, uuids: Sequence[str]) -> AbstractContextManager[VirtualRecording]:
        """Record counters from entering to leaving, as a meter does."""
        self.gpus.held_memory_bytes = self.held_memory_bytes
        return self.gpus.recording(uuids)

    def versions(self, stack: Stack) -> dict[str, str]:
        """Return what the fake engine calls its version."""
        return {"fake-engine": stack.name, **self.packages}

    @contextmanager
    def started(self, launch: Launch, *, gpu_uuids: Sequence[str]) -> Iterator[Server]:
        """Start the fake engine, as an engine does.

        Raises:
            LaunchError: ``fails_to_launch`` is set.
        """
        self.launches.append(launch)
        self.boards.append(tuple(gpu_uuids))
        self.clock.now_s += 1.0
        if self.fails_to_launch:
            raise LaunchError(f"{launch.largest.id}: {self.fails_to_launch}")
        self._note("begins", launch)
        try:
            yield FakeServer(machine=self, launch=launch)
        finally:
            self._note("ends", launch)

    def _note(self, event: str, launch: Launch) -> None:
        if self.journal is None:
            return
        said = {
            "event": event,
            "pid": os.getpid(),
            "gpus": self.boards[-1],
            "stack": launch.stack.name,
            "batch_sizes": [point.batch_size for point in launch.points],
        }
        with self.journal.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(said) + "\n")


@dataclass(frozen=True, kw_only=True)
class FakeCosts:
    """Every step takes and draws the same, and half of the memory is in use."""

    cost: Cost

    def step(self, batch: int, context_tokens: float, prefill_tokens: float) -> Cost:
        """Cost a step; see ``simulation.batching.Costs``."""
        del batch, context_tokens, prefill_tokens
        return self.cost

    def memory_share(self, batch: int, context_tokens: float) -> float:
        """Return the share of the KV memory in use."""
        del batch, context_tokens
        return 0.5


@dataclass(kw_only=True)
class FakeServer:
    """An engine that gives each running request one token a step."""

    machine: FakeMachine
    launch: Launch
    process_ids: frozenset[int] = frozenset({ENGINE_PID})
    model_revision: str | None = "fake"

    def __post_init__(self) -> None:
        number = len(self.machine.launches)
        stream = random.Random(f"{self.machine.seed}:{number}")
        self._factor = 1 + self.machine.launch_noise * stream.gauss(0, 1)

    @property
    def packages(self) -> dict[str, str]:
        return self.machine.versions(self.launch.stack)

    def drive(self, point: Point, *, min_window_s: float, deadline_s: float) -> Load:
        """Serve the point's requests in closed loop, or make its batches.

        Raises:
            ServerDied: ``dies_after_requests`` is set and reached.
        """
        if point.engine in pipelines.ENGINES:
            return self._make_batches(point, min_window_s)
        return self._serve(point, min_window_s=min_window_s, deadline_s=deadline_s)

    def _make_batches(self, point: Point, min_window_s: float) -> BatchLoad:
        """Make batches, each as long as its steps, pixels and frames ask; the first longer."""
        clock, batches = self.machine.clock, list[BatchTrace]()
        shape = pipelines.shape(point)
        megapixels = shape.height * shape.width * (shape.num_frames or 1) / 2**20
        image_s = self.machine.step_s * shape.steps * megapixels
        least = least_batches(point.work_unit, shape.steps)
        fixed = point.num_requests // point.batch_size if point.num_requests else None
        while num_missing(batches, least=least, min_window_s=min_window_s, fixed=fixed):
            begin_s = clock.now_s
            clock.now_s += (
                image_s * (_FIXED_IMAGES + point.batch_size) * (1 if batches else 1.5)
            )
            batches.append(BatchTrace(started_s=begin_s, finish_s=clock.now_s))
            limit = self.machine.dies_after_requests
            if limit is not None and point.batch_size * len(batches) >= limit:
                raise ServerDied(f"{point.id}: the fake engine ended after {limit} requests")
        self.machine.gpus.draws.append(
            Draw(
                edges_s=np.array([batches[0].started_s, clock.now_s]),
                power_w=np.array([self._watts(point)]),
                clock_hz=np.array([FULL_CLOCK_HZ]),
                busy_share=np.ones(1),
                is_capped=np.zeros(1),
            )
        )
        return BatchLoad(
            batch_size=point.batch_size, least_batches=least, batches=tuple(batches)
        )

    def _watts(self, point: Point) -> float:
        return self.machine.power_w(self.launch.stack, point) * self._factor

    def _serve(self, point: Point, *, min_window_s: float, deadline_s: float) -> LoadTrace:
        machine = self.machine
        cost = Cost(duration_s=machine.step_s, power_w=self._watts(point))
        batching = Batching(
            costs=FakeCosts(cost=cost),
            demand=Demand(
                requests=self._requests(point),
                in_flight=point.batch_size,
                slots=machine.largest_batch or point.batch_size,
                least_requests=3 * point.batch_size,
                min_window_s=None if point.num_requests else min_window_s,
                deadline_s=deadline_s,
            ),
            now_s=machine.clock.now_s,
            idle=cost,
        )
        batching.run()
        calm = Disturbance(factors=np.ones(1), power_limit_w=machine.gpus.power_limit_w)
        disturbed = calm.disturb(batching.spans, 1)
        machine.gpus.draws.append(disturbed.draw(batching.spans, FULL_CLOCK_HZ))
        machine.clock.now_s = batching.now_s
        return load_trace(
            batching.spans, batching.answered, disturbed, max_concurrency=point.batch_size
        )

    def _requests(self, point: Point) -> Iterator[Request]:
        limit = self.machine.dies_after_requests
        for request in point.requests():
            if limit is not None and request.index >= limit:
                raise ServerDied(f"{point.id}: the fake engine ended after {limit} requests")
            yield request


def pytest_joules_source(options: Options) -> LiveSource:
    """Measure on a fake machine; makes ``-p pytest_joules.testing`` a pytest plugin."""
    # What goes on must not repeat the launches that it goes on with.
    seed = zlib.crc32(options.resume.encode())
    machine = FakeMachine(gpu=options.gpu or "h200", launch_noise=0.002, seed=seed)
    deadline_s = options.point_deadline or Procedure.deadline_s
    return source_of(machine, window_s=options.window, deadline_s=deadline_s)


def source_of(
    machine: FakeMachine,
    *,
    window_s: float = Procedure.min_window_s,
    deadline_s: float = Procedure.deadline_s,
    leases: Leases | None = None,
) -> LiveSource:
    """Return a source that measures every point on a fake machine.

    It is the live pipeline with the machine as engine, meter and clock; its results say
    ``fake``. Each process has a machine of its own, unless they lease its GPUs:
    ``Leases(folder=..., wait_s=...)`` of ``pytest_joules.leases``.
    """
    rig = Rig(
        engine=machine,
        meter=machine,
        procedure=Procedure(min_window_s=window_s, deadline_s=deadline_s),
        source="fake",
        session=uuid.uuid4().hex[:12],
        clock=machine.clock,
        leases=leases,
    )
    return LiveSource(rigs=dict.fromkeys(ENGINES, rig), name="fake")
