"""The regression gate: energy per work unit against baselines or against an old stack.

Models come from ``--joules-models``, Qwen 3 8B without it; batch sizes are those of a typical
sweep, or of ``--points``.
"""

import pytest


def test_energy_per_token_has_not_risen(
    energy_bench, model, *, point_of, regression_batch_size
):
    energy_bench.check(point_of(model=model, batch_size=regression_batch_size))


@pytest.mark.live_form(models=[], task="text-to-image")
def test_energy_per_image_has_not_risen(energy_bench, model, point_of):
    energy_bench.check(point_of(model=model, task="text-to-image"))


@pytest.mark.live_form(models=[], task="text-to-video")
def test_energy_per_video_has_not_risen(energy_bench, model, point_of):
    energy_bench.check(point_of(model=model, task="text-to-video"))
