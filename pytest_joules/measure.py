"""The story of one live measurement: launch, load, read, assess."""

import time
import uuid
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import combinations

from pytest_joules.assess import Measured, assess
from pytest_joules.engines import AttachedServer, Engine, Server
from pytest_joules.errors import JoulesError, MeterError, ServerDied, is_expected
from pytest_joules.gpu_choice import choose_gpus, gpus_of
from pytest_joules.leases import Leases
from pytest_joules.leases.allocation import Board, Request
from pytest_joules.load.media import digest
from pytest_joules.meter import Meter
from pytest_joules.plan import Launch
from pytest_joules.point import Point
from pytest_joules.procedure import Procedure
from pytest_joules.progress import (
    LaunchBegins,
    LaunchEnds,
    LeaseEnds,
    LeaseWaits,
    LoadBegins,
    PointEnds,
    Say,
)
from pytest_joules.provenance import Context, Identity, Provenance
from pytest_joules.result import Evidence, Result, SourceName
from pytest_joules.steady_state import Work
from pytest_joules.trace import GpuIdentity, MeterTrace
from pytest_joules.version import __version__

__tracebackhide__ = is_expected


@dataclass(kw_only=True)
class Waiting:
    """How long a rig has waited for GPUs that others held; no GPU time of its own."""

    seconds: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Rig:
    """What a launch is measured with."""

    engine: Engine
    meter: Meter
    procedure: Procedure = field(default_factory=Procedure)
    source: SourceName = "live"
    session: str = ""
    """Identifies the pytest run in every result's provenance."""

    clock: Callable[[], float] = time.monotonic
    leases: Leases | None = None
    """Through which GPUs are held; ``None`` where nobody else could use them."""

    waiting: Waiting = field(default_factory=Waiting)
    say: Say = lambda event: None  # noqa: ARG005  silence is the default listener


@dataclass(frozen=True, kw_only=True)
class Failure:
    """Why a point has no result."""

    point: Point
    error: JoulesError


Outcome = Result | Failure


@dataclass(frozen=True, kw_only=True)
class FrozenWork:
    """The work a baseline was recorded with: how many requests, and which window."""

    num_requests: int
    work: Work


def frozen_work(evidence: Evidence) -> FrozenWork:
    """Return the work that a run was measured over, to be repeated exactly."""
    work = Work(start_index=evidence.start_index, end_index=evidence.end_index)
    return FrozenWork(num_requests=evidence.num_requests, work=work)


@dataclass(frozen=True, kw_only=True)
class _Job:
    """One running launch."""

    launch: Launch
    rig: Rig
    frozen: Mapping[Point, FrozenWork]
    gpus: tuple[GpuIdentity, ...]
    server: Server
    launch_id: str


def measure(
    launch: Launch, rig: Rig, frozen: Mapping[Point, FrozenWork]
) -> Generator[Outcome, None, None]:
    """Start the engine once and measure every point of the launch, largest batch first.

    A point that cannot be measured does not keep the others from being measured, unless the
    engine ended with it.

    Args:
        launch: What to start and which points it serves.
        rig: Engine, meter and procedure.
        frozen: For points with a baseline, the work that it was recorded with.

    Yields:
        For each point a result, valid or not, or its failure, as soon as it is known. After
        a ``ServerDied`` no further point is yielded.

    Raises:
        MeterError: The GPUs are not there, not free, or cannot be read.
        LaunchError: The engine did not become ready.
    """
    rig.say(LaunchBegins(launch=launch, at_s=rig.clock()))
    try:
        yield from _measured(launch, rig, frozen)
    finally:
        rig.say(LaunchEnds(at_s=rig.clock()))


@contextmanager
def held(rig: Rig, launch: Launch, request: Request) -> Iterator[Board]:
    """Hold GPUs inside the block, and say who is waited for.

    Raises:
        LeaseError: Others keep them.
    """
    assert rig.leases is not None
    said: list[str] = []
    began_s = rig.clock()

    def tell(text: str) -> None:
        said.append(text)
        rig.say(LeaseWaits(launch=launch, text=text, at_s=rig.clock()))

    with ExitStack() as stack:
        lease = rig.leases.held(request, tell, what=launch.largest.id)
        try:
            board = stack.enter_context(lease)
        finally:
            rig.waiting.seconds += rig.clock() - began_s
            if said:
                rig.say(LeaseEnds(at_s=rig.clock()))
        yield board


def _measured(
    launch: Launch, rig: Rig, frozen: Mapping[Point, FrozenWork]
) -> Generator[Outcome, None, None]:
    gpus = () if rig.engine.attaches else choose_gpus(rig.meter.identify(), launch)
    if gpus:
        require_drained(gpus, rig)
    with (
        rig.engine.started(launch, gpu_uuids=[gpu.uuid for gpu in gpus]) as server,
        _attached_gpus(server, launch, rig)
        if rig.engine.attaches
        else nullcontext(gpus) as used,
    ):
        job = _Job(
            launch=launch,
            rig=rig,
            frozen=frozen,
            gpus=used,
            server=server,
            launch_id=server.launch_id
            if isinstance(server, AttachedServer)
            else uuid.uuid4().hex[:12],
        )
        for point in launch.points:
            outcome, ended_s = _outcome(job, point), rig.clock()
            told = outcome.error if isinstance(outcome, Failure) else outcome
            yield outcome
            # Only now: what is told is stored, whatever ends this process next.
            rig.say(PointEnds(point=point, outcome=told, at_s=ended_s))
            if isinstance(outcome, Failure) and isinstance(outcome.error, ServerDied):
                return


