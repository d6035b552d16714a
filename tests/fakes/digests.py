"""Whole sessions made by hand, for tests of everything that reports one."""

import math
import random
from dataclasses import replace

from pytest_joules.digest import Digest, Failed, rows_of
from pytest_joules.point import Point
from pytest_joules.provenance import Context
from pytest_joules.result import Reason, Result, Timeline
from pytest_joules.verdict import Comparison, Verdict
from tests.fakes.results import make_comparison, make_evidence, make_result

NOISE = (0.99, 1.01, 1.0, 0.995, 1.005)
"""Stands in for the noise of launches."""


def make_timeline(*, power_w: float = 500.0, running: float = 8.0, seed: str = "") -> Timeline:
    """Make 100 s of a launch with its window from 20 s to 80 s and seeded noise of 1 %."""
    stream = random.Random(seed)
    wobble = [stream.gauss(1.0, 0.01) for _ in range(100)]
    return Timeline(
        step_s=1.0,
        window_start_s=20.0,
        window_end_s=80.0,
        power_w=tuple(round(power_w * each, 1) for each in wobble),
        running=tuple(round(running * min(1.0, i / 15) * wobble[i], 2) for i in range(100)),
        kv_cache_usage=tuple(round(min(0.8, i / 50) * wobble[i], 3) for i in range(100)),
        temperature_c=tuple(
            round((45 + 15 * min(1.0, i / 60)) * wobble[i], 1) for i in range(100)
        ),
        output_tokens_edges=tuple(float(100 * i) for i in range(21)),
        output_tokens_counts=tuple(
            round(200 * math.exp(-((i - 8) ** 2) / 20)) for i in range(20)
        ),
    )


def launch(
    point: Point, energy_j: float, *, clock_hz: float = 1.9e9, **changes: object
) -> Result:
    """Make one launch of a point, with everything that a live one has."""
    power_w = 150.0 + 500.0 * point.batch_size / (point.batch_size + 32)
    made = make_result(
        energy_j,
        throughput_work_units_per_s=power_w / energy_j,
        kv_cache_usage=0.8,
        mean_output_tokens=800.0,
        median_itl_s=0.01 * point.batch_size**0.4 / point.num_gpus**0.5,
        timeline=make_timeline(
            power_w=power_w, running=point.batch_size, seed=f"{point.hash} {energy_j}"
        ),
        mean_batch_size=float(point.batch_size),
        evidence=make_evidence(mean_temperature_c=60.0, mean_sm_clock_hz=clock_hz),
        **changes,
    )
    return made.but(point=point)


def of_stack(result: Result, stack: str, /, **packages: str) -> Result:
    """Return the result as another stack's."""
    context = Context(stack=stack, packages=packages)
    return result.but(provenance=replace(result.provenance, context=context))


def sweep(num_points: int, *, launches: int = 2) -> Digest:
    """Make a session of old and new stack over models, precisions, GPUs and batch sizes."""
    results: list[Result] = []
    comparisons: dict[Point, Comparison] = {}
    for index in range(num_points):
        point = _point(index)
        was = 3.0 / point.batch_size**0.6 * (1 + 0.1 * point.num_gpus)
        verdict = (Verdict.UNCHANGED, Verdict.REGRESSION, Verdict.IMPROVEMENT)[index % 3]
        change = {"unchanged": 0.002, "regression": 0.08, "improvement": -0.06}[verdict]
        for number in range(launches):
            noise = NOISE[number % len(NOISE)]
            clock_hz = 1.9e9 if verdict == Verdict.UNCHANGED else 1.9e9 * (1 - change / 2)
            now = was * (1 + change) * noise
            new = launch(point, now, clock_hz=clock_hz, source="fake")
            old = launch(point, was * noise, source="fake")
            results.append(of_stack(new, "new", vllm="0.33.0", torch="2.13.0"))
            results.append(of_stack(old, "old", vllm="0.32.0", torch="2.13.0"))
        comparisons[point] = make_comparison(
            point,
            verdict=verdict,
            reference="old",
            change=change,
            low=change - 0.01,
            high=change + 0.01,
            energy_per_work_unit_j=was * (1 + change),
            reference_energy_per_work_unit_j=was,
            explanation="Made by hand, for tests of the report.",
        )
    why = Reason(code="mig-on", text="MIG is on")
    broken = launch(_point(num_points), 1.0, source="fake", reasons=(why,))
    return Digest(
        settings={
            "gpu": "b200",
            "stack": "new",
            "against": "old",
            "tolerance": 0.03,
            "begun_at": "2026-11-21T09:00:00+00:00",
            "plugin": "0.1.0",
        },
        rows=rows_of([*results, of_stack(broken, "new")], comparisons),
        failed=(
            Failed(
                test="benchmarks/test_regression.py::test_energy[16]",
                file="benchmarks/test_regression.py",
                line=8,
                kind="EnergyRegression",
                text="qwen3-8b: regression\n  energy per token +8.0 %",
            ),
        ),
        num_launches=num_points * launches,
        spent_gpu_s=60.0 * num_points,
    )


def _point(index: int) -> Point:
    return Point(
        model=f"org/Model-{index // 48}",
        precision=("bf16", "fp8")[index // 8 % 2],
        num_gpus=(1, 2, 4)[index // 16 % 3],
        batch_size=2 ** (3 + index % 8),
    )
