"""Diffusion points resolved, without network: pipeline class, shape, components, and cost.

The tables are ``data/pipelines.toml`` and ``data/components.toml``. A model that the
catalog does not know is a local folder with a ``model_index.json``, as ``diffusers`` saves it.
"""

import json
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cache
from importlib.resources import files
from math import ceil
from pathlib import Path
from typing import Any, Final

from pytest_joules import catalog
from pytest_joules.errors import InvalidPoint, is_expected
from pytest_joules.point import Point

__tracebackhide__ = is_expected

ENGINES: Final = ("diffusers", "xdit")
PRECISIONS: Final = ("bf16", "fp16", "fp32")
# Set, they would be ignored: a diffusion point has no tokens and no server.
_OF_TOKENS: Final = (
    *("input_tokens", "output_tokens", "tensor_parallel", "max_model_len"),
    *("prefix_caching", "expert_parallel"),
)
_FLOP_RATE_SHARE: Final = 0.2
"""Share of the data sheet's dense rate that published pipelines reach: 15 to 25 %."""


@dataclass(frozen=True, kw_only=True)
class Pipeline:
    """One pipeline class of ``diffusers``; fields as ``data/pipelines.toml`` tells."""

    name: str
    work_unit: str
    size_factor: int
    frame_factor: int = 1
    embeds: Mapping[str, tuple[int | str, ...]] = field(default_factory=dict)
    masks: Mapping[str, int] = field(default_factory=dict)
    absent: tuple[str, ...] = ()
    arguments: Mapping[str, Any] = field(default_factory=dict)
    tiling: bool = False
    linear_attention: bool = False

    @property
    def is_guided(self) -> bool:
        """Whether each step runs the transformer twice, with and without the prompt."""
        return any(name.startswith("negative") for name in self.embeds)


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What one batch makes: the point's own values, else the catalog's."""

    steps: int
    height: int
    width: int
    num_frames: int | None = None
    fps: int | None = None

    def __str__(self) -> str:
        frames = f" x {self.num_frames} frames" if self.num_frames else ""
        return f"{self.steps} steps, {self.width} x {self.height}{frames}"


@cache
def _table(name: str) -> Mapping[str, Any]:
    text = (files("pytest_joules") / "data" / name).read_text(encoding="utf-8")
    return tomllib.loads(text)


@cache
def known() -> Mapping[str, Pipeline]:
    """Return all pipelines by class name."""
    rows = _table("pipelines.toml")["pipelines"]
    return {row["name"]: Pipeline(**row) for row in rows}


def require_runnable(point: Point) -> None:
    """Refuse a diffusion point that no engine could run as asked.

    Raises:
        InvalidPoint: The message has value and remedy.
    """
    _require_no_tokens(point)
    _require_whole_batches(point)
    _require_precision(point)
    _require_ulysses(point)
    shape(point)


def pipeline(point: Point) -> Pipeline:
    """Return the pipeline class of the point's model.

    Raises:
        InvalidPoint: It is unknown, or makes something else than the task asks.
    """
    name = _class_name(point)
    found = known().get(name)
    if found is None:
        raise InvalidPoint(
            f"{point.id}: the pipeline {name!r} of model={point.model!r} is unknown; known "
            f"are {', '.join(known())}."
        )
    if found.work_unit != point.work_unit:
        raise InvalidPoint(
            f"{point.id}: {name} makes {found.work_unit}s, but task={point.task!r}; use "
            f"task='text-to-{found.work_unit}'."
        )
    return found


def shape(point: Point) -> Shape:
    """Return what one batch of the point makes.

    Raises:
        InvalidPoint: A size is not known, or not a multiple of what the pipeline can make.
    """
    made = pipeline(point)
    model = catalog.model(point.model)
    video = made.work_unit == "video"
    asked = {
        "steps": point.steps or (model.default_steps if model else None),
        "height": point.height or (model.default_height if model else None),
        "width": point.width or (model.default_width if model else None),
        "num_frames": point.num_frames or (model.default_frames if model else None),
    }
    for name, value in asked.items():
        if value is None and (video or name != "num_frames"):
            raise InvalidPoint(
                f"{point.id}: the catalog has no default {name} for model={point.model!r}; "
                f"set {name}."
            )
    found = Shape(**asked, fps=point.fps or (model.default_fps if model else None))  # type: ignore[arg-type]  # checked above
    _require_multiples(point, made, found)
    return found


def components(point: Point) -> dict[str, dict[str, Any]]:
    """Return the configuration of transformer, VAE and scheduler, by component.

    Raises:
        InvalidPoint: They are not known: neither in the catalog's architectures nor in a
            local folder.
    """
    tables = _table("components.toml")
    parts = tables["models"].get(point.model)
    if parts is not None:
        return {part: dict(tables["components"][name]) for part, name in parts.items()}
    folder = Path(point.model)
    index = _index(folder)
    if index is None:
        raise InvalidPoint(
            f"{point.id}: weights='dummy' needs the configuration of model={point.model!r}; "
            "name a local folder that holds it (model_index.json), or use weights='real'."
        )
    of_library = {n: v[1] for n, v in index.items() if _is_component(v)}
    return {
        part: {**_config(folder / part, point), "class": class_name}
        for part, class_name in of_library.items()
    }


def as_job(point: Point) -> dict[str, Any]:
    """Return what a worker is told to build, JSON-ready."""
    known_model = catalog.model(point.model)
    elsewhere = known_model.diffusers_model_id if known_model else None
    is_dummy = point.weights == "dummy"
    return {
        "model": elsewhere or point.model,
        "precision": point.precision,
        "seed": point.seed,
        "pipeline": asdict(pipeline(point)),
        "components": components(point) if is_dummy else None,
    }


def degrees(point: Point) -> tuple[int, int]:
    """Return ulysses and ring degree; what is not set divides what is left of the GPUs."""
    if point.ulysses_degree is None and point.ring_degree is None:
        return point.num_gpus, 1
    return point.ulysses_degree or 1, point.ring_degree or 1


def batch_latency_s(point: Point, gpu: str) -> float | None:
    """Estimate how long one batch takes; ``None`` where model or GPU are unknown.

    Two operations a parameter and token, and the products of attention, at the share of the
    GPU's rate that published runs reach. It plans, nothing else: published batches took
    0.5 to 2.2 times as long.
    """
    model, known_gpu = catalog.model(point.model), catalog.gpu(gpu)
    if model is None or known_gpu is None:
        return None
    made, asked = pipeline(point), shape(point)
    transformer = components(point)["transformer"]
    latent_frames = ((asked.num_frames or 1) - 1) // made.frame_factor + 1
    frames = ceil(latent_frames / transformer.get("patch_size_t", 1))
    tokens = (asked.height // made.size_factor) * (asked.width // made.size_factor) * frames
    layers = transformer["num_layers"] + transformer.get("num_single_layers", 0)
    width = transformer["num_attention_heads"] * transformer["attention_head_dim"]
    squared = 0 if made.linear_attention else 4 * tokens**2 * width * layers
    flop_a_pass = 2 * model.active_params_b * 1e9 * tokens + squared
    passes = asked.steps * (2 if made.is_guided else 1) * point.batch_size
    rate = _FLOP_RATE_SHARE * known_gpu.bf16_flop_per_s * point.num_gpus
    return float(flop_a_pass * passes / rate)


def _class_name(point: Point) -> str:
    model = catalog.model(point.model)
    if model is not None:
        if model.pipeline is None:
            raise InvalidPoint(
                f"{point.id}: {point.model} makes no {point.work_unit}s; its tasks are "
                f"{', '.join(model.tasks)}."
            )
        return model.pipeline
    index = _index(Path(point.model))
    if index is None:
        raise InvalidPoint(
            f"{point.id}: the pipeline of model={point.model!r} is unknown: it is not in the "
            "catalog, and no folder of that name holds a model_index.json. Download it "
            "(`hf download`) and name the folder."
        )
    return str(index.get("_class_name"))


def _index(folder: Path) -> dict[str, Any] | None:
    path = folder / "model_index.json"
    return _read(path) if path.is_file() else None


def _read(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InvalidPoint(f"{path} cannot be read: {error}.") from error
    if not isinstance(values, dict):
        raise InvalidPoint(f"{path} holds no JSON object.")
    return values


def _is_component(value: Any) -> bool:
    return isinstance(value, list) and value[:1] == ["diffusers"]


def _config(folder: Path, point: Point) -> dict[str, Any]:
    for name in ("config.json", "scheduler_config.json"):
        if (folder / name).is_file():
            found = _read(folder / name)
            return {key: value for key, value in found.items() if not key.startswith("_")}
    raise InvalidPoint(f"{point.id}: {folder} holds no config.json; save the pipeline again.")


def _require_no_tokens(point: Point) -> None:
    given = [name for name in _OF_TOKENS if getattr(point, name)]
    given += ["data_parallel"] if point.data_parallel != 1 else []
    given += ["mode"] if point.mode != "fixed" else []
    given += ["engine_args"] if point.engine_args and point.engine == "diffusers" else []
    if given:
        raise InvalidPoint(
            f"{point.id}: {', '.join(given)} has no meaning for engine={point.engine!r}; "
            "leave it out."
        )


def _require_whole_batches(point: Point) -> None:
    if point.num_requests is not None and point.num_requests % point.batch_size:
        raise InvalidPoint(
            f"{point.id}: num_requests={point.num_requests} is no multiple of "
            f"batch_size={point.batch_size}; {point.work_unit}s are made in whole batches."
        )


def _require_precision(point: Point) -> None:
    if point.precision not in PRECISIONS:
        raise InvalidPoint(
            f"{point.id}: engine={point.engine!r} cannot run precision={point.precision!r}; "
            f"use one of {', '.join(PRECISIONS)}."
        )


def _require_ulysses(point: Point) -> None:
    if point.engine != "xdit" or (
        catalog.model(point.model) is None and not Path(point.model).is_dir()
    ):
        return
    heads = components(point).get("transformer", {}).get("num_attention_heads")
    ulysses, _ = degrees(point)
    if heads is not None and heads % ulysses:
        raise InvalidPoint(
            f"{point.id}: ulysses_degree={ulysses} does not divide the {heads} attention "
            f"heads of {point.model}; lower it and raise ring_degree so that their product "
            f"is {point.num_gpus}."
        )


def _require_multiples(point: Point, made: Pipeline, asked: Shape) -> None:
    for name, value in (("height", asked.height), ("width", asked.width)):
        if value % made.size_factor:
            below = value // made.size_factor * made.size_factor
            raise InvalidPoint(
                f"{point.id}: {name}={value} is no multiple of {made.size_factor}, which "
                f"{made.name} needs; use {below or made.size_factor} or "
                f"{below + made.size_factor}."
            )
    if asked.num_frames is not None and (asked.num_frames - 1) % made.frame_factor:
        below = (asked.num_frames - 1) // made.frame_factor * made.frame_factor + 1
        raise InvalidPoint(
            f"{point.id}: num_frames={asked.num_frames} is not 1 + a multiple of "
            f"{made.frame_factor}, which {made.name} needs; use {below} or "
            f"{below + made.frame_factor}."
        )
