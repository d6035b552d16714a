"""The environment under test: its interpreter, its environment variables, its versions.

A stack need not be the environment that runs pytest, so everything is asked of its own
interpreter, in a process of its own.
"""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Final

from pytest_joules.errors import ConfigurationError, LaunchError, MissingDependency, is_expected
from pytest_joules.hiding import remember, secrets_of
from pytest_joules.plan import Stack

__tracebackhide__ = is_expected

PROBE_S: Final = 120.0
"""Seconds that the interpreter has to answer; a container may have to be unpacked first."""

DISTRIBUTIONS: Final = (
    "vllm*",
    "torch",
    "transformers",
    "accelerate",
    "diffusers",
    "xfuser",
    "yunchang",
    "flash-attn*",
    "flashinfer*",
    "triton",
    "nvidia-cuda-runtime*",
    "nvidia-cublas*",
    "nvidia-cudnn*",
    "nvidia-nccl*",
)
"""Distributions whose version may change what a token costs; ``*`` ends a prefix."""

# Metadata only: importing an engine takes many seconds and may touch the GPU.
_PROBE: Final = """
import fnmatch, importlib.metadata, json, os, platform, re, sys
patterns, visible = json.loads(sys.argv[1]), "CUDA_VISIBLE_DEVICES"
found = {"python": platform.python_version()}
if os.environ.get(visible):
    found[visible] = os.environ[visible]
for distribution in importlib.metadata.distributions():
    name = re.sub("[-_.]+", "-", distribution.metadata["Name"] or "").lower()
    if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns):
        found.setdefault(name, distribution.version)
print(json.dumps(found))
"""
_VISIBLE: Final = "CUDA_VISIBLE_DEVICES"

# Some libraries behave differently when they see that a test runs.
_OF_PYTEST: Final = ("PYTEST_CURRENT_TEST", "PYTEST_VERSION")


def interpreter(stack: Stack) -> tuple[str, ...]:
    """Return the command that runs the stack's Python.

    Raises:
        ConfigurationError: A container has no interpreter named.
    """
    if stack.command and not stack.python:
        raise ConfigurationError(
            f"stack {stack.name!r} runs {stack.command[0]!r} but names no interpreter inside "
            'it; add python = "python3" to its table.'
        )
    return (*stack.command, stack.python or sys.executable)


