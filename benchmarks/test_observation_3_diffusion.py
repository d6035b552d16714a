"""Observation 3: diffusion energy depends on more than model size (section 3.3)."""

import pytest

from pytest_joules import expect

IMAGE_MODELS = ["stabilityai/stable-diffusion-3.5-medium"]
VIDEO_MODELS = ["Wan-AI/Wan2.1-T2V-1.3B-Diffusers"]


@pytest.mark.paper_claim
@pytest.mark.parametrize(
    "claim_id",
    [
        pytest.param("F1", id="range"),
        pytest.param("F2", id="parameters-and-steps"),
        pytest.param("F3", id="small-above-large"),
    ],
)
def test_text_to_image(paper_claims, claim_id):
    """Section 3.3, Figure 3a: minimum-energy configuration of each model on B200."""
    paper_claims.check(claim_id)


@pytest.mark.paper_claim
@pytest.mark.parametrize(
    "claim_id",
    [
        pytest.param("F4", id="range"),
        pytest.param("F7", id="small-above-large"),
        pytest.param("F8", id="hunyuan-over-wan"),
        pytest.param("F9", id="hunyuan-frames"),
    ],
)
def test_text_to_video(paper_claims, claim_id):
    """Section 3.3, Figure 3b: minimum-energy configuration of each model on B200."""
    paper_claims.check(claim_id)


@pytest.mark.paper_claim
@pytest.mark.parametrize(
    "claim_id",
    [pytest.param("F5", id="orders-of-magnitude"), pytest.param("F6", id="above-100")],
)
def test_videos_cost_more_than_images(paper_claims, claim_id):
    """Section 3.3, abstract: energy per video over energy per image, over models."""
    paper_claims.check(claim_id)


@pytest.mark.live_form(models=IMAGE_MODELS, task="text-to-image")
@pytest.mark.parametrize(
    ("less", "more"),
    [
        pytest.param({"steps": 10}, {"steps": 30}, id="steps"),
        pytest.param(
            {"height": 512, "width": 512}, {"height": 1024, "width": 1024}, id="resolution"
        ),
    ],
)
def test_more_work_costs_more_per_image(energy_bench, model, *, point_of, less, more):
    """Sections 3.3, 5.1: more denoising steps, or more pixels, cost more per image."""
    point = point_of(model=model, task="text-to-image")
    expect.lower(
        energy_bench.measure(point.but(**less)), energy_bench.measure(point.but(**more))
    )


@pytest.mark.live_form(models=VIDEO_MODELS, task="text-to-video")
def test_more_frames_cost_more_per_video(energy_bench, model, point_of):
    """Section 3.3: more frames cost more per video."""
    point = point_of(model=model, task="text-to-video", steps=20)
    few, many = (energy_bench.measure(point.but(num_frames=frames)) for frames in (17, 81))
    expect.lower(few, many)


@pytest.mark.live_form(models=VIDEO_MODELS, task="text-to-video")
def test_a_video_costs_more_than_an_image(energy_bench, model, point_of):
    """Section 3.3: a video costs more than an image of the smallest image model."""
    image = energy_bench.measure(point_of(model=IMAGE_MODELS[0], task="text-to-image"))
    video = energy_bench.measure(point_of(model=model, task="text-to-video"))
    expect.higher(video, image, across="task")
