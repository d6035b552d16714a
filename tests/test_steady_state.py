from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_joules.errors import NoSteadyState
from pytest_joules.steady_state import (
    LoadSoFar,
    Window,
    Work,
    finish_times,
    first_full_batch_s,
    full_batch_window,
    is_long_enough,
    last_full_batch_s,
    mean_request_s,
    mser5,
    steady_work,
    work_window,
)
from pytest_joules.trace import LoadTrace, RequestTrace
from tests.fakes.traces import PREFILL_S, closed_loop

# Two slots, eight requests, the first one of 3 s and the others of 2 s:
#   slot A  |0   3|3 5|5 7|7 9|        first tokens of 0 and 1 at 0.5
#   slot B  |1  2|2 4|4 6|6 8|         ends at 2, 3, 4, 5, 6, 7, 8, 9
# Full from 0.5 to the sixth end at 7; until then a request takes (3 + 5 x 2) / 6 s on average.
HAND = closed_loop([3, 2, 2, 2, 2, 2, 2, 2], slots=2)


def test_the_full_batch_lasts_from_the_second_first_token_to_the_sixth_end() -> None:
    assert finish_times(HAND) == (2, 3, 4, 5, 6, 7, 8, 9)
    assert full_batch_window(HAND) == Window(start_s=0.5, end_s=7.0)
    assert mean_request_s(HAND) == 13 / 6


@pytest.mark.parametrize(
    ("settled_s", "expected"),
    [
        pytest.param(0.0, Work(start_index=2, end_index=6), id="one-mean-request-later"),
        pytest.param(2.99, Work(start_index=2, end_index=6), id="settled-before-that-end"),
        pytest.param(4.0, Work(start_index=3, end_index=6), id="settled-at-an-end"),
        pytest.param(4.01, Work(start_index=4, end_index=6), id="settled-after-an-end"),
        pytest.param(5.99, Work(start_index=5, end_index=6), id="one-request-left"),
    ],
)
def test_the_window_opens_with_the_next_end_after_all_three_moments(
    settled_s: float, expected: Work
) -> None:
    assert steady_work(HAND, settled_s=settled_s) == expected


def test_no_window_is_left_where_it_settles_with_the_last_end() -> None:
    with pytest.raises(NoSteadyState, match="only 0 requests finished with all 2 slots busy"):
        steady_work(HAND, settled_s=6.01)


def test_work_is_placed_between_its_two_ends() -> None:
    assert work_window(HAND, Work(start_index=2, end_index=6)) == Window(start_s=3, end_s=7)


def test_a_window_holds_its_start_but_not_its_end() -> None:
    window = Window(start_s=3, end_s=7)

    assert window.duration_s == 4
    assert [window.holds(t) for t in (2.999, 3.0, 6.999, 7.0)] == [False, True, True, False]
    with pytest.raises(NoSteadyState, match="before it begins"):
        Window(start_s=3, end_s=3)


@pytest.mark.parametrize(
    ("start_index", "end_index", "message"),
    [
        pytest.param(0, 6, "are no window", id="before-the-first"),
        pytest.param(0, 0, "are no window", id="never-found"),
        pytest.param(3, 3, "are no window", id="empty"),
        pytest.param(4, 3, "are no window", id="backwards"),
        pytest.param(2, 9, "only 8 finished", id="more-than-were-offered"),
        pytest.param(2, 7, "do not fall into the time", id="a-slot-is-empty"),
    ],
)
def test_work_that_this_load_cannot_hold_is_refused(
    start_index: int, end_index: int, message: str
) -> None:
    with pytest.raises(NoSteadyState, match=message):
        work_window(HAND, Work(start_index=start_index, end_index=end_index))


def test_work_that_begins_before_the_batch_is_full_is_refused() -> None:
    late = replace(HAND, server=tuple(replace(s, time_s=s.time_s + 3) for s in HAND.server))

    with pytest.raises(NoSteadyState, match="record a new one"):
        work_window(late, Work(start_index=2, end_index=6))


