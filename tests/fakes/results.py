"""Results made by hand, for tests of everything that judges, stores or draws results."""

from dataclasses import fields
from itertools import islice
from statistics import fmean
from typing import Any

from pytest_joules.point import Point
from pytest_joules.provenance import Context, Identity, Provenance
from pytest_joules.result import Evidence, Latency, Result
from pytest_joules.verdict import Comparison, Verdict

_POINT = {field.name for field in fields(Point)}
_EVIDENCE = {field.name for field in fields(Evidence)}
_LATENCY = {field.name for field in fields(Latency)}


def make_result(energy_per_work_unit_j: float = 1.0, **changes: Any) -> Result:
    """Make a valid live result without evidence; name only what the test is about.

    Fields of ``Point`` and ``Latency`` are given by name beside those of ``Result``. The
    achieved batch is the asked one unless ``mean_batch_size`` says otherwise.

    >>> make_result(0.5, batch_size=8, median_itl_s=0.02, source="recorded").power_w
    50.0 W (qwen3-8b-text-conversation-bf16-1gpu-b8 on b200, recorded)
    """
    point = Point(**{"model": "Qwen/Qwen3-8B", **_taken(changes, _POINT)})
    latency = Latency(**_taken(changes, _LATENCY))
    return Result(
        **{
            "point": point,
            "source": "live",
            "gpu": "b200",
            "energy_per_work_unit_j": energy_per_work_unit_j,
            "throughput_work_units_per_s": 100.0,
            "provenance": make_provenance(num_gpus=point.num_gpus),
            "mean_batch_size": float(point.batch_size),
            "latency": latency,
            **changes,
        }
    )


def make_run(energy_per_work_unit_j: float = 1.0, **changes: Any) -> Result:
    """Make a live result with the evidence of a steady 60 s window of 100 work units a second.

    Its numbers agree with each other and with its point, as those of a stored run must.
    Fields of ``Evidence`` are given by name beside those of ``make_result``.
    """
    evidence = _taken(changes, _EVIDENCE)
    run = make_result(energy_per_work_unit_j, **changes)
    point = run.point
    joules = 6000 * energy_per_work_unit_j
    made = make_evidence(
        **{
            "gpu_energy_j": (joules / point.num_gpus,) * point.num_gpus,
            "series_energy_j": (joules / 60,) * 60,
            "num_requests": 100 + point.batch_size,
            "start_index": 20,
            "end_index": 100,
            **evidence,
        }
    )
    asked = point.but(num_requests=None).requests()
    lengths = [request.output_tokens for request in islice(asked, made.num_requests)]
    mean = fmean(lengths) if lengths else 0.0
    return run.but(evidence=made, mean_output_tokens=changes.get("mean_output_tokens", mean))


def make_provenance(*, gpu_model: str = "NVIDIA B200", num_gpus: int = 1) -> Provenance:
    """Make the provenance of a machine that says nothing more than its GPUs."""
    identity = Identity(gpu_model=gpu_model, num_gpus=num_gpus)
    return Provenance(identity=identity, context=Context())


def make_evidence(*, launch_id: str = "launch-0", **changes: Any) -> Evidence:
    """Make the evidence of a steady 60 s window of 100 work units and 100 J a second."""
    return Evidence(
        **{
            "launch_id": launch_id,
            "window_s": 60.0,
            "gpu_energy_j": (6000.0,),
            "work_units": 6000.0,
            "series_energy_j": (100.0,) * 60,
            "series_work_units": (100.0,) * 60,
            **changes,
        }
    )


def _taken(changes: dict[str, Any], names: set[str]) -> dict[str, Any]:
    return {name: changes.pop(name) for name in sorted(names & set(changes))}


def make_comparison(point: Point, **changes: Any) -> Comparison:
    """Make a regression of 10 % against a baseline of 0.5 J."""
    return Comparison(
        **{
            "point": point,
            "verdict": Verdict.REGRESSION,
            "reference": "baseline",
            "change": 0.1,
            "low": 0.08,
            "high": 0.12,
            "tolerance": 0.03,
            "detectable": 0.02,
            "energy_per_work_unit_j": 0.55,
            "reference_energy_per_work_unit_j": 0.5,
            "num_launches": 2,
            "num_reference_launches": 3,
            **changes,
        }
    )
