"""Text on one GPU with the ``transformers`` library's own continuous batching."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pytest_joules import catalog
from pytest_joules.engines import dummies, workers
from pytest_joules.engines.folders import KEEP, LAUNCHES, marking_failure, new_folder
from pytest_joules.engines.text_server import TextServer
from pytest_joules.errors import InvalidPoint, LaunchError, is_expected
from pytest_joules.plan import Launch, Stack
from pytest_joules.point import Point
from pytest_joules.prompts import END_ID
from pytest_joules.stack import (
    environment,
    interpreter,
    model_revision,
    probe,
    require_any,
    visible_gpus,
)

__tracebackhide__ = is_expected

_PRECISIONS: Final = ("bf16", "fp16", "fp32")
_ATTENTION: Final = "attn_implementation"


@dataclass(frozen=True, kw_only=True)
class TransformersEngine:
    """Loads models with a stack's own interpreter."""

    name: str = "transformers"
    attaches: bool = False
    folder: Path = LAUNCHES
    """Gets one sub-folder a launch, with its log and its loads."""

    keep: int = KEEP
    """Sub-folders that stay."""

    def versions(self, stack: Stack) -> dict[str, str]:
        """Ask the stack; raises as ``stack.probe``."""
        return probe(stack)

    @contextmanager
    def started(self, launch: Launch, *, gpu_uuids: Sequence[str] = ()) -> Iterator[TextServer]:
        """Load the launch's model in a worker; end it on leaving.

        Raises:
            InvalidPoint: The model does not come in the point's precision, or an argument is
                no ``NAME=VALUE``.
            MissingDependency: The stack has no interpreter, no torch or no transformers.
            LaunchError: It did not become ready; the message holds the end of its log.
        """
        job = job_of(launch)
        packages = probe(launch.stack, gpu_uuids=gpu_uuids)
        for name in ("torch", "transformers"):
            remedy = "Install it there with 'pip install torch transformers accelerate'"
            require_any(packages, (name,), stack=launch.stack, remedy=remedy)
        folder = new_folder(self.folder, launch, keep=self.keep)
        job["model"] = dummies.located(launch.largest, folder)
        env = environment(launch.stack, visible_gpus(gpu_uuids))
        with (
            marking_failure(folder),
            workers.started(interpreter(launch.stack), job, env=env, folder=folder) as worker,
        ):
            facts = worker.await_ready(launch.stack.deadline_s)[0]
            _require_vocabulary(facts["vocabulary"], launch.largest)
            server = TextServer(worker, facts, packages, folder=folder)
            server.model_revision = model_revision(launch.stack, job["model"])
            yield server


def job_of(launch: Launch) -> dict[str, Any]:
    """Say what the worker loads.

    Raises:
        InvalidPoint: As ``TransformersEngine.started``.
    """
    point = launch.largest
    _require_precision(point)
    arguments = dict(
        _argument(text, point) for text in (*launch.stack.args, *point.engine_args)
    )
    return {
        "engine": "transformers",
        "model": point.model,
        "precision": point.precision,
        "weights": point.weights,
        "batch_size": point.batch_size,
        "prefix_caching": point.prefix_caching,
        "trust_remote_code": point.trust_remote_code,
        "attention": arguments.pop(_ATTENTION, ""),
        "arguments": arguments,
    }


def _require_precision(point: Point) -> None:
    known = catalog.model(point.model)
    published = known.precision if known else point.precision
    if published == point.precision and (
        point.precision in _PRECISIONS or point.weights == "real"
    ):
        return
    if published in _PRECISIONS and point.precision in _PRECISIONS:
        return
    raise InvalidPoint(
        f"{point.id}: engine='transformers' loads weights={point.weights!r} of {point.model} "
        f"in {published if point.weights == 'real' else ', '.join(_PRECISIONS)}, not in "
        f"precision={point.precision!r}; name other weights or another engine."
    )


def _require_vocabulary(size: int, point: Point) -> None:
    if size < END_ID:
        raise LaunchError(
            f"{point.model} knows {size} tokens, but prompts hold ids up to {END_ID - 1}; it "
            "is too small to be a language model in use."
        )


def _argument(text: str, point: Point) -> tuple[str, Any]:
    """Read ``NAME=VALUE``, the value as JSON or else as the text that it is."""
    name, mark, value = text.lstrip("-").partition("=")
    if not mark or not name.isidentifier():
        raise InvalidPoint(
            f"{point.id}: argument {text!r}: engine='transformers' takes NAME=VALUE with a "
            f"name of ContinuousBatchingConfig ('max_batch_tokens=2048') or {_ATTENTION}."
        )
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value
