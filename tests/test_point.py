import json
import re
from itertools import islice
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_joules.errors import InvalidPoint
from pytest_joules.point import Point
from pytest_joules.point.engine_arguments import refused
from pytest_joules.tasks import Lengths

QWEN = Point(model="Qwen/Qwen3-8B")
IMAGE = {"model": "stabilityai/stable-diffusion-3.5-medium", "task": "text-to-image"}
VIDEO = {"model": "Wan-AI/Wan2.1-T2V-1.3B-Diffusers", "task": "text-to-video"}

models = st.sampled_from(
    ["Qwen/Qwen3-8B", "openai/gpt-oss-20b", "acme/Chat.7B", "/models/x/", "../../etc", "模型"]
) | st.text(min_size=1).filter(
    lambda text: text.strip() and "\0" not in text and not text.startswith("-")
)
lengths = st.none() | st.builds(Lengths, mean=st.integers(1, 4096), cv=st.floats(0, 5))
points = st.builds(
    Point,
    model=models,
    task=st.sampled_from(["problem-solving", "text-conversation", "image-chat"]),
    batch_size=st.integers(1, 4096),
    precision=st.sampled_from(["", "bf16", "fp8", "mxfp4"]),
    num_gpus=st.sampled_from([2, 4, 8]),
    weights=st.sampled_from(["real", "dummy"]),
    mode=st.sampled_from(["fixed", "natural"]),
    num_requests=st.none() | st.integers(3 * 4096, 10**6),
    input_tokens=lengths,
    output_tokens=lengths,
    seed=st.integers(0, 2**40),
    prefix_caching=st.booleans(),
    tensor_parallel=st.none() | st.sampled_from([1, 2]),
    engine_args=st.lists(st.text().filter(lambda t: not list(refused([t]))), max_size=3),
)


@given(point=points)
def test_a_point_comes_back_from_json(point: Point) -> None:
    assert Point.from_json(json.loads(json.dumps(point.as_json()))) == point


@given(point=points)
def test_a_point_comes_back_from_its_own_text(point: Point) -> None:
    assert eval(repr(point)) == point


@given(a=points, b=points)
def test_hashes_are_equal_exactly_for_equal_points(a: Point, b: Point) -> None:
    assert (a.hash == b.hash) == (a == b)
    assert a.hash == Point.from_json(a.as_json()).hash


@given(point=points)
def test_an_id_is_a_file_name_everywhere(point: Point) -> None:
    assert re.fullmatch(r"[a-z0-9][a-z0-9.-]*[a-z0-9]", point.id)
    assert len(point.id) <= 200
    assert PurePosixPath(point.id).name == PureWindowsPath(point.id).name == point.id
    assert point.id == Point.from_json(point.as_json()).id


@given(a=points, b=points)
def test_different_points_have_different_ids(a: Point, b: Point) -> None:
    assert (a.id == b.id) == (a == b)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        pytest.param({}, "qwen3-8b-text-conversation-bf16-1gpu-b1", id="shortest"),
        pytest.param(
            {"batch_size": 64, "precision": "fp8", "num_gpus": 2, "task": "problem-solving"},
            "qwen3-8b-problem-solving-fp8-2gpu-b64",
            id="what-the-name-tells",
        ),
        pytest.param(
            {"model": "openai/gpt-oss-20b", "task": "problem-solving"},
            "gpt-oss-20b-problem-solving-mxfp4-1gpu-b1",
            id="precision-of-the-catalog",
        ),
    ],
)
def test_an_id_reads(values: dict[str, Any], expected: str) -> None:
    assert Point(**{"model": "Qwen/Qwen3-8B", **values}).id == expected


@pytest.mark.parametrize(
    ("model", "begins"),
    [
        pytest.param("../../etc", "etc-text", id="escape"),
        pytest.param("../..", "model-text", id="only-dots"),
        pytest.param(".", "model-text", id="here"),
        pytest.param("/", "model-text", id="root"),
        pytest.param("models/Qwen3-8B/", "qwen3-8b-text", id="trailing-slash"),
        pytest.param(r"C:\models\My Qwen", "my-qwen-text", id="windows"),
        pytest.param("a/b:c*?<>|\n\t", "b-c-text", id="odd-characters"),
        pytest.param("通义千问", "model-text", id="another-alphabet"),
        pytest.param("CON", "con-text", id="reserved-on-windows"),
        pytest.param("x" * 5000, "x" * 100, id="very-long"),
    ],
)
def test_odd_models_get_a_safe_id_with_a_hash(model: str, begins: str) -> None:
    point = Point(model=model)

    assert point.id.startswith(begins)
    assert point.id.endswith(f"-{point.hash[:6]}")
    assert len(point.id) <= 200


