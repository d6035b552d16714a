"""Raw result folders of the ML.ENERGY Benchmark: one ``results.json`` a configuration.

The folder's name holds the configuration, its ancestors task, model and GPU::

    <task>/results/<org>/<model>/<GPU>/num_gpus+1+max_num_seqs+8+.../results.json
    diffusion/<GPU>/<snapshot>/run/diffusion/<task>/<org>/<model>/batch-1+uly-1+.../results.json

Beside the former lies ``prometheus.json``, with the means of vLLM's gauges. A run that the
published data would leave out as unstable is kept here, with the reasons it is invalid.

Source: github.com/ml-energy/benchmark, mlenergy/llm/README.md; github.com/ml-energy/data,
mlenergy/data/raw/path_parser.py (layout).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import dropwhile
from pathlib import Path
from statistics import fmean

import numpy as np

from pytest_joules import catalog, storage
from pytest_joules.errors import ConfigurationError, FormatError, InvalidPoint, is_expected
from pytest_joules.point import Point
from pytest_joules.provenance import Context, Identity, Provenance
from pytest_joules.result import Evidence, Latency, Reason, Result
from pytest_joules.sources.mlenergy import STACK, precision_of
from pytest_joules.sources.strict import Fields
from pytest_joules.tasks import Task, task_of_dataset

__tracebackhide__ = is_expected

_FILE = "results.json"
_RUNNING = "vllm:num_requests_running"
_KV_CACHE = "vllm:kv_cache_usage_perc"
# Stability rules of the published data (mlenergy/data/records/runs.py).
_LEAST_UTILIZATION = 0.85
_LEAST_STEADY_S = 20.0
_ENERGY_TOLERANCE = 0.01
_LLM_DEPTH, _DIFFUSION_DEPTH = 5, 7


@dataclass(frozen=True, kw_only=True)
class RawRun:
    """One results.json and what its path says."""

    path: Path
    task: Task
    model: str
    gpu_model: str
    config: Mapping[str, str]
    precision: str


def read_raw(folder: Path, *, precision: str = "") -> tuple[Result, ...]:
    """Read every ``results.json`` below a folder, in order of paths; all or nothing.

    Args:
        folder: The benchmark's result folder, or any above it.
        precision: Weight precision of models that neither the folder's
            ``configs/.../model_info.json`` nor the catalog knows.

    Raises:
        ConfigurationError: There is no ``results.json``.
        FormatError: A file is broken or partial; names file and field.
    """
    paths = [path for path in storage.files_below(folder, _FILE) if path.name == _FILE]
    if not paths:
        raise ConfigurationError(
            f"{folder} holds no {_FILE}: give the result folder of an ML.ENERGY Benchmark run."
        )
    return tuple(_read(_placed(path, folder, precision)) for path in paths)


def _read(run: RawRun) -> Result:
    fields = Fields(storage.read(run.path), run.path, "the file")
    try:
        return _text(run, fields) if run.task.work_unit == "token" else _images(run, fields)
    except InvalidPoint as error:
        raise FormatError(f"{run.path}: {error}") from error


def _placed(path: Path, folder: Path, precision: str) -> RawRun:
    """Read task, model, GPU and configuration off the path."""
    above = [parent.name for parent in path.parents]
    is_text = len(above) > _LLM_DEPTH and above[4] == "results"
    is_diffusion = len(above) > _DIFFUSION_DEPTH and above[4:6] == ["diffusion", "run"]
    if not is_text and not is_diffusion:
        raise FormatError(
            f"{path}: lies in no folder of the benchmark's layout "
            "(<task>/results/<org>/<model>/<GPU>/<configuration>, or diffusion/<GPU>/"
            "<snapshot>/run/diffusion/<task>/<org>/<model>/<configuration>)."
        )
    task, gpu, model = (
        (above[5], above[1], f"{above[3]}/{above[2]}")
        if is_text
        else (above[3], above[7], f"{above[2]}/{above[1]}")
    )
    try:
        asked = task_of_dataset(task)
    except InvalidPoint as error:
        raise FormatError(f"{path}: {error}") from error
    return RawRun(
        path=path,
        task=asked,
        model=model,
        gpu_model=gpu.upper(),
        config=_plus_pairs(above[0]) if is_text else _dash_pairs(above[0]),
        precision=_precision(folder, asked, model) or precision or _unknown(path, model),
    )


def _plus_pairs(name: str) -> dict[str, str]:
    parts = name.split("+")
    return dict(zip(parts[0::2], parts[1::2], strict=False))


def _dash_pairs(name: str) -> dict[str, str]:
    return dict(part.split("-", 1) for part in name.split("+") if "-" in part)


def _precision(folder: Path, task: Task, model: str) -> str:
    for described in folder.glob(f"configs/*/{task.dataset_name}/{model}/model_info.json"):
        fields = Fields(storage.read(described), described, "the file")
        return precision_of(fields)
    known = catalog.model(model)
    return known.precision if known else ""


def _unknown(path: Path, model: str) -> str:
    raise FormatError(
        f"{path}: the weight precision of {model} is neither in configs/ nor in the catalog; "
        "say it with --precision."
    )


def _configured(run: RawRun, name: str) -> int:
    value = run.config.get(name, "")
    if not value.isascii() or not value.isdecimal() or int(value) < 1:
        raise FormatError(
            f"{run.path}, the folder's name, field {name}: {value!r} is not a whole number "
            "of at least 1."
        )
    return int(value)


def _text(run: RawRun, fields: Fields) -> Result:
    energy_j = fields.number("steady_state_energy")
    window_s = fields.number("steady_state_duration")
    per_token_j = fields.number("steady_state_energy_per_token")
    requests = list(fields.each("results"))
    gauges_path = run.path.with_name("prometheus.json")
    document = Fields(storage.read(gauges_path), gauges_path, "the file")
    gauges = document.inside("steady_state_stats")
    running, batch_size = gauges.number(_RUNNING), _configured(run, "max_num_seqs")
    num_failed = sum(not request.flag("success") for request in requests)
    return Result(
        point=Point(
            model=run.model,
            task=run.task.name,
            batch_size=batch_size,
            precision=run.precision,
            num_gpus=_configured(run, "num_gpus"),
            engine="vllm",
            mode="natural",
            shared_server=False,
        ),
        source="recorded",
        gpu=catalog.gpu_slug(run.gpu_model),
        energy_per_work_unit_j=per_token_j,
        throughput_work_units_per_s=energy_j / per_token_j / window_s,
        provenance=_provenance(run, _configured(run, "num_gpus")),
        mean_batch_size=running,
        mean_output_tokens=fields.number("total_output_tokens") / fields.number("completed"),
        kv_cache_usage=gauges.number_or_none(_KV_CACHE),
        latency=_latency([r for r in requests if r.flag("success")], fields),
        evidence=_evidence(run, fields, energy_j / per_token_j),
        reasons=tuple(_unstable(running / batch_size, window_s, num_failed)),
        notes=(
            Reason(
                code="parallelism-unknown",
                text="raw results do not hold tensor, expert and data parallelism.",
            ),
        ),
    )


def _unstable(utilization: float, window_s: float, num_failed: int) -> Iterator[Reason]:
    if utilization < _LEAST_UTILIZATION:
        text = (
            f"the mean batch was {utilization:.0%} of max_num_seqs; it must be "
            f"{_LEAST_UTILIZATION:.0%}."
        )
        yield Reason(code="batch-starved", text=text)
    if window_s < _LEAST_STEADY_S:
        text = f"the steady state lasted {window_s:.1f} s; it must be {_LEAST_STEADY_S:g} s."
        yield Reason(code="window-short", text=text)
    if num_failed:
        yield Reason(code="request-failed", text=f"{num_failed} requests failed.")


def _latency(requests: Sequence[Fields], fields: Fields) -> Latency:
    gaps_s = [gap for request in requests for gap in even_gaps(request.numbers("itl"))]
    if not gaps_s:
        fields.fail("results", [], "a list with inter-token latencies of finished requests")
    median, p90, p95, p99 = (float(p) for p in np.percentile(gaps_s, [50, 90, 95, 99]))
    first_s = [t for request in requests if (t := request.number_or_none("ttft")) is not None]
    ttft = [float(p) for p in np.percentile(first_s, [50, 99])] if first_s else [None, None]
    return Latency(
        median_itl_s=median,
        p90_itl_s=p90,
        p95_itl_s=p95,
        p99_itl_s=p99,
        median_ttft_s=ttft[0],
        p99_ttft_s=ttft[1],
    )


def even_gaps(itl_s: Sequence[float]) -> list[float]:
    """Spread each latency over the tokens that arrived together with its token.

    vLLM may send several tokens at once; the client then sees one gap and zeros after it.

    >>> even_gaps([0.0, 0.25, 0.0, 0.5])
    [0.125, 0.125, 0.5]

    Source:
        The published percentiles are made so (mlenergy/data/records/runs.py, smoothing).
    """
    groups: list[list[float]] = []
    for gap_s in dropwhile(lambda each: each == 0, itl_s):
        if gap_s > 0:
            groups.append([gap_s])
        else:
            groups[-1].append(0.0)
    return [group[0] / len(group) for group in groups for _ in group]


def _evidence(run: RawRun, fields: Fields, tokens: float) -> Evidence | None:
    """Return sums of the window, where the run kept the energy of each GPU."""
    if not fields.has("steady_state_measurement"):
        return None
    gpus = _gpu_energies(fields.inside("steady_state_measurement"))
    total_j = fields.number("steady_state_energy")
    if abs(sum(gpus) / total_j - 1) > _ENERGY_TOLERANCE:
        fields.fail(
            "steady_state_measurement", sum(gpus), f"the steady_state_energy of {total_j:g} J"
        )
    return Evidence(
        launch_id=run.path.parent.name,
        window_s=fields.number("steady_state_duration"),
        gpu_energy_j=gpus,
        work_units=tokens,
    )


def _gpu_energies(measured: Fields) -> tuple[float, ...]:
    names = measured.objects("gpu_energy")
    energies = measured.inside("gpu_energy")
    return tuple(energies.number(name) for name in sorted(names, key=str))


def _images(run: RawRun, fields: Fields) -> Result:
    batches = list(fields.each("iteration_energy_measurements"))
    energy_j = fmean(sum(_gpu_energies(batch)) for batch in batches)
    latency_s = fmean(batch.number("time") for batch in batches)
    batch_size = _configured(run, "batch")
    point = _diffusion_point(run, fields)
    return Result(
        point=point,
        source="recorded",
        gpu=catalog.gpu_slug(run.gpu_model),
        energy_per_work_unit_j=energy_j / batch_size,
        throughput_work_units_per_s=batch_size / latency_s,
        provenance=_provenance(run, point.num_gpus),
        mean_batch_size=float(batch_size),
        latency=Latency(batch_latency_s=latency_s),
    )


def _diffusion_point(run: RawRun, fields: Fields) -> Point:
    ulysses, ring = _configured(run, "uly"), _configured(run, "ring")
    height, _, width = run.config.get("size", "").partition("x")
    if not height.isdecimal() or not width.isdecimal():
        raise FormatError(
            f"{run.path}, the folder's name, field size: {run.config.get('size', '')!r} is not "
            "height x width."
        )
    is_video = run.task.work_unit == "video"
    return Point(
        model=run.model,
        task=run.task.name,
        batch_size=_configured(run, "batch"),
        precision=run.precision,
        num_gpus=ulysses * ring,
        engine="xdit",
        mode="natural",
        shared_server=False,
        steps=_configured(run, "steps"),
        height=int(height),
        width=int(width),
        num_frames=fields.count("num_frames") if is_video else None,
        fps=fields.count("fps") if is_video else None,
        ulysses_degree=ulysses,
        ring_degree=ring,
    )


def _provenance(run: RawRun, num_gpus: int) -> Provenance:
    return Provenance(
        identity=Identity(gpu_model=run.gpu_model, num_gpus=num_gpus),
        context=Context(stack=STACK),
    )
