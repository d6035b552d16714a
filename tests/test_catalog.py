import json
import os
from collections import Counter
from pathlib import Path

import pytest

from pytest_joules import catalog
from pytest_joules.errors import ConfigurationError
from pytest_joules.plan import require_runs_on
from pytest_joules.point import Point
from pytest_joules.point.checks import PRECISIONS
from pytest_joules.tasks import TASKS, task_of_dataset

MODELS = list(catalog.models().values())
GPUS = list(catalog.gpus().values())
DATA = "JOULES_MLENERGY_DATA"

# The published names of what the catalog calls architecture and precision.
ARCHITECTURES = {
    "Dense Transformer": "dense",
    "MoE": "moe",
    "Mamba-Transformer Hybrid": "hybrid",
    None: "diffusion",
}
PUBLISHED_PRECISIONS = {"bfloat16": "bf16", "fp8": "fp8", "mxfp4": "mxfp4"}


def test_the_paper_has_46_models() -> None:
    assert len(MODELS) == 46


def test_models_of_each_task_are_as_many_as_in_table_3() -> None:
    assert Counter(task for model in MODELS for task in model.tasks) == {
        "problem-solving": 12,
        "text-conversation": 18,
        "code-completion": 3,
        "image-chat": 11,
        "video-chat": 6,
        "text-to-image": 7,
        "text-to-video": 5,
    }


def test_nicknames_tell_models_apart() -> None:
    assert len({model.nickname for model in MODELS}) == 46


def test_ids_of_points_tell_models_apart() -> None:
    ids = {Point(model=m.model_id, task=m.tasks[0]).id for m in MODELS}

    assert len(ids) == 46


@pytest.mark.parametrize("model", MODELS, ids=lambda model: catalog.slug(model.model_id))
class TestModel:
    def test_tasks_are_known_and_listed_once(self, model: catalog.Model) -> None:
        assert set(model.tasks) <= set(TASKS)
        assert len(set(model.tasks)) == len(model.tasks) > 0

    def test_active_parameters_are_a_part_of_all(self, model: catalog.Model) -> None:
        assert 0 < model.active_params_b <= model.total_params_b
        is_sparse = model.architecture == "moe"
        assert (model.active_params_b < model.total_params_b) == is_sparse

    def test_precision_is_one_that_points_know(self, model: catalog.Model) -> None:
        assert model.precision in PRECISIONS
        assert model.architecture in ARCHITECTURES.values()

    def test_only_diffusion_has_steps_and_a_pipeline(self, model: catalog.Model) -> None:
        sizes = (model.default_steps, model.default_height, model.default_width)
        frames = (model.default_frames, model.default_fps)
        is_diffusion = model.architecture == "diffusion"
        assert [value is not None for value in (*sizes, model.pipeline)] == [is_diffusion] * 4
        assert [value is not None for value in frames] == ["text-to-video" in model.tasks] * 2

    def test_an_fp8_twin_differs_in_precision_only(self, model: catalog.Model) -> None:
        if model.fp8_model_id is None:
            return
        twin = catalog.models()[model.fp8_model_id]
        assert (model.precision, twin.precision) == ("bf16", "fp8")
        assert twin.total_params_b == model.total_params_b
        assert twin.active_params_b == model.active_params_b
        assert twin.tasks == model.tasks


def test_the_fp8_twins_are_the_five_of_table_3() -> None:
    twins = {model.fp8_model_id for model in MODELS if model.fp8_model_id}

    assert twins == {
        "Qwen/Qwen3-235B-A22B-Instruct-2507-FP8",
        "Qwen/Qwen3-235B-A22B-Thinking-2507-FP8",
        "Qwen/Qwen3-Coder-480B-A35B-Instruct-FP8",
        "Qwen/Qwen3-VL-235B-A22B-Instruct-FP8",
        "meta-llama/Llama-3.1-405B-Instruct-FP8",
    }


