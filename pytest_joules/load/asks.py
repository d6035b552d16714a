"""What is sent for each request of a point: pinned prompts, lengths and images."""

import json
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain, islice
from typing import Any, Final

from pytest_joules.load import Job
from pytest_joules.load.completions import Ask
from pytest_joules.load.media import parts
from pytest_joules.point import Point, Request
from pytest_joules.prompts import prompt_ids, prompt_text

_TOGETHER: Final = 16
"""Requests made at once; they hold up the loop for a millisecond or two."""


def is_streamed(index: int, point: Point, sample_size: int) -> bool:
    """Tell whether a request belongs to the sample that streams.

    Decided by the index alone, so that a later run streams the same requests; spread over
    the whole load, so that the sample sees the same mixture as the rest.
    """
    offered = point.num_requests or 3 * point.batch_size
    stride = max(1, offered // sample_size)
    return index % stride == stride // 2


def asks(job: Job) -> Iterator[Ask]:
    """Yield what is sent, in order; as many as the shortest load has are made before it.

    Where images are encoded, only the first ``batch_size`` are, which leave at once; the later
    ones are made ahead of time, too, and not in the thread that keeps requests in flight.
    """
    size = job.point.batch_size
    if job.point.vision is None:
        made, before = _some_at_once(job), 3 * size
    else:
        made, before = _ahead(job, size), size
    return chain(list(islice(made, before)), made)


def _some_at_once(job: Job) -> Iterator[Ask]:
    """Make a few together: alone, each would cost three times as much, caches being cold."""
    requests = job.point.requests()
    while some := [ask(request, job) for request in islice(requests, _TOGETHER)]:
        yield from some


def _ahead(job: Job, size: int) -> Iterator[Ask]:
    pool = ThreadPoolExecutor(max_workers=1)
    coming: deque[Future[Ask]] = deque()
    try:
        for request in job.point.requests():
            coming.append(pool.submit(ask, request, job))
            if len(coming) > size:
                yield coming.popleft().result()
        while coming:
            yield coming.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def ask(request: Request, job: Job) -> Ask:
    """Say what is sent for a request."""
    point = job.point
    pinned = point.mode == "fixed"
    limit = _limit(request, job)
    body = {"model": job.model, **_prompt(request, job), "temperature": 0}
    if limit is not None:
        body |= {"max_tokens": limit}
    if pinned:
        body |= {"min_tokens": limit, "ignore_eos": True}
    streamed = is_streamed(request.index, point, job.sample_size)
    if streamed:
        options = {"include_usage": True, "continuous_usage_stats": True}
        body |= {"stream": True, "stream_options": options}
    return Ask(
        index=request.index,
        body=json.dumps(body).encode(),
        streamed=streamed,
        prompt_tokens=request.prompt_tokens,
        counts_exactly="prompt" in body,
        counts_at_end=job.counts_at_end,
        output_tokens=limit if pinned else None,
    )


def _prompt(request: Request, job: Job) -> dict[str, Any]:
    seed, index = job.point.seed, request.index
    vision = job.point.vision
    if vision is None:
        return {"prompt": prompt_ids(seed, index, request.prompt_tokens)}
    text = {"type": "text", "text": prompt_text(seed, index, request.prompt_tokens)}
    content = [*parts(vision, index, seed=seed), text]
    return {"messages": [{"role": "user", "content": content}]}


def room(request: Request, point: Point, context: int | None) -> int:
    """Return the longest output of a request that the model ends by itself."""
    lengths = point.output_tokens or point.spec.output_tokens
    longest = lengths.longest if lengths else request.output_tokens
    return longest if context is None else max(1, min(longest, context - request.prompt_tokens))


def _limit(request: Request, job: Job) -> int | None:
    """Return the longest output asked for; ``None`` leaves it to the server's context."""
    if job.point.mode == "fixed":
        return request.output_tokens
    longest = room(request, job.point, None)
    bounded = room(request, job.point, job.max_model_len)
    if job.point.vision is not None and bounded < longest:
        return None  # nobody but the server knows how many tokens an image takes
    return bounded
