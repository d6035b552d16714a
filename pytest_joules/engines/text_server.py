"""Text from a worker that feeds itself: requests go in by a file, their times come back."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, Final

import numpy as np

from pytest_joules.engines.workers import Event, Worker
from pytest_joules.errors import LoadError, is_expected
from pytest_joules.hiding import told
from pytest_joules.load import STREAMED_SAMPLE, Target, given_up, require_fits
from pytest_joules.load.asks import is_streamed, room
from pytest_joules.load.client_counts import sample_times
from pytest_joules.point import Point
from pytest_joules.trace import LoadTrace, RequestTrace, ServerSample

__tracebackhide__ = is_expected

_MOST: Final = 50_000
"""Requests of a load without a number: days of any window, in a file of a megabyte."""

_SLACK_S: Final = 60.0


class TextServer:
    """One model that generates in a worker."""

    def __init__(
        self, worker: Worker, facts: Event, packages: Mapping[str, str], *, folder: Path
    ) -> None:
        self._worker, self._facts, self._folder = worker, facts, folder
        self._packages = dict(packages)
        self.model_revision: str | None = None
        self._num_loads = 0

    @property
    def packages(self) -> dict[str, str]:
        """Versions of Python and of what the model computes with."""
        return dict(self._packages)

    @property
    def process_ids(self) -> frozenset[int]:
        """The worker's processes."""
        return self._worker.process_ids

    def drive(self, point: Point, *, min_window_s: float, deadline_s: float) -> LoadTrace:
        """Let the worker offer the point's load to itself; see ``Server``."""
        context = self._facts["context"]
        require_fits(point, Target(host="", port=0, model=point.model, max_model_len=context))
        self._num_loads += 1
        path = self._folder / f"load-{self._num_loads}.json"
        path.write_text(json.dumps(_requests(point, context)), encoding="utf-8")
        order = {
            "name": str(self._num_loads),
            "requests": str(path.resolve()),
            "batch_size": point.batch_size,
            "seed": point.seed,
            "pinned": point.mode == "fixed",
            "is_open": point.num_requests is None,
            "min_window_s": min_window_s,
            "deadline_s": deadline_s,
        }
        events = list(self._worker.ask(order, silence_s=deadline_s + _SLACK_S))
        (ended,) = [event for event in events if event["event"] == "ended"]
        done = [event for event in events if event["event"] == "request"]
        if ended["given_up"]:
            raise LoadError(given_up(ended["given_up"], done=len(done)))
        return load_trace(done, ended, point)


def _requests(point: Point, context: int | None) -> list[tuple[int, int, int]]:
    pinned = point.mode == "fixed"
    return [
        (
            request.index,
            request.prompt_tokens,
            request.output_tokens if pinned else room(request, point, context),
        )
        for request in islice(point.requests(), point.num_requests or _MOST)
    ]


def load_trace(done: Sequence[Event], ended: Event, point: Point) -> LoadTrace:
    """Build the trace of a load from the times of its requests.

    Raises:
        LoadError: A request made other than the asked number of tokens, or did not tell when.
    """
    asked = {r.index: r for r in islice(point.requests(), max(e["index"] for e in done) + 1)}
    requests = []
    for event in done:
        request = _request(event, point)
        if request.error is None:
            least = asked[request.index].output_tokens if point.mode == "fixed" else 1
            _require_asked(event, least, point)
        requests.append(request)
    started_s, ended_s = ended["started_s"], ended["ended_s"]
    trace = LoadTrace(
        max_concurrency=point.batch_size,
        started_s=started_s,
        ended_s=ended_s,
        requests=tuple(sorted(requests, key=lambda request: request.index)),
        server=(),
        client_cpu_s=0.0,
        client_lag_s=0.0,
        counted_by="engine",
    )
    return replace(trace, server=engine_samples(done, started_s=started_s, ended_s=ended_s))


def _request(event: Event, point: Point) -> RequestTrace:
    times = event["token_s"]
    shown = is_streamed(event["index"], point, STREAMED_SAMPLE)
    return RequestTrace(
        index=event["index"],
        sent_s=event["sent_s"],
        finish_s=event["finish_s"],
        prompt_tokens=event["prompt_tokens"],
        output_tokens=0 if event["error"] else event["output_tokens"],
        first_token_s=times[0] if times else None,
        itl_s=tuple(float(gap) for gap in np.diff(times)) if shown else (),
        error=None if event["error"] is None else told(event["error"]),
    )


def _require_asked(event: Event, asked: int, point: Point) -> None:
    made, timed = event["output_tokens"], len(event["token_s"])
    is_right = made == asked if point.mode == "fixed" else made >= asked
    if timed != made or not is_right:
        raise LoadError(
            f"{point.id}: of {asked} tokens asked, request {event['index']} made {made} and "
            f"told the times of {timed}."
        )


def engine_samples(
    done: Sequence[Event], *, started_s: float, ended_s: float
) -> tuple[ServerSample, ...]:
    """Count, ten times a second, what the engine had done by then, from its own times."""
    times = sample_times(started_s, ended_s)
    good = [event for event in done if event["error"] is None]
    moments: dict[str, list[float]] = {
        "sent": [e["sent_s"] for e in done],
        "begun": [e["scheduled_s"] if e["scheduled_s"] > 0 else e["finish_s"] for e in done],
        "finished": [e["finish_s"] for e in done],
        "last": [e["token_s"][-1] if e["token_s"] else e["finish_s"] for e in done],
        "first": [e["token_s"][0] for e in good],
        "tokens": [time_s for e in good for time_s in e["token_s"]],
    }
    counted = {
        name: np.searchsorted(np.sort(found), times, side="right")
        for name, found in moments.items()
    }
    prompts = sorted((e["token_s"][0], e["prompt_tokens"]) for e in good)
    read = np.concatenate([[0], np.cumsum([tokens for _, tokens in prompts])])
    rows: dict[str, Any] = {
        "running": np.maximum(counted["begun"] - counted["last"], 0),
        "waiting": counted["sent"] - counted["begun"],
        "output_tokens": counted["tokens"],
        "prompt_tokens": read[counted["first"]],
        "first_tokens": counted["first"],
        "finished": counted["finished"],
    }
    return tuple(
        ServerSample(
            time_s=float(time_s),
            took_s=0.0,
            **{name: float(values[i]) for name, values in rows.items()},
        )
        for i, time_s in enumerate(times)
    )
