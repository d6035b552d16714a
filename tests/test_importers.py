"""``joules import mlenergy``: each format from small files, and what is wrong with them."""

import json
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, make_dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from pytest_joules.errors import ConfigurationError, FormatError, MissingDependency
from pytest_joules.result import Evidence, Result
from pytest_joules.sources.importers import (
    hugging_face_results,
    import_mlenergy,
    package_results,
    results_from,
)
from pytest_joules.sources.mlenergy_raw import even_gaps, read_raw
from pytest_joules.sources.store import read_results
from tests.fakes.leaderboard import image_row, small_tasks, text_row, write_leaderboard
from tests.fakes.raw_runs import gauges, image_results, text_results

TEXT_RUN = Path(
    "llm/h100/current/run/llm/gpqa/results/Qwen/Qwen3-8B/H100",
    "num_gpus+2+max_num_seqs+4+max_num_batched_tokens+2048+seed+1",
)
IMAGE_RUN = Path(
    "diffusion/b200/current/run/diffusion/text-to-image/maker/painter",
    "batch-2+uly-2+ring-1+size-512x768+steps-20",
)


def write_json(path: Path, values: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(values))


def write_text_run(root: Path, results: Any = None, prometheus: Any = None) -> Path:
    write_json(root / TEXT_RUN / "results.json", results or text_results())
    write_json(root / TEXT_RUN / "prometheus.json", prometheus or gauges())
    return root


def write_image_run(root: Path, results: Any = None, *, run: Path = IMAGE_RUN) -> Path:
    write_json(root / run / "results.json", results or image_results())
    return root


def test_a_raw_text_run(tmp_path: Path) -> None:
    """By hand: 30 kJ at 0.3 J are 100,000 tokens, in 50 s; gaps 10, 15, 15, 20, 20 ms."""
    (result,) = read_raw(write_text_run(tmp_path))

    point = result.point
    assert (point.model, point.task, point.precision) == (
        "Qwen/Qwen3-8B",
        "problem-solving",
        "bf16",
    )
    assert (point.batch_size, point.num_gpus, point.mode) == (4, 2, "natural")
    assert (result.gpu, result.source) == ("h100", "recorded")
    assert result.energy_per_token_j == 0.3
    assert result.throughput_tokens_per_s == pytest.approx(2000.0)
    assert result.power_w == pytest.approx(600.0)
    assert result.mean_output_tokens == 500.0
    assert (result.mean_batch_size, result.kv_cache_usage) == (3.8, 0.25)
    assert result.median_itl_s == pytest.approx(0.015)
    assert result.latency.p90_itl_s == pytest.approx(0.020)
    assert result.median_ttft_s == pytest.approx(0.3)
    assert result.is_valid
    assert [note.code for note in result.notes] == ["parallelism-unknown"]


def test_a_raw_image_run(tmp_path: Path) -> None:
    """By hand: batches of 2,400 and 2,800 J in 4 and 6 s make 1,300 J and 0.4/s."""
    (result,) = read_raw(write_image_run(tmp_path), precision="bf16")

    point = result.point
    assert (point.model, point.task) == ("maker/painter", "text-to-image")
    assert (point.batch_size, point.num_gpus, point.steps) == (2, 2, 20)
    assert (point.height, point.width) == (512, 768)
    assert (point.ulysses_degree, point.ring_degree) == (2, 1)
    assert result.gpu == "b200"
    assert result.energy_per_image_j == 1300.0
    assert result.throughput_work_units_per_s == pytest.approx(0.4)
    assert result.batch_latency_s == 5.0


def test_a_raw_video_run(tmp_path: Path) -> None:
    run = Path(*IMAGE_RUN.parts[:5], "text-to-video", *IMAGE_RUN.parts[6:])
    results = {**image_results(), "num_frames": 16, "fps": 8}
    (result,) = read_raw(write_image_run(tmp_path, results, run=run), precision="bf16")

    assert (result.point.num_frames, result.point.fps) == (16, 8)
    assert result.energy_per_video_j == 1300.0


