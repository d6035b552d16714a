"""What would be launched for a set of points, and what it would cost; pure data."""

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cache
from typing import Any, Final

from pytest_joules import catalog, hiding, pipelines
from pytest_joules.batches import least_batches
from pytest_joules.errors import ConfigurationError, InvalidPoint, is_expected
from pytest_joules.point import Point
from pytest_joules.point.engine_arguments import refused, secrets_in

__tracebackhide__ = is_expected

ATTACHED: Final = "endpoint"
"""The engine that launches nothing: whoever runs the server decides when it starts."""

_WARM_UP_BATCHES = 2


@dataclass(frozen=True, kw_only=True)
class Stack:
    """The software under test: where its interpreter is and what it is given.

    Declared in ``[tool.pytest-joules.stacks.NAME]``; the plugin's own environment need not
    hold any engine.
    """

    name: str = "default"
    python: str = ""
    """Interpreter of the engine's environment; empty means the one running pytest."""

    command: tuple[str, ...] = ()
    """Put before the interpreter, such as a container's run command."""

    env: Mapping[str, str] = field(default_factory=dict)
    args: tuple[str, ...] = ()
    """Further engine arguments, before the point's own."""

    deadline_s: float = 600.0
    """Seconds within which its engine must be ready."""

    url: str = ""
    """Server that somebody else runs, for ``engine="endpoint"``; nothing is launched then."""

    api_key_env: str = ""
    """Environment variable that holds the server's key."""

    gpus: tuple[str, ...] = ()
    """UUIDs of the GPUs that the server uses, where NVML cannot show its processes."""

    def __post_init__(self) -> None:
        table = f"[tool.pytest-joules.stacks.{self.name}]"
        for name, remedy in refused(self.args):
            raise ConfigurationError(f"{table} args: {name} is refused; {remedy}.")
        for name in secrets_in(self.command):
            raise ConfigurationError(
                f"{table} command: {name}=... is refused, as a command line is public; name "
                f"the variable alone (docker run -e {name}) and set it in your shell or in env."
            )

    @property
    def shown_url(self) -> str:
        """The URL without a password."""
        return re.sub(r"//[^/]*@", "//***@", self.url)


@dataclass(frozen=True, kw_only=True)
class Boards:
    """Which GPUs a launch should run on, each board the UUIDs of all its GPUs."""

    fixed: tuple[str, ...] = ()
    """The only one that will do: launches that are compared never split over boards."""

    preferred: tuple[tuple[str, ...], ...] = ()
    """Those with stored runs to compare with, the best first."""

    waits: bool = False
    """Whether a preferred board of this machine is waited for, though another were free."""


@dataclass(frozen=True, kw_only=True)
class Launch:
    """One server start and the points it serves, largest batch first."""

    points: tuple[Point, ...]
    stack: Stack
    gpu: str
    boards: Boards = field(default_factory=Boards)

    @property
    def largest(self) -> Point:
        """The point whose batch size the server is started with."""
        return self.points[0]


@dataclass(frozen=True, kw_only=True)
class Pace:
    """How fast a server should answer a point's requests."""

    request_s: float
    """Mean time from sending a request to its last token, with the batch full."""

    drain_s: float
    """From the last request sent to the last answer."""


def unknown_pace(point: Point, gpu: str) -> Pace | None:  # noqa: ARG001  one that knows nothing
    """Expect nothing of any point."""
    return None


@dataclass(frozen=True, kw_only=True)
class Costs:
    """Assumed GPU seconds, until a stack has been seen (DESIGN: 90 + 30 + 60 a launch)."""

    start_s: float = 90.0
    ramp_up_s: float = 30.0
    """Of a load outside its window, where requests are short or their time is not known."""

    min_window_s: float = 60.0
    pace: Callable[[Point, str], Pace | None] = unknown_pace

    @property
    def assumed_s(self) -> float:
        """Seconds of a point where nobody knows how long its requests or batches take."""
        return self.ramp_up_s + self.min_window_s

    def of(self, point: Point, gpu: str) -> float:
        """Return the seconds that one point takes once its engine has started."""
        known_s = self.known(point, gpu)
        return self.assumed_s if known_s is None else known_s

    def known(self, point: Point, gpu: str) -> float | None:
        """Return what is known of the same; ``None`` for nothing."""
        if point.work_unit == "token":
            pace = self.pace(point, gpu)
            return None if pace is None else self._of_requests(point, pace)
        batch_s = None
        if point.engine in pipelines.ENGINES:
            batch_s = pipelines.batch_latency_s(point, gpu)
        if batch_s is None:
            return None
        least = least_batches(point.work_unit, pipelines.shape(point).steps)
        return _WARM_UP_BATCHES * batch_s + max(self.min_window_s, least * batch_s)

    def duration_s(self, launch: Launch) -> float:
        """Estimate one launch, from start to end."""
        return self.start_s + sum(self.of(point, launch.gpu) for point in launch.points)

    def gpu_minutes(self, launch: Launch) -> float:
        """Estimate one launch: every GPU counts from start to end."""
        return self.duration_s(launch) * launch.largest.num_gpus / 60

    def _of_requests(self, point: Point, pace: Pace) -> float:
        """Count as ``steady_state`` does: opened after one mean request, open as long."""
        outside_s = max(self.ramp_up_s, pace.request_s + pace.drain_s)
        if point.num_requests is None:
            return outside_s + max(self.min_window_s, pace.request_s)
        rounds = point.num_requests / point.batch_size
        return outside_s + (rounds - 1) * pace.request_s


