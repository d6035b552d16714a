"""Counters as the client saw them."""

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_joules.load.client_counts import client_samples
from pytest_joules.trace import RequestTrace, ServerSample


def request(
    sent_s: float, first_s: float | None, finish_s: float, *, tokens: int
) -> RequestTrace:
    return RequestTrace(
        index=0,
        sent_s=sent_s,
        first_token_s=first_s,
        finish_s=finish_s,
        prompt_tokens=7,
        output_tokens=tokens,
        error=None if first_s is not None else "it broke",
    )


def at(samples: tuple[ServerSample, ...], time_s: float) -> ServerSample:
    return min(samples, key=lambda sample: abs(sample.time_s - time_s))


# Eleven tokens from 1 s to 2 s, five from 1.5 s to 3.5 s, and one that never came.
LOAD = [
    request(0.0, 1.0, 2.0, tokens=11),
    request(0.5, 1.5, 3.5, tokens=5),
    request(0.0, None, 3.0, tokens=0),
]


@pytest.mark.parametrize(
    ("time_s", "running", "waiting", "tokens", "finished"),
    [
        (-0.1, 0, 0, 0, 0),
        (0.2, 0, 2, 0, 0),
        (0.7, 0, 3, 0, 0),
        (1.0, 1, 2, 1, 0),
        (1.2, 1, 2, 3, 0),
        (1.5, 2, 1, 6 + 1, 0),
        (2.5, 1, 1, 11 + 3, 1),
        (3.2, 1, 0, 11 + 4.4, 2),
        (3.6, 0, 0, 16, 3),
    ],
)
def test_a_load_worked_by_hand(  # noqa: PLR0917 pytest passes by name
    time_s: float, running: int, waiting: int, tokens: float, finished: int
) -> None:
    sample = at(client_samples(LOAD, started_s=0.0, ended_s=3.5), time_s)

    assert sample.time_s == pytest.approx(time_s)
    assert (sample.running, sample.waiting, sample.finished) == (running, waiting, finished)
    assert sample.output_tokens == pytest.approx(tokens)


def test_an_answer_that_came_at_once_is_counted_at_its_end() -> None:
    samples = client_samples([request(0.0, 1.0, 1.0, tokens=8)], started_s=0.0, ended_s=1.0)

    assert (at(samples, 0.9).output_tokens, at(samples, 1.1).output_tokens) == (0, 8)


def test_the_servers_batch_replaces_the_clients() -> None:
    gauges: list[dict[str, Any]] = [
        {"time_s": 0.0, "took_s": 0.01, "running": 9, "waiting": 4, "kv_cache_usage": 0.5},
        {"time_s": 2.0, "took_s": 0.01, "running": 3, "waiting": 1, "kv_cache_usage": 0.25},
    ]

    samples = client_samples(LOAD, started_s=0.0, ended_s=3.5, gauges=gauges)

    assert (at(samples, 1.9).running, at(samples, 1.9).kv_cache_usage) == (9, 0.5)
    assert (at(samples, 2.1).running, at(samples, 2.1).waiting) == (3, 1)
    assert at(samples, 2.5).output_tokens == pytest.approx(14)


spans = st.tuples(st.floats(0, 50), st.floats(0, 5), st.floats(0, 20), st.integers(1, 500))


@given(st.lists(spans, min_size=1, max_size=20))
def test_counters_never_fall_and_end_at_the_sum(
    rows: list[tuple[float, float, float, int]],
) -> None:
    load = [request(a, a + b, a + b + c, tokens=n) for a, b, c, n in rows]
    ended_s = max(each.finish_s for each in load)

    samples = client_samples(load, started_s=0.0, ended_s=ended_s)

    assert samples[0].time_s < 0
    assert samples[-1].time_s > ended_s
    assert samples[-1].output_tokens == pytest.approx(sum(n for *_, n in rows))
    assert (samples[-1].finished, samples[-1].running) == (len(rows), 0)
    for before, after in pairwise(samples):
        assert before.output_tokens <= after.output_tokens + 1e-6
        assert before.finished <= after.finished
        assert 0 <= after.running <= len(rows)