def test_a_very_large_batch_does_not_make_a_very_long_id() -> None:
    assert len(QWEN.but(batch_size=10**400).id) <= 200


def test_folders_of_the_same_name_are_told_apart() -> None:
    assert Point(model="/old/chat").id != Point(model="/new/chat").id


@pytest.mark.parametrize("name", ["seed", "weights", "engine_args", "output_tokens", "engine"])
def test_fields_that_the_id_does_not_spell_add_the_hash(name: str) -> None:
    values = {
        "seed": 1,
        "weights": "dummy",
        "engine_args": ["--enforce-eager"],
        "output_tokens": Lengths(mean=8),
        "engine": "transformers",
    }
    changed = QWEN.but(**{name: values[name]})

    assert changed.id == f"{QWEN.id}-{changed.hash[:6]}"


def test_equal_numbers_make_equal_hashes() -> None:
    as_int = QWEN.but(output_tokens=Lengths(mean=300, cv=0))
    as_float = QWEN.but(output_tokens=Lengths(mean=300.0, cv=-0.0))

    assert as_int == as_float
    assert as_int.hash == as_float.hash


def test_the_text_of_a_point_shows_what_was_set() -> None:
    assert repr(QWEN) == "Point(model='Qwen/Qwen3-8B')"
    changed = QWEN.but(batch_size=64, precision="fp8", engine_args=["--x"])
    assert (
        repr(changed)
        == "Point(model='Qwen/Qwen3-8B', batch_size=64, precision='fp8', engine_args=('--x',))"
    )


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"batch_size": 0}, "batch_size=0: give a whole number of at least 1"),
        ({"batch_size": 2.0}, "batch_size=2.0"),
        ({"batch_size": True}, "batch_size=True"),
        ({"batch_size": None}, "batch_size=None"),
        ({"num_gpus": -1}, "num_gpus=-1"),
        ({"seed": 0.5}, "seed=0.5: give a whole number of at least 0"),
        ({"seed": -1}, "seed=-1"),
        ({"seed": None}, "seed=None"),
        ({"prefix_caching": "yes"}, "prefix_caching='yes': give True or False"),
        ({"prefix_caching": 1}, "prefix_caching=1"),
        ({"output_tokens": 128}, r"output_tokens=128: give Lengths"),
        ({"engine_args": "--x"}, "engine_args='--x': give a list"),
        ({"engine_args": ["--x", 3]}, "engine_args=.*3.*: give a list of strings"),
        ({"engine_args": 3}, "engine_args=3"),
        ({"model": ""}, "model=''"),
        ({"model": "  "}, "model='  '"),
        ({"model": "a\0b"}, "model="),
        ({"model": "--trust-remote-code"}, "model='--trust-remote-code'"),
        ({"model": 7}, "model=7: give a string"),
        ({"task": "gpqa"}, "task='gpqa' is unknown"),
        ({"task": ["x"]}, r"task=\['x'\]: give a string"),
        ({"precision": "bf61"}, "precision='bf61' is unknown; choose one of fp32, bf16"),
        ({"engine": "tgi"}, "engine='tgi' is unknown"),
        ({"weights": "random"}, "weights='random'"),
        ({"mode": "loose"}, "mode='loose'"),
        ({"batch_size": 8, "num_requests": 23}, "num_requests >= 24"),
        ({"tensor_parallel": 2}, "needs 2 GPUs, but num_gpus=1"),
        ({"num_gpus": 4, "data_parallel": 3}, "cannot be divided into data_parallel=3"),
        ({"steps": 20}, "steps has no meaning for task='text-conversation'"),
        ({"engine": "diffusers"}, "engine='diffusers' cannot run task='text-conversation'"),
        ({**IMAGE, "num_frames": 8}, "num_frames has no meaning for task='text-to-image'"),
        ({**IMAGE, "engine": "vllm"}, "engine='vllm' cannot run task='text-to-image'"),
        ({**IMAGE, "num_gpus": 4, "ulysses_degree": 2}, "= 2, but num_gpus=4"),
        ({**IMAGE, "num_gpus": 2, "ring_degree": 1}, "= 1, but num_gpus=2"),
    ],
)
def test_contradictions_are_refused_with_value_and_remedy(
    values: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidPoint, match=message):
        Point(**{"model": "Qwen/Qwen3-8B", **values})


