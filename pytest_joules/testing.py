"""Public fakes: a machine on a virtual clock, for testing energy tests without a GPU.

``FakeMachine`` has GPUs, an engine and a clock. Its engine serves requests in closed loop,
its meter reads counters that integrate the engine's power, and both return the same traces
as real ones, so plan, steady state, validity and verdict run unchanged on them.

Run any energy test on it with ``pytest -p pytest_joules.testing``: every line of output
then says *fake*, and what it records is kept apart from real baselines.
"""

import heapq
import itertools
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from pytest_joules import catalog, pipelines
from pytest_joules.batches import least_batches, num_missing
from pytest_joules.engines import Server
from pytest_joules.errors import LaunchError, ServerDied, is_expected
from pytest_joules.measure import Rig
from pytest_joules.options import Options
from pytest_joules.plan import Launch, Stack
from pytest_joules.point import ENGINES, Point, Request
from pytest_joules.procedure import Procedure
from pytest_joules.sources.live import LiveSource
from pytest_joules.steady_state import is_long_enough
from pytest_joules.trace import (
    BatchLoad,
    BatchTrace,
    GpuIdentity,
    GpuTrace,
    Load,
    LoadTrace,
    MeterTrace,
    Reading,
    RequestTrace,
    ServerSample,
)

__tracebackhide__ = is_expected

TICK_S = 0.1
"""The fake energy counter's update period."""

_ENGINE_PID = 4242
_FIXED_IMAGES = 16
Power = Callable[[Stack, Point], float]
"""Watts of one GPU while a stack serves a point."""


def saturating_power(stack: Stack, point: Point) -> float:
    """Default power of a fake GPU: 150 W idle, towards 650 W for large batches."""
    del stack
    return 150.0 + 500.0 * point.batch_size / (point.batch_size + 32)


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

    now_s: float = 1000.0
    launches: list[Launch] = field(default_factory=list)
    """Every launch made, for tests to look at."""

    name: str = "fake"
    attaches: bool = False
    _spans: list[tuple[float, float, float]] = field(default_factory=list)

    def clock(self) -> float:
        """Return the machine's time in seconds."""
        return self.now_s

    def identify(self) -> tuple[GpuIdentity, ...]:
        """Return the machine's GPUs, as a meter does."""
        known = catalog.gpu(self.gpu)
        return tuple(
            GpuIdentity(
                uuid=f"GPU-fake-{self.gpu}-{index}",
                name=known.nvml_names[0] if known else self.gpu,
                memory_bytes=int((known.memory_gib if known else 80) * 2**30),
                power_limit_w=known.tdp_w if known else 700.0,
                mig=False,
                driver="fake",
            )
            for index in range(self.num_gpus)
        )

    @contextmanager
    def recording(self, uuids: Sequence[str]) -> Iterator["FakeRecording"]:
        """Record counters from entering to leaving, as a meter does."""
        recording = FakeRecording(machine=self, uuids=tuple(uuids), start_s=self.now_s)
        self.now_s += 2 * TICK_S
        yield recording
        self.now_s += 2 * TICK_S
        recording.end_s = self.now_s

    @contextmanager
    def started(self, launch: Launch, *, gpu_uuids: Sequence[str]) -> Iterator[Server]:
        """Start the fake engine, as an engine does.

        Raises:
            LaunchError: ``fails_to_launch`` is set.
        """
        del gpu_uuids
        self.launches.append(launch)
        self.now_s += 1.0
        if self.fails_to_launch:
            raise LaunchError(f"{launch.largest.id}: {self.fails_to_launch}")
        yield FakeServer(machine=self, launch=launch)

    def energy_mj(self, time_s: float) -> int:
        """Return one GPU's counter: power integrated up to the last tick."""
        tick_s = int(time_s / TICK_S + 1e-6) * TICK_S
        joules = _IDLE_W * tick_s + sum(
            (watts - _IDLE_W) * max(0.0, min(tick_s, end_s) - start_s)
            for start_s, end_s, watts in self._spans
        )
        return round(1000 * joules)

    def power_at(self, time_s: float) -> float:
        """Return one GPU's power in watts."""
        return next((w for start, end, w in self._spans if start <= time_s < end), _IDLE_W)

    def draw(self, start_s: float, end_s: float, watts: float) -> None:
        """Draw power from ``start_s`` to ``end_s``."""
        self._spans.append((start_s, end_s, watts))