@pytest.mark.parametrize(
    ("model_id", "steps", "height", "width", "frames", "fps", "pipeline"),
    [
        (
            "stabilityai/stable-diffusion-3.5-medium",
            28,
            1024,
            1024,
            None,
            None,
            "StableDiffusion3",
        ),
        (
            "stabilityai/stable-diffusion-3.5-large",
            28,
            1024,
            1024,
            None,
            None,
            "StableDiffusion3",
        ),
        ("black-forest-labs/FLUX.1-dev", 50, 1024, 1024, None, None, "Flux"),
        ("PixArt-alpha/PixArt-Sigma-XL-2-1024-MS", 20, 1024, 1024, None, None, "PixArtSigma"),
        ("Tencent-Hunyuan/HunyuanDiT-v1.2-Diffusers", 50, 1024, 1024, None, None, "HunyuanDiT"),
        (
            "Efficient-Large-Model/SANA1.5_1.6B_1024px_diffusers",
            20,
            1024,
            1024,
            None,
            None,
            "Sana",
        ),
        (
            "Efficient-Large-Model/SANA1.5_4.8B_1024px_diffusers",
            20,
            1024,
            1024,
            None,
            None,
            "Sana",
        ),
        ("zai-org/CogVideoX-2b", 50, 480, 720, 49, 8, "CogVideoX"),
        ("zai-org/CogVideoX1.5-5B", 50, 768, 1360, 81, 8, "CogVideoX"),
        ("Wan-AI/Wan2.1-T2V-1.3B-Diffusers", 50, 480, 832, 81, 15, "Wan"),
        ("Wan-AI/Wan2.1-T2V-14B-Diffusers", 50, 480, 832, 81, 15, "Wan"),
        ("tencent/HunyuanVideo", 50, 720, 1280, 129, 15, "HunyuanVideo"),
    ],
)
def test_diffusion_defaults(  # noqa: PLR0913, PLR0917  (one column of the table each)
    model_id: str,
    steps: int,
    height: int,
    width: int,
    frames: int | None,
    fps: int | None,
    pipeline: str,
) -> None:
    model = catalog.models()[model_id]

    assert (model.default_steps, model.default_height, model.default_width) == (
        steps,
        height,
        width,
    )
    assert (model.default_frames, model.default_fps) == (frames, fps)
    assert model.pipeline == f"{pipeline}Pipeline"


def test_every_diffusion_model_is_in_the_table_above() -> None:
    assert sum(model.architecture == "diffusion" for model in MODELS) == 12


@pytest.fixture(scope="module")
def published() -> dict[str, list[dict[str, object]]]:
    folder = os.environ.get(DATA)
    if not folder:
        pytest.skip(f"{DATA} is not set: the published ML.ENERGY results are not here")
    rows: dict[str, list[dict[str, object]]] = {}
    for task in TASKS.values():
        text = (Path(folder) / "tasks" / f"{task.dataset_name}.json").read_text(
            encoding="utf-8"
        )
        for row in json.loads(text)["configurations"]:
            rows.setdefault(row["model_id"], []).append({**row, "task": task.dataset_name})
    return rows


def test_the_catalog_says_what_the_published_data_says(
    published: dict[str, list[dict[str, object]]],
) -> None:
    assert set(published) == set(catalog.models())
    for model_id, rows in published.items():
        model = catalog.models()[model_id]
        for row in rows:
            assert model.nickname == row["nickname"]
            assert model.architecture == ARCHITECTURES[row.get("architecture")]
            assert model.precision == PUBLISHED_PRECISIONS[row["weight_precision"]]
            assert model.total_params_b == row["total_params_billions"]
            assert model.active_params_b == row["activated_params_billions"]


def test_tasks_and_sizes_are_the_published_ones(
    published: dict[str, list[dict[str, object]]],
) -> None:
    for model_id, rows in published.items():
        model = catalog.models()[model_id]
        assert set(model.tasks) == {task_of_dataset(row["task"]).name for row in rows}
        for row in rows:
            assert model.default_steps == row.get("inference_steps")
            assert model.default_height == row.get("image_height", row.get("video_height"))
            assert model.default_width == row.get("image_width", row.get("video_width"))
            assert model.default_frames == row.get("num_frames")
            assert model.default_fps == row.get("fps")


