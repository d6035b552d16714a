"""Three energy tests to start from: a bound, an ordering and a regression check."""

import pytest

from pytest_joules import Point, expect

QWEN = Point(model="Qwen/Qwen3-8B", task="text-conversation")


def test_a_token_costs_less_than_a_joule(energy_bench):
    result = energy_bench(model="Qwen/Qwen3-8B", batch_size=32, precision="bf16", num_gpus=1)
    assert result.energy_per_token_j < 1.0
    assert result.median_itl_s < 0.1


def test_energy_per_token_falls_with_batch_size(energy_bench):
    results = energy_bench.sweep(QWEN, batch_size=[8, 32, 128])
    expect.monotone(results, direction="falling", by="batch_size")


@pytest.mark.parametrize("batch_size", [16, 64])
def test_energy_per_token_has_not_risen(energy_bench, batch_size):
    energy_bench.check(QWEN.but(batch_size=batch_size))