@contextmanager
def _attached_gpus(
    server: Server, launch: Launch, rig: Rig
) -> Iterator[tuple[GpuIdentity, ...]]:
    """Find and hold the GPUs that a running server uses: two loads would be mixed."""
    gpus = gpus_of(server.process_ids, launch, rig.meter)
    board = tuple(gpu.uuid for gpu in gpus)
    exactly = Request(count=len(board), gpus=board, boards=(board,), only_boards=True)
    with held(rig, launch, exactly) if rig.leases else nullcontext():
        yield gpus


def _outcome(job: _Job, point: Point) -> Outcome:
    try:
        return assess(_record(job, point), job.rig.procedure)
    except JoulesError as error:
        return Failure(point=point, error=error)


def require_drained(gpus: Sequence[GpuIdentity], rig: Rig) -> None:
    """Wait until nothing holds memory on the GPUs.

    Raises:
        MeterError: Memory is still held after ``Procedure.drain_deadline_s``.
    """
    uuids = [gpu.uuid for gpu in gpus]
    deadline_s = rig.clock() + rig.procedure.drain_deadline_s
    while True:
        with rig.meter.recording(uuids) as recording:
            pass
        held = _held(recording.trace(), rig.procedure.drained_memory_bytes)
        if not held:
            return
        if rig.clock() > deadline_s:
            raise MeterError(
                f"{held} before the launch, at most "
                f"{rig.procedure.drained_memory_bytes / 2**30:.0f} GiB may be. End that "
                "process, or choose other GPUs (CUDA_VISIBLE_DEVICES)."
            )


def _held(trace: MeterTrace, limit_bytes: int) -> str:
    for gpu in trace.gpus:
        used = [r.memory_used_bytes for r in gpu.readings if r.memory_used_bytes is not None]
        if used and used[-1] > limit_bytes:
            pids = next((r.process_ids for r in reversed(gpu.readings) if r.process_ids), ())
            owner = f" by process {', '.join(map(str, pids))}" if pids else ""
            return f"{gpu.gpu.uuid}: {used[-1] / 2**30:.1f} GiB of memory are in use{owner}"
    return ""


def _record(job: _Job, point: Point) -> Measured:
    work = job.frozen.get(point)
    offered = point.but(num_requests=work.num_requests) if work else point
    procedure = job.rig.procedure
    with job.rig.meter.recording([gpu.uuid for gpu in job.gpus]) as recording:
        job.rig.say(
            LoadBegins(
                point=point,
                min_window_s=procedure.min_window_s,
                energy_j=recording.energy_so_far_j,
                at_s=job.rig.clock(),
            )
        )
        load = job.server.drive(
            offered, min_window_s=procedure.min_window_s, deadline_s=procedure.deadline_s
        )
    return Measured(
        point=point,
        source=job.rig.source,
        gpu=job.launch.gpu,
        launch_id=job.launch_id,
        load=load,
        meter=recording.trace(),
        provenance=_provenance(job, point),
        own_pids=job.server.process_ids,
        frozen_work=work.work if work else None,
    )


def identity_of(gpus: Sequence[GpuIdentity], point: Point) -> Identity:
    """Return what must be equal before a result of the point on these GPUs is compared.

    Raises:
        MeterError: The GPUs differ, so that no one identity describes them.
        InvalidPoint: The files that the point shows are not there.
    """
    first = gpus[0]
    for name in ("name", "memory_bytes", "power_limit_w", "mig"):
        seen = {gpu.uuid: getattr(gpu, name) for gpu in gpus}
        if len(set(seen.values())) > 1:
            raise MeterError(
                f"the GPUs differ in {name}: {seen}. Set them alike (`nvidia-smi -pl WATTS`, "
                "`-mig`), or choose equal ones (CUDA_VISIBLE_DEVICES)."
            )
    return Identity(
        gpu_model=first.name,
        num_gpus=len(gpus),
        memory_bytes=first.memory_bytes,
        power_limit_w=first.power_limit_w,
        mig=first.mig,
        topology=_topology(gpus),
        inputs_sha256=digest(point),
    )


def _topology(gpus: Sequence[GpuIdentity]) -> str | None:
    """Say how the GPUs reach each other, as ``2 x host-bridge, 4 x nvlink-18``.

    ``None`` for a single one, and where NVML did not tell of every pair.
    """
    kinds = [dict(one.links).get(two.uuid) for one, two in combinations(gpus, 2)]
    counts = Counter(kind for kind in kinds if kind)
    if not counts or None in kinds:
        return None
    return ", ".join(f"{count} x {kind}" for kind, count in sorted(counts.items()))


def _provenance(job: _Job, point: Point) -> Provenance:
    return Provenance(
        identity=identity_of(job.gpus, point),
        context=Context(
            stack=job.launch.stack.name,
            packages=job.server.packages,
            driver=job.gpus[0].driver,
            model_revision=job.server.model_revision,
            gpu_uuids=tuple(gpu.uuid for gpu in job.gpus),
            session=job.rig.session,
            recorded_at=datetime.now(UTC).isoformat(timespec="seconds"),
            plugin=__version__,
        ),
    )
