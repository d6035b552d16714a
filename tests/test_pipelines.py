"""Diffusion points resolve without a network; what cannot be made is refused with a remedy."""

import json
import re
import tomllib
from importlib.resources import files
from pathlib import Path

import pytest

from pytest_joules import catalog, pipelines
from pytest_joules.errors import InvalidPoint
from pytest_joules.plan import Costs, Stack, plan, require_launchable, server_key
from pytest_joules.point import Point
from pytest_joules.report.text import describe_plan
from tests.engines import tiny_pipelines

DIFFUSION = [model for model in catalog.models().values() if model.pipeline]
SD = Point(model="stabilityai/stable-diffusion-3.5-medium", task="text-to-image")
WAN = Point(model="Wan-AI/Wan2.1-T2V-1.3B-Diffusers", task="text-to-video")


def point_of(model: catalog.Model, **fields: object) -> Point:
    return Point(model=model.model_id, task=model.tasks[0], **fields)


def test_table_3_has_twelve_diffusion_models() -> None:
    assert len(DIFFUSION) == 12
    assert {model.architecture for model in DIFFUSION} == {"diffusion"}


@pytest.mark.parametrize("model", DIFFUSION, ids=lambda model: model.nickname)
@pytest.mark.parametrize("weights", ["real", "dummy"])
def test_every_diffusion_model_resolves(model: catalog.Model, weights: str) -> None:
    point = point_of(model, weights=weights)

    require_launchable(point, "h200")
    job = json.loads(json.dumps(pipelines.as_job(point)))

    assert pipelines.pipeline(point).name == model.pipeline
    assert job["pipeline"]["name"] == model.pipeline
    assert job["model"] == (model.diffusers_model_id or model.model_id)
    assert (job["components"] is not None) == (weights == "dummy")
    shape = pipelines.shape(point)
    assert (shape.steps, shape.height) == (model.default_steps, model.default_height)
    assert (shape.num_frames is None) == (point.work_unit == "image")


def test_components_of_the_table_are_all_used_and_complete() -> None:
    text = (files("pytest_joules") / "data" / "components.toml").read_text()
    tables = tomllib.loads(text)

    used = {name for parts in tables["models"].values() for name in parts.values()}
    assert used == set(tables["components"])
    assert {frozenset(parts) for parts in tables["models"].values()} == {
        frozenset({"transformer", "vae", "scheduler"})
    }
    assert set(tables["models"]) == {model.model_id for model in DIFFUSION}


def test_the_point_wins_over_the_catalog() -> None:
    asked = WAN.but(steps=20, height=720, width=1280, num_frames=17, fps=24)

    assert pipelines.shape(asked) == pipelines.Shape(
        steps=20, height=720, width=1280, num_frames=17, fps=24
    )
    assert str(pipelines.shape(asked)) == "20 steps, 1280 x 720 x 17 frames"


@pytest.mark.parametrize(
    ("point", "told"),
    [
        pytest.param(
            SD.but(height=1000),
            "height=1000 is no multiple of 16.*use 992 or 1008",
            id="height",
        ),
        pytest.param(SD.but(width=8), "width=8 .*use 16 or 16|use 16 or", id="width"),
        pytest.param(
            WAN.but(num_frames=80), "num_frames=80 is not 1 .*use 77 or 81", id="frames"
        ),
        pytest.param(
            SD.but(task="text-to-video"), "makes images.*use task='text-to-image'", id="task"
        ),
        pytest.param(
            Point(model="Qwen/Qwen3-8B", task="text-to-image"), "makes no images", id="llm"
        ),
        pytest.param(
            Point(model="nobody/nothing", task="text-to-image"),
            "the pipeline of model='nobody/nothing' is unknown.*name the folder",
            id="unknown-model",
        ),
        pytest.param(
            SD.but(precision="fp8"), "cannot run precision='fp8'.*use one of", id="fp8"
        ),
        pytest.param(
            SD.but(engine="xdit", num_gpus=16, ulysses_degree=16),
            "ulysses_degree=16 does not divide the 24 attention heads.*raise ring_degree",
            id="heads",
        ),
        pytest.param(
            SD.but(batch_size=4, num_requests=15), "no multiple of batch_size=4", id="batches"
        ),
        pytest.param(SD.but(prefix_caching=True), "prefix_caching has no meaning", id="tokens"),
        pytest.param(
            SD.but(engine_args=["--x"]), "engine_args has no meaning", id="engine-args"
        ),
    ],
)
def test_what_cannot_be_made_is_refused_with_a_remedy(point: Point, told: str) -> None:
    with pytest.raises(InvalidPoint, match=told) as caught:
        require_launchable(point, "b200")

    assert point.id in str(caught.value)


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"num_frames": 17}, "num_frames has no meaning for task='text-to-image'"),
        ({"fps": 8}, "fps has no meaning"),
        (
            {"num_gpus": 4, "ulysses_degree": 2},
            r"ulysses_degree x ring_degree = 2, but num_gpus=4",
        ),
        ({"engine": "diffusers", "num_gpus": 2}, "runs on one GPU.*use engine='xdit'"),
        ({"engine": "vllm"}, "engine='vllm' cannot run task='text-to-image'"),
    ],
)
def test_a_contradiction_is_refused_where_it_is_written(
    fields: dict[str, object], told: str
) -> None:
    with pytest.raises(InvalidPoint, match=told):
        SD.but(**fields)