@dataclass(frozen=True, kw_only=True)
class Plan:
    """All launches of a session, in order."""

    launches: tuple[Launch, ...]
    costs: Costs = field(default_factory=Costs)

    def gpu_minutes(self, launch: Launch) -> float:
        """Estimate one launch."""
        return self.costs.gpu_minutes(launch)

    @property
    def total_gpu_minutes(self) -> float:
        """Estimate the session, each launch made once."""
        return sum(self.gpu_minutes(launch) for launch in self.launches)


@cache  # asked for again and again, of thousands of points
def server_key(point: Point) -> Point:
    """Return what points must share to be served by one server.

    The batch size is left out where the point allows a larger server to serve it, and so is
    everything that only shapes requests.
    """
    left_out = {"num_requests", "seed", "input_tokens", "output_tokens"}
    if point.vision is not None:
        # How many images a request may show, and which frames of a video, is the server's.
        left_out |= {"height", "width"} | ({"media"} if point.vision.kind == "image" else set())
    if point.engine in pipelines.ENGINES:
        left_out |= {"steps", "height", "width", "num_frames", "fps"}
    if point.spec.work_unit == "token" and point.spec.modality == "text":
        left_out |= {"task"}
    if point.shared_server:
        left_out |= {"batch_size"}
    return replace(point, **{name: _DEFAULTS[name] for name in left_out})


_DEFAULTS: dict[str, Any] = {each.name: each.default for each in fields(Point)}


def plan(points: Sequence[Point], *, stack: Stack, gpu: str) -> Plan:
    """Group points into launches; equal points are measured once.

    Launches stand in the order of their first point, points of a launch by falling batch.

    Raises:
        InvalidPoint: A point cannot run on this GPU.
    """
    groups: dict[Point, list[Point]] = {}
    for point in dict.fromkeys(points):
        require_launchable(point, gpu)
        groups.setdefault(server_key(point), []).append(point)
    return Plan(
        launches=tuple(
            Launch(points=_largest_first(group), stack=stack, gpu=gpu)
            for group in groups.values()
        )
    )


def _largest_first(points: Sequence[Point]) -> tuple[Point, ...]:
    return tuple(sorted(points, key=lambda point: -point.batch_size))


def require_two(stack: Stack, old_stack: Stack | None) -> None:
    """Refuse a stack that is compared with itself.

    Raises:
        ConfigurationError: It is.
    """
    if old_stack is not None and old_stack.name == stack.name:
        raise ConfigurationError(
            f"--joules-against={old_stack.name}: that is the stack under test itself. Name "
            "another one, or let `joules calibrate` compare a stack with itself."
        )


def require_stack(point: Point, stack: Stack) -> None:
    """Refuse a stack that cannot run the point's engine.

    Raises:
        ConfigurationError: It attaches to a server and the engine launches one, or the other
            way round.
    """
    table = f"[tool.pytest-joules.stacks.{stack.name}]"
    if point.engine == ATTACHED and not stack.url:
        raise ConfigurationError(
            f"{point.id}: engine={ATTACHED!r} measures a server that somebody else runs, but "
            f'stack {stack.name!r} names none; add url = "http://127.0.0.1:8000" to {table}.'
        )
    if point.engine != ATTACHED and stack.url:
        raise ConfigurationError(
            f"{point.id}: engine={point.engine!r} launches its own server, but stack "
            f"{stack.name!r} is the one at {stack.shown_url}; use engine={ATTACHED!r}, or "
            f"another stack (--joules-stack) than {table}."
        )


def require_no_secret(point: Point, stack: Stack) -> None:
    """Refuse arguments that hold a secret of the environment under a harmless name.

    Raises:
        ConfigurationError: Names where, and the secret's variable.
    """
    table = f"[tool.pytest-joules.stacks.{stack.name}]"
    for where, arguments in (
        ("engine_args", point.engine_args),
        (f"{table} args", stack.args),
        (f"{table} command", stack.command),
    ):
        if arguments and (name := hiding.holder(arguments, {**os.environ, **stack.env})):
            raise ConfigurationError(
                f"{point.id}: {where}: the value of {name} is refused: a command line is "
                "public, and a point is stored. Let the engine read the variable itself (from "
                "your shell or the stack's env), or rename it if it holds no secret."
            )


def require_launchable(point: Point, gpu: str) -> None:
    """Refuse a point that no launch on this GPU could measure.

    Raises:
        InvalidPoint: As ``require_runs_on``; or a pipeline is asked for what it cannot make.
    """
    require_runs_on(point, gpu)
    if point.engine in pipelines.ENGINES:
        pipelines.require_runnable(point)


def require_runs_on(point: Point, gpu: str) -> None:
    """Refuse a point that the GPU cannot run; unknown GPUs are not judged.

    Raises:
        InvalidPoint: FP8 is asked of a GPU without FP8 arithmetic.
    """
    known = catalog.gpu(gpu)
    if known and point.precision == "fp8" and known.fp8_flop_per_s is None:
        raise InvalidPoint(
            f"{point.id}: precision='fp8', but {gpu} has no FP8 arithmetic; use bf16 there, "
            "or another GPU."
        )
