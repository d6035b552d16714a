"""Observation 1: task type heavily influences energy consumption (section 3.1)."""

import pytest

from pytest_joules import expect


@pytest.mark.paper_claim
@pytest.mark.parametrize(
    "claim_id", [pytest.param("S1", id="tokens"), pytest.param("S2", id="ratio")]
)
def test_reasoning_answers_are_longer(paper_claims, claim_id):
    """Section 3.1: on B200, mean output tokens over models at minimum energy per token."""
    paper_claims.check(claim_id)


@pytest.mark.paper_claim
@pytest.mark.parametrize(
    "claim_id", [pytest.param("S3", id="joules"), pytest.param("S4", id="ratio")]
)
def test_reasoning_answers_cost_more(paper_claims, claim_id):
    """Section 3.1: as above, mean energy per response."""
    paper_claims.check(claim_id)


@pytest.mark.paper_claim
def test_reasoning_tokens_cost_more(paper_claims):
    """Section 3.1: as above, mean energy per token."""
    paper_claims.check("S5")


@pytest.mark.paper_claim
@pytest.mark.parametrize(
    "claim_id",
    [
        pytest.param("T1a", id="max-batch-size"),
        pytest.param("T1b", id="output-tokens"),
        pytest.param("T1c", id="energy-per-token-at-128"),
        pytest.param("T1d", id="energy-per-token-at-max"),
        pytest.param("T1e", id="energy-per-response"),
    ],
)
def test_qwen3_32b_table(paper_claims, claim_id):
    """Table 1: Qwen 3 32B on 1 x B200; at the largest batch size unless said otherwise."""
    paper_claims.check(claim_id)


@pytest.mark.live_form(models=["Qwen/Qwen3-8B"], task="problem-solving", architecture="dense")
def test_long_answers_cost_more_per_token(energy_bench, model, point_of):
    """Section 3.1, Table 1: at the same batch size, long outputs cost more per token.

    Of dense models: the context of a Mamba hybrid does not grow its memory.
    """
    solving, talking = (
        energy_bench.measure(point_of(model=model, batch_size=32, task=task))
        for task in ("problem-solving", "text-conversation")
    )
    expect.higher(solving, talking, across="task")
