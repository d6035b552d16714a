"""The published data are what the paper says they are (abstract, appendix A)."""

import pytest

pytestmark = pytest.mark.paper_claim


@pytest.mark.parametrize(
    "claim_id",
    [
        pytest.param("D1", id="models"),
        pytest.param("D2", id="tasks"),
        pytest.param("D3", id="configurations"),
        pytest.param("D4", id="gpus"),
    ],
)
def test_size_of_the_study(paper_claims, claim_id):
    """Abstract, section 1: count distinct models, tasks, rows and GPU models."""
    paper_claims.check(claim_id)


def test_models_per_task(paper_claims):
    """Appendix A, Table 3: count the distinct models of each task."""
    paper_claims.check("D5")


def test_precisions(paper_claims):
    """Appendix A, Table 3: list the distinct weight precisions."""
    paper_claims.check("D6")


def test_throughput_per_watt_is_work_per_energy(paper_claims):
    """Section 5.4: on every row, throughput over power is the inverse of energy per work."""
    paper_claims.check("D7")


def test_response_energy_is_token_energy_times_tokens(paper_claims):
    """Sections 2, 3.1: on every row, energy per response is energy per token x mean tokens."""
    paper_claims.check("D8")


def test_moe_parallelism(paper_claims):
    """Section 4.4, footnote 3: share of multi-GPU MoE rows with expert parallelism."""
    paper_claims.check("D9")