@pytest.mark.parametrize("gpu", GPUS, ids=lambda gpu: gpu.slug)
class TestGpu:
    def test_the_slug_is_one(self, gpu: catalog.Gpu) -> None:
        assert catalog.slug(gpu.slug) == gpu.slug

    def test_figures_have_the_size_of_a_gpu(self, gpu: catalog.Gpu) -> None:
        assert 8 <= gpu.memory_gib <= 512
        assert 1e11 <= gpu.bandwidth_bytes_per_s <= 2e13
        assert 5e13 <= gpu.bf16_flop_per_s <= 1e16
        assert 50 <= gpu.tdp_w <= 2000

    def test_fp8_is_twice_bf16(self, gpu: catalog.Gpu) -> None:
        # True of every tensor core so far; a sparse figure beside a dense one breaks it.
        if gpu.fp8_flop_per_s is not None:
            assert gpu.fp8_flop_per_s == pytest.approx(2 * gpu.bf16_flop_per_s, rel=0.02)

    def test_all_figures_come_from_a_named_document(self, gpu: catalog.Gpu) -> None:
        assert gpu.source.startswith("NVIDIA ")
        assert "data sheet" in gpu.source or "white paper" in gpu.source

    def test_each_of_its_names_leads_back_to_it(self, gpu: catalog.Gpu) -> None:
        assert gpu.nvml_names
        assert {catalog.gpu_slug(name) for name in gpu.nvml_names} == {gpu.slug}


def test_no_two_gpus_share_a_name_or_slug() -> None:
    names = [name for gpu in GPUS for name in gpu.nvml_names]

    assert len(names) == len(set(names))
    assert len(GPUS) == len({gpu.slug for gpu in GPUS})


@pytest.mark.parametrize(
    ("slug", "memory_gib", "terabytes_per_s", "bf16_tflops", "fp8_tflops", "watts"),
    [
        # By hand from the data sheets: their sparse tensor rates, halved.
        ("h100", 80, 3.35, 1979 / 2, 3958 / 2, 700),
        ("h200", 141, 4.8, 1979 / 2, 3958 / 2, 700),
        ("h200-nvl", 141, 4.8, 1671 / 2, 3341 / 2, 600),
        ("b200", 1440 / 8, 64 / 8, 36e3 / 8 / 2, 72e3 / 8 / 2, 1000),
        ("a100", 80, 2.039, 312, None, 400),
        ("l4", 24, 0.3, 242 / 2, 485 / 2, 72),
    ],
)
def test_gpus_worked_by_hand(  # noqa: PLR0917  (one column of the table each)
    slug: str,
    memory_gib: float,
    terabytes_per_s: float,
    bf16_tflops: float,
    fp8_tflops: float | None,
    watts: float,
) -> None:
    gpu = catalog.gpus()[slug]

    assert gpu.memory_gib == memory_gib
    assert gpu.bandwidth_bytes_per_s == pytest.approx(terabytes_per_s * 1e12)
    assert gpu.bf16_flop_per_s == pytest.approx(bf16_tflops * 1e12)
    assert gpu.fp8_flop_per_s == (fp8_tflops and pytest.approx(fp8_tflops * 1e12))
    assert gpu.tdp_w == watts


@pytest.mark.parametrize(
    ("nvml_name", "slug"),
    [
        ("NVIDIA H200", "h200"),
        ("NVIDIA H200 NVL", "h200-nvl"),
        ("NVIDIA H100 80GB HBM3", "h100"),
        ("NVIDIA H100 PCIe", "h100-pcie"),
        ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", "h100"),
        ("NVIDIA B200", "b200"),
        ("NVIDIA A10", "a10"),
        ("NVIDIA L4", "l4"),
        # Near misses: each begins with the name of another GPU.
        ("NVIDIA A10G", "nvidia-a10g"),
        ("NVIDIA A100X", "nvidia-a100x"),
        ("NVIDIA L40", "nvidia-l40"),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", "nvidia-geforce-rtx-4090-laptop-gpu"),
        ("NVIDIA GeForce RTX 4090 D", "nvidia-geforce-rtx-4090-d"),
        ("NVIDIA H200 SuperDuper", "nvidia-h200-superduper"),
        # The published data's own names.
        ("B200", "b200"),
        ("H100", "h100"),
    ],
)
def test_nvml_names_become_slugs(nvml_name: str, slug: str) -> None:
    assert catalog.gpu_slug(nvml_name) == slug


def test_what_the_catalog_does_not_know_is_none() -> None:
    assert catalog.model("nobody/nothing") is None
    assert catalog.gpu("nvidia-a10g") is None


def test_a_name_without_a_letter_is_refused_with_its_value() -> None:
    with pytest.raises(ConfigurationError, match=r"'\.\./\.\.' holds no letter"):
        catalog.slug("../..")


def test_fp8_points_are_refused_where_the_gpu_has_no_fp8() -> None:
    require_runs_on(Point(model="Qwen/Qwen3-8B", precision="fp8"), "l4")
    with pytest.raises(Exception, match="a100 has no FP8"):
        require_runs_on(Point(model="Qwen/Qwen3-8B", precision="fp8"), "a100")
