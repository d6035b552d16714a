"""Each formula of rendering images and video, worked by hand."""

from dataclasses import replace

import pytest

from pytest_joules import Point
from pytest_joules.errors import InvalidPoint
from pytest_joules.latent import DiffusionArchitecture
from pytest_joules.latent import rendering as formulas

SHAPE = DiffusionArchitecture(
    source="made up",
    num_layers=10,
    hidden_size=100,
    total_params=1e9,
    params_per_token=5e8,
    encoder_params=0.0,
    pixels_per_token=16,
    passes_per_step=2,
)
POINT = Point(model="made/up", task="text-to-image", steps=5, height=160, width=320)


def test_work_of_an_image():
    """10 x 20 tokens, 5 steps of 2 passes."""
    r = formulas.rendering(POINT, SHAPE, num_gpus=1)
    assert r.matrix_flop == 2 * 10 * 5e8 * 200
    assert r.attention_flop == 4 * 10 * 10 * 100 * 200**2
    assert r.weight_bytes == 10 * 2e9
    assert r.num_layer_launches == 10 * 5
    assert r.link_bytes == 0
    assert r.pixels == 160 * 320


def test_two_gpus_share_tokens_and_exchange_half_of_them():
    one, two = (formulas.rendering(POINT, SHAPE, num_gpus=g) for g in (1, 2))
    assert two.matrix_flop == one.matrix_flop / 2
    assert two.weight_bytes == one.weight_bytes
    assert two.link_bytes == 4 * 2 * (200 / 2) * 100 * 10 * 10 * (1 / 2)


def test_the_slower_of_host_and_gpu_sets_the_pace(ideal):
    r = formulas.rendering(POINT, SHAPE, num_gpus=1)
    p = replace(ideal, pixel_s=0.0, activation_moves=0.0, launch_layer_s=1.0)
    slow_host = formulas.batch_s(r, p, 1)
    assert sum(slow_host.values()) == pytest.approx(50, rel=1e-3)
    slow_gpu = formulas.batch_s(r, replace(p, launch_layer_s=1e-9), 1)
    assert slow_gpu["host"] == pytest.approx(0, abs=1e-6)
    assert slow_gpu["arithmetic"] == pytest.approx(2e12 / (1e15 * p.diffusion_flop_ratio))


def test_steps_and_size_must_be_known():
    with pytest.raises(InvalidPoint, match="give steps"):
        formulas.rendering(replace(POINT, steps=None), SHAPE, num_gpus=1)
    known = Point(model="black-forest-labs/FLUX.1-dev", task="text-to-image")
    assert formulas.shape_of(known) == (1024, 1024, 1, 50)