@pytest.mark.parametrize(
    "values",
    [
        {"batch_size": 8, "num_requests": 24},
        {"num_gpus": 4, "tensor_parallel": 2, "data_parallel": 2},
        {**IMAGE, "num_gpus": 4, "ulysses_degree": 2, "ring_degree": 2},
        {**IMAGE, "steps": 20, "height": 512, "width": 512, "num_gpus": 2},
        {**VIDEO, "num_frames": 8, "fps": 8},
        {"seed": 0},
    ],
)
def test_what_is_just_inside_the_rules_is_allowed(values: dict[str, Any]) -> None:
    point = Point(**{"model": "Qwen/Qwen3-8B", **values})

    assert all(getattr(point, name) == value for name, value in values.items())


@pytest.mark.parametrize(
    ("values", "engine", "work_unit"),
    [
        ({}, "vllm", "token"),
        (IMAGE, "diffusers", "image"),
        ({**IMAGE, "num_gpus": 2}, "xdit", "image"),
        (VIDEO, "diffusers", "video"),
    ],
)
def test_defaults_follow_the_task(values: dict[str, Any], engine: str, work_unit: str) -> None:
    point = Point(**{"model": "Qwen/Qwen3-8B", **values})

    assert (point.engine, point.work_unit) == (engine, work_unit)


def test_defaults_follow_a_change_of_model_task_and_gpus() -> None:
    image = Point(**IMAGE)

    assert QWEN.but(model="openai/gpt-oss-20b").precision == "mxfp4"
    assert image.but(num_gpus=2).engine == "xdit"
    assert QWEN.but(task="text-to-image", model=IMAGE["model"]).engine == "diffusers"


def test_what_was_chosen_stays_chosen() -> None:
    chosen = QWEN.but(precision="fp8", engine="endpoint")

    assert chosen.but(batch_size=2).precision == "fp8"
    assert chosen.but(model="openai/gpt-oss-20b").precision == "fp8"
    assert chosen.but(num_gpus=2).engine == "endpoint"


def test_a_sweep_lists_every_combination_in_order() -> None:
    swept = QWEN.sweep(precision=["bf16", "fp8"], batch_size=(1, 2), seed=3)

    assert [(p.precision, p.batch_size, p.seed) for p in swept] == [
        ("bf16", 1, 3),
        ("bf16", 2, 3),
        ("fp8", 1, 3),
        ("fp8", 2, 3),
    ]


def test_a_sweep_over_nothing_is_an_error() -> None:
    with pytest.raises(InvalidPoint, match=r"batch_size=\[\] lists no value"):
        QWEN.sweep(batch_size=[])


@pytest.mark.parametrize("change", [{"batchsize": 3}, {"batch_size": 3, "gpus": 1}])
def test_unknown_fields_are_named_with_the_known_ones(change: dict[str, Any]) -> None:
    with pytest.raises(InvalidPoint, match=r"Point has no field .*its fields are batch_size"):
        QWEN.but(**change)
    with pytest.raises(InvalidPoint, match="Point has no field"):
        Point.from_json({"model": "m", **change})


@pytest.mark.parametrize(
    "values",
    [
        pytest.param({}, id="no-model"),
        pytest.param({"model": "m", "output_tokens": 128}, id="number-for-lengths"),
        pytest.param({"model": "m", "output_tokens": {"avg": 3}}, id="unknown-length"),
        pytest.param({"model": "m", "output_tokens": {}}, id="no-mean"),
        pytest.param({"model": "m", "output_tokens": {"mean": "x"}}, id="text-for-mean"),
        pytest.param({"model": "m", "batch_size": "8"}, id="text-for-number"),
        pytest.param({"model": "m", "engine_args": {"a": 1}}, id="mapping-for-list"),
    ],
)
def test_broken_json_is_an_invalid_point(values: dict[str, Any]) -> None:
    with pytest.raises(InvalidPoint):
        Point.from_json(values)


def test_requests_are_the_same_however_many_are_taken() -> None:
    few = list(QWEN.but(num_requests=3).requests())
    many = list(islice(QWEN.requests(), 100))

    assert many[:3] == few
    assert [request.index for request in many] == list(range(100))


def test_requests_do_not_depend_on_batch_or_precision() -> None:
    other = QWEN.but(batch_size=64, precision="fp8", num_gpus=2)

    assert list(islice(other.requests(), 20)) == list(islice(QWEN.requests(), 20))


def test_images_have_no_token_requests() -> None:
    with pytest.raises(InvalidPoint, match="text-to-image has no token lengths"):
        next(Point(**IMAGE).requests())