_IDLE_W = 150.0


@dataclass(kw_only=True)
class FakeRecording:
    """Counter readings of a span of virtual time."""

    machine: FakeMachine
    uuids: tuple[str, ...]
    start_s: float
    end_s: float = 0.0

    def trace(self) -> MeterTrace:
        """Return the readings, one each 50 ms."""
        number = round((self.end_s - self.start_s) / (TICK_S / 2))
        readings = tuple(
            self._reading(self.start_s + index * TICK_S / 2) for index in range(number + 1)
        )
        chosen = [gpu for gpu in self.machine.identify() if gpu.uuid in self.uuids]
        return MeterTrace(gpus=tuple(GpuTrace(gpu=gpu, readings=readings) for gpu in chosen))

    def _reading(self, time_s: float) -> Reading:
        return Reading(
            time_s=time_s,
            took_s=0.0001,
            energy_mj=self.machine.energy_mj(time_s),
            power_w=self.machine.power_at(time_s),
            temperature_c=60.0,
            sm_clock_hz=1.98e9,
            memory_clock_hz=2.6e9,
            clock_event_reasons=0,
            memory_used_bytes=self.machine.held_memory_bytes,
            process_ids=(_ENGINE_PID, *self.machine.foreign_pids),
        )


@dataclass(kw_only=True)
class FakeServer:
    """An engine that gives each running request one token a step."""

    machine: FakeMachine
    launch: Launch
    process_ids: frozenset[int] = frozenset({_ENGINE_PID})

    def __post_init__(self) -> None:
        number = len(self.machine.launches)
        stream = random.Random(f"{self.machine.seed}:{number}")
        self._factor = 1 + self.machine.launch_noise * stream.gauss(0, 1)

    @property
    def packages(self) -> dict[str, str]:
        return {"fake-engine": self.launch.stack.name}

    def drive(self, point: Point, *, min_window_s: float, deadline_s: float) -> Load:
        """Serve the point's requests in closed loop, or make its batches.

        Raises:
            ServerDied: ``dies_after_requests`` is set and reached.
        """
        del deadline_s
        start_s = self.machine.now_s
        is_diffusion = point.engine in pipelines.ENGINES
        serve = self._make_batches if is_diffusion else self._serve_requests
        load = serve(point, min_window_s)
        watts = self.machine.power_w(self.launch.stack, point) * self._factor
        self.machine.draw(start_s, self.machine.now_s, watts)
        return load

    def _make_batches(self, point: Point, min_window_s: float) -> BatchLoad:
        """Make batches, each as long as its steps, pixels and frames ask; the first longer."""
        shape, batches = pipelines.shape(point), list[BatchTrace]()
        least = least_batches(point.work_unit, shape.steps)
        megapixels = shape.height * shape.width * (shape.num_frames or 1) / 2**20
        batch_s = (
            self.machine.step_s * shape.steps * megapixels * (_FIXED_IMAGES + point.batch_size)
        )
        asked = (point.num_requests or 0) // point.batch_size
        while (
            len(batches) < asked
            if asked
            else num_missing(batches, least=least, min_window_s=min_window_s)
        ):
            self._is_enough(point, point.batch_size * len(batches))
            begin_s = self.machine.now_s
            self.machine.now_s += batch_s * (1 if batches else 1.5)
            batches.append(BatchTrace(started_s=begin_s, finish_s=self.machine.now_s))
        return BatchLoad(
            batch_size=point.batch_size, least_batches=least, batches=tuple(batches)
        )

    def _serve_requests(self, point: Point, min_window_s: float) -> LoadTrace:
        start_s = self.machine.now_s
        requests = self._serve(point, min_window_s)
        self.machine.now_s = max(request.finish_s for request in requests)
        return LoadTrace(
            max_concurrency=point.batch_size,
            started_s=start_s,
            ended_s=self.machine.now_s,
            requests=tuple(sorted(requests, key=lambda request: request.index)),
            server=tuple(_samples(requests, start_s, self.machine.now_s)),
            client_cpu_s=0.0,
            client_lag_s=0.0,
        )

    def _serve(self, point: Point, min_window_s: float) -> list[RequestTrace]:
        slots = min(point.batch_size, self.machine.largest_batch or point.batch_size)
        free = [self.machine.now_s] * slots
        served: list[RequestTrace] = []
        for request in point.requests():
            begin_s = heapq.heappop(free)
            if self._is_enough(point, len(served)):
                known = [r for r in served if r.finish_s <= begin_s]
                if is_long_enough(known, min_window_s=min_window_s):
                    break
            served.append(self._answer(request, begin_s))
            heapq.heappush(free, served[-1].finish_s)
        return served

    def _is_enough(self, point: Point, served: int) -> bool:
        limit = self.machine.dies_after_requests
        if limit is not None and served >= limit:
            raise ServerDied(f"{point.id}: the fake engine ended after {served} requests")
        return point.num_requests is None and served >= 3 * point.batch_size

    def _answer(self, request: Request, begin_s: float) -> RequestTrace:
        step_s = self.machine.step_s
        return RequestTrace(
            index=request.index,
            sent_s=begin_s,
            first_token_s=begin_s + step_s,
            finish_s=begin_s + step_s * request.output_tokens,
            prompt_tokens=request.prompt_tokens,
            output_tokens=request.output_tokens,
            itl_s=(step_s,),
        )