def test_the_end_is_counted_not_timed_where_two_requests_end_together() -> None:
    # Ends at 1, 2, 2, 4, 4, 6, 6, 8: the sixth and the seventh of eight end together. By time,
    # both would count, and where they part in a later run the seventh is after the window.
    durations_s = [1, 2, 1, 2, 2, 2, 2, 2]
    together = closed_loop(durations_s, slots=2)
    apart = closed_loop([*durations_s[:6], 2.5, 2], slots=2)
    assert finish_times(together)[5] == finish_times(together)[6]

    work = steady_work(together, settled_s=0)

    assert work.end_index == 6
    assert work_window(apart, work).end_s == 6.0


@given(data=st.data(), slots=st.integers(1, 6))
def test_every_slot_is_busy_throughout_the_window(data: st.DataObject, slots: int) -> None:
    durations = st.floats(1.0, 10.0, allow_subnormal=False)
    size = st.integers(8 * slots, 12 * slots)
    durations_s = data.draw(size.flatmap(lambda n: st.lists(durations, min_size=n, max_size=n)))
    load = closed_loop(durations_s, slots, samples_s=0.5)

    try:
        work = steady_work(load, settled_s=0)
    except NoSteadyState:
        return  # long requests can leave nothing; then nothing may be measured

    window = work_window(load, work)
    edges = [t for r in load.requests for t in (r.sent_s, r.finish_s) if window.holds(t)]
    for t in (window.start_s, *edges):
        assert sum(r.sent_s <= t < r.finish_s for r in load.requests) == slots
    # All three rules, by counting: B first tokens, one mean request, and no later than that.
    firsts = sorted(r.first_token_s for r in load.requests)
    in_time = [r for r in load.requests if r.finish_s <= finish_times(load)[-slots - 1]]
    mean_s = float(np.mean([r.finish_s - r.sent_s for r in in_time]))
    assert window.start_s >= firsts[slots - 1] + mean_s
    assert sum(r.finish_s <= window.start_s for r in load.requests) >= work.start_index
    before = [t for t in finish_times(load) if t < window.start_s]
    assert not before or before[-1] < firsts[slots - 1] + mean_s + 0.5  # a sample late


def test_counters_of_earlier_points_of_the_same_server_do_not_count() -> None:
    used = replace(
        HAND,
        server=tuple(
            replace(s, first_tokens=s.first_tokens + 100, output_tokens=s.output_tokens + 1e6)
            for s in HAND.server
        ),
    )

    assert first_full_batch_s(used) == 0.5


def test_a_batch_that_never_filled_is_no_steady_state() -> None:
    starved = replace(HAND, server=tuple(s for s in HAND.server if s.first_tokens < 2))

    with pytest.raises(NoSteadyState, match="never had 2 requests decoding: it counted 0"):
        first_full_batch_s(starved)


@pytest.mark.parametrize("num_samples", [0, 1])
def test_too_few_samples_of_the_server_are_no_steady_state(num_samples: int) -> None:
    with pytest.raises(NoSteadyState, match="never had 2 requests"):
        steady_work(replace(HAND, server=HAND.server[:num_samples]), settled_s=0)


@pytest.mark.parametrize("num_requests", [1, 2])
def test_requests_that_fit_at_once_are_no_steady_state(num_requests: int) -> None:
    few = replace(HAND, requests=HAND.requests[:num_requests])

    with pytest.raises(NoSteadyState, match="cannot keep 2 in flight; offer at least 6"):
        last_full_batch_s(few)


def test_no_request_at_all_is_no_steady_state() -> None:
    with pytest.raises(NoSteadyState, match=r"none of 0 requests .* none was offered"):
        mean_request_s(replace(HAND, requests=()))


def failed(load: LoadTrace, *indices: int) -> LoadTrace:
    return replace(
        load,
        requests=tuple(
            replace(r, error="HTTP 400: no", output_tokens=0) if r.index in indices else r
            for r in load.requests
        ),
    )


def test_a_failed_request_gives_back_its_slot_but_is_no_mean_request() -> None:
    one = failed(HAND, 0)

    assert finish_times(one) == finish_times(HAND)
    assert mean_request_s(one) == 2.0


def test_where_every_request_failed_the_first_error_is_told() -> None:
    nothing = replace(
        failed(HAND, *range(8)), server=tuple(replace(s, first_tokens=0) for s in HAND.server)
    )

    with pytest.raises(NoSteadyState, match=r"none of 8 requests was answered.*HTTP 400: no"):
        steady_work(nothing, settled_s=0)


