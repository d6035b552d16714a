"""Where requests spent their time: worked by hand."""

from dataclasses import replace

import pytest

from pytest_joules.assess.request_times import request_times
from pytest_joules.assess.validity import load_reasons
from pytest_joules.procedure import Procedure
from pytest_joules.steady_state import Window
from pytest_joules.trace import LoadTrace, ServerSample
from tests.fakes.traces import closed_loop

WINDOW = Window(start_s=1.0, end_s=4.0)


def sample(time_s: float, **counters: float | None) -> ServerSample:
    zero = dict.fromkeys(
        ("took_s", "running", "waiting", "output_tokens", "prompt_tokens", "first_tokens"), 0.0
    )
    known = {"finished": 0.0, "e2el_s": 0.0, "queue_s": 0.0, "inference_s": 0.0}
    return ServerSample(time_s=time_s, **{**zero, **known, **counters})


def test_the_rest_of_a_requests_time_is_its_preparation() -> None:
    """Four requests: 20 s in the server, 2 s of it in the queue, 12 s running."""
    samples = [
        sample(0.5, finished=1, e2el_s=3, queue_s=1, inference_s=1),
        sample(1.0, finished=2, e2el_s=7, queue_s=2, inference_s=3),
        sample(2.0, finished=3, e2el_s=8, queue_s=2, inference_s=4),
        sample(3.9, finished=6, e2el_s=27, queue_s=4, inference_s=15),
        sample(4.0, finished=9, e2el_s=99, queue_s=9, inference_s=19),
    ]

    times = request_times(samples, WINDOW)

    assert times is not None
    assert (times.whole_s, times.queue_s, times.inference_s) == (5.0, 0.5, 3.0)
    assert times.preprocessing_s == 1.5


@pytest.mark.parametrize(
    "samples",
    [
        [],
        [sample(9.0, finished=3)],
        [sample(2.0, finished=3)],
        [sample(2.0, finished=3), sample(3.0, finished=3)],
        [sample(2.0), sample(3.0, finished=3, queue_s=None)],
        [sample(2.0, e2el_s=None), sample(3.0, finished=3)],
    ],
    ids=["none", "outside", "one", "none-finished", "untold", "untold-at-first"],
)
def test_what_the_server_does_not_tell_is_not_guessed(samples: list[ServerSample]) -> None:
    assert request_times(samples, WINDOW) is None


def test_clocks_that_differ_make_no_negative_time() -> None:
    samples = [sample(2.0), sample(3.0, finished=1, e2el_s=1.0, inference_s=1.001)]

    times = request_times(samples, WINDOW)

    assert times is not None
    assert times.preprocessing_s == 0.0


@pytest.mark.parametrize(
    ("preprocessing_s", "is_named"),
    [(6.0, True), (0.41, True), (0.3, False)],
)
def test_a_starved_batch_names_the_preparation_where_it_took_long(
    preprocessing_s: float,
    is_named: bool,  # noqa: FBT001 pytest passes parameters by name
) -> None:
    """Four slots, requests of 8 s; only two run at a time."""
    load: LoadTrace = closed_loop([8] * 40, slots=4)
    server = tuple(
        replace(
            each,
            running=2,
            e2el_s=8 * each.finished,
            queue_s=0,
            inference_s=(8 - preprocessing_s) * each.finished,
        )
        for each in load.server
    )
    window = Window(start_s=20.0, end_s=60.0)

    reasons = load_reasons(replace(load, server=server), window, Procedure(), num_ticks=400)

    (starved,) = [reason for reason in reasons if reason.code == "batch-starved"]
    told = (
        f"Of 8.00 s in the server, a request was prepared on the CPU for {preprocessing_s:.2f}"
    )
    assert (told in starved.text) is is_named
    assert "KV cache may be too small" in starved.text