def _samples(
    requests: Sequence[RequestTrace], start_s: float, end_s: float
) -> Iterator[ServerSample]:
    """Count what the server would say, ten times a second."""
    moments = [start_s - TICK_S, *_range(start_s, end_s, TICK_S), end_s]
    events = _events(requests)
    running = first = finished = 0
    tokens, rate, position, last_s = 0.0, 0.0, 0, start_s
    for moment_s in moments:
        while position < len(events) and events[position][0] <= moment_s + 1e-9:
            at_s, kind, per_s = events[position]
            tokens, last_s = tokens + rate * (at_s - last_s), at_s
            rate += per_s
            running += kind == _BEGIN
            first += kind == _FIRST
            finished += kind == _END
            running -= kind == _END
            position += 1
        tokens, last_s = tokens + rate * max(0.0, moment_s - last_s), max(last_s, moment_s)
        yield ServerSample(
            time_s=moment_s,
            took_s=0.001,
            running=running,
            waiting=0,
            output_tokens=tokens,
            prompt_tokens=0,
            first_tokens=first,
            finished=finished,
            kv_cache_usage=0.5,
            preemptions=0,
        )


_BEGIN, _FIRST, _END = range(3)


def _events(requests: Sequence[RequestTrace]) -> list[tuple[float, int, float]]:
    """Return ``(time, kind, change of the token rate)`` in order of time."""
    events = []
    for request in requests:
        rate = request.output_tokens / (request.finish_s - request.sent_s)
        events.append((request.sent_s, _BEGIN, rate))
        events.append((request.first_token_s or request.finish_s, _FIRST, 0.0))
        events.append((request.finish_s, _END, -rate))
    return sorted(events)


def _range(start_s: float, end_s: float, step_s: float) -> Iterator[float]:
    return itertools.takewhile(
        lambda moment_s: moment_s < end_s, (start_s + i * step_s for i in itertools.count())
    )


def pytest_joules_source(options: Options) -> LiveSource:
    """Measure on a fake machine; makes ``-p pytest_joules.testing`` a pytest plugin."""
    machine = FakeMachine(gpu=options.gpu or "h200", launch_noise=0.002)
    return source_of(machine, window_s=options.window)


def source_of(machine: FakeMachine, *, window_s: float = 60.0) -> LiveSource:
    """Return a source that measures every point on a fake machine.

    It is the live pipeline with the machine as engine, meter and clock; its results say
    ``fake``.
    """
    rig = Rig(
        engine=machine,
        meter=machine,
        procedure=Procedure(min_window_s=window_s),
        source="fake",
        session="fake",
        clock=machine.clock,
    )
    return LiveSource(rigs=dict.fromkeys(ENGINES, rig), name="fake")