def test_the_energy_of_each_gpu_becomes_evidence(tmp_path: Path) -> None:
    measured = {"time": 50.0, "gpu_energy": {"0": 14_000.0, "1": 16_000.0}}
    results = {**text_results(), "steady_state_measurement": measured}
    (result,) = read_raw(write_text_run(tmp_path, results))

    assert result.evidence == Evidence(
        launch_id=TEXT_RUN.name,
        window_s=50.0,
        gpu_energy_j=(14_000.0, 16_000.0),
        work_units=pytest.approx(100_000.0),
    )


@pytest.mark.parametrize(
    ("results", "prometheus", "codes"),
    [
        pytest.param(
            {},
            {"steady_state_stats": {"vllm:num_requests_running": 3.39}},
            ["batch-starved"],
            id="batch-not-filled",
        ),
        pytest.param(
            {}, {"steady_state_stats": {"vllm:num_requests_running": 3.4}}, [], id="85-percent"
        ),
        pytest.param({"steady_state_duration": 19.9}, None, ["window-short"], id="short"),
        pytest.param({"steady_state_duration": 20.0}, None, [], id="long-enough"),
        pytest.param(
            {
                "results": [
                    {"success": True, "itl": [0.01]},
                    {"success": False, "itl": []},
                ]
            },
            None,
            ["request-failed"],
            id="failed-request",
        ),
    ],
)
def test_an_unstable_run_is_kept_as_invalid(
    tmp_path: Path, *, results: dict[str, Any], prometheus: Any, codes: list[str]
) -> None:
    write_text_run(tmp_path, {**text_results(), **results}, prometheus)
    (result,) = read_raw(tmp_path)

    assert [reason.code for reason in result.reasons] == codes


@pytest.mark.parametrize(
    ("itl_s", "expected"),
    [
        pytest.param([], [], id="nothing"),
        pytest.param([0.0, 0.0], [], id="only-zeros"),
        pytest.param([0.2], [0.2], id="one"),
        pytest.param([0.0, 0.2, 0.4], [0.2, 0.4], id="leading-zero-dropped"),
        pytest.param([0.3, 0.0, 0.0, 0.4], [0.1, 0.1, 0.1, 0.4], id="spread"),
    ],
)
def test_tokens_that_arrive_together_share_the_gap(
    itl_s: list[float], expected: list[float]
) -> None:
    assert even_gaps(itl_s) == pytest.approx(expected)


def without(values: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key != name}


@pytest.mark.parametrize("field", sorted(text_results()))
def test_a_partial_text_run_names_the_missing_field(tmp_path: Path, field: str) -> None:
    write_text_run(tmp_path, without(text_results(), field))

    with pytest.raises(
        FormatError, match=rf"results\.json, the file: field {field} is missing"
    ):
        read_raw(tmp_path)


@pytest.mark.parametrize(
    ("results", "message"),
    [
        pytest.param(
            {"steady_state_energy": 0}, "field steady_state_energy: 0 is not", id="zero"
        ),
        pytest.param({"steady_state_duration": "50"}, "'50' is not a number", id="text"),
        pytest.param({"results": []}, r"results: \[\] is not a list that is not", id="none"),
        pytest.param(
            {"results": [{"success": True, "itl": [0.1, None]}]},
            r"results 0, field itl: \[0.1, None\] is not a list of numbers",
            id="broken-latency",
        ),
        pytest.param(
            {"results": [{"success": True, "itl": [-0.1]}]}, "none below 0", id="negative"
        ),
        pytest.param(
            {"results": [{"success": 1, "itl": []}]},
            "results 0, field success: 1 is not true or false",
            id="success",
        ),
        pytest.param(
            {"results": [{"success": True, "itl": []}]},
            "is not a list with inter-token latencies",
            id="no-latency",
        ),
        pytest.param(
            {"steady_state_measurement": {"gpu_energy": {"0": 29_000.0}}},
            "29000.0 is not the steady_state_energy of 30000 J",
            id="energies-disagree",
        ),
    ],
)
def test_a_broken_text_run_names_file_and_field(
    tmp_path: Path, results: dict[str, Any], message: str
) -> None:
    write_text_run(tmp_path, {**text_results(), **results})

    with pytest.raises(FormatError, match=message) as error:
        read_raw(tmp_path)
    assert str(tmp_path / TEXT_RUN / "results.json") in str(error.value)


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    path = write_text_run(tmp_path) / TEXT_RUN / "results.json"
    path.write_text(path.read_text()[:-20])

    with pytest.raises(FormatError, match=r"results\.json: not the JSON"):
        read_raw(tmp_path)


