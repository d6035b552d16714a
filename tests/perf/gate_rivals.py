"""Other ways to decide, as others do it, on the same simulated launches.

Each takes a ``Setting`` and returns an ``Outcome``; a rule that knows no ``inconclusive``
answers ``unchanged`` whenever it does not answer ``regression``.
"""

from functools import partial

import numpy as np
from gate_trials import VERDICTS, Outcome, Setting, draw, planned_noise
from scipy.special import ndtr, ndtri, stdtrit
from scipy.stats import mannwhitneyu

from pytest_joules.gate.boundaries import (
    critical_values,
    spent_hwang_shih_decani,
    spent_pocock,
)
from pytest_joules.gate.decision import Sums, estimate
from pytest_joules.gate.design import Design, order, variance
from pytest_joules.gate.noise import (
    gpu_effects,
    launch_effects,
    log_series,
    session_effects,
)

REGRESSION, IMPROVEMENT, UNCHANGED, INCONCLUSIVE = range(len(VERDICTS))


def _red(setting: Setting, red, *, launches=1) -> Outcome:
    verdict = np.where(red, REGRESSION, UNCHANGED)
    return Outcome(
        verdict=verdict, gpu_s=np.full(len(verdict), launches * setting.launch_s, dtype=float)
    )


def threshold(limit: float, setting: Setting) -> Outcome:
    """One run against one stored run: red above a fixed ratio (most CI dashboards)."""
    draws = draw(setting)
    return _red(setting, draws.new[:, 0] - draws.baseline[:, 0] > np.log1p(limit))


def bencher(quantile: float, setting: Setting) -> Outcome:
    """Bencher's t-test threshold: one run above the t quantile of the stored runs.

    Location and scale are mean and standard deviation of the history, n - 1 degrees of
    freedom (bencher.dev, thresholds, "t_test").
    """
    draws = draw(setting)
    k = setting.num_baseline
    history = np.exp(draws.baseline)
    limit = history.mean(axis=1) + stdtrit(k - 1, quantile) * history.std(axis=1, ddof=1)
    return _red(setting, np.exp(draws.new[:, 0]) > limit)


def _two_series(setting: Setting):
    """Sub-windows of one stored run and one new run, shape ``(trials, seconds)``."""
    rng = np.random.default_rng(setting.seed)
    trials, now = setting.trials, setting.noise_now or setting.noise
    pair = []
    for noise, change in ((setting.noise, 0.0), (now, setting.change)):
        series = log_series(noise, rng, (trials,), num=setting.window_s)
        level = session_effects(noise, rng, (trials, 1)) + launch_effects(
            noise, rng, (trials, 1)
        )
        pair.append(np.exp(series + level + np.log1p(change)))
    if setting.other_board:
        pair[1] *= np.exp(gpu_effects(now, rng, (trials, 1)))
    return pair


def welch(level: float, setting: Setting) -> Outcome:
    """Welch's t-test over the sub-windows of one stored and one new run, one-sided."""
    old, new = _two_series(setting)
    error = [x.var(axis=1, ddof=1) / x.shape[1] for x in (old, new)]
    df = sum(error) ** 2 / sum(
        e**2 / (x.shape[1] - 1) for e, x in zip(error, (old, new), strict=True)
    )
    t = (new.mean(axis=1) - old.mean(axis=1)) / np.sqrt(sum(error))
    return _red(setting, t > -stdtrit(df, level))


def one_run_intervals(level: float, setting: Setting) -> Outcome:
    """Intervals of one run each, from the effective sample size: red if they stay apart.

    AR(1): n (1 - r) / (1 + r) effective sub-windows, r the lag-1 correlation measured.
    """
    bounds = []
    for x in _two_series(setting):
        centred = x - x.mean(axis=1, keepdims=True)
        r = (centred[:, 1:] * centred[:, :-1]).sum(axis=1) / (centred**2).sum(axis=1)
        r = np.clip(r, 0.0, 0.98)
        effective = np.maximum(x.shape[1] * (1 - r) / (1 + r), 2.0)
        half = -stdtrit(effective - 1, (1 - level) / 2) * x.std(axis=1) / np.sqrt(effective)
        bounds.append((x.mean(axis=1) - half, x.mean(axis=1) + half))
    return _red(setting, bounds[1][0] > bounds[0][1])


def asv(factor: float, setting: Setting) -> Outcome:
    """asv: medians apart by a factor, and Mann-Whitney's p below 0.002 (asv/_stats.py)."""
    old, new = _two_series(setting)
    p = mannwhitneyu(old, new, axis=1, method="asymptotic").pvalue
    apart = np.median(new, axis=1) > factor * np.median(old, axis=1)
    return _red(setting, apart & (p < 0.002))


def fixed_sample(
    alpha: float,
    beta: float,
    setting: Setting,
    *,
    tolerance: float = 0.03,
    same_board: bool = True,
    most: int = 36,
) -> Outcome:
    """One look after as many launches as both error rates need at the noise known."""
    draws = draw(setting, num_old=max(12, most), num_new=max(24, most))
    k, design = setting.num_baseline if same_board else 0, planned_noise(setting)
    s2 = design.prior_sd**2
    needed = np.log1p(tolerance) / (-ndtri(alpha) - ndtri(beta))
    for launches in range(2, most + 1):
        a, b = launches // 2, launches - launches // 2
        v = variance(design, s2, num_baseline=k, num_old=a, num_new=b)
        if v <= needed**2:
            break
    in_baseline, in_old = k / (s2 + k * design.session_sd**2), a / s2
    stored = draws.baseline.mean(axis=1) if k else 0.0
    old = draws.old[:, :a].mean(axis=1)
    reference = (in_baseline * stored + in_old * old) / (in_baseline + in_old)
    change = draws.new[:, :b].mean(axis=1) - reference
    return _red(setting, change > -ndtri(alpha) * np.sqrt(v), launches=a + b)


