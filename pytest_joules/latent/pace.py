"""How long a point's requests should take, by the latent model: for plans and budgets."""

from functools import cache
from math import log, sqrt
from statistics import NormalDist

from pytest_joules.errors import InvalidPoint
from pytest_joules.latent.machine import LanguageMachine, machine
from pytest_joules.latent.prediction import predicted
from pytest_joules.plan import Pace
from pytest_joules.point import Point
from pytest_joules.tasks import Lengths

_HALVINGS = 30


@cache  # budgets and schedules ask for the same point again and again
def pace(point: Point, gpu: str) -> Pace | None:
    """Expect the pace of a point; ``None`` where the model does not know it or it cannot fit.

    Requests that wait for a place in the batch count from when they were sent, so a request
    takes the requests in flight over those answered in a second (Little's law). A load drains
    first of those that wait. Then the batch falls from full to one, and each step with it; the
    step of the geometric mean of the two stands for all.
    """
    try:
        made = machine(point, gpu)
        if not isinstance(made, LanguageMachine):
            return None
        expected = predicted(made)
    except InvalidPoint:
        return None
    answers_per_s = expected.throughput_work_units_per_s / made.output_tokens
    step = made.step(sqrt(expected.mean_batch_size), made.mean_context_tokens)
    lengths = point.output_tokens or point.spec.output_tokens
    assert lengths is not None, "a language machine has answers"
    rest_s = longest_rest(lengths, expected.mean_batch_size) * step.duration_s
    num_waiting = point.batch_size - expected.mean_batch_size
    return Pace(
        request_s=point.batch_size / answers_per_s,
        drain_s=num_waiting / answers_per_s + rest_s,
    )


def longest_rest(lengths: Lengths, batch: float) -> float:
    """Return the tokens left of the longest of ``batch`` answers seen at any moment.

    The rest of an answer exceeds ``x`` with the chance ``E max(L - x, 0) / E L`` (renewal
    theory); the longest of B rests lies about where that is one in B + 1.

    >>> longest_rest(Lengths(mean=600), 3)
    450.0
    """
    if lengths.cv == 0:
        return lengths.mean * batch / (batch + 1)
    low, high = 0.0, float(lengths.longest)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if _chance_of_rest(lengths, middle) * (batch + 1) > 1:
            low = middle
        else:
            high = middle
    return low


def _chance_of_rest(lengths: Lengths, tokens: float) -> float:
    """Return the chance that an answer in flight has more than ``tokens`` left."""
    sigma = sqrt(log(1 + lengths.cv**2))
    distance = (log(lengths.mean / tokens) + sigma**2 / 2) / sigma
    below = NormalDist().cdf
    return below(distance) - tokens / lengths.mean * below(distance - sigma)
