"""Observation 4: batch size trades latency and power for energy (section 4.1)."""

import pytest

from pytest_joules import expect

SMALLEST, LARGEST = 8, 128


@pytest.mark.paper_claim
@pytest.mark.parametrize(
    "claim_id",
    [
        pytest.param("B1", id="energy-per-token-falls"),
        pytest.param("B2", id="latency-rises"),
        pytest.param("B3", id="throughput-rises"),
        pytest.param("B4", id="power-rises"),
    ],
)
def test_trend(paper_claims, claim_id):
    """Section 4.1: adjacent batch sizes, and smallest against largest, of every LLM curve."""
    paper_claims.check(claim_id)


@pytest.mark.paper_claim
def test_batch_size_unlocks_3_to_5_times(paper_claims):
    """Section 4.1: energy at the smallest batch over the least, for the curves of Figure 4."""
    paper_claims.check("B5")


@pytest.mark.paper_claim
@pytest.mark.parametrize(
    "claim_id", [pytest.param("B6", id="linear"), pytest.param("B7", id="unsaturated")]
)
def test_deepseek_r1(paper_claims, claim_id):
    """Figure 4a: 8 x B200; R2 of throughput over batch at least 0.99, last doubling > 10 %."""
    paper_claims.check(claim_id)


@pytest.mark.paper_claim
def test_qwen3_coder_saturates_around_512(paper_claims):
    """Figure 4b: 1 x B200; first batch whose doubling saves less than 10 % of the energy."""
    paper_claims.check("B8")


@pytest.mark.paper_claim
def test_throughput_per_watt_rises(paper_claims):
    """Appendix C, Figure 12: as the trend above, tokens per second and watt, on B200."""
    paper_claims.check("C1")


@pytest.mark.live_form(models=["Qwen/Qwen3-8B"], task="text-conversation")
def test_a_large_batch_costs_less_and_takes_longer(energy_bench, model, point_of):
    """Section 4.1: largest against smallest batch: energy, throughput and median ITL."""
    point = point_of(model=model)
    small, large = energy_bench.sweep(point, batch_size=[SMALLEST, LARGEST])
    expect.lower(large, small)
    expect.higher(large, small, quantity="throughput_tokens_per_s")
    expect.higher(large, small, quantity="median_itl_s")


@pytest.mark.live_form(models=["Qwen/Qwen3-8B"], task="text-conversation")
def test_a_large_batch_gives_more_tokens_per_second_and_watt(energy_bench, model, point_of):
    """Appendix C: largest against smallest batch."""
    small, large = energy_bench.sweep(point_of(model=model), batch_size=[SMALLEST, LARGEST])
    expect.higher(large, small, quantity="throughput_per_watt")
