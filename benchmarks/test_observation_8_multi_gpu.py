"""Observation 8: more GPUs trade energy for latency, or unlock batches (section 4.5)."""

import pytest

from pytest_joules import best, expect
from pytest_joules.errors import InvalidMeasurement


@pytest.mark.paper_claim
@pytest.mark.parametrize(
    "claim_id", [pytest.param("N1", id="b200"), pytest.param("N3", id="h100")]
)
def test_more_gpus_take_more_energy(paper_claims, claim_id):
    """Section 4.5: pairs of the same task, model, GPU and batch size; LLM tasks."""
    paper_claims.check(claim_id)


@pytest.mark.paper_claim
@pytest.mark.parametrize(
    "claim_id", [pytest.param("N2", id="b200"), pytest.param("N4", id="h100")]
)
def test_more_gpus_reduce_latency(paper_claims, claim_id):
    """Section 4.5: as above, median inter-token latency."""
    paper_claims.check(claim_id)


@pytest.mark.paper_claim
@pytest.mark.parametrize(
    "claim_id",
    [
        pytest.param("N5", id="largest-batch"),
        pytest.param("N6", id="h100-unlocked"),
        pytest.param("N7", id="b200-not-unlocked"),
        pytest.param("N8", id="same-batch"),
    ],
)
def test_gpt_oss_120b(paper_claims, claim_id):
    """Figure 8: Problem Solving, 1 and 2 GPUs."""
    paper_claims.check(claim_id)


@pytest.mark.paper_claim
@pytest.mark.parametrize(
    "claim_id",
    [
        pytest.param("N9", id="4xb200-dominates"),
        pytest.param("N10", id="4xb200-lowest"),
        pytest.param("N11", id="2xb200-against-4xb200"),
        pytest.param("N12", id="gpu-counts"),
        pytest.param("N13", id="h100-between"),
    ],
)
def test_qwen3_235b_thinking_fp8(paper_claims, claim_id):
    """Figure 9: Problem Solving, energy per token against median inter-token latency."""
    paper_claims.check(claim_id)


@pytest.mark.live_form(models=["Qwen/Qwen3-8B"], task="text-conversation")
def test_a_second_gpu_costs_more_at_the_same_batch(energy_bench, model, point_of):
    """Section 4.5: at the same batch size, two GPUs take more energy than one."""
    point = point_of(model=model)
    one = energy_bench.sweep(point, num_gpus=1, batch_size=[8, 64])
    two = energy_bench.sweep(point, num_gpus=2, batch_size=[8, 64])
    expect.higher(two, one)


@pytest.mark.live_form(models=["openai/gpt-oss-120b"], task="problem-solving")
def test_a_second_gpu_pays_only_where_memory_limits_the_batch(energy_bench, model, point_of):
    """Section 4.5, Figure 8: two GPUs reach a lower minimum only by a larger batch."""
    point = point_of(model=model, task="problem-solving")
    one = _achieved(energy_bench, point)
    two = _achieved(energy_bench, point.but(num_gpus=2))
    if len(one) < len(two):
        expect.unlocks(one, two)
    else:
        expect.higher(best(two), best(one))


def _achieved(energy_bench, point):
    """Measure rising batch sizes as far as the memory holds them."""
    results = []
    for batch_size in (64, 512, 2048):
        try:
            results.append(energy_bench.measure(point.but(batch_size=batch_size)))
        except InvalidMeasurement as error:
            if "batch-starved" not in str(error):
                raise
            break
    return results
