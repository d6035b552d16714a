"""The ML.ENERGY Leaderboard's JSON folder, read whole or not at all.

``index.json`` names tasks and models; ``tasks/<task>.json`` holds one flat list of measured
configurations. Published by github.com/ml-energy/leaderboard under ``public/data``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from pytest_joules import catalog, storage
from pytest_joules.errors import FormatError, InvalidPoint, is_expected
from pytest_joules.point import Point
from pytest_joules.provenance import Context, Identity, Provenance
from pytest_joules.result import Latency, Result
from pytest_joules.sources.strict import Fields
from pytest_joules.tasks import Task, task_of_dataset

__tracebackhide__ = is_expected

PRECISIONS: Mapping[str, str] = MappingProxyType(
    {"bfloat16": "bf16", "float16": "fp16", "fp8": "fp8", "mxfp4": "mxfp4"}
)
"""Weight precisions by their published names."""

# The folder holds no versions; the paper states those of the release of this date.
# Source: Where Do the Joules Go?, section 2.
_VERSIONS_BY_DATE = MappingProxyType({"2026-02-16": {"vllm": "0.11.1", "xdit": "0.4.5"}})
STACK = "ML.ENERGY Benchmark"
"""What ran the published measurements, as their provenance names it."""


@dataclass(frozen=True, kw_only=True)
class PublishedModel:
    """What the leaderboard's index says of one model."""

    model_id: str
    nickname: str
    architecture: str
    """``dense``, ``moe``, ``hybrid`` or ``diffusion``."""

    total_params_b: float
    active_params_b: float


@dataclass(frozen=True, kw_only=True)
class PublishedRow:
    """One configuration, with the two numbers that ``Result`` derives instead of storing."""

    result: Result
    power_w: float
    """As published."""

    energy_per_response_j: float | None
    """As published; ``None`` for images and videos."""


@dataclass(frozen=True, kw_only=True)
class Leaderboard:
    """The whole folder."""

    rows: tuple[PublishedRow, ...]
    models: Mapping[str, PublishedModel]
    updated: str
    """The index's date."""

    @property
    def results(self) -> tuple[Result, ...]:
        """All rows as results, in file order."""
        return tuple(row.result for row in self.rows)


def is_leaderboard(folder: Path) -> bool:
    """Tell whether a folder looks like the leaderboard's."""
    return (folder / "index.json").is_file() or (folder / "tasks").is_dir()


def read_leaderboard(folder: Path) -> Leaderboard:
    """Read the folder; every row of every task, or nothing.

    Raises:
        FormatError: A file is missing, broken or partial; names file, row and field.
    """
    index = Fields(storage.read(folder / "index.json"), folder / "index.json", "the index")
    updated = index.text("last_updated")
    models = _models(index, folder / "index.json")
    rows: list[PublishedRow] = []
    for name in index.texts("tasks"):
        path = folder / "tasks" / f"{name}.json"
        rows += _task_rows(path, name, models=models, updated=updated)
    _require_complete(folder, index.texts("tasks"), models=models, rows=rows)
    return Leaderboard(rows=tuple(rows), models=MappingProxyType(models), updated=updated)


def _models(index: Fields, path: Path) -> dict[str, PublishedModel]:
    entries = index.objects("models")
    if not isinstance(entries, dict):
        index.fail("models", entries, "an object")
    return {
        model_id: _model(model_id, Fields(values, path, f"model {model_id}"))
        for model_id, values in entries.items()
    }


def _model(model_id: str, fields: Fields) -> PublishedModel:
    published = fields.text("architecture") if fields.has("architecture") else "Diffusion"
    known = {
        "Dense Transformer": "dense",
        "MoE": "moe",
        "Mamba-Transformer Hybrid": "hybrid",
        "Diffusion": "diffusion",
    }
    if published not in known:
        fields.fail("architecture", published, f"one of {', '.join(known)}")
    return PublishedModel(
        model_id=model_id,
        nickname=fields.text("nickname"),
        architecture=known[published],
        total_params_b=fields.number("total_params_billions"),
        active_params_b=fields.number("activated_params_billions"),
    )


def _task_rows(
    path: Path, name: str, *, models: Mapping[str, PublishedModel], updated: str
) -> list[PublishedRow]:
    try:
        asked = task_of_dataset(name)  # first: the name of no task leads to no file
    except InvalidPoint as error:
        raise FormatError(f"{path.parents[1] / 'index.json'}, field tasks: {error}") from error
    document = Fields(storage.read(path), path, "the file")
    if document.text("task") != name:
        document.fail("task", document.text("task"), f"{name!r}, the file's own name")
    rows = []
    for index, values in enumerate(document.objects("configurations")):
        fields = Fields(values, path, f"row {index}")
        if fields.text("model_id") not in models:
            fields.fail("model_id", fields.text("model_id"), "a model of index.json")
        rows.append(_row(fields, asked, updated))
    return rows


