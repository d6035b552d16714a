"""The leaderboard's folder: read whole, or refused with file, row and field."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_joules.errors import FormatError
from pytest_joules.point import Point
from pytest_joules.result import Latency
from pytest_joules.sources.mlenergy import is_leaderboard, read_leaderboard
from tests.fakes.leaderboard import (
    Tasks,
    image_row,
    index_of,
    needs_published,
    published_folder,
    small_tasks,
    text_row,
    video_row,
    write_leaderboard,
)


def test_a_row_of_tokens(tmp_path: Path) -> None:
    row = text_row(
        gpu_model="H100",
        num_gpus=4,
        max_num_seqs=64,
        weight_precision="fp8",
        expert_parallel=4,
        data_parallel=4,
    )
    (read,) = read_leaderboard(write_leaderboard(tmp_path / "d", {"gpqa": [row]})).rows

    result = read.result
    assert result.point == Point(
        model="maker/talker-8b",
        task="problem-solving",
        batch_size=64,
        precision="fp8",
        num_gpus=4,
        mode="natural",
        shared_server=False,
        tensor_parallel=1,
        data_parallel=4,
        expert_parallel=True,
    )
    assert (result.source, result.gpu, result.evidence) == ("recorded", "h100", None)
    assert result.energy_per_token_j == 0.5
    assert result.throughput_tokens_per_s == 1000.0
    assert result.mean_batch_size == 7.9
    assert result.mean_output_tokens == 100.0
    assert result.latency == Latency(
        median_itl_s=0.008, p90_itl_s=0.009, p95_itl_s=0.010, p99_itl_s=0.012
    )
    assert (read.power_w, read.energy_per_response_j) == (500.0, 50.0)
    assert result.provenance.identity.gpu_model == "H100"
    assert result.provenance.context.packages == {"vllm": "0.11.1"}


def test_a_row_of_images(tmp_path: Path) -> None:
    folder = write_leaderboard(tmp_path / "d", {"text-to-image": [image_row()]})
    (read,) = read_leaderboard(folder).rows

    assert read.result.point == Point(
        model="maker/painter",
        task="text-to-image",
        batch_size=4,
        precision="bf16",
        num_gpus=2,
        engine="xdit",
        mode="natural",
        shared_server=False,
        steps=20,
        height=1024,
        width=512,
        ulysses_degree=2,
        ring_degree=1,
    )
    assert read.result.energy_per_image_j == 1000.0
    assert read.result.batch_latency_s == 8.0
    assert read.energy_per_response_j is None


def test_a_row_of_videos(tmp_path: Path) -> None:
    folder = write_leaderboard(tmp_path / "d", {"text-to-video": [video_row()]})
    (read,) = read_leaderboard(folder).rows

    assert (read.result.point.num_frames, read.result.point.fps) == (49, 8)
    assert read.result.energy_per_video_j == 50_000.0


def test_what_the_index_says_of_a_model(tmp_path: Path) -> None:
    models = read_leaderboard(write_leaderboard(tmp_path / "d", small_tasks())).models

    talker, painter = models["maker/talker-8b"], models["maker/painter"]
    assert (talker.architecture, talker.total_params_b) == ("dense", 8.0)
    assert (painter.architecture, painter.nickname) == ("diffusion", "Painter")


def test_versions_are_stated_only_for_the_release_whose_versions_are_known(
    tmp_path: Path,
) -> None:
    tasks = small_tasks()
    index = {**index_of(tasks), "last_updated": "2030-01-01"}
    read = read_leaderboard(write_leaderboard(tmp_path / "d", tasks, index))

    assert {str(r.provenance.context.packages) for r in read.results} == {"{}"}


def test_repeats_are_kept(tmp_path: Path) -> None:
    rows = [text_row(), text_row(energy_per_token_joules=0.6)]
    read = read_leaderboard(write_leaderboard(tmp_path / "d", {"gpqa": rows}))

    assert [r.energy_per_token_j for r in read.results] == [0.5, 0.6]


OF_THE_INDEX = (
    "nickname",
    "architecture",
    "total_params_billions",
    "activated_params_billions",
)
BROKEN_ROWS = [
    pytest.param({"energy_per_token_joules": "0.5"}, "'0.5' is not a number", id="text"),
    pytest.param({"energy_per_token_joules": True}, "True is not a number", id="bool"),
    pytest.param({"energy_per_token_joules": 0}, "0 is not a number above 0", id="zero"),
    pytest.param(
        {"energy_per_token_joules": -1.5}, "-1.5 is not a number above 0", id="negative"
    ),
    pytest.param({"avg_output_len": None}, "None is not a number", id="null"),
    pytest.param({"median_itl_ms": [8.0]}, r"\[8.0\] is not a number", id="list"),
    pytest.param({"max_num_seqs": 8.0}, "8.0 is not a whole number", id="float-count"),
    pytest.param({"num_gpus": 0}, "0 is not a whole number of at least 1", id="no-gpus"),
    pytest.param({"weight_precision": "fp7"}, "'fp7' is not one of bfloat16", id="precision"),
    pytest.param({"gpu_model": " "}, "' ' is not a text that is not empty", id="blank"),
    pytest.param({"model_id": 3}, "3 is not a text", id="model-number"),
    pytest.param({"model_id": "maker/other"}, "is not a model of index.json", id="other-model"),
    pytest.param({"expert_parallel": 3}, "3 is not 1 or num_gpus=1", id="some-experts"),
    pytest.param({"tensor_parallel": 8}, "a configuration that can exist", id="too-parallel"),
]


@pytest.mark.parametrize(("change", "message"), BROKEN_ROWS)
def test_a_broken_row_names_file_row_and_field(
    tmp_path: Path, change: dict[str, object], message: str
) -> None:
    tasks: Tasks = {"gpqa": [text_row(), {**text_row(), **change}]}
    folder = write_leaderboard(tmp_path / "d", tasks, index_of({"gpqa": [text_row()]}))
    field = "(several)" if "exist" in message else next(iter(change))

    with pytest.raises(FormatError, match=message) as error:
        read_leaderboard(folder)
    assert f"{folder / 'tasks' / 'gpqa.json'}, row 1, field {field}: " in str(error.value)


@pytest.mark.parametrize("field", sorted(set(text_row()) - set(OF_THE_INDEX)))
def test_a_partial_row_of_tokens_names_the_missing_field(tmp_path: Path, field: str) -> None:
    partial = {name: value for name, value in text_row().items() if name != field}
    folder = write_leaderboard(
        tmp_path / "d", {"gpqa": [partial]}, index_of({"gpqa": [text_row()]})
    )

    with pytest.raises(FormatError, match=rf"gpqa\.json, row 0: field {field} is missing"):
        read_leaderboard(folder)


@pytest.mark.parametrize(
    ("task", "row", "field"),
    [
        *(
            ("text-to-image", image_row, f)
            for f in ("energy_per_image_joules", "batch_latency_s", "inference_steps",
                      "image_height", "ulysses_degree", "throughput_images_per_sec")
        ),
        *(
            ("text-to-video", video_row, f)
            for f in ("energy_per_video_joules", "num_frames", "fps", "video_width",
                      "avg_power_watts", "ring_degree")
        ),
    ],
)  # fmt: skip
def test_a_partial_diffusion_row_names_the_missing_field(
    tmp_path: Path, *, task: str, row: Callable[[], dict[str, object]], field: str
) -> None:
    partial = {name: value for name, value in row().items() if name != field}
    folder = write_leaderboard(tmp_path / "d", {task: [partial]})

    with pytest.raises(FormatError, match=rf"{task}\.json, row 0: field {field} is missing"):
        read_leaderboard(folder)


def truncate(folder: Path) -> None:
    path = folder / "tasks" / "text-to-image.json"
    path.write_text(path.read_text()[:-40])


def remove_a_task(folder: Path) -> None:
    (folder / "tasks" / "text-to-video.json").unlink()


def remove_the_index(folder: Path) -> None:
    (folder / "index.json").unlink()


def add_an_unlisted_task(folder: Path) -> None:
    (folder / "tasks" / "gpqa.json").write_text('{"task": "gpqa", "configurations": []}')


def rename_a_task(folder: Path) -> None:
    rewrite(folder / "tasks" / "text-to-image.json", task="text-to-video")


def empty_a_task(folder: Path) -> None:
    rewrite(folder / "tasks" / "text-to-image.json", configurations=[])


def write_nan(folder: Path) -> None:
    path = folder / "tasks" / "text-to-image.json"
    path.write_text(path.read_text().replace("1000.0", "NaN"))


def write_a_key_twice(folder: Path) -> None:
    path = folder / "tasks" / "text-to-image.json"
    path.write_text(
        path.read_text().replace('"batch_size": 4', '"batch_size": 4, "batch_size": 8')
    )


def make_rows_numbers(folder: Path) -> None:
    rewrite(folder / "tasks" / "text-to-image.json", configurations=[1, 2])


def list_a_model_without_rows(folder: Path) -> None:
    path = folder / "index.json"
    index = json.loads(path.read_text())
    index["models"]["maker/absent"] = index["models"]["maker/painter"]
    path.write_text(json.dumps(index))


def forget_an_architecture(folder: Path) -> None:
    path = folder / "index.json"
    path.write_text(path.read_text().replace("Dense Transformer", "Perceptron"))


def rewrite(path: Path, **changes: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (truncate, r"text-to-image\.json: not the JSON it should be"),
        (remove_a_task, r"text-to-video\.json: cannot be read"),
        (remove_the_index, r"index\.json: cannot be read"),
        (add_an_unlisted_task, r"index\.json: tasks/ holds gpqa, which the index does not"),
        (rename_a_task, r"text-to-image\.json, the file, field task: 'text-to-video' is not"),
        (empty_a_task, r"field configurations: \[\] is not a collection that is not empty"),
        (write_nan, r"text-to-image\.json: .* is NaN, which is no number"),
        (write_a_key_twice, r"text-to-image\.json: .*the key 'batch_size' stands twice"),
        (make_rows_numbers, r"text-to-image\.json: row 0 is a int, not an object"),
        (list_a_model_without_rows, r"lists maker/absent, of which tasks/ holds no row"),
        (forget_an_architecture, r"model maker/talker-8b, field architecture: 'Perceptron'"),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_a_damaged_folder_is_refused(
    tmp_path: Path, damage: Callable[[Path], None], message: str
) -> None:
    folder = write_leaderboard(tmp_path / "d", small_tasks())
    damage(folder)

    with pytest.raises(FormatError, match=message):
        read_leaderboard(folder)


def test_a_task_that_nobody_knows_is_refused(tmp_path: Path) -> None:
    folder = write_leaderboard(tmp_path / "d", {"juggling": [text_row()]})

    with pytest.raises(FormatError, match=r"index\.json, field tasks: .*'juggling' is unknown"):
        read_leaderboard(folder)


def test_a_leaderboard_is_told_from_other_folders(tmp_path: Path) -> None:
    assert is_leaderboard(write_leaderboard(tmp_path / "d", small_tasks()))
    assert not is_leaderboard(tmp_path)


@needs_published
def test_all_published_rows_are_read() -> None:
    leaderboard = read_leaderboard(published_folder())

    assert len(leaderboard.rows) == 1858
    assert len(leaderboard.models) == 46
    repeated = len(leaderboard.rows) - len({(r.point, r.gpu) for r in leaderboard.results})
    assert repeated == 3
