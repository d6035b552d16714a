"""How often the top-ranked cause is the planted one: the table of docs/diagnosis.md.

``python -m tests.perf.attribution [SEEDS]`` plants one cause at a time, and pairs of causes,
in simulated pairs of launches; doses are those that change energy by 3, 10 and 30 % on a
machine without noise. Seeds are fixed.
"""

import sys
from collections.abc import Mapping
from itertools import combinations

from pytest_joules.gate.noise import TYPICAL, Noise
from tests.fakes.planted import ADDED_GPU, CASES, TALK, Case, dose_for, explained

EFFECTS = (0.03, 0.10, 0.30)
SCENARIOS = (TYPICAL,)
PAIRED = [case for case in CASES if case.point == TALK]


def main(num_seeds: int = 20) -> None:
    doses = {(c.plant, e): dose_for(c, e) for c in CASES for e in EFFECTS}
    print("| planted | effect | dose | " + " | ".join(n.name for n in SCENARIOS) + " |")
    print("|---|---|---|" + "---|" * len(SCENARIOS))
    totals: dict[tuple[float, str], list[int]] = {}
    for each in CASES:
        for size in EFFECTS:
            dose = doses[each.plant, size]
            if dose is None:
                print(f"| `{each.plant}` | {size:.0%} | not reached | | | |", flush=True)
                continue
            found = {
                n.name: _found(each, {each.plant: dose}, noise=n, num_seeds=num_seeds)
                for n in SCENARIOS
            }
            for name, number in found.items():
                totals.setdefault((size, name), []).append(number)
            row = " | ".join(f"{number} of {num_seeds}" for number in found.values())
            print(f"| `{each.plant}` | {size:.0%} | {dose:+.0%} | {row} |", flush=True)
    found = [
        _found(ADDED_GPU, {"gpus": 1}, noise=noise, num_seeds=num_seeds) for noise in SCENARIOS
    ]
    row = " | ".join(f"{number} of {num_seeds}" for number in found)
    print(f"| `gpus` | as it comes | +1 | {row} |")
    for (size, name), numbers in sorted(totals.items()):
        share = sum(numbers) / len(numbers) / num_seeds
        print(f"{size:.0%}, {name}: {share:.1%} of {len(numbers)} causes x {num_seeds}")
    _pairs({c.plant: doses[c.plant, 0.10] for c in PAIRED}, num_seeds)


def _found(case: Case, plants: Mapping[str, float], *, noise: Noise, num_seeds: int) -> int:
    made = (explained(case.point, plants, seed=seed, noise=noise) for seed in range(num_seeds))
    return sum(each.causes[0].code in case.codes for each in made)


def _pairs(doses: Mapping[str, float | None], num_seeds: int) -> None:
    few = max(1, num_seeds // 4)
    top = both = total = 0
    for one, other in combinations(PAIRED, 2):
        plants = {c.plant: doses[c.plant] for c in (one, other)}
        if None in plants.values():
            continue
        for seed in range(few):
            ranked = [c.code for c in explained(TALK, plants, seed=seed, noise=TYPICAL).causes]
            codes = [one.codes, other.codes]
            total += 1
            top += any(ranked[0] in each for each in codes)
            both += all(any(code in each for code in ranked[:3]) for each in codes)
    print(
        f"pairs of 10 % causes, typical noise: top-ranked one of the two in {top} of {total}, "
        f"both among the first three in {both}"
    )


if __name__ == "__main__":
    main(*(int(argument) for argument in sys.argv[1:]))
