"""The story of one live measurement: launch, load, read, assess."""

import uuid
from collections.abc import Generator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime

from pytest_joules.assess import Measured, assess
from pytest_joules.engines import AttachedServer, Server
from pytest_joules.errors import JoulesError, ServerDied, is_expected
from pytest_joules.gpus.choice import choose_gpus
from pytest_joules.gpus.holding import held_by_server, require_drained
from pytest_joules.gpus.identity import as_recorded, identity_of
from pytest_joules.plan import Launch
from pytest_joules.point import Point
from pytest_joules.progress import LaunchBegins, LaunchEnds, LoadBegins, PointEnds
from pytest_joules.provenance import Context, Provenance
from pytest_joules.result import Evidence, Result
from pytest_joules.rig import Rig
from pytest_joules.steady_state import Work
from pytest_joules.trace import GpuIdentity, MeterTrace
from pytest_joules.version import __version__

__tracebackhide__ = is_expected


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


def _measured(
    launch: Launch, rig: Rig, frozen: Mapping[Point, FrozenWork]
) -> Generator[Outcome, None, None]:
    gpus = () if rig.engine.attaches else choose_gpus(rig.meter.identify(), launch)
    if gpus:
        require_drained(gpus, rig)
    with (
        rig.engine.started(launch, gpu_uuids=[gpu.uuid for gpu in gpus]) as server,
        held_by_server(server, launch, rig)
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


def _outcome(job: _Job, point: Point) -> Outcome:
    try:
        return assess(_record(job, point), job.rig.procedure)
    except JoulesError as error:
        return Failure(point=point, error=error)


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
    meter = recording.trace()
    return Measured(
        point=point,
        source=job.rig.source,
        gpu=job.launch.gpu,
        launch_id=job.launch_id,
        load=load,
        meter=meter,
        provenance=_provenance(job, point, meter),
        own_pids=job.server.process_ids,
        frozen_work=work.work if work else None,
    )


def _provenance(job: _Job, point: Point, meter: MeterTrace) -> Provenance:
    return Provenance(
        identity=identity_of(as_recorded(job.gpus, meter), point),
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
