"""Simulated sessions: many points, launches shared between the points of one server."""

from dataclasses import dataclass, replace

import numpy as np
from gate_trials import RAMP_UP_S, START_S, VERDICTS, windows

from pytest_joules.gate.decision import Sums, decide, estimate
from pytest_joules.gate.design import Design, looks
from pytest_joules.gate.noise import MEASURED_S, Noise, launch_effects, session_effects


@dataclass(frozen=True, kw_only=True)
class Session:
    """What is simulated: every point is judged, each launch measures what is undecided."""

    noise: Noise
    num_servers: int = 2
    points_per_server: int = 6
    change: float = 0.0
    changed: str = "none"
    """``none``, ``one`` (the first point) or ``all``."""

    noise_now: Noise | None = None
    common_launch: bool = False
    """Whether a launch effect is the same for all points it serves."""

    num_baseline: int = 8
    num_sessions: int = 4
    window_s: int = MEASURED_S
    trials: int = 4_000
    seed: int = 1

    @property
    def num_points(self):
        return self.num_servers * self.points_per_server


@dataclass(frozen=True, kw_only=True)
class SessionOutcome:
    """Verdicts, shape ``(sessions, points)``, and GPU seconds of each whole session."""

    verdict: np.ndarray
    shared_gpu_s: np.ndarray
    alone_gpu_s: np.ndarray

    def share(self, verdict: str, points=slice(None)) -> float:
        return float((self.verdict[:, points] == VERDICTS.index(verdict)).mean())

    def any(self, verdict: str, points=slice(None)) -> float:
        hit = self.verdict[:, points] == VERDICTS.index(verdict)
        return float(hit.any(axis=1).mean())


def run_sessions(session: Session, design: Design, *, max_df: float = 60.0) -> SessionOutcome:
    state = _State(session, design, max_df)
    for look in looks(state.plan, session.num_baseline, has_old=True):
        if not state.live.any():
            break
        state.take(look)
    return SessionOutcome(
        verdict=state.verdict, shared_gpu_s=state.shared_s, alone_gpu_s=state.alone_s
    )


class _State:
    """Everything known in the middle of many sessions at once."""

    def __init__(self, session, design, max_df):
        self.session, self.design = session, design
        rng = np.random.default_rng(session.seed)
        shape = (session.trials, session.num_points)
        k = session.num_baseline
        now = session.noise_now or session.noise
        each = session_effects(session.noise, rng, (session.trials, 1, session.num_sessions))
        self.baseline, self.baseline_spread = _draw(
            session, rng, noise=session.noise, launches=k
        )
        self.baseline += each[..., np.arange(k) % session.num_sessions]
        here = session_effects(now, rng, (session.trials, 1, 1))
        self.old, self.old_spread = _draw(session, rng, noise=now, launches=12)
        self.new, self.new_spread = _draw(session, rng, noise=now, launches=24)
        self.old += here
        self.new += here
        self.new[:, _changed(session)] += np.log1p(session.change)
        self.squares_baseline = self.baseline.var(axis=2) * k
        self._set_prior(max_df)
        self.verdict = np.full(shape, VERDICTS.index("inconclusive"))
        self.live = np.ones(shape, dtype=bool)
        self.squares, self.df = np.zeros(shape), np.zeros(shape)
        self.shared_s, self.alone_s = np.zeros(shape[0]), np.zeros(shape[0])

    def _set_prior(self, max_df):
        """Let every point take its prior from all other points' baselines."""
        others = self.squares_baseline.sum(axis=1, keepdims=True) - self.squares_baseline
        df = (self.session.num_points - 1) * (self.session.num_baseline - 1)
        total = self.design.prior_df + df
        squares = self.design.prior_df * self.design.prior_sd**2 + others
        self.prior_sd, self.prior_df = np.sqrt(squares / total), min(total, max_df)
        self.plan = planned(self.design, float(np.sqrt((self.prior_sd**2).mean())))
        self.session_sd, self.delta = self.design.session_sd, self.design.delta
        self.min_launches_red = self.design.min_launches_red

    def take(self, look):
        """Launch once for every server with an undecided point, then decide."""
        self._pay()
        a, b = look.num_old, look.num_new
        old, new = self.old[..., :a], self.new[..., :b]
        own = (old.var(axis=2) * a if a else 0.0) + new.var(axis=2) * b
        self.squares = np.where(self.live, own, self.squares)
        self.df = np.where(self.live, max(a - 1, 0) + max(b - 1, 0), self.df)
        sums = Sums(
            num_baseline=self.session.num_baseline,
            num_old=a,
            num_new=b,
            mean_baseline=self.baseline.mean(axis=2),
            mean_old=old.mean(axis=2) if a else 0.0,
            mean_new=new.mean(axis=2),
            squares_baseline=self.squares_baseline,
            squares_old=old.var(axis=2) * a if a else 0.0,
            squares_new=new.var(axis=2) * b,
            spread_ratio=self._spread_ratio(a, b),
            squares_elsewhere=self.squares.sum(axis=1, keepdims=True) - self.squares,
            df_elsewhere=self.df.sum(axis=1, keepdims=True) - self.df,
        )
        claims = decide(estimate(sums, self), look, self)
        now = np.select(
            [claims.regression, claims.improvement, claims.unchanged], [0, 1, 2], default=3
        )
        ended = self.live & (now < VERDICTS.index("inconclusive"))
        self.verdict = np.where(ended, now, self.verdict)
        self.live &= ~ended

    def _pay(self):
        point_s = RAMP_UP_S + self.session.window_s
        servers = self.live.reshape(
            -1, self.session.num_servers, self.session.points_per_server
        )
        undecided = self.live.sum(axis=1)
        self.shared_s += START_S * servers.any(axis=2).sum(axis=1) + point_s * undecided
        self.alone_s += (START_S + point_s) * undecided

    def _spread_ratio(self, a, b):
        now = np.concatenate([self.old_spread[..., :a], self.new_spread[..., :b]], axis=2)
        return np.median(now, axis=2) / np.median(self.baseline_spread, axis=2)


def planned(design: Design, launch_sd: float) -> Design:
    """Return the design whose looks are planned for this noise, to 0.01 %."""
    return replace(design, prior_sd=round(launch_sd, 4))


def _draw(session, rng, *, noise, launches):
    values, spreads, _ = windows(noise, session.window_s)
    shape = (session.trials, session.num_points, launches)
    picked = rng.integers(0, len(values), shape)
    if session.common_launch:
        servers = (session.trials, session.num_servers, launches)
        effects = np.repeat(
            launch_effects(noise, rng, servers), session.points_per_server, axis=1
        )
    else:
        effects = launch_effects(noise, rng, shape)
    return effects + values[picked], spreads[picked]


def _changed(session):
    return {"none": slice(0, 0), "one": slice(0, 1), "all": slice(None)}[session.changed]
