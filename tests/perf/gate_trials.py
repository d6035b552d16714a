"""Simulated comparisons, many at once: draws of launches and the gate's way through them."""

from dataclasses import dataclass, replace
from functools import cache, lru_cache

import numpy as np

from pytest_joules.gate import Sums, decide, estimate
from pytest_joules.gate.design import Design, looks, order
from pytest_joules.gate.launch_value import MAX_CLIPPED_SHARE, clip
from pytest_joules.gate.noise import (
    MEASURED_S,
    Noise,
    gpu_effects,
    launch_effects,
    log_series,
    session_effects,
)

START_S = 90
RAMP_UP_S = 30
VERDICTS = ("regression", "improvement", "unchanged", "inconclusive")
_POOL = 120_000


@cache
def windows(noise: Noise, window_s: int = MEASURED_S):
    """Return (value, spread) of many windows, and how many launches each took.

    Launches whose windows are clipped too much are repeated, so their cost is a factor.
    """
    rng = np.random.default_rng(20_260_101)
    values, spreads, tried, kept = [], [], 0, 0
    while kept < _POOL:
        clipped, share, spread = clip(np.exp(log_series(noise, rng, (20_000,), num=window_s)))
        usable = share <= MAX_CLIPPED_SHARE
        values.append(np.log(clipped.mean(axis=-1))[usable])
        spreads.append(spread[usable])
        tried, kept = tried + len(share), kept + int(usable.sum())
    return np.concatenate(values), np.concatenate(spreads), tried / kept


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What is simulated."""

    noise: Noise
    change: float = 0.0
    noise_now: Noise | None = None
    """Noise of the judging session where it differs from the baseline's."""

    other_board: bool = False
    num_baseline: int = 8
    num_sessions: int = 4
    """Sessions the baseline was recorded in."""

    num_history_points: int = 11
    """Other points whose baselines tell the noise; 0 leaves the design's own prior."""

    history_spread: float = 0.0
    """How far the other points' noise differs from this one's, in ln of its sd."""

    has_old: bool = True
    """Whether the old stack can be launched beside the new one."""

    window_s: int = MEASURED_S
    trials: int = 4_000
    seed: int = 1

    @property
    def launch_s(self):
        return START_S + RAMP_UP_S + self.window_s


@dataclass(frozen=True, kw_only=True)
class Draws:
    """Launch values of many comparisons, shape ``(trials, launches)``."""

    baseline: np.ndarray
    baseline_spread: np.ndarray
    old: np.ndarray
    new: np.ndarray
    old_spread: np.ndarray
    new_spread: np.ndarray
    history_squares: np.ndarray
    history_df: float
    repeats: float


@lru_cache(maxsize=2)
def draw(setting: Setting, num_old: int = 12, num_new: int = 24) -> Draws:
    rng = np.random.default_rng(setting.seed)
    now = setting.noise_now or setting.noise
    trials = setting.trials
    baseline, baseline_spread = _launches(
        setting, rng, noise=setting.noise, shape=(trials, setting.num_baseline)
    )
    session = session_effects(now, rng, (trials, 1))
    if setting.other_board:
        session = session + gpu_effects(now, rng, (trials, 1))
    old, old_spread = _launches(setting, rng, noise=now, shape=(trials, num_old), sessions=0)
    new, new_spread = _launches(setting, rng, noise=now, shape=(trials, num_new), sessions=0)
    squares, df = _history(setting, rng)
    return Draws(
        baseline=baseline,
        baseline_spread=baseline_spread,
        old=old + session,
        new=new + session + np.log1p(setting.change),
        old_spread=old_spread,
        new_spread=new_spread,
        history_squares=squares,
        history_df=df,
        repeats=windows(now, setting.window_s)[2],
    )


def _launches(setting, rng, *, noise, shape, sessions=None):
    values, spreads, _ = windows(noise, setting.window_s)
    picked = rng.integers(0, len(values), shape)
    drawn = launch_effects(noise, rng, shape) + values[picked]
    if sessions is None and shape[-1]:
        each = session_effects(noise, rng, (*shape[:-1], setting.num_sessions))
        drawn = drawn + each[..., np.arange(shape[-1]) % setting.num_sessions]
    return drawn, spreads[picked]