@pytest.mark.parametrize("name", tiny_pipelines.MODELS)
def test_a_folder_is_read_as_diffusers_saved_it(name: str, tmp_path: Path) -> None:
    folder = tiny_pipelines.save(tmp_path / "model", name)
    video = pipelines.known()[name].work_unit == "video"
    frames = {"num_frames": 5} if video else {}
    point = Point(
        model=str(folder),
        task="text-to-video" if video else "text-to-image",
        weights="dummy",
        steps=2,
        height=64,
        width=64,
        **frames,
    )

    require_launchable(point, "h200")
    assert pipelines.components(point) == tiny_pipelines.MODELS[name]
    with pytest.raises(InvalidPoint, match=r"no default steps.*set steps"):
        require_launchable(point.but(steps=None), "h200")


def test_a_folder_with_an_unknown_pipeline_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model_index.json").write_text('{"_class_name": "KandinskyPipeline"}')
    point = Point(model=str(tmp_path), task="text-to-image", steps=2, height=64, width=64)

    with pytest.raises(
        InvalidPoint, match=r"'KandinskyPipeline'.*is unknown; known are .*Flux"
    ):
        require_launchable(point, "h200")


@pytest.mark.parametrize("text", ["{", "[1]"])
def test_a_broken_folder_is_told_with_its_file(tmp_path: Path, text: str) -> None:
    (tmp_path / "model_index.json").write_text(text)
    point = Point(model=str(tmp_path), task="text-to-image")

    with pytest.raises(InvalidPoint, match=re.escape(str(tmp_path / "model_index.json"))):
        require_launchable(point, "h200")


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, (1, 1)),
        ({"num_gpus": 4}, (4, 1)),
        ({"num_gpus": 4, "ulysses_degree": 2, "ring_degree": 2}, (2, 2)),
        ({"num_gpus": 4, "ring_degree": 4}, (1, 4)),
    ],
)
def test_degrees(fields: dict[str, int], expected: tuple[int, int]) -> None:
    assert pipelines.degrees(SD.but(**fields)) == expected


# Batch latency on one B200 in the published data, batch 1: the estimate plans, nothing else.
@pytest.mark.parametrize(
    ("nickname", "published_s"),
    [
        ("FLUX.1 Dev", 7.75),
        ("SANA 1.5 1.6B", 0.64),
        ("PixArt-Σ", 0.92),
        ("Stable Diffusion 3.5 Large", 4.77),
        ("Hunyuan-DiT 1.2", 6.28),
        ("HunyuanVideo", 1383.5),
        ("Wan 2.1 1.3B", 74.0),
        ("Wan 2.1 14B", 334.2),
        ("CogVideoX 2B", 34.7),
        ("CogVideoX 1.5 5B", 393.4),
    ],
)
def test_the_estimated_latency_is_right_within_a_factor(
    nickname: str, published_s: float
) -> None:
    (model,) = [model for model in DIFFUSION if model.nickname == nickname]
    estimated_s = pipelines.batch_latency_s(point_of(model), "b200")

    assert estimated_s is not None
    assert 0.4 < estimated_s / published_s < 2.5


def test_costs_count_batches_where_they_are_longer_than_the_window() -> None:
    """Wan: 63 s a batch, so two to warm up and two measured; an image fills the window."""
    wan_s, sd_s = (pipelines.batch_latency_s(point, "b200") for point in (WAN, SD))
    assert wan_s is not None
    assert sd_s is not None

    assert Costs().of(WAN, "b200") == pytest.approx(4 * wan_s)
    assert Costs().of(SD, "b200") == pytest.approx(2 * sd_s + 60.0)
    assert Costs().of(SD, "a-gpu-that-nobody-knows") == 90.0


def test_one_worker_serves_every_shape_of_a_model() -> None:
    shapes = [SD, SD.but(steps=10), SD.but(height=512, width=512), SD.but(batch_size=8)]

    assert len({server_key(point) for point in shapes}) == 1
    assert len({server_key(point) for point in (SD, SD.but(num_gpus=2), WAN)}) == 3


def test_the_plan_tells_steps_and_resolution() -> None:
    points = [SD.but(batch_size=4), SD.but(batch_size=8), SD.but(steps=10), WAN]
    lines = describe_plan(plan(points, stack=Stack(), gpu="h200"))

    assert "    batch sizes 8, 4 of 28 steps, 1024 x 1024" in lines
    assert "    batch sizes 1 of 10 steps, 1024 x 1024" in lines
    assert "    batch sizes 1 of 50 steps, 832 x 480 x 81 frames" in lines