def test_a_run_without_its_gauges_is_refused(tmp_path: Path) -> None:
    (write_text_run(tmp_path) / TEXT_RUN / "prometheus.json").unlink()

    with pytest.raises(FormatError, match=r"prometheus\.json: cannot be read"):
        read_raw(tmp_path)


def test_gauges_without_the_batch_are_refused(tmp_path: Path) -> None:
    write_text_run(tmp_path, None, {"steady_state_stats": {"vllm:other": 1.0}})

    with pytest.raises(FormatError, match=r"field vllm:num_requests_running is missing"):
        read_raw(tmp_path)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("uly-2+ring-1+size-512x768+steps-20", "field batch: '' is not a whole number"),
        ("batch-0+uly-2+ring-1+size-512x768+steps-20", "field batch: '0' is not a whole"),
        ("batch-2+uly-2+ring-1+size-512+steps-20", "field size: '512' is not height x width"),
        ("batch-2+uly-2+ring-1+size-512x768", "field steps: '' is not a whole number"),
    ],
)
def test_a_folder_name_that_does_not_say_all(tmp_path: Path, name: str, message: str) -> None:
    write_image_run(tmp_path, run=IMAGE_RUN.parent / name)

    with pytest.raises(FormatError, match=message):
        read_raw(tmp_path, precision="bf16")


def test_results_outside_the_layout_are_refused(tmp_path: Path) -> None:
    write_json(tmp_path / "elsewhere" / "results.json", text_results())

    with pytest.raises(FormatError, match="lies in no folder of the benchmark's layout"):
        read_raw(tmp_path)


def test_a_folder_without_results_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"holds no results\.json"):
        read_raw(tmp_path)


def test_a_precision_that_nobody_knows_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(
        FormatError, match=r"precision of maker/painter is neither .*--precision"
    ):
        read_raw(write_image_run(tmp_path))


def test_the_precision_of_the_configs_folder_wins(tmp_path: Path) -> None:
    described = "configs/xdit/text-to-image/maker/painter/model_info.json"
    write_json(tmp_path / described, {"weight_precision": "fp8"})
    (result,) = read_raw(write_image_run(tmp_path), precision="bf16")

    assert result.point.precision == "fp8"


# --- the package ------------------------------------------------------------------------


def record(values: dict[str, Any]) -> Any:
    return make_dataclass("Run", values)(**values)


def diffusion_record(**changes: Any) -> Any:
    row = image_row()
    values = {
        **without(row, "energy_per_image_joules"),
        "task": "text-to-image",
        "energy_per_generation_joules": row["energy_per_image_joules"],
        "throughput_generations_per_sec": row["throughput_images_per_sec"],
        "height": row["image_height"],
        "width": row["image_width"],
        "num_frames": None,
        "fps": None,
        **changes,
    }
    return record(values)


def test_runs_of_the_package(tmp_path: Path) -> None:
    text = record({**text_row(), "task": "lm-arena-chat", "is_stable": True})
    made = package_results([text, diffusion_record()])
    folder = write_leaderboard(
        tmp_path / "d", {"lm-arena-chat": [text_row()], "text-to-image": [image_row()]}
    )

    same = results_from(str(folder))
    assert [result.point for result in made] == [result.point for result in same]
    assert [r.energy_per_work_unit_j for r in made] == [0.5, 1000.0]


