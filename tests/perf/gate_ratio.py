"""GPU seconds of this gate beside a fixed sample with the same error rates, nothing changed.

``python tests/perf/gate_ratio.py [--trials 10000] [--docs docs/gate.md]`` writes that section
of the page anew, in half a minute. ``gate_error_rates.py`` writes it with the rest.

The fixed sample is given the error rates that the gate was just seen to have, and knows the
noise; a rise that the gate leaves open counts against the gate, as not found.
"""

import argparse
from dataclasses import dataclass, replace
from pathlib import Path

from gate_rivals import fixed_sample
from gate_trials import Setting, gate, percent, table

from pytest_joules.gate.design import Design
from pytest_joules.gate.noise import INCIDENT, NOISY, OTHER_GPU, QUIET, TYPICAL, Noise

TITLE, NEXT_TITLE = "## GPU seconds beside", "## What is said at each"
DOUBLED = TYPICAL.scaled(2.0)
LAUNCH_DOUBLED = TYPICAL.but(name="launch x 2", launch=2 * TYPICAL.launch)
LEAST_RATE = 0.001
"""The smallest error rate that ten thousand trials tell: ten of them."""

MOST_LAUNCHES = 150
"""Of the fixed sample: as many as it needs, so that it does reach the error rates."""


@dataclass(frozen=True, kw_only=True)
class Pair:
    """One row: what the gate meets, and what the fixed sample is told of it."""

    setting: Setting
    tolerance: float = 0.03
    same_board: bool = True
    fixed_setting: Setting | None = None
    """Where the fixed sample knows better: the noise of today, from the baseline on."""


def _grown(now: Noise) -> dict[str, Setting]:
    return {
        "setting": Setting(noise=TYPICAL, noise_now=now),
        "fixed_setting": Setting(noise=now),
    }


_OTHER = Setting(noise=OTHER_GPU, other_board=True)
PAIRS = {
    "quiet": Pair(setting=Setting(noise=QUIET)),
    "typical": Pair(setting=Setting(noise=TYPICAL)),
    "incident": Pair(setting=Setting(noise=INCIDENT)),
    "other GPU, noticed: no baseline for either": Pair(setting=_OTHER, same_board=False),
    "noisy": Pair(setting=Setting(noise=NOISY), tolerance=0.06),
    "all noise doubled since the baseline": Pair(**_grown(DOUBLED), tolerance=0.06),
    "launch noise alone doubled": Pair(**_grown(LAUNCH_DOUBLED)),
    "noisy, at a tolerance it does not allow": Pair(setting=Setting(noise=NOISY)),
    "all noise doubled, at a tolerance it does not allow": Pair(**_grown(DOUBLED)),
}
HEADER = (
    "scenario",
    "tolerance",
    "this gate, GPU s",
    "fixed sample, GPU s",
    "ratio",
    "red at 0 %: gate, fixed",
    "red at the tolerance: gate, fixed",
    "gate, left open: at 0 %, at the tolerance",
)


def ratio_section(trials: int) -> str:
    return table(HEADER, [_row(name, pair, trials) for name, pair in PAIRS.items()])


def _row(name: str, pair: Pair, trials: int) -> tuple[str, ...]:
    design = replace(Design(), tolerance=pair.tolerance)
    ours = [
        gate(_at(pair.setting, change, trials), design, same_board=pair.same_board)
        for change in (0.0, pair.tolerance)
    ]
    red = [seen.share("regression") for seen in ours]
    alpha, beta = max(red[0], LEAST_RATE), max(1 - red[1], LEAST_RATE)
    theirs = [
        fixed_sample(
            alpha,
            beta,
            _at(pair.fixed_setting or pair.setting, change, trials),
            tolerance=pair.tolerance,
            same_board=pair.same_board,
            most=MOST_LAUNCHES,
        )
        for change in (0.0, pair.tolerance)
    ]
    costs = [outcomes[0].gpu_s.mean() for outcomes in (ours, theirs)]
    return (
        name,
        f"{100 * pair.tolerance:.0f} %",
        *(f"{gpu_s:,.0f}" for gpu_s in costs),
        f"{costs[0] / costs[1]:.2f}",
        *(
            ", ".join(percent(seen.share("regression")) for seen in both)
            for both in zip(ours, theirs, strict=True)
        ),
        ", ".join(percent(seen.share("inconclusive")) for seen in ours),
    )


def _at(setting: Setting, change: float, trials: int) -> Setting:
    return replace(setting, change=change, trials=trials, seed=int(1 + 1000 * change))


def with_ratios(text: str, trials: int) -> str:
    """Return a page with its section of ratios written anew."""
    words = (Path(__file__).parent / "gate_document.md").read_text()
    section = words[words.index(TITLE) : words.index(NEXT_TITLE)]
    made = section.replace("{{ratios}}", ratio_section(trials))
    return text[: text.index(TITLE)] + made + text[text.index(NEXT_TITLE) :]


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--trials", type=int, default=10_000)
    options.add_argument("--docs", type=Path, default=Path("docs/gate.md"))
    chosen = options.parse_args()
    text = with_ratios(chosen.docs.read_text(), chosen.trials)
    chosen.docs.write_text(text)
    print(text[text.index(TITLE) : text.index(NEXT_TITLE)])


if __name__ == "__main__":
    main()
