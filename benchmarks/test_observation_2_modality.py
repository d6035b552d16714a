"""Observation 2: image and video input raise energy per token (section 3.2)."""

import pytest

from pytest_joules import expect
from pytest_joules.claims.modality import TEXT_TWINS

STARVED_IN_SIMULATION = pytest.mark.not_simulated(
    "one B200's share of the host prepares too few videos for a batch of 64, as in Figure 2b"
)


@pytest.mark.paper_claim
@pytest.mark.parametrize(
    "claim_id", [pytest.param("M1", id="image"), pytest.param("M2", id="video")]
)
def test_multimodal_input_costs_more(paper_claims, claim_id):
    """Section 3.2, Figure 2a: minimum energy per token over that of the text twin, B200."""
    paper_claims.check(claim_id)


@pytest.mark.paper_claim
def test_8b_batch_size_falls_and_energy_rises(paper_claims):
    """Section 3.2, Figure 2b: text, image, video; minimum-energy configurations, 1 x B200."""
    paper_claims.check("M3")


# M4, KV-cache use by modality, is not testable: the public data hold no KV-cache use.


@pytest.mark.live_form(models=["Qwen/Qwen3-VL-8B-Instruct"], task="video-chat")
@pytest.mark.parametrize(
    "task", ["image-chat", pytest.param("video-chat", marks=STARVED_IN_SIMULATION)]
)
def test_multimodal_input_costs_more_than_text(energy_bench, model, *, task, point_of):
    """Section 3.2: at the same batch size, a token costs more than the text twin's."""
    text = point_of(model=TEXT_TWINS[model], batch_size=64)
    multimodal = point_of(model=model, task=task, batch_size=64)
    expect.higher(energy_bench.measure(multimodal), energy_bench.measure(text), across="task")
