"""A machine that exists as arithmetic: the latent model behind an engine's and a meter's face.

``SimulatedMachine`` takes a launch and gives the traces that a live run would have recorded,
on a virtual clock. Everything after the traces is the live pipeline.
"""

import math
import zlib
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from pytest_joules.engines import Server
from pytest_joules.errors import InvalidPoint, LaunchError, is_expected
from pytest_joules.gate.noise import QUIET, Noise, session_effects, whole_launch
from pytest_joules.latent import DiffusionMachine, LanguageMachine, Machine, machine
from pytest_joules.plan import Costs as Planning
from pytest_joules.plan import Launch, Stack
from pytest_joules.point import Point, Request
from pytest_joules.simulation.batching import Batching, Cost, Demand, Span
from pytest_joules.simulation.making import batch_spans, static_power_w
from pytest_joules.simulation.meter import ENGINE_PID, Clock, VirtualGpus, VirtualRecording
from pytest_joules.simulation.plant import Planted
from pytest_joules.simulation.traces import Disturbance, Disturbed, load_trace
from pytest_joules.trace import BatchLoad, BatchTrace, GpuIdentity, Load, LoadTrace
from pytest_joules.version import __version__

__tracebackhide__ = is_expected

_CONTEXT_STEP = math.log1p(0.01)
"""Steps are costed at contexts 1 % apart, and prompts of 32 tokens: half of it is the error."""

_PROMPT_STEP = 32
_BURST_FACTOR = 2.1
"""A load with noise lasts at most so much longer: outliers reach exp(0.7)."""


