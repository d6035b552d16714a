"""A diffusion pipeline in a worker, driven batch by batch; what both its engines share."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any, Final

from pytest_joules import pipelines
from pytest_joules.batches import least_batches, num_missing
from pytest_joules.engines import workers
from pytest_joules.engines.folders import marking_failure
from pytest_joules.engines.workers import Event, Worker
from pytest_joules.errors import LoadError, is_expected
from pytest_joules.plan import Launch
from pytest_joules.point import Point
from pytest_joules.stack import environment, model_revision, probe, require_any, visible_gpus
from pytest_joules.trace import BatchLoad, BatchTrace

__tracebackhide__ = is_expected

_STALLED: Final = 10.0
"""Times the slowest batch so far after which a batch is taken to hang ..."""

_STALLED_S: Final = 60.0
"""... and seconds that every batch has at the least."""


class PipelineServer:
    """One running pipeline."""

    def __init__(
        self, worker: Worker, packages: Mapping[str, str], *, model_revision: str | None
    ) -> None:
        self._worker, self._packages = worker, dict(packages)
        self.model_revision = model_revision

    @property
    def packages(self) -> dict[str, str]:
        """Versions of Python and of what the pipeline computes with."""
        return dict(self._packages)

    @property
    def process_ids(self) -> frozenset[int]:
        """The worker's processes, all ranks."""
        return self._worker.process_ids

    def drive(self, point: Point, *, min_window_s: float, deadline_s: float) -> BatchLoad:
        """Make batches until the pipeline has warmed up and enough are measured.

        ``point.num_requests`` images or videos are made where it is set.

        Raises:
            ServerDied: The worker ended, a rank failed, or a batch took longer than the
                deadline or far longer than those before; the message holds its log.
            LoadError: A batch made something else than asked, or the deadline passed.
        """
        shape = pipelines.shape(point)
        least = least_batches(point.work_unit, shape.steps)
        ends_s = monotonic() + deadline_s
        batches: list[BatchTrace] = []
        fixed = point.num_requests // point.batch_size if point.num_requests else None
        while missing := num_missing(
            batches, least=least, min_window_s=min_window_s, fixed=fixed
        ):
            if monotonic() > ends_s:
                raise LoadError(
                    f"{point.id}: {len(batches)} batches took {deadline_s:.0f} s and were not "
                    "enough; make them shorter (batch_size, steps), use more GPUs, or raise "
                    "--joules-point-deadline."
                )
            silence_s = _patience_s(batches, deadline_s)
            events = self._worker.ask(_order(point, shape, missing), silence_s=silence_s)
            batches += _batches(point, shape, events)
        return BatchLoad(
            batch_size=point.batch_size, least_batches=least, batches=tuple(batches)
        )


def _patience_s(batches: Sequence[BatchTrace], deadline_s: float) -> float:
    if not batches:
        return deadline_s
    return max(_STALLED_S, _STALLED * max(batch.latency_s for batch in batches))


def _order(point: Point, shape: pipelines.Shape, batches: int) -> dict[str, Any]:
    frames = {"num_frames": shape.num_frames} if shape.num_frames else {}
    return {
        "batches": batches,
        "batch_size": point.batch_size,
        "arguments": {
            "num_inference_steps": shape.steps,
            "height": shape.height,
            "width": shape.width,
            **frames,
        },
    }


def _batches(point: Point, shape: pipelines.Shape, events: Iterator[Event]) -> list[BatchTrace]:
    """Read batches; all ranks wait for each other, and the last returns what was made."""
    heard = [event for event in events if event["event"] == "batch"]
    asked = [point.batch_size, shape.num_frames or 1, shape.height, shape.width]
    for event in heard:
        is_last = event["rank"] == point.num_gpus - 1
        if event["made"] != asked and (is_last or event["made"] is not None):
            raise LoadError(
                f"{point.id}: a batch made {event['made']} instead of {asked} (number, frames, "
                "height, width); its energy would be that of other work."
            )
    return [
        BatchTrace(started_s=event["started_s"], finish_s=event["finish_s"])
        for event in heard
        if event["rank"] == 0
    ]


@dataclass(frozen=True, kw_only=True)
class Command:
    """How an engine starts its worker."""

    argv: Sequence[str]
    """The command up to the worker's script."""

    job: Mapping[str, Any]
    """What the worker is told beside the pipeline."""

    env: Mapping[str, str] = field(default_factory=dict)
    """Variables for it, unless the stack or pytest's own environment sets them."""

    num_ranks: int = 1


@contextmanager
def started(
    launch: Launch,
    command: Command,
    *,
    gpu_uuids: Sequence[str],
    folder: Path,
    distributions: Sequence[str],
) -> Iterator[PipelineServer]:
    """Start a worker with the launch's pipeline, wait until it is built, end it on leaving.

    Raises:
        MissingDependency: The stack has no interpreter, or lacks one of the distributions.
        LaunchError: It did not become ready; the message holds the end of its log.
    """
    packages = probe(launch.stack, gpu_uuids=gpu_uuids)
    for name in distributions:
        require_any(
            packages,
            (name,),
            stack=launch.stack,
            remedy=f"Install it there with 'pip install {' '.join(distributions)}'",
        )
    job = pipelines.as_job(launch.largest)
    with (
        marking_failure(folder),
        workers.started(
            command.argv,
            {**job, **command.job},
            env={**command.env, **environment(launch.stack, visible_gpus(gpu_uuids))},
            folder=folder,
            num_ranks=command.num_ranks,
        ) as worker,
    ):
        worker.await_ready(launch.stack.deadline_s)
        revision = model_revision(launch.stack, job["model"])
        yield PipelineServer(worker, packages, model_revision=revision)
