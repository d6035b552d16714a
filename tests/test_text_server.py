"""Text from a worker that feeds itself: from the times of its requests to a trace."""

from typing import Any

import pytest

from pytest_joules.engines.text_server import engine_samples, load_trace
from pytest_joules.engines.transformers import job_of
from pytest_joules.errors import InvalidPoint, LoadError
from pytest_joules.plan import Launch, Stack
from pytest_joules.point import Point
from pytest_joules.tasks import Lengths
from pytest_joules.trace import ServerSample

POINT = Point(
    model="Qwen/Qwen3-8B",
    engine="transformers",
    batch_size=2,
    num_requests=6,
    input_tokens=Lengths(mean=5),
    output_tokens=Lengths(mean=3),
)
ENDED = {"event": "ended", "started_s": 10.0, "ended_s": 13.0, "given_up": ""}


def done(index: int, *token_s: float, sent_s: float = 10.0, **changes: Any) -> dict[str, Any]:
    event = {
        "event": "request",
        "index": index,
        "sent_s": sent_s,
        "scheduled_s": sent_s + 0.2,
        "finish_s": token_s[-1] + 0.05 if token_s else 12.0,
        "prompt_tokens": 5,
        "output_tokens": len(token_s),
        "token_s": list(token_s),
        "error": None,
    }
    return {**event, **changes}


# Worked by hand: two requests, the second sent 1 s after the first, and one that failed.
LOAD = [
    done(1, 11.5, 12.0, 12.5, sent_s=11.0),
    done(0, 10.5, 11.0, 11.45, finish_s=11.75),  # it was told late
    done(2, error="out of blocks", scheduled_s=-1),
]


def at(time_s: float) -> ServerSample:
    samples = engine_samples(LOAD, started_s=10.0, ended_s=13.0)
    return min(samples, key=lambda sample: abs(sample.time_s - time_s))


@pytest.mark.parametrize(
    ("time_s", "running", "waiting", "tokens", "first", "finished"),
    [
        (9.9, 0, 0, 0, 0, 0),
        (10.1, 0, 2, 0, 0, 0),
        (10.3, 1, 1, 0, 0, 0),
        (10.6, 1, 1, 1, 1, 0),
        (11.1, 1, 2, 2, 1, 0),
        (11.3, 2, 1, 2, 1, 0),
        (11.6, 1, 1, 4, 2, 0),
        (11.8, 1, 1, 4, 2, 1),
        (12.3, 1, 0, 5, 2, 2),
        (13.1, 0, 0, 6, 2, 3),
    ],
)
def test_the_engines_times_are_its_counters(  # noqa: PLR0917 pytest passes by name
    time_s: float, running: int, waiting: int, tokens: int, first: int, finished: int
) -> None:
    sample = at(time_s)

    assert sample.time_s == pytest.approx(time_s)
    assert (sample.running, sample.waiting) == (running, waiting)
    assert (sample.output_tokens, sample.first_tokens, sample.finished) == (
        tokens,
        first,
        finished,
    )
    assert sample.prompt_tokens == 5 * first


def test_a_trace_is_in_order_and_says_that_the_engine_counted() -> None:
    trace = load_trace(LOAD, ENDED, POINT)

    assert [request.index for request in trace.requests] == [0, 1, 2]
    assert [request.output_tokens for request in trace.requests] == [3, 3, 0]
    assert [request.error for request in trace.requests] == [None, None, "out of blocks"]
    assert trace.requests[0].first_token_s == 10.5
    assert trace.requests[0].itl_s == pytest.approx((0.5, 0.45))
    assert trace.counted_by == "engine"
    assert trace.server[0].time_s < trace.started_s < trace.ended_s < trace.server[-1].time_s


@pytest.mark.parametrize(
    "event",
    [
        done(0, 10.5, 11.0),
        done(0, 10.5, 11.0, 11.5, 12.0),
        done(0, 10.5, 11.0, 11.5, token_s=[10.5]),
    ],
    ids=["too-few", "too-many", "untimed"],
)
def test_other_work_than_asked_is_refused(event: dict[str, Any]) -> None:
    with pytest.raises(LoadError, match="of 3 tokens asked, request 0 made"):
        load_trace([event], ENDED, POINT)


def test_a_model_may_end_its_own_outputs() -> None:
    trace = load_trace([done(0, 10.5, 11.0)], ENDED, POINT.but(mode="natural"))

    assert trace.requests[0].output_tokens == 2


def job(*args: str, **changes: Any) -> dict[str, Any]:
    return job_of(Launch(points=(POINT.but(**changes),), stack=Stack(args=args), gpu="h200"))


def test_arguments_are_names_and_values() -> None:
    made = job(
        "attn_implementation=sdpa",
        engine_args=["--max_batch_tokens=256", "use_cuda_graph=false"],
    )

    assert made["arguments"] == {"max_batch_tokens": 256, "use_cuda_graph": False}
    assert made["attention"] == "sdpa"
    assert made["batch_size"] == 2


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"engine_args": ["--enforce-eager"]}, "takes NAME=VALUE"),
        ({"precision": "fp8"}, "not in precision='fp8'"),
        ({"model": "openai/gpt-oss-20b", "precision": "bf16"}, "in mxfp4, not in"),
        ({"model": "openai/gpt-oss-20b", "weights": "dummy"}, "loads weights='dummy'"),
    ],
)
def test_what_it_cannot_load_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidPoint, match=said):
        job(**changes)


def test_published_quantized_weights_are_loaded_as_they_are() -> None:
    assert job(model="openai/gpt-oss-20b")["precision"] == "mxfp4"


@pytest.mark.parametrize("fields", [{"num_gpus": 2}, {"max_model_len": 64}])
def test_what_it_cannot_heed_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(InvalidPoint, match="cannot be set with engine='transformers'"):
        POINT.but(**fields)