@dataclass(kw_only=True)
class MachineCosts:
    """Costs of a latent machine, remembered: neighbouring steps are alike."""

    machine: LanguageMachine
    _steps: dict[tuple[int, int, int], Cost] = field(default_factory=dict)
    _bytes: dict[int, float] = field(default_factory=dict)

    @cached_property
    def _memory_bytes(self) -> float:
        return self.machine.kv_memory_bytes

    def step(self, batch: int, context_tokens: float, prefill_tokens: float) -> Cost:
        """Cost one step; see ``batching.Costs``."""
        key = (
            batch,
            round(math.log(max(context_tokens, 1.0)) / _CONTEXT_STEP),
            math.ceil(prefill_tokens / _PROMPT_STEP),
        )
        if key not in self._steps:
            context, prompt = math.exp(key[1] * _CONTEXT_STEP), key[2] * _PROMPT_STEP
            self._steps[key] = self._cost(batch, context, prompt)
        return self._steps[key]

    def _cost(self, batch: int, context_tokens: float, prefill_tokens: float) -> Cost:
        step = self.machine.step(batch, context_tokens, prefill_tokens)
        capped_s = step.terms_s.get("power cap", 0.0)
        return Cost(
            duration_s=step.duration_s,
            power_w=step.power_w,
            clock_ratio=self.machine.clock_factor * (1 - capped_s / step.duration_s),
            busy_share=1 - step.waiting_s / step.duration_s,
            is_capped=capped_s > 0,
        )

    def memory_share(self, batch: int, context_tokens: float) -> float:
        """Return the share of the KV memory in use."""
        return batch * self._sequence_bytes(context_tokens) / self._memory_bytes

    def _sequence_bytes(self, context_tokens: float) -> float:
        low = int(context_tokens // 64)
        for key in (low, low + 1):
            if key not in self._bytes:
                self._bytes[key] = self.machine.kv_bytes_per_sequence(64.0 * key)
        part = context_tokens / 64 - low
        return (1 - part) * self._bytes[low] + part * self._bytes[low + 1]


@dataclass(frozen=True, kw_only=True)
class Chance:
    """What the noise of a simulated machine is drawn from."""

    seed: str
    noise: Noise = QUIET


@dataclass(kw_only=True)
class SimulatedMachine:
    """Engine and meter of a machine that the latent model describes."""

    gpu: str
    clock: Clock = field(default_factory=Clock)
    chance: Chance = field(default_factory=lambda: Chance(seed="0"))
    planted: Planted = field(default_factory=Planted)
    num_gpus: int = 8
    name: str = "simulated"
    attaches: bool = False
    gpus: VirtualGpus = field(init=False)
    _launched: dict[str, int] = field(default_factory=dict)
    _costs: dict[Point, MachineCosts] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.gpus = VirtualGpus(
            gpu=self.gpu,
            clock=self.clock,
            label="simulated",
            num_gpus=self.num_gpus,
            power_limit_factor=self.planted.power_cap,
        )

    def identify(self) -> tuple[GpuIdentity, ...]:
        """Return the GPUs, as a meter does."""
        return self.gpus.identify()

    def recording(self, uuids: Sequence[str]) -> AbstractContextManager[VirtualRecording]:
        """Record counters, as a meter does."""
        return self.gpus.recording(uuids)

    def versions(self, stack: Stack) -> dict[str, str]:
        """Return the version of the simulator, as its servers do."""
        del stack
        return {"simulator": __version__}

    @contextmanager
    def started(self, launch: Launch, *, gpu_uuids: Sequence[str]) -> Iterator[Server]:
        """Start the simulated engine, as an engine does.

        Raises:
            LaunchError: The model does not fit, or the latent model does not know it.
        """
        del gpu_uuids
        self.clock.now_s += Planning().start_s
        name = f"{launch.stack.name}:{launch.largest.hash}"
        number = self._launched[name] = self._launched.get(name, 0) + 1
        try:
            server = SimulatedServer(host=self, launch=launch, draw=f"{name}:{number}")
            server.require_fits()
        except InvalidPoint as error:
            raise LaunchError(f"simulated: {error}") from None
        yield server

    def costs(self, point: Point, made: LanguageMachine) -> MachineCosts:
        """Return the costs of a point's steps, the same in each of its launches."""
        asked = point.but(num_requests=None)
        # The host's input feed is a queue of its own here, so steps do not wait for it.
        ready = made.but(input_rate_factor=math.inf)
        return self._costs.setdefault(asked, MachineCosts(machine=ready))

    def factors(self, draw: str, seconds: float) -> NDArray[np.float64]:
        """Draw the noise of one load, as factors of energy per work unit."""
        shared = np.random.default_rng(_number(self.chance.seed))
        session = float(session_effects(self.chance.noise, shared, (1,))[0])
        own = np.random.default_rng(_number(f"{self.chance.seed}:{draw}"))
        num = math.ceil(seconds * _BURST_FACTOR) + 1
        factors: NDArray[np.float64] = np.exp(
            session + whole_launch(self.chance.noise, own, num)
        )
        return factors


def _number(text: str) -> int:
    return zlib.crc32(text.encode())


@dataclass(kw_only=True)
class SimulatedServer:
    """An engine whose steps cost what the latent model says."""

    host: SimulatedMachine
    launch: Launch
    draw: str
    process_ids: frozenset[int] = frozenset({ENGINE_PID})
    model_revision: str | None = "simulated"

    @property
    def packages(self) -> dict[str, str]:
        return self.host.versions(self.launch.stack)

    def require_fits(self) -> None:
        """Refuse a model whose weights leave no room.

        Raises:
            InvalidPoint: They do not, or the model is unknown to the latent model.
        """
        made = self._machine(self.launch.largest)
        if made.max_batch_size() < 1:
            raise InvalidPoint(
                f"{self.launch.largest.id}: does not fit in the memory of {made.num_gpus} x "
                f"{self.host.gpu}; use more GPUs or a lower precision."
            )

    def _machine(self, point: Point) -> Machine:
        return self.host.planted.apply(machine(point, self.host.gpu))

    def drive(self, point: Point, *, min_window_s: float, deadline_s: float) -> Load:
        """Serve the point's requests in closed loop, or make its batches; see ``Server``."""
        made = self._machine(point)
        self.host.gpus.idle_w = static_power_w(made)
        if isinstance(made, DiffusionMachine):
            return self._make(point, made, min_window_s)
        return self._serve(point, made, limits_s=(min_window_s, deadline_s))

    def _make(self, point: Point, made: DiffusionMachine, min_window_s: float) -> BatchLoad:
        clock = self.host.clock
        spans, least = batch_spans(point, made, now_s=clock.now_s, min_window_s=min_window_s)
        moved_s = self._disturbed(point, made, spans).at(
            [spans[0].start_s, *(span.end_s for span in spans)]
        )
        clock.now_s = float(moved_s[-1])
        batches = tuple(
            BatchTrace(started_s=float(start_s), finish_s=float(end_s))
            for start_s, end_s in pairwise(moved_s)
        )
        return BatchLoad(batch_size=point.batch_size, least_batches=least, batches=batches)

    def _disturbed(self, point: Point, made: Machine, spans: Sequence[Span]) -> Disturbed:
        """Lay the launch's noise over what was done, and let the GPUs draw it."""
        gpus = self.host.gpus
        lasted_s = spans[-1].end_s - spans[0].start_s
        noise = Disturbance(
            factors=self.host.factors(f"{self.draw}:{point.hash}", lasted_s),
            power_limit_w=gpus.power_limit_w,
        )
        disturbed = noise.disturb(spans, made.num_gpus)
        gpus.draws.append(disturbed.draw(spans, gpus.full_clock_hz))
        return disturbed

    def _serve(
        self, point: Point, made: LanguageMachine, *, limits_s: tuple[float, float]
    ) -> LoadTrace:
        clock, gpus = self.host.clock, self.host.gpus
        batching = Batching(
            costs=self.host.costs(point, made),
            demand=self._demand(point, made, limits_s),
            now_s=clock.now_s,
            idle=Cost(duration_s=1.0, power_w=gpus.idle_w * made.num_gpus, busy_share=0.0),
        )
        batching.run()
        disturbed = self._disturbed(point, made, batching.spans)
        clock.now_s = float(disturbed.moved_s[-1])
        return load_trace(
            batching.spans,
            batching.answered,
            disturbed,
            max_concurrency=point.batch_size,
        )

    def _demand(
        self, point: Point, made: LanguageMachine, limits_s: tuple[float, float]
    ) -> Demand:
        planted = self.host.planted
        own = point.spec.input_tokens
        seen = 0.0
        if point.spec.modality != "text" and own is not None:
            seen = max(0.0, made.prompt_tokens - (point.input_tokens or own).mean)
        return Demand(
            requests=(_asked(each, planted) for each in point.requests()),
            in_flight=max(1, round(point.batch_size * planted.client)),
            slots=self.launch.largest.batch_size,
            least_requests=3 * point.batch_size,
            min_window_s=None if point.num_requests else limits_s[0],
            deadline_s=limits_s[1],
            input_s=made.input_s_per_request,
            seen_tokens=round(seen),
        )


def _asked(request: Request, planted: Planted) -> Request:
    return replace(
        request,
        output_tokens=max(1, round(request.output_tokens * planted.output_length)),
    )