@pytest.mark.parametrize(
    ("run", "message"),
    [
        (
            diffusion_record(energy_per_generation_joules=None),
            "energy_per_image_joules: None is",
        ),
        (diffusion_record(inference_steps=None), "inference_steps: None is not a whole number"),
        (diffusion_record(task="juggling"), "dataset 'juggling' is unknown"),
        (record({**text_row(avg_batch_size=None), "task": "gpqa"}), "avg_batch_size: None is"),
    ],
    ids=["energy", "steps", "task", "batch"],
)
def test_a_broken_run_names_run_and_field(run: Any, message: str) -> None:
    with pytest.raises(FormatError, match=rf"mlenergy-data, run 1.*{message}"):
        package_results([diffusion_record(), run])


@dataclass
class Package:
    """A stand-in for ``mlenergy-data``, installed under one of its module names."""

    monkeypatch: pytest.MonkeyPatch
    name: str = "mlenergy_data.records"

    def install(self, text: Callable[[], list[Any]], images: Callable[[], list[Any]]) -> None:
        records = ModuleType(self.name)
        records.LLMRuns = SimpleNamespace(from_hf=text)
        records.DiffusionRuns = SimpleNamespace(from_hf=images)
        for depth in range(1, self.name.count(".") + 1):
            parent = self.name.rsplit(".", depth)[0]
            self.monkeypatch.setitem(sys.modules, parent, ModuleType(parent))
        self.monkeypatch.setitem(sys.modules, self.name, records)


@pytest.mark.parametrize("name", ["mlenergy.data.records", "mlenergy_data.records"])
def test_the_package_is_found_under_both_names(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    Package(monkeypatch, name).install(list, lambda: [diffusion_record()])
    (result,) = hugging_face_results()

    assert result.energy_per_image_j == 1000.0


def test_a_gated_data_set_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def gated() -> list[Any]:
        raise PermissionError("403 Client Error")

    Package(monkeypatch).install(gated, list)
    with pytest.raises(ConfigurationError, match="request access on https://hugging") as e:
        hugging_face_results()
    assert "HF_TOKEN" in str(e.value)
    assert "403 Client Error" in str(e.value)


def test_without_the_package_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("mlenergy", "mlenergy_data"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingDependency, match=r"pip install 'pytest-joules\[mlenergy\]'"):
        hugging_face_results()


# --- the whole import -------------------------------------------------------------------


def by_point(results: Iterable[Result]) -> list[Result]:
    return sorted(results, key=lambda result: result.point.id)


def test_a_leaderboard_is_imported(tmp_path: Path) -> None:
    folder = write_leaderboard(tmp_path / "d", small_tasks())
    files = import_mlenergy(str(folder), tmp_path / "out")

    assert len(files) == 3
    assert by_point(read_results(tmp_path / "out")) == by_point(results_from(str(folder)))


def test_raw_results_are_imported(tmp_path: Path) -> None:
    files = import_mlenergy(str(write_text_run(tmp_path / "raw")), tmp_path / "out")

    assert [path.name for path in files] == ["qwen-qwen3-8b.json"]
    assert read_results(tmp_path / "out")[0].energy_per_token_j == 0.3


def test_a_broken_import_writes_nothing(tmp_path: Path) -> None:
    tasks = {**small_tasks(), "gpqa": [text_row(energy_per_token_joules="?")]}
    folder = write_leaderboard(tmp_path / "d", tasks)

    with pytest.raises(FormatError, match=r"gpqa\.json, row 0, field energy_per_token_joules"):
        import_mlenergy(str(folder), tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["d"]


def test_an_origin_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="there is no such folder"):
        import_mlenergy(str(tmp_path / "absent"), tmp_path / "out")
