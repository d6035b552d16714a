"""What a plan believes of the time that requests take."""

import random
from math import log, sqrt

import pytest

from pytest_joules import Point
from pytest_joules.budget import expected_costs
from pytest_joules.latent.pace import longest_rest, pace
from pytest_joules.plan import Stack, plan
from pytest_joules.simulation import SimulatedMachine
from pytest_joules.tasks import Lengths

QWEN = Point(model="Qwen/Qwen3-8B", task="text-conversation")
THINKS = QWEN.but(task="problem-solving")
DRAWINGS = Point(model="stabilityai/stable-diffusion-3.5-medium", task="text-to-image")


@pytest.mark.parametrize(
    "point",
    [
        QWEN.but(batch_size=8),
        QWEN.but(batch_size=256),
        THINKS.but(batch_size=32),
        THINKS.but(batch_size=32, num_requests=200),
        # Twice what fits: half of the requests wait for a place.
        THINKS.but(batch_size=512),
    ],
    ids=lambda point: point.id,
)
def test_the_expected_load_lasts_about_as_long_as_the_simulated_one(point):
    launch = plan([point], stack=Stack(), gpu="b200").launches[0]
    machine = SimulatedMachine(gpu="b200")
    with machine.started(launch, gpu_uuids=[]) as server:
        begun_s = machine.clock.now_s
        server.drive(point, min_window_s=60.0, deadline_s=36_000.0)
    lasted_s = machine.clock.now_s - begun_s

    assert expected_costs(60.0).of(point, "b200") == pytest.approx(lasted_s, rel=0.35)


@pytest.mark.parametrize("batch", [1, 32, 512])
def test_the_longest_rest_is_that_of_answers_looked_at_while_they_run(batch):
    lengths = Lengths(mean=700, cv=0.7)
    sigma = sqrt(log(1 + 0.7**2))
    chance = random.Random(7)

    def rest():
        # Length-biased: the longer an answer, the likelier it is met, at any of its tokens.
        biased = chance.lognormvariate(log(700) + sigma**2 / 2, sigma)
        return chance.random() * biased

    longest = sorted(max(rest() for _ in range(batch)) for _ in range(401))

    assert longest_rest(lengths, batch) == pytest.approx(longest[200], rel=0.25)


def test_of_equal_answers_the_longest_rest_nears_a_whole_one():
    assert longest_rest(Lengths(mean=600), 1) == 300
    assert longest_rest(Lengths(mean=600), 599) == 599


def test_no_answer_is_longer_than_the_longest():
    lengths = Lengths(mean=700, cv=2, longest=1000)

    assert longest_rest(lengths, 100_000) == pytest.approx(1000)


@pytest.mark.parametrize(
    ("point", "gpu"),
    [
        (QWEN, "a-gpu-that-nobody-knows"),
        (QWEN.but(model="a/b"), "b200"),
        (Point(model="Qwen/Qwen3-235B-A22B-Instruct-2507"), "h200"),  # does not fit
        (DRAWINGS, "b200"),
    ],
)
def test_nothing_is_expected_where_the_model_cannot_tell(point, gpu):
    assert pace(point, gpu) is None
