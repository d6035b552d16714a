"""Continuous batching on a virtual clock: worked by hand, and what must always hold."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_joules.errors import LoadError
from pytest_joules.point import Request
from pytest_joules.simulation.batching import Batching, Cost, Demand

IDLE = Cost(duration_s=1.0, power_w=100.0, busy_share=0.0)


class Costs:
    """Steps of one second; the memory holds so many tokens."""

    def __init__(self, capacity=1e9):
        self.capacity = capacity

    def step(self, batch, context_tokens, prefill_tokens):
        del context_tokens, prefill_tokens
        return Cost(duration_s=1.0, power_w=100.0 + batch)

    def memory_share(self, batch, context_tokens):
        return batch * context_tokens / self.capacity


def serve(requests, *, in_flight, slots=99, capacity=1e9, input_s=0.0, deadline_s=1e6):
    asked = [
        Request(index=i, prompt_tokens=p, output_tokens=o) for i, (p, o) in enumerate(requests)
    ]
    made = Batching(
        costs=Costs(capacity),
        demand=Demand(
            requests=iter(asked),
            in_flight=in_flight,
            slots=slots,
            least_requests=1,
            min_window_s=None,
            deadline_s=deadline_s,
            input_s=input_s,
        ),
        now_s=0.0,
        idle=IDLE,
    )
    made.run()
    return made


def test_one_request_gets_one_token_a_step():
    made = serve([(10, 5)], in_flight=1)

    (request,) = made.answered
    assert (request.sent_s, request.first_token_s, request.finish_s) == (0.0, 1.0, 5.0)
    assert [span.steps for span in made.spans] == [1, 4]
    assert made.spans[0].prompt_tokens == 10


def test_a_slot_is_given_on_when_its_request_ends():
    made = serve([(10, 2), (10, 6), (10, 3)], in_flight=2)

    finished = {r.index: r.finish_s for r in made.answered}
    assert finished == {0: 2.0, 1: 6.0, 2: 5.0}


def test_requests_beyond_the_slots_wait_in_the_engine():
    made = serve([(10, 4)] * 4, in_flight=4, slots=2)

    assert [r.finish_s for r in made.answered] == [4.0, 4.0, 8.0, 8.0]
    assert made.spans[0].waiting == 2


def test_requests_that_the_host_prepares_come_one_after_the_other():
    made = serve([(10, 4)] * 2, in_flight=2, input_s=10.0)

    assert [r.finish_s for r in made.answered] == [14.0, 24.0]
    assert made.spans[0].running == 0
    assert made.spans[0].cost is IDLE


def test_the_newest_request_is_put_back_when_contexts_outgrow_the_memory():
    # 2 x 40 tokens fit in 100; after 10 steps they fill it, and only one goes on.
    made = serve([(40, 30), (40, 30)], in_flight=2, capacity=100)

    assert made.spans[-1].preemptions == 1
    first, second = sorted(made.answered, key=lambda r: r.index)
    assert first.finish_s == 30.0
    assert second.finish_s == 50.0  # 10 tokens were kept, 20 follow


def test_what_can_never_fit_is_an_error():
    with pytest.raises(LoadError, match="longer than the memory"):
        serve([(200, 5)], in_flight=1, capacity=100)


def test_a_deadline_ends_the_load():
    with pytest.raises(LoadError, match="not finished after 3 s"):
        serve([(10, 5), (10, 5)], in_flight=1, deadline_s=3)


lengths = st.lists(st.tuples(st.integers(1, 50), st.integers(1, 40)), min_size=1, max_size=30)


@given(
    requests=lengths,
    in_flight=st.integers(1, 8),
    slots=st.integers(1, 8),
    capacity=st.integers(100, 400),
)
def test_every_token_is_made_once_and_limits_hold(requests, in_flight, *, slots, capacity):
    made = serve(requests, in_flight=in_flight, slots=slots, capacity=capacity)

    assert sorted(r.index for r in made.answered) == list(range(len(requests)))
    assert sum(span.tokens for span in made.spans) == sum(o for _, o in requests)
    assert all(span.running <= min(slots, in_flight) for span in made.spans)
    assert all(span.running + span.waiting <= in_flight for span in made.spans)
    ends = [span.end_s for span in made.spans]
    assert ends == sorted(ends)
