"""What is sent for each request of a point: pinned prompts, lengths and images."""

import json
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain, islice
from random import Random
from typing import Any, Final

from pytest_joules.load import Job
from pytest_joules.load.completions import Ask
from pytest_joules.load.media import parts
from pytest_joules.point import Point, Request

FIRST_ID: Final = 1_000
"""Lower ids are control tokens in some vocabularies."""

END_ID: Final = 30_000
"""Within every vocabulary of a language model that is in use (32,000 and more)."""

_WORDS: Final = (
    "the of and to in is that it was for on are with as at be this have from or one had by "
    "not but what all were when we there can an your which their said if do will each about "
    "how up out them then she many some so these would other into has more her two like him "
    "see time could no make than first been its who now people my made over did down only way "
    "find use may water long little very after words called just where most know get through "
    "back much go good new write our me man too any day same right look think also around"
)
"""So common that each of them is one token in most vocabularies."""


def prompt_ids(seed: int, index: int, length: int) -> list[int]:
    """Return the pinned token ids of a prompt; a longer one begins with the shorter."""
    return Random(f"prompt:{seed}:{index}").choices(range(FIRST_ID, END_ID), k=length)


def prompt_text(seed: int, index: int, length: int) -> str:
    """Return a pinned prompt of so many words; a longer one begins with the shorter."""
    return " ".join(Random(f"prompt:{seed}:{index}").choices(_WORDS.split(), k=length))


def is_streamed(index: int, point: Point, sample_size: int) -> bool:
    """Tell whether a request belongs to the sample that streams.

    Decided by the index alone, so that a later run streams the same requests; spread over
    the whole load, so that the sample sees the same mixture as the rest.
    """
    offered = point.num_requests or 3 * point.batch_size
    stride = max(1, offered // sample_size)
    return index % stride == stride // 2


def asks(job: Job) -> Iterator[Ask]:
    """Yield what is sent, in order; the first ``batch_size`` are made before anything is.

    They leave at once. Where images are encoded for the later ones, that happens ahead of
    time, too, and not in the thread that keeps requests in flight.
    """
    size = job.point.batch_size
    if job.point.vision is not None:
        made = _ahead(job, size)
    else:
        made = (ask(request, job) for request in job.point.requests())
    return chain(list(islice(made, size)), made)


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
    limit = request.output_tokens if pinned else _room(request, job)
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


def _room(request: Request, job: Job) -> int | None:
    """Return the longest output asked for; ``None`` leaves it to the server's context."""
    lengths = job.point.output_tokens or job.point.spec.output_tokens
    longest = lengths.longest if lengths else request.output_tokens
    if job.max_model_len is None:
        return longest
    room = max(1, job.max_model_len - request.prompt_tokens)
    if job.point.vision is not None and longest > room:
        return None  # nobody but the server knows how many tokens an image takes
    return min(longest, room)
