"""Offer a closed-loop load to an OpenAI-compatible server, and record it.

Load generator and sampler run as processes of their own, so that neither they nor the
meter nor pytest disturb each other. They write what they see as it happens; this module
starts them, watches over them and reads what they wrote.
"""

import json
import os
import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field, fields, replace
from itertools import islice
from pathlib import Path
from time import monotonic
from typing import Any, Final, Literal, Protocol

from pytest_joules.errors import InvalidPoint, LoadError, is_expected
from pytest_joules.hiding import told
from pytest_joules.load.stall import Progress
from pytest_joules.point import Point
from pytest_joules.process import Supervised, supervised
from pytest_joules.trace import LoadTrace, RequestTrace, ServerSample

__tracebackhide__ = is_expected

Counters = Literal["vllm", "sglang", ""]
KEY_VARIABLE: Final = "PYTEST_JOULES_API_KEY"
STREAMED_SAMPLE: Final = 16
"""Requests that stream, in as many as the shortest load offers."""

_ALL_STREAM: Final[Mapping[str, Any]] = {"sample_size": sys.maxsize, "counts_at_end": True}
_START_S: Final = 60.0
_CLOSE_S: Final = 30.0
_LOOK_S: Final = 0.5


@dataclass(frozen=True, kw_only=True)
class Target:
    """A running server."""

    host: str
    port: int
    model: str
    """Name under which it serves the model."""

    api_key: str = field(default="", repr=False)
    max_model_len: int | None = None
    """Longest prompt and output together, in tokens."""

    counters: Counters = "vllm"
    """What its ``/metrics`` tells: all that is needed, only requests in flight, or nothing."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """What the load generator is told."""

    url: str
    model: str
    point: Point
    min_window_s: float
    deadline_s: float
    max_model_len: int | None = None
    sample_size: int = STREAMED_SAMPLE
    """Requests that stream, at least; all of them where it is more than are offered."""

    counts_at_end: bool = False
    """Whether the server may tell a stream's tokens at its end only."""

    def to_json(self) -> str:
        """Write it; ``from_json`` rebuilds an equal job."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return json.dumps({**values, "point": self.point.as_json()})

    @classmethod
    def from_json(cls, text: str) -> "Job":
        """Rebuild it."""
        values = json.loads(text)
        return cls(**{**values, "point": Point.from_json(values["point"])})


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How long a load may take, in seconds."""

    min_window_s: float
    deadline_s: float


class Watched(Protocol):
    """The server's side of the story, told by whoever started it."""

    def require_running(self) -> None:
        """Raise ``ServerDied`` if its process ended; cheap."""

    def require_healthy(self) -> None:
        """Raise ``ServerDied`` if it can no longer answer, even if its process runs."""


def offer(
    target: Target, point: Point, limits: Limits, *, folder: Path, server: Watched
) -> LoadTrace:
    """Keep ``point.batch_size`` requests in flight and record what happens.

    All sockets are closed when this returns or raises.

    Args:
        target: Where to.
        point: What.
        limits: How long.
        folder: Gets the job, the events, the samples and the logs.
        server: Asked whether it lives.

    Raises:
        InvalidPoint: A request cannot fit into the server's context.
        ServerDied: By way of ``server``.
        LoadError: The deadline passed, or requests or counters broke the protocol.
    """
    require_fits(point, target)
    folder.mkdir(parents=True, exist_ok=True)
    job = Job(
        url=f"http://{target.host}:{target.port}{_path(point)}",
        model=target.model,
        point=point,
        max_model_len=target.max_model_len,
        **asdict(limits),
        **({} if target.counters == "vllm" else _ALL_STREAM),
    )
    draft = folder / "job.json.new"
    draft.write_text(job.to_json(), encoding="utf-8")
    draft.replace(folder / "job.json")
    try:
        _run(target, limits, folder=folder, server=server)
        trace = read_trace(folder, max_concurrency=point.batch_size, counters=target.counters)
    except LoadError:
        server.require_healthy()  # the death of the server explains everything else
        raise
    if any(request.error for request in trace.requests):
        server.require_healthy()
    return trace


def _path(point: Point) -> str:
    # Images come by chat only; a plain completion takes token ids, which pin the prompt.
    return "/v1/completions" if point.vision is None else "/v1/chat/completions"


def _run(target: Target, limits: Limits, *, folder: Path, server: Watched) -> None:
    if not target.counters:
        _generate(target, limits, folder=folder, check=server.require_running)
        return
    address = [target.host, str(target.port)]
    samples = folder / "samples.jsonl"

    def check() -> None:
        server.require_running()
        _require_sampling(sampler, samples)

    def check_load() -> None:
        check()
        progress.require()

    with _own_process(
        "scrape", [*address, str(samples), target.counters], target=target, folder=folder
    ) as sampler:
        _await_first_sample(sampler, samples, check)
        progress = Progress(samples)
        _generate(target, limits, folder=folder, check=check_load)
    # Leaving the block told the sampler to take its last samples and end.
    _require_ended_well(sampler, samples)


def _generate(
    target: Target, limits: Limits, *, folder: Path, check: Callable[[], None]
) -> None:
    give_up_s = monotonic() + limits.deadline_s + _START_S + _CLOSE_S
    files = [str(folder / "job.json"), str(folder / "events.jsonl")]
    with _own_process("generator", files, target=target, folder=folder) as generator:
        while generator.wait(_LOOK_S) is None:
            check()
            _require_before(give_up_s, generator)
    _require_ended_well(generator, folder / "samples.jsonl")


