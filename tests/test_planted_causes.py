"""A cause planted in the simulator is ranked first; rates stand in docs/diagnosis.md."""

import math

import pytest

from pytest_joules.gate.noise import TYPICAL
from tests.fakes.planted import ADDED_GPU, CASES, STILL, TALK, explained, simulate

pytestmark = pytest.mark.no_cover

# Doses that change energy by about 10 %; tests/perf/attribution.py looks for them.
DOSES = {
    "kv-memory": -0.96,
    "cpu-feed": -0.5,
    "clocks": -0.10,
    "power-cap": -0.43,
    "output-length": 1.3,
    "precision-overhead": 0.7,
    "static-power": 0.35,
    "client": -0.17,
    "gpus": 1,
}


@pytest.mark.no_cover
@pytest.mark.parametrize("case", [*CASES, ADDED_GPU], ids=lambda case: case.plant)
def test_the_planted_cause_is_ranked_first(case):
    made = explained(case.point, {case.plant: DOSES[case.plant]}, seed=1, noise=TYPICAL)

    assert made.causes[0].code in case.codes
    told = math.fsum(cause.contribution for cause in made.causes)
    assert told == pytest.approx(made.ln_change, abs=1e-9)


def test_nothing_planted_leaves_only_what_is_unknown():
    made = explained(TALK, {}, seed=1, noise=TYPICAL)

    assert {cause.code for cause in made.causes} <= {"unknown", "gpu-waits"}
    assert abs(made.ln_change) < 0.05


def test_a_load_without_noise_draws_what_the_latent_model_says():
    result = simulate(TALK.but(batch_size=8), {}, seed="still", noise=STILL)

    assert result.source == "simulated"
    assert result.is_valid
    assert result.mean_batch_size == pytest.approx(8, rel=0.01)
    assert result.evidence.mean_in_flight == pytest.approx(8, rel=0.01)
    assert result.evidence.mean_waiting == pytest.approx(0, abs=0.05)
    assert result.evidence.idle_power_w < result.power_w