def _history(setting, rng):
    """Draw the sums of squares that the other points' baselines give, as chi-squares.

    Every baseline spans the same number of sessions.
    """
    df = setting.num_history_points * max(setting.num_baseline - 1, 0)
    if df == 0:
        return np.zeros(setting.trials), 0.0
    some, _ = _launches(setting, rng, noise=setting.noise, shape=(20_000, setting.num_baseline))
    squares = some.var(axis=1) * setting.num_baseline
    picked = rng.integers(0, len(squares), (setting.trials, setting.num_history_points))
    factors = np.exp(2 * rng.normal(0.0, setting.history_spread, picked.shape))
    return (squares[picked] * factors).sum(axis=1), float(df)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Verdicts (index into ``VERDICTS``) and GPU seconds of each trial."""

    verdict: np.ndarray
    gpu_s: np.ndarray

    def share(self, verdict: str) -> float:
        return float((self.verdict == VERDICTS.index(verdict)).mean())


def planned_noise(setting: Setting, design: Design | None = None) -> Design:
    """Return the design with the noise that its history shows on average."""
    design = design or Design()
    draws = draw(setting)
    if not draws.history_df:
        return design
    launch_sd = float(np.sqrt((_priors(design, draws, np.inf)[0] ** 2).mean()))
    return replace(design, prior_sd=round(launch_sd, 4))


def gate(
    setting: Setting, design: Design, *, same_board: bool = True, max_df: float = 60.0
) -> Outcome:
    """Run the package's rule over every trial at once."""
    draws = draw(setting)
    k = setting.num_baseline if same_board else 0
    plan = planned_noise(setting, design)
    prior_sd, prior_df = _priors(design, draws, max_df)
    verdict = np.full(setting.trials, VERDICTS.index("inconclusive"))
    launches = np.full(setting.trials, len(order(plan, k, has_old=setting.has_old)))
    live = np.arange(setting.trials)
    for look in looks(plan, k, has_old=setting.has_old):
        prior = _Prior(design, prior_sd[live], prior_df)
        claims = decide(estimate(_sums(draws, live, look, k=k), prior), look, prior)
        now = np.select(
            [claims.regression, claims.improvement, claims.unchanged], [0, 1, 2], default=3
        )
        ended = now < VERDICTS.index("inconclusive")
        verdict[live[ended]] = now[ended]
        launches[live[ended]] = look.num_old + look.num_new
        live = live[~ended]
        if not live.size:
            break
    return Outcome(verdict=verdict, gpu_s=launches * setting.launch_s * draws.repeats)


class _Prior:
    """A design whose prior differs from trial to trial."""

    def __init__(self, design, prior_sd, prior_df):
        self.prior_sd, self.prior_df = prior_sd, prior_df
        self.session_sd, self.delta = design.session_sd, design.delta
        self.min_launches_red = design.min_launches_red


def _priors(design, draws, max_df):
    total = design.prior_df + draws.history_df
    pooled = (design.prior_df * design.prior_sd**2 + draws.history_squares) / total
    return np.sqrt(pooled), min(total, max_df)


def _sums(draws, live, look, *, k):
    a, b = look.num_old, look.num_new
    base, old, new = draws.baseline[live, :k], draws.old[live, :a], draws.new[live, :b]
    spread_now = np.concatenate([draws.old_spread[live, :a], draws.new_spread[live, :b]], 1)
    ratio = (
        np.median(spread_now, axis=1) / np.median(draws.baseline_spread[live, :k], axis=1)
        if k
        else 1.0
    )
    return Sums(
        num_baseline=k,
        num_old=a,
        num_new=b,
        mean_baseline=base.mean(axis=1) if k else 0.0,
        mean_old=old.mean(axis=1) if a else 0.0,
        mean_new=new.mean(axis=1),
        squares_baseline=base.var(axis=1) * k if k else 0.0,
        squares_old=old.var(axis=1) * a if a else 0.0,
        squares_new=new.var(axis=1) * b,
        spread_ratio=ratio,
    )


def percent(share):
    return f"{100 * share:.2f}" if share < 0.1 else f"{100 * share:.1f}"


def table(header, rows):
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    return "\n".join(lines + ["| " + " | ".join(map(str, row)) + " |" for row in rows])
