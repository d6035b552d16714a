"""Observation 7: FP8 against BF16 by batch size (section 4.4)."""

import pytest

from pytest_joules import expect


@pytest.mark.paper_claim
@pytest.mark.parametrize(
    "claim_id",
    [
        pytest.param("P-E8", id="batch-8-16"),
        pytest.param("P-E17", id="batch-17-64"),
        pytest.param("P-E65", id="batch-65-256"),
    ],
)
def test_fp8_wins_energy(paper_claims, claim_id):
    """Section 4.4, table: FP8 over BF16 of the same model, task, GPUs and batch size."""
    paper_claims.check(claim_id)


@pytest.mark.paper_claim
@pytest.mark.parametrize(
    "claim_id",
    [
        pytest.param("P-L8", id="batch-8-16"),
        pytest.param("P-L17", id="batch-17-64"),
        pytest.param("P-L65", id="batch-65-256"),
    ],
)
def test_fp8_wins_latency(paper_claims, claim_id):
    """Section 4.4, table: as above, median inter-token latency."""
    paper_claims.check(claim_id)


@pytest.mark.paper_claim
def test_fp8_loses_up_to_16_and_wins_from_32(paper_claims):
    """Figure 7: Qwen 3 235B A22B, Text Conversation, 8 x H100; energy and latency."""
    paper_claims.check("P7")


@pytest.mark.paper_claim
def test_fp8_at_small_batches(paper_claims):
    """Section 4.4: the largest increases at batch 8 to 16."""
    paper_claims.check("P8")


@pytest.mark.paper_claim
@pytest.mark.parametrize(
    "claim_id", [pytest.param("P9", id="energy"), pytest.param("P10", id="time")]
)
def test_qwen3_coder_480b_fp8_always_loses(paper_claims, claim_id):
    """Section 4.4: 8 x B200, every batch size; FP8 with data-parallel attention."""
    paper_claims.check(claim_id)


@pytest.mark.live_form(models=["Qwen/Qwen3-8B"], task="text-conversation", precision="bf16")
def test_fp8_costs_more_at_batch_8(energy_bench, model, point_of):
    """Section 4.4: at a small batch FP8's extra operations are not paid back."""
    point = point_of(model=model, batch_size=8)
    bf16, fp8 = energy_bench.sweep(point, precision=["bf16", "fp8"])
    expect.higher(fp8, bf16)
