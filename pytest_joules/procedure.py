"""How carefully to measure: every default of a measurement, in one place."""

from dataclasses import dataclass

SHORTEST_TRUSTED_WINDOW_S = 30.0
"""Shorter windows are measured only where a user asks, and are marked."""

SHORTEST_TRUSTED_TICKS = 300


@dataclass(frozen=True, kw_only=True)
class Procedure:
    """Lengths, limits and thresholds of one measurement (DESIGN, section 5)."""

    min_window_s: float = 60.0
    """Steady-state seconds asked for; ``--joules-window``."""

    deadline_s: float = 3600.0
    """Seconds after which one point's load is given up."""

    least_batch_share: float = 0.85
    """Achieved mean batch over asked batch below which a result is invalid; the share that
    the published data required of its runs."""

    least_busy_share: float = 0.98
    """Share of a window of batches that the pipeline must run in."""

    token_disagreement: float = 0.005
    """Largest relative difference of server and client token counts."""

    largest_client_lag_s: float = 0.5
    largest_client_cores: float = 1.0
    largest_drift: float = 0.02
    """Relative difference of the window's quarters above which a note is made."""

    least_series: int = 40
    """Sub-windows below which MSER-5 is not asked: it would choose among a handful of batches
    and cut by chance."""

    least_bias: float = 0.005
    """Relative change of energy per work unit below which the ramp-up is not cut further:
    MSER-5 cuts into noise and slow drifts, too, and would throw away half of a good run."""

    largest_cut: float = 0.5
    """Share of the full-batch time that the ramp-up may take."""

    largest_scrape_s: float = 1.0
    """How old the server's counters may be at a window's edge."""

    largest_scrape_gap_s: float = 2.0
    """Longest time without the server's counters inside a window: they are read ten times a
    second, and a busy server answers late, which blurs the series but not the sums."""

    largest_batch_excess: float = 0.02
    """Requests running above those offered at once, on average, over the batch: a server
    cannot run what nobody asked for; slack for gauges that are late."""

    drained_memory_bytes: int = 2 * 2**30
    """GPU memory in use above which a GPU is not free for a launch."""

    drain_deadline_s: float = 60.0
    """Seconds to wait for memory to drain before a launch."""

    @property
    def least_window_s(self) -> float:
        """Shortest window accepted; half of what a user asked for below 30 s."""
        if self.min_window_s >= SHORTEST_TRUSTED_WINDOW_S:
            return SHORTEST_TRUSTED_WINDOW_S
        return self.min_window_s / 2

    @property
    def least_ticks(self) -> int:
        """Fewest counter ticks accepted in a window."""
        share = self.least_window_s / SHORTEST_TRUSTED_WINDOW_S
        return max(2, round(SHORTEST_TRUSTED_TICKS * share))
