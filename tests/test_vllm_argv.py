"""How vLLM is started: one row a decision; and what its failures mean."""

from collections.abc import Sequence
from typing import Any

import pytest

from pytest_joules import catalog
from pytest_joules.catalog import Model
from pytest_joules.engines.logs import without_noise
from pytest_joules.engines.vllm_command import (
    argv,
    cause,
    hint,
    is_port_taken,
    variables,
    weights,
)
from pytest_joules.errors import InvalidPoint
from pytest_joules.plan import Launch, Stack
from pytest_joules.point import Point


def known(model_id: str, precision: str, fp8_model_id: str | None = None) -> Model:
    return Model(
        model_id=model_id,
        nickname="x",
        tasks=("text-conversation",),
        architecture="dense",
        precision=precision,
        total_params_b=1,
        active_params_b=1,
        fp8_model_id=fp8_model_id,
    )


@pytest.fixture(autouse=True)
def _catalog(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [
        known("org/plain", "bf16"),
        known("org/twin", "bf16", "org/twin-FP8"),
        known("org/born-fp8", "fp8"),
        known("org/oss", "mxfp4"),
    ]
    models = {row.model_id: row for row in rows}
    monkeypatch.setattr(catalog, "models", lambda: models)


def made(*, args: Sequence[str] = (), **fields: Any) -> tuple[str, ...]:
    point = Point(**{"model": "org/plain", "batch_size": 8, **fields})
    stack = Stack(args=tuple(args))
    return argv(Launch(points=(point,), stack=stack, gpu="h200"), 8123)


def test_the_whole_command_of_a_plain_point() -> None:
    assert made() == (
        *("-m", "vllm.entrypoints.openai.api_server"),
        *("--host", "127.0.0.1", "--port", "8123", "--uvicorn-log-level", "warning"),
        *("--model", "org/plain", "--served-model-name", "org/plain"),
        *("--max-num-seqs", "8", "--seed", "0"),
        *("--tensor-parallel-size", "1", "--data-parallel-size", "1"),
        "--no-enable-prefix-caching",
    )


def has(command: tuple[str, ...], wanted: str) -> bool:
    words = tuple(wanted.split())
    return any(command[start : start + len(words)] == words for start in range(len(command)))


@pytest.mark.parametrize(
    ("fields", "wanted", "unwanted"),
    [
        ({"batch_size": 256}, "--max-num-seqs 256", "--max-num-seqs 8"),
        ({"num_gpus": 4}, "--tensor-parallel-size 4", "--enable-expert-parallel"),
        ({"num_gpus": 8, "data_parallel": 4}, "--tensor-parallel-size 2", "--dtype"),
        ({"num_gpus": 8, "data_parallel": 4}, "--data-parallel-size 4", "--dtype"),
        ({"num_gpus": 8, "tensor_parallel": 4}, "--tensor-parallel-size 4", "--dtype"),
        ({"expert_parallel": True}, "--enable-expert-parallel", "--trust-remote-code"),
        ({"weights": "dummy"}, "--load-format dummy", "--quantization"),
        ({"prefix_caching": True}, "--enable-prefix-caching", "--no-enable-prefix-caching"),
        ({"max_model_len": 4096}, "--max-model-len 4096", "--load-format"),
        ({"trust_remote_code": True}, "--trust-remote-code", "--max-model-len"),
        ({"engine_args": ["--enforce-eager"]}, "--enforce-eager", "--max-model-len"),
        ({"precision": "fp16"}, "--dtype float16", "--quantization"),
        ({"precision": "fp8"}, "--model org/plain", "--dtype"),
        ({"precision": "fp8"}, "--quantization fp8", "--dtype"),
        ({"model": "org/twin", "precision": "fp8"}, "--model org/twin-FP8", "--quantization"),
        (
            {"model": "org/twin", "precision": "fp8"},
            "--served-model-name org/twin",
            "--served-model-name org/twin-FP8",
        ),
        ({"model": "org/born-fp8"}, "--model org/born-fp8", "--quantization"),
        ({"model": "org/oss"}, "--model org/oss", "--quantization"),
        ({"model": "/a/folder"}, "--dtype bfloat16", "--quantization"),
        ({"model": "/a/folder", "precision": "fp8"}, "--quantization fp8", "--dtype"),
        ({"model": "/a/folder", "precision": "int4"}, "--model /a/folder", "--quantization"),
    ],
)
def test_each_field_of_a_point(fields: dict[str, Any], wanted: str, unwanted: str) -> None:
    command = made(**fields)

    assert has(command, wanted)
    assert not has(command, unwanted)


def test_a_points_own_arguments_come_last_and_so_win() -> None:
    command = made(args=["--max-num-batched-tokens", "1"], engine_args=["--seed", "7"])

    assert command[-4:] == ("--max-num-batched-tokens", "1", "--seed", "7")


def test_the_server_is_started_for_the_largest_batch() -> None:
    large, small = (Point(model="org/plain", batch_size=size) for size in (64, 8))

    command = argv(Launch(points=(large, small), stack=Stack(), gpu="h200"), 1)

    assert has(command, "--max-num-seqs 64")


@pytest.mark.parametrize(
    ("model", "precision"),
    [
        ("org/born-fp8", "bf16"),
        ("org/oss", "bf16"),
        ("org/plain", "int4"),
        ("org/twin", "mxfp4"),
    ],
)
def test_a_precision_that_the_weights_do_not_have_is_refused(
    model: str, precision: str
) -> None:
    with pytest.raises(InvalidPoint, match=f"precision='{precision}', but the weights"):
        weights(Point(model=model, precision=precision))


def test_a_vision_server_takes_what_its_requests_show_and_caches_none_of_it() -> None:
    images = made(task="image-chat", num_images=3)
    video = made(task="video-chat", num_frames=8, fps=2)

    assert images[-4:] == (
        *("--mm-processor-cache-gb", "0"),
        *("--limit-mm-per-prompt", '{"image": 3}'),
    )
    assert video[-4:] == (
        *("--limit-mm-per-prompt", '{"video": 1}'),
        *("--media-io-kwargs", '{"video": {"num_frames": 8, "fps": 2}}'),
    )
    files = made(task="video-chat", media="clips")
    assert files[-1] == '{"video": {"num_frames": 32}}'
    assert "--mm-processor-cache-gb" not in made(task="image-chat", prefix_caching=True)
    assert "--limit-mm-per-prompt" not in made()


def test_gpus_are_named_by_uuid_and_the_key_is_only_in_the_environment() -> None:
    given = variables("k-e-y", ["GPU-a", "GPU-b"])

    assert given["CUDA_VISIBLE_DEVICES"] == "GPU-a,GPU-b"
    assert given["VLLM_API_KEY"] == "k-e-y"
    assert "CUDA_VISIBLE_DEVICES" not in variables("k-e-y", [])


# Lines of vLLM 0.32 (CPU) and of CUDA builds as they were seen.
@pytest.mark.parametrize(
    ("line", "remedy"),
    [
        ("OSError: [Errno 98] Address already in use", "run it again"),
        (
            "huggingface_hub.errors.HFValidationError: Repo id must be in the form",
            "config.json",
        ),
        (
            "Model architectures ['XForCausalLM'] are not supported for now.",
            "use a newer stack",
        ),
        (
            "User-specified max_model_len (99999) is greater than the derived max_model_len",
            "lower the point's max_model_len",
        ),
        ("RuntimeError: Cannot find any model weights with `/x`", 'weights="dummy"'),
        ("ValueError: To serve at least one request with the models's max seq len", "KV cache"),
        ("ValueError: Available memory on node 0 (8.0/8.59 GiB)", "another process holds"),
        ("torch.OutOfMemoryError: CUDA out of memory.", "does not fit"),
        ("api_server.py: error: unrecognized arguments: --x", "engine_args"),
        ("api_server.py: error: argument --dtype: invalid choice", "engine_args"),
    ],
)
def test_a_known_failure_says_what_to_do(line: str, remedy: str) -> None:
    assert remedy in hint(f"INFO all is well\n{line}\nmore")


def test_what_a_library_says_at_every_exit_is_left_out() -> None:
    log = 'ValueError: x\nnanobind: leaked 4 instances!\n - leaked type "y"\nlast'

    assert without_noise(log) == "ValueError: x\nlast"


def test_an_unknown_failure_gets_no_hint() -> None:
    assert hint("INFO Application startup complete.\nKilled") == ""


def test_the_cause_is_the_first_error_not_the_last() -> None:
    log = """\
(EngineCore pid=5) ERROR 11-21 [core.py:1] Traceback (most recent call last):
(EngineCore pid=5) ERROR 11-21 [core.py:1]   File "x.py", line 1, in load
(EngineCore pid=5) ERROR 11-21 [core.py:1] torch.OutOfMemoryError: 8 GiB are missing
(APIServer pid=4) Traceback (most recent call last):
(APIServer pid=4) RuntimeError: Engine core initialization failed. See root cause above.
"""
    assert cause(log) == "torch.OutOfMemoryError: 8 GiB are missing"
    assert cause("RuntimeError: Engine core initialization failed.") == ""
    assert cause("INFO no errors: none") == ""
    assert cause("(APIServer pid=4) WARNING limits can cause `OSError: [Errno 24]`") == ""


def test_a_core_that_was_killed_is_the_cause_of_what_its_clients_say() -> None:
    died = "(APIServer pid=4) WARNING 11-21 MPClient: engine core exited unexpectedly; cleanup"
    log = f"INFO x\n{died}\nvllm.v1.engine.exceptions.EngineDeadError: EngineCore had an issue"

    assert cause(log) == died


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("OSError: [Errno 98] Address already in use", True),
        ("[Errno 98] error while attempting to bind on address", True),
        ("torch.distributed.DistNetworkError: ... EADDRINUSE", True),
        ("[Errno 988] something else", False),
        ("ValueError: bad", False),
    ],
)
def test_a_taken_port_is_told_from_other_failures(line: str, expected: bool) -> None:  # noqa: FBT001 pytest passes by name
    assert is_port_taken(line) is expected