def require_fits(point: Point, target: Target) -> None:
    """Refuse requests that the server would refuse, before time is spent on the others.

    Raises:
        InvalidPoint: Names the first such request and both remedies.
    """
    if target.max_model_len is None:
        return
    offered = point.num_requests or 16 * point.batch_size
    for request in islice(point.requests(), offered):
        asked = request.output_tokens if point.mode == "fixed" else 1
        if request.prompt_tokens + asked > target.max_model_len:
            raise InvalidPoint(
                f"{point.id}: request {request.index} has {request.prompt_tokens} prompt and "
                f"{asked} output tokens, but the server's context is "
                f"{target.max_model_len}. Set max_model_len higher, or bound input_tokens "
                "and output_tokens with Lengths(longest=...)."
            )


def read_trace(folder: Path, *, max_concurrency: int, counters: Counters = "vllm") -> LoadTrace:
    """Build the trace from what generator and sampler wrote.

    Where the server does not count tokens, the client's own counts take the place of its
    samples, and the trace says so.

    Raises:
        LoadError: The load was given up, or a file is not complete.
    """
    events = read_rows(folder / "events.jsonl")
    ends = {event["event"]: event for event in events if event["event"] in ("start", "end")}
    if set(ends) != {"start", "end"}:
        raise LoadError(f"the load generator wrote no start or no end to {folder}.")
    if ends["end"]["given_up"]:
        done = sum(event["event"] == "done" for event in events)
        raise LoadError(given_up(ends["end"]["given_up"], done=done))
    done = [_request(event) for event in events if event["event"] == "done"]
    started_s, ended_s = ends["start"]["time_s"], ends["end"]["time_s"]
    rows = _sampled(folder / "samples.jsonl")
    trace = LoadTrace(
        max_concurrency=max_concurrency,
        started_s=started_s,
        ended_s=ended_s,
        requests=tuple(sorted(done, key=lambda request: request.index)),
        server=(),
        client_cpu_s=ends["end"]["cpu_s"],
        client_lag_s=ends["end"]["lag_s"],
    )
    if counters == "vllm":
        trace = replace(trace, server=tuple(ServerSample(**row) for row in rows))
    else:
        trace = _counted_by_client(trace, rows)
    _require_enclosed(trace)
    return trace


def given_up(why: str, *, done: int) -> str:
    """Say why a load was given up, how far it had come, and what would let it come further."""
    return (
        f"the load was given up: {why.rstrip('.')}. {done} requests had ended. If it only "
        "needs longer, raise --joules-point-deadline, or ask for less (--joules-window, "
        "num_requests)."
    )


def _counted_by_client(trace: LoadTrace, gauges: list[dict[str, Any]]) -> LoadTrace:
    # numpy, which collecting tests does not need
    from pytest_joules.load.client_counts import client_samples  # noqa: PLC0415

    samples = client_samples(
        trace.requests, started_s=trace.started_s, ended_s=trace.ended_s, gauges=gauges
    )
    who: Literal["client", "both"] = "both" if gauges else "client"
    return replace(trace, server=samples, counted_by=who)


def _sampled(path: Path) -> list[dict[str, Any]]:
    """Read the server's counters.

    Raises:
        LoadError: The server does not offer a counter that is needed.
    """
    rows = read_rows(path)
    for row in rows:
        if "fatal" in row:
            raise LoadError(row["fatal"])
    return [row for row in rows if "error" not in row]


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Read complete JSON lines; a last one that is being written is left out."""
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    return [json.loads(line) for line in text.split("\n")[:-1]]


def _request(event: Mapping[str, Any]) -> RequestTrace:
    values = {name: value for name, value in event.items() if name != "event"}
    error = values["error"]  # may quote the server's answer
    shown = None if error is None else told(error)
    return RequestTrace(**{**values, "itl_s": tuple(values["itl_s"]), "error": shown})


def _require_enclosed(trace: LoadTrace) -> None:
    samples = trace.server
    if (
        not samples
        or samples[0].time_s > trace.started_s
        or samples[-1].time_s - samples[-1].took_s < trace.ended_s
    ):
        raise LoadError(
            "the server's counters were not read both before the first request and after the "
            "last, so its tokens cannot be reconciled; see samples.jsonl."
        )


def _own_process(
    module: str, arguments: list[str], *, target: Target, folder: Path
) -> AbstractContextManager[Supervised]:
    beside_the_package = str(Path(__file__).parents[2])
    paths = [beside_the_package, *filter(None, [os.environ.get("PYTHONPATH")])]
    env = {
        **os.environ,
        # The key goes by the environment: a command line is public.
        KEY_VARIABLE: target.api_key,
        "PYTHONPATH": os.pathsep.join(paths),
    }
    argv = [sys.executable, "-m", f"pytest_joules.load.{module}", *arguments]
    return supervised(argv, env=env, log_path=folder / f"{module}.log")


def _await_first_sample(sampler: Supervised, samples: Path, check: Callable[[], None]) -> None:
    deadline = monotonic() + _START_S
    while not _sampled(samples):
        check()
        _require_before(deadline, sampler)
        sampler.wait(0.02)


def _require_sampling(sampler: Supervised, samples: Path) -> None:
    if sampler.returncode() is not None:
        _require_ended_well(sampler, samples)
        raise LoadError(f"the sampler of /metrics ended early:\n{sampler.log_tail()}")


def _require_before(deadline: float, child: Supervised) -> None:
    if monotonic() > deadline:
        raise LoadError(f"{child.log_path.stem} gave no answer in time:\n{child.log_tail()}")


def _require_ended_well(child: Supervised, samples: Path) -> None:
    if child.returncode() != 0:
        _sampled(samples)
        raise LoadError(
            f"{child.log_path.stem} ended with code {child.returncode()}:\n{child.log_tail()}"
        )
