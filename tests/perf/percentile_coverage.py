"""How often an interval holds the true percentile: the table of docs/method.md.

``python -m tests.perf.percentile_coverage [TRIALS] [REQUESTS ...]`` draws samples of streamed
requests whose gaps between tokens are lognormal with an effect of the request, and sets three
kinds of 95 % interval side by side: ours; and, of a fortieth of the trials, order statistics
of all gaps, as if they were independent, and the percentile bootstrap over requests. *Bounded*
is the share of ours with an upper bound, *width* their median width over the true percentile.
The last rows of each size are of times to the first token. Seeds are fixed.
"""

import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq
from scipy.special import ndtr, ndtri

from pytest_joules.assess.sampling_error import of_clusters, of_independent

SEED = 20260
MEAN_GAPS = 100
SPREAD = 0.4
"""Standard deviation of a gap's logarithm, requests and gaps together."""

RESAMPLES = 200
QUANTILES = (0.5, 0.9, 0.95, 0.99)


@dataclass(frozen=True, kw_only=True)
class Scenario:
    name: str
    between: float
    """Share of the variance that lies between requests."""

    slow_share: float = 0.0
    """Requests whose gaps are all twice as long."""

    def draw(self, rng: np.random.Generator, num_requests: int) -> list[np.ndarray]:
        effects = rng.normal(0, SPREAD * self.between**0.5, num_requests)
        effects += np.log(2) * (rng.random(num_requests) < self.slow_share)
        sizes = np.maximum(2, MEAN_GAPS * rng.lognormal(-0.125, 0.5, num_requests)).astype(int)
        inside = SPREAD * (1 - self.between) ** 0.5
        return [
            np.exp(rng.normal(effect, inside, size))
            for effect, size in zip(effects, sizes, strict=True)
        ]

    def quantile(self, q: float) -> float:
        def excess(log: float) -> float:
            slow = ndtr((log - np.log(2)) / SPREAD)
            return self.slow_share * slow + (1 - self.slow_share) * ndtr(log / SPREAD) - q

        return float(np.exp(brentq(excess, -5, 5)))


SCENARIOS = (
    Scenario(name="10 % of variance between requests", between=0.1),
    Scenario(name="50 %", between=0.5),
    Scenario(name="10 %, and 1 request in 20 twice as slow", between=0.1, slow_share=0.05),
)


def main(trials: int, sizes: list[int]) -> None:
    print("| requests | gaps | percentile | independent | bootstrap | ours | bounded | width |")
    print("|---:|---|---|---:|---:|---:|---:|---:|")
    for num_requests in sizes:
        for index, scenario in enumerate(SCENARIOS):
            rng = np.random.default_rng([SEED, num_requests, index])
            for row in _rows(rng, scenario, num_requests, trials=trials):
                print(f"| {num_requests} | {scenario.name} | {row} |", flush=True)
        rng = np.random.default_rng([SEED, num_requests])
        for q in (0.5, 0.99):
            found = [
                of_independent(rng.lognormal(0, SPREAD, num_requests), q) for _ in range(trials)
            ]
            told = _told(found, float(np.exp(SPREAD * ndtri(q))))
            print(f"| {num_requests} | first tokens | {100 * q:g} | | | {told} |", flush=True)


def _rows(
    rng: np.random.Generator, scenario: Scenario, num_requests: int, *, trials: int
) -> Iterator[str]:
    found = defaultdict(list)
    for trial in range(trials):
        gaps = scenario.draw(rng, num_requests)
        for q, interval in zip(QUANTILES, of_clusters(gaps, QUANTILES), strict=True):
            found["ours", q].append(interval)
        if trial % 40 == 0:  # the rivals are slow, and far off
            pooled = np.concatenate(gaps)
            for q in QUANTILES:
                found["independent", q].append(of_independent(pooled, q))
            for q, interval in zip(QUANTILES, _bootstrap(rng, gaps), strict=True):
                found["bootstrap", q].append(interval)
    for q in QUANTILES:
        truth = scenario.quantile(q)
        others = [_covered(found[name, q], truth) for name in ("independent", "bootstrap")]
        shares = " | ".join(f"{share:.1%}" for share in others)
        yield f"{100 * q:g} | {shares} | {_told(found['ours', q], truth)}"


def _told(found: list, truth: float) -> str:
    widths = [(high - low) / truth for low, high in found if high is not None]
    width = f"{np.median(widths):.1%}" if widths else ""
    return f"{_covered(found, truth):.1%} | {len(widths) / len(found):.0%} | {width}"


def _covered(found: list, truth: float) -> float:
    return float(
        np.mean([low <= truth and (high is None or truth <= high) for low, high in found])
    )


def _bootstrap(rng: np.random.Generator, gaps: list[np.ndarray]) -> list[tuple[float, float]]:
    number = len(gaps)
    pooled = np.concatenate(gaps)
    order = np.argsort(pooled)
    owner = np.repeat(np.arange(number), [len(each) for each in gaps])[order]
    weights = rng.multinomial(number, [1 / number] * number, RESAMPLES)
    below = np.cumsum(weights[:, owner], axis=1)
    values = pooled[order]
    intervals = []
    for q in QUANTILES:
        ranks = [np.searchsorted(each, q * each[-1]) for each in below]
        low, high = np.quantile(values[ranks], [0.025, 0.975])
        intervals.append((float(low), float(high)))
    return intervals


if __name__ == "__main__":
    given = [int(each) for each in sys.argv[1:]]
    main(given[0] if given else 4000, given[1:] or [16, 64])
