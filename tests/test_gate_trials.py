"""The experiments run the rule that users get, and repeat bit for bit."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pytest_joules.gate import judge
from pytest_joules.gate.design import Design, known_noise
from pytest_joules.gate.launch_value import LaunchValue, PooledNoise
from pytest_joules.gate.launches import Launches
from pytest_joules.gate.noise import TYPICAL

DESIGN = Design(prior_sd=0.0143)


@pytest.fixture(scope="module")
def trials():
    folder = str(Path(__file__).parent / "perf")
    sys.path.insert(0, folder)
    import gate_trials  # noqa: PLC0415  a script's neighbour, found only from its folder

    yield gate_trials
    sys.path.remove(folder)


def stepwise(draws, i, setting):
    """Judge one simulated comparison launch by launch, as a session does."""

    def values(logs, spreads):
        return tuple(
            LaunchValue(log_energy=float(y), spread=float(s), gpu_uuids=("GPU",))
            for y, s in zip(logs[i], spreads[i], strict=True)
        )

    history = PooledNoise(sum_squares=draws.history_squares[i], df=draws.history_df)
    design = known_noise(DESIGN, history)
    baseline = values(draws.baseline, draws.baseline_spread)
    old, new = values(draws.old, draws.old_spread), values(draws.new, draws.new_spread)
    seen = Launches(baseline=baseline, has_old=True)
    while (decision := judge(seen, design)).verdict is None:
        if decision.next_stack == "B":
            seen = replace(seen, new=new[: len(seen.new) + 1])
        else:
            seen = replace(seen, old=old[: len(seen.old) + 1])
    return decision.verdict, (len(seen.old) + len(seen.new)) * setting.launch_s


@pytest.mark.no_cover
def test_a_simulated_comparison_ends_as_a_real_one(trials):
    """Looks are planned with each trial's own noise here, and with the mean of all there."""
    setting = trials.Setting(noise=TYPICAL, change=0.015, trials=60, seed=4)
    draws = trials.draw(setting)
    at_once = trials.gate(setting, DESIGN)

    one_by_one = [stepwise(draws, i, setting) for i in range(setting.trials)]

    verdicts = [trials.VERDICTS.index(verdict) for verdict, _ in one_by_one]
    assert np.mean(verdicts == at_once.verdict) >= 0.95
    spent = np.mean([gpu_s for _, gpu_s in one_by_one])
    assert spent == pytest.approx((at_once.gpu_s / draws.repeats).mean(), rel=0.05)


def test_trials_repeat_bit_for_bit(trials):
    setting = trials.Setting(noise=TYPICAL, trials=200, seed=9)
    first = trials.gate(setting, DESIGN)
    trials.draw.cache_clear()

    again = trials.gate(setting, DESIGN)

    assert np.array_equal(first.verdict, again.verdict)
    assert np.array_equal(first.gpu_s, again.gpu_s)