def _row(fields: Fields, asked: Task, updated: str) -> PublishedRow:
    read = text_result if asked.work_unit == "token" else diffusion_result
    try:
        result = read(fields, asked, updated)
    except InvalidPoint as error:
        fields.fail("(several)", str(error), "a configuration that can exist")
    return PublishedRow(
        result=result,
        power_w=fields.number("avg_power_watts"),
        energy_per_response_j=(
            fields.number("energy_per_request_joules") if asked.work_unit == "token" else None
        ),
    )


def text_result(fields: Fields, asked: Task, updated: str) -> Result:
    """Build the result of a row that generated tokens.

    Raises:
        FormatError: A field is missing or wrong.
        InvalidPoint: The fields contradict each other.
    """
    return Result(
        point=_text_point(fields, asked),
        source="recorded",
        gpu=catalog.slug(fields.text("gpu_model")),
        energy_per_work_unit_j=fields.number("energy_per_token_joules"),
        throughput_work_units_per_s=fields.number("output_throughput_tokens_per_sec"),
        provenance=_provenance(fields, "vllm", updated),
        mean_batch_size=fields.number("avg_batch_size"),
        mean_output_tokens=fields.number("avg_output_len"),
        latency=Latency(
            median_itl_s=fields.number("median_itl_ms") / 1000,
            p90_itl_s=fields.number("p90_itl_ms") / 1000,
            p95_itl_s=fields.number("p95_itl_ms") / 1000,
            p99_itl_s=fields.number("p99_itl_ms") / 1000,
        ),
    )


def _text_point(fields: Fields, asked: Task) -> Point:
    num_gpus, experts = fields.count("num_gpus"), fields.count("expert_parallel")
    if experts not in (1, num_gpus):
        fields.fail("expert_parallel", experts, f"1 or num_gpus={num_gpus}")
    return Point(
        model=fields.text("model_id"),
        task=asked.name,
        batch_size=fields.count("max_num_seqs"),
        precision=precision_of(fields),
        num_gpus=num_gpus,
        engine="vllm",
        mode="natural",
        shared_server=False,
        tensor_parallel=fields.count("tensor_parallel"),
        data_parallel=fields.count("data_parallel"),
        expert_parallel=experts > 1,
    )


def diffusion_result(fields: Fields, asked: Task, updated: str) -> Result:
    """Build the result of a row that generated images or videos.

    Raises:
        FormatError: A field is missing or wrong.
        InvalidPoint: The fields contradict each other.
    """
    unit = asked.work_unit
    return Result(
        point=_diffusion_point(fields, asked),
        source="recorded",
        gpu=catalog.slug(fields.text("gpu_model")),
        energy_per_work_unit_j=fields.number(f"energy_per_{unit}_joules"),
        throughput_work_units_per_s=fields.number(f"throughput_{unit}s_per_sec"),
        provenance=_provenance(fields, "xdit", updated),
        mean_batch_size=float(fields.count("batch_size")),
        latency=Latency(batch_latency_s=fields.number("batch_latency_s")),
    )


def _diffusion_point(fields: Fields, asked: Task) -> Point:
    unit = asked.work_unit
    is_video = unit == "video"
    return Point(
        model=fields.text("model_id"),
        task=asked.name,
        batch_size=fields.count("batch_size"),
        precision=precision_of(fields),
        num_gpus=fields.count("num_gpus"),
        engine="xdit",
        mode="natural",
        shared_server=False,
        steps=fields.count("inference_steps"),
        height=fields.count(f"{unit}_height"),
        width=fields.count(f"{unit}_width"),
        num_frames=fields.count("num_frames") if is_video else None,
        fps=fields.count("fps") if is_video else None,
        ulysses_degree=fields.count("ulysses_degree"),
        ring_degree=fields.count("ring_degree"),
    )


def precision_of(fields: Fields) -> str:
    """Return a row's weight precision as points name it.

    Raises:
        FormatError: It is missing or unknown.
    """
    published = fields.text("weight_precision")
    if published not in PRECISIONS:
        fields.fail("weight_precision", published, f"one of {', '.join(PRECISIONS)}")
    return PRECISIONS[published]


def _provenance(fields: Fields, engine: str, updated: str) -> Provenance:
    versions = _VERSIONS_BY_DATE.get(updated, {})
    return Provenance(
        identity=Identity(
            gpu_model=fields.text("gpu_model"), num_gpus=fields.count("num_gpus")
        ),
        context=Context(
            stack=STACK,
            packages={engine: versions[engine]} if engine in versions else {},
            recorded_at=updated,
        ),
    )


def _require_complete(
    folder: Path,
    tasks: Sequence[str],
    *,
    models: Mapping[str, PublishedModel],
    rows: Sequence[PublishedRow],
) -> None:
    unlisted = {path.stem for path in (folder / "tasks").glob("*.json")} - set(tasks)
    if unlisted:
        raise FormatError(
            f"{folder / 'index.json'}: tasks/ holds {', '.join(sorted(unlisted))}, which the "
            "index does not list."
        )
    without_rows = set(models) - {row.result.point.model for row in rows}
    if without_rows:
        raise FormatError(
            f"{folder / 'index.json'}: lists {', '.join(sorted(without_rows))}, of which "
            "tasks/ holds no row; the folder is incomplete."
        )