@pytest.mark.parametrize(
    ("series", "expected"),
    [
        pytest.param([], 0, id="nothing"),
        pytest.param([9, 9, 1, 1], 0, id="less-than-a-batch"),
        pytest.param([1] * 40, 0, id="constant"),
        # Batch means 10, 1, 1, 1: no cut gives 60.75 / 16, one gives 0.
        pytest.param([10] * 5 + [1] * 15, 5, id="one-batch-of-ramp-up"),
        pytest.param([8] * 5 + [4] * 5 + [1] * 20, 10, id="two-batches"),
        # Half of four batches is the farthest that is searched.
        pytest.param([9] * 15 + [1] * 5, 0, id="ramp-up-in-more-than-half"),
        pytest.param([10] * 5 + [1] * 15 + [99] * 4, 5, id="a-tail-shorter-than-a-batch"),
    ],
)
def test_mser5(series: list[float], expected: int) -> None:
    assert mser5(series) == expected


@given(st.lists(st.floats(0.1, 100), min_size=5, max_size=100))
def test_mser5_minimises_the_squared_standard_error_of_the_rest(series: list[float]) -> None:
    whole = np.array(series[: len(series) // 5 * 5]).reshape(-1, 5).mean(axis=1)
    errors = [float(whole[d:].var() / (len(whole) - d)) for d in range(len(whole) // 2 + 1)]

    cut = mser5(series)

    assert cut % 5 == 0
    assert errors[cut // 5] == pytest.approx(min(errors), rel=1e-9, abs=1e-9)


def test_the_first_token_counts_not_the_sending() -> None:
    assert first_full_batch_s(HAND) == PREFILL_S


@pytest.mark.parametrize(
    ("answered", "min_window_s", "expected"),
    [
        pytest.param([], 0.0, False, id="nothing-yet"),
        pytest.param([0], 0.0, False, id="one"),
        # Ends at 2, 3, ... 9; with eight answered the window would close with the end at 8.
        # A mean request of the seven takes 15 / 7 s, so that it opens at 3.
        pytest.param(range(8), 5.0, True, id="as-long-as-asked"),
        pytest.param(range(8), 5.1, False, id="shorter-than-asked"),
        # Closing at 6 it is as long as the 3 s of ramp-up, closing at 5 it is not.
        pytest.param(range(6), 1.0, True, id="as-long-as-the-ramp-up"),
        pytest.param(range(5), 1.0, False, id="shorter-than-the-ramp-up"),
    ],
)
def test_whether_it_lasts_long_enough_is_told_while_it_lasts(
    answered: list[int], min_window_s: float, *, expected: bool
) -> None:
    known = [HAND.requests[i] for i in answered]

    assert is_long_enough(known, min_window_s=min_window_s) is expected


def test_requests_that_all_ended_in_the_drain_are_no_steady_state() -> None:
    # One is left to end in time, and it failed.
    with pytest.raises(NoSteadyState, match="no request was answered while all 2 slots"):
        mean_request_s(failed(HAND, 0, 1, 2, 3, 4, 5))


def is_long_by_definition(answered: list[RequestTrace], min_window_s: float) -> bool:
    inside = sorted(answered, key=lambda request: request.finish_s)[:-1]
    if not inside:
        return False
    began_s = min(request.sent_s for request in inside)
    mean_s = sum(request.finish_s - request.sent_s for request in inside) / len(inside)
    ends_s = [r.finish_s for r in inside if r.finish_s >= began_s + mean_s]
    return bool(ends_s) and ends_s[-1] - ends_s[0] >= max(min_window_s, ends_s[0] - began_s)


@given(
    times=st.lists(st.tuples(st.integers(0, 50), st.integers(1, 50)), max_size=12, unique=True),
    min_window_s=st.sampled_from([0, 3, 20]),
)
def test_telling_it_request_by_request_is_telling_it_of_all(
    times: list[tuple[int, int]], min_window_s: float
) -> None:
    """Integers add up exactly in any order; distinct ends leave no doubt which is the last."""
    ends = {sent + lasted: (sent, sent + lasted) for sent, lasted in times}
    answered = [
        replace(HAND.requests[0], sent_s=sent, finish_s=end) for sent, end in ends.values()
    ]
    load = LoadSoFar(min_window_s)
    for number, request in enumerate(answered, 1):
        load.take(request)
        expected = is_long_by_definition(answered[:number], min_window_s)
        assert load.is_long_enough is expected
