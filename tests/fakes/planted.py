"""Pairs of simulated results with a cause planted in the second, for the attribution table."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from math import expm1, log

from pytest_joules.diagnose import Diagnosis, diagnose
from pytest_joules.gate.noise import SCENARIOS, TYPICAL, Noise
from pytest_joules.measure import Failure, FrozenWork
from pytest_joules.plan import Stack, plan
from pytest_joules.point import Point
from pytest_joules.procedure import Procedure
from pytest_joules.result import Result
from pytest_joules.simulation import Chance
from pytest_joules.simulation.plant import planted
from pytest_joules.sources.simulated import simulated_source
from pytest_joules.steady_state import Work

GPU = "b200"
TALK = Point(model="Qwen/Qwen3-8B", batch_size=64)
STILL = TYPICAL.scaled(0).but(name="still", thermal=0.0)


@dataclass(frozen=True)
class Case:
    """One cause: where it is planted, how far its dose may go, and what it is called."""

    plant: str
    codes: frozenset[str]
    furthest: float
    """Relative change at the end of the range that a dose is looked for in."""

    point: Point = TALK


def case(plant, *codes, furthest, point=TALK):
    return Case(plant, frozenset(codes), furthest, point)


CASES = (
    case("kv-memory", "memory-capacity", furthest=-0.99),
    case("cpu-feed", "gpu-waits", furthest=-0.97),
    case("clocks", "clocks", furthest=-0.6),
    case("power-cap", "power-cap", furthest=-0.72),
    case("output-length", "output-length", furthest=9.0),
    case("precision-overhead", "gpu-work", furthest=30.0, point=TALK.but(precision="fp8")),
    case("static-power", "static-power", furthest=1.5),
    case("client", "client-starved", furthest=-0.9),
)
ADDED_GPU = case("gpus", "parallelism", furthest=1.0)


def simulate(
    point: Point,
    plants: Mapping[str, float],
    *,
    seed: str,
    noise: Noise,
    like: Result | None = None,
) -> Result:
    """Measure one launch on the simulated machine, with the work of another where given."""
    source = simulated_source(
        gpu=GPU,
        planted=planted(plants),
        stack="default",
        chance=Chance(seed=seed, noise=noise),
        procedure=Procedure(),
        session=seed,
    )
    launch = plan([point], stack=Stack(), gpu=GPU).launches[0]
    (outcome,) = source.outcomes(launch, _work(point, like))
    if isinstance(outcome, Failure):
        raise outcome.error
    return outcome


def _work(point, like):
    if like is None:
        return {}
    told = like.evidence
    work = Work(start_index=told.start_index, end_index=told.end_index)
    return {point: FrozenWork(num_requests=told.num_requests, work=work)}


def effect(case: Case, dose: float, clean: Result) -> float:
    """Return the change of ln(energy) that a dose makes on a machine without noise."""
    changed = simulate(case.point, {case.plant: dose}, seed="still", noise=STILL, like=clean)
    return log(changed.energy_per_work_unit_j / clean.energy_per_work_unit_j)


@cache
def _still(point: Point) -> Result:
    return simulate(point, {}, seed="still", noise=STILL)


def dose_for(case: Case, wanted: float) -> float | None:
    """Find the dose that changes energy by this share, up or down; ``None`` where none does."""
    clean = _still(case.point)
    goal = log(1 + wanted)
    if abs(effect(case, case.furthest, clean)) < goal:
        return None
    low, high = 0.0, 1.0
    for _ in range(7):
        middle = (low + high) / 2
        is_enough = abs(effect(case, middle * case.furthest, clean)) >= goal
        low, high = (low, middle) if is_enough else (middle, high)
    return high * case.furthest


def explained(
    point: Point, plants: Mapping[str, float], *, seed: int, noise: Noise
) -> Diagnosis:
    """Explain a planted launch by a clean one of another session."""
    clean = _clean(point, seed, noise.name)
    now = simulate(point, plants, seed=f"now {seed}", noise=noise, like=clean)
    return diagnose([clean], [now])


@cache
def _clean(point: Point, seed: int, scenario: str) -> Result:
    return simulate(point, {}, seed=f"then {seed}", noise=SCENARIOS[scenario])


def percent_change(made: Diagnosis) -> float:
    return 100 * expm1(made.ln_change)