def always_valid(alpha: float, beta: float, setting: Setting) -> Outcome:
    """Likelihood ratio of +3 % against 0 as an e-process: red at 1/alpha, green at beta.

    Valid whenever one stops (Ville's inequality), for known noise; launches in the gate's
    order. Ramdas et al., Game-theoretic statistics and safe anytime-valid inference (2023).
    """
    draws = draw(setting)
    k, design = setting.num_baseline, planned_noise(setting)
    delta, s2 = np.log1p(0.03), design.prior_sd**2
    sequence = order(design, k, has_old=True)
    verdict = np.full(setting.trials, INCONCLUSIVE)
    taken = np.full(setting.trials, len(sequence))
    for j in range(len(sequence)):
        a, b = sequence[: j + 1].count("A"), sequence[: j + 1].count("B")
        weights = k / (s2 + k * design.session_sd**2), a / s2
        old = draws.old[:, :a].mean(axis=1) if a else 0.0
        reference = (weights[0] * draws.baseline.mean(axis=1) + weights[1] * old) / sum(weights)
        v = variance(design, s2, num_baseline=k, num_old=a, num_new=b)
        ratio = delta * (draws.new[:, :b].mean(axis=1) - reference - delta / 2) / v
        live = verdict == INCONCLUSIVE
        verdict[live & (ratio >= -np.log(alpha))] = REGRESSION
        verdict[live & (ratio <= np.log(beta))] = UNCHANGED
        taken[live & (verdict != INCONCLUSIVE)] = j + 1
    return Outcome(verdict=verdict, gpu_s=taken * float(setting.launch_s))


def first_written(setting: Setting) -> Outcome:
    """The gate as first designed: BBB (AB) x 8, prior worth one launch, no guards.

    alpha 1 % spent by Hwang-Shih-DeCani with gamma -1, beta 5 % by the Pocock type; a rise
    is red at the first look and however small.
    """
    draws = draw(setting)
    k, delta, sequence = setting.num_baseline, np.log1p(0.03), "BBB" + "AB" * 8
    design = Design(alpha=0.01, beta=0.05, gamma=-1.0, max_launches=len(sequence))
    counts = [(sequence[: j + 1].count("A"), j + 1) for j in range(len(sequence))]
    planned = [
        variance(design, design.prior_sd**2, num_baseline=k, num_old=a, num_new=n - a)
        for a, n in counts
    ]
    t = [planned[-1] / v for v in planned]
    spent = [spent_hwang_shih_decani(x, 0.01, -1.0) for x in t]
    red = critical_values(t, spent)
    green = critical_values(t, [spent_pocock(x, 0.05) for x in t])
    verdict = np.full(setting.trials, INCONCLUSIVE)
    taken = np.full(setting.trials, len(sequence))
    for j, (a, n) in enumerate(counts):
        old, new = draws.old[:, :a], draws.new[:, : n - a]
        sums = Sums(
            num_baseline=k,
            num_old=a,
            num_new=n - a,
            mean_baseline=draws.baseline.mean(axis=1),
            mean_old=old.mean(axis=1) if a else 0.0,
            mean_new=new.mean(axis=1),
            squares_baseline=draws.baseline.var(axis=1) * k,
            squares_old=old.var(axis=1) * a if a else 0.0,
            squares_new=new.var(axis=1) * (n - a),
        )
        seen = estimate(sums, design)
        error = np.sqrt(seen.variance)
        high = -stdtrit(seen.df, ndtr(-red[j])) * error
        low = delta + stdtrit(seen.df, ndtr(-green[j])) * error
        claimed = np.select(
            [seen.change >= high, -seen.change >= high, seen.change <= low],
            [REGRESSION, IMPROVEMENT, UNCHANGED],
            default=INCONCLUSIVE,
        )
        ended = (verdict == INCONCLUSIVE) & (claimed != INCONCLUSIVE)
        verdict[ended] = claimed[ended]
        taken[ended] = n
    return Outcome(verdict=verdict, gpu_s=taken * setting.launch_s * draws.repeats)


RIVALS = {
    "this gate as first written": first_written,
    "threshold 5 %, one run against one": partial(threshold, 0.05),
    "threshold 10 %, one run against one": partial(threshold, 0.10),
    "Welch over sub-windows, p < 0.01": partial(welch, 0.01),
    "one-run 95 % intervals (effective sample size)": partial(one_run_intervals, 0.95),
    "asv, factor 1.1 and Mann-Whitney": partial(asv, 1.1),
    "asv, factor 1.03 and Mann-Whitney": partial(asv, 1.03),
    "Bencher t-test 0.95, 8 stored runs": partial(bencher, 0.95),
    "Bencher t-test 0.99, 8 stored runs": partial(bencher, 0.99),
    "fixed sample, same measured errors": partial(fixed_sample, 0.003, 0.027),
    "always valid (e-process), noise known": partial(always_valid, 0.006, 0.038),
}
