"""The regression gate: energy per token against baselines or against an old stack.

Models come from ``--joules-models``, Qwen 3 8B without it; batch sizes are those of a typical
sweep.
"""

import pytest

from pytest_joules import Point

BATCH_SIZES = [16, 64, 256]


@pytest.mark.parametrize("batch_size", BATCH_SIZES)
def test_energy_per_token_has_not_risen(energy_bench, model, batch_size):
    energy_bench.check(Point(model=model, task="text-conversation", batch_size=batch_size))