def environment(stack: Stack, extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the whole environment of the stack's processes.

    This process's own, then ``extra``, then the stack's: what a user names wins. A
    container sees only what its run command passes on (``docker run -e NAME``). Its secrets
    are hidden from here on.
    """
    ours = {name: value for name, value in os.environ.items() if name not in _OF_PYTEST}
    made = {**ours, **(extra or {}), **stack.env}
    remember(secrets_of(made))
    return made


def probe(
    stack: Stack,
    distributions: Sequence[str] = DISTRIBUTIONS,
    *,
    gpu_uuids: Sequence[str] = (),
) -> dict[str, str]:
    """Ask the stack for its Python's and its distributions' versions, importing none.

    Args:
        stack: Whom to ask.
        distributions: Names; ``*`` ends a prefix.
        gpu_uuids: The GPUs that its engine is to see, and no others.

    Raises:
        ConfigurationError: It would see other GPUs: those may be somebody else's.
        MissingDependency: Its interpreter cannot be run.
        LaunchError: Its interpreter gave no answer.
    """
    command = interpreter(stack)
    try:
        run = subprocess.run(  # noqa: S603 the user's own interpreter, no shell
            [*command, "-c", _PROBE, json.dumps(list(distributions))],
            env=environment(stack, visible_gpus(gpu_uuids)),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PROBE_S,
            check=False,
        )
    except OSError as error:
        raise MissingDependency(
            f"stack {stack.name!r}: {command[0]} cannot be run ({error.strerror}). Set "
            f"python or command in [tool.pytest-joules.stacks.{stack.name}]."
        ) from error
    except subprocess.TimeoutExpired as error:
        raise LaunchError(
            f"stack {stack.name!r}: {' '.join(command)} did not tell its versions in "
            f"{PROBE_S:.0f} s."
        ) from error
    versions = _answer(stack, run)
    _require_visible(stack, gpu_uuids, versions.pop(_VISIBLE, ""))
    return versions


def visible_gpus(gpu_uuids: Sequence[str]) -> dict[str, str]:
    """Return the variables that show an engine these GPUs only; none leave it to the shell.

    By UUID: an index may mean different boards to CUDA and to NVML.
    """
    return {_VISIBLE: ",".join(gpu_uuids)} if gpu_uuids else {}


def _require_visible(stack: Stack, gpu_uuids: Sequence[str], seen: str) -> None:
    if gpu_uuids and seen != ",".join(gpu_uuids):
        raise ConfigurationError(
            f"stack {stack.name!r}: its engine may use the GPUs {', '.join(gpu_uuids)} only, "
            f"but inside it {_VISIBLE} is {seen or 'not set'}, so it would use others, which "
            f"may be measured by somebody else. Take {_VISIBLE} out of its env, and let a "
            f"container pass it on (docker run --gpus all -e {_VISIBLE} ...)."
        )


def _answer(stack: Stack, run: "subprocess.CompletedProcess[str]") -> dict[str, str]:
    last_line = (run.stdout.splitlines() or [""])[-1]
    if run.returncode or not last_line.startswith("{"):
        said = "\n".join((run.stdout + run.stderr).splitlines()[-10:])
        raise LaunchError(
            f"stack {stack.name!r}: {' '.join(interpreter(stack))} ended with code "
            f"{run.returncode} instead of telling its versions:\n{said}"
        )
    versions: dict[str, str] = json.loads(last_line)
    return versions


# As huggingface_hub lays out its cache, without importing it.
_REVISION: Final = """
import json, os, pathlib, re, sys
model, arguments = sys.argv[1], json.loads(sys.argv[2])
def given(option, default=""):
    for position, argument in enumerate(arguments):
        name, _, value = argument.partition("=")
        if name == option:
            return value or arguments[position + 1]
    return default
def commit(folder):
    config = folder / "config.json"
    told = json.loads(config.read_text()).get("_commit_hash") if config.exists() else None
    return told or (folder.name if folder.parent.name == "snapshots" else None)
home = os.environ.get("HF_HOME") or os.path.join(
    os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "huggingface")
hub = os.environ.get("HF_HUB_CACHE") or os.path.join(home, "hub")
found, folder = None, pathlib.Path(model)
if folder.is_dir():
    found = commit(folder.resolve())
else:
    cache = pathlib.Path(given("--download-dir", hub)) / ("models--" + model.replace("/", "--"))
    revision = given("--revision", "main")
    reference = cache / "refs" / revision
    name = reference.read_text().strip() if reference.is_file() else revision
    if (cache / "snapshots" / name).is_dir():
        found = name
is_commit = isinstance(found, str) and re.fullmatch("[0-9a-f]{7,64}", found)
print(json.dumps(found if is_commit else None))
"""


def model_revision(stack: Stack, model: str, *, arguments: Sequence[str] = ()) -> str | None:
    """Ask the stack for the commit of the snapshot that it serves; ``None``: it cannot tell.

    Args:
        stack: Where the model was loaded.
        model: Hugging Face repository, or a folder.
        arguments: The engine's; ``--revision`` and ``--download-dir`` say where to look.
    """
    try:
        run = subprocess.run(  # noqa: S603 the user's own interpreter, no shell
            [*interpreter(stack), "-c", _REVISION, model, json.dumps(list(arguments))],
            env=environment(stack),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PROBE_S,
            check=True,
        )
        told = json.loads((run.stdout.splitlines() or ["null"])[-1])
    except (OSError, subprocess.SubprocessError, ValueError):
        return None  # what it was is then unknown, and said; no reason not to measure
    return told if isinstance(told, str) else None


def require_any(
    packages: Mapping[str, str], names: Sequence[str], *, stack: Stack, remedy: str
) -> None:
    """Refuse a stack that holds none of the named distributions.

    Raises:
        MissingDependency: None is installed; names the interpreter and the remedy.
    """
    if not any(name in packages for name in names):
        raise MissingDependency(
            f"stack {stack.name!r}: {' '.join(interpreter(stack))} (Python "
            f"{packages.get('python', 'unknown')}) has no {' or '.join(names)}. {remedy}, or "
            f"name another interpreter: python in [tool.pytest-joules.stacks.{stack.name}]."
        )
