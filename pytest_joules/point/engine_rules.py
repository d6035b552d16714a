"""Which engine runs which task, and which fields of a point it cannot heed."""

from collections.abc import Collection, Mapping, Sequence
from typing import Final

from pytest_joules.errors import InvalidPoint, is_expected
from pytest_joules.point.engine_arguments import refused
from pytest_joules.tasks import Task

__tracebackhide__ = is_expected

_SERVED: Final = ("text", "image-input", "video-input")
_MADE: Final = ("image-output", "video-output")
_MODALITIES: Final[Mapping[str, Collection[str]]] = {
    "vllm": _SERVED,
    "endpoint": _SERVED,
    "transformers": ("text",),
    "diffusers": _MADE,
    "xdit": _MADE,
}
_OF_A_LAUNCH: Final = (
    "engine_args",
    "tensor_parallel",
    "data_parallel",
    "expert_parallel",
    "max_model_len",
    "trust_remote_code",
    "shared_server",
)
_NO_REMOTE_CODE: Final = (
    ("trust_remote_code",),
    "it runs the library's own pipelines, and no code of a repository",
)
_CANNOT_SET: Final[Mapping[str, tuple[Collection[str], str]]] = {
    "endpoint": (
        _OF_A_LAUNCH,
        "the server is started by somebody else, so set it there",
    ),
    "transformers": (
        ("num_gpus", "tensor_parallel", "data_parallel", "expert_parallel", "max_model_len"),
        "it runs on one GPU, in the model's own context",
    ),
    "diffusers": _NO_REMOTE_CODE,
    "xdit": _NO_REMOTE_CODE,
}


def require_engine(engine: str, spec: Task, given: Collection[str]) -> None:
    """Refuse a task that the engine cannot run, and fields that it cannot heed.

    Args:
        engine: Its name.
        spec: The task.
        given: Fields of the point that were set away from their defaults.

    Raises:
        InvalidPoint: Names the engine, and the task or the fields.
    """
    if spec.modality not in _MODALITIES[engine]:
        able = ", ".join(name for name, known in _MODALITIES.items() if spec.modality in known)
        raise InvalidPoint(
            f"engine={engine!r} cannot run task={spec.name!r}; engines that can: {able}."
        )
    names, reason = _CANNOT_SET.get(engine, ((), ""))
    wrong = [name for name in names if name in given]
    if wrong:
        raise InvalidPoint(
            f"{', '.join(wrong)} cannot be set with engine={engine!r}: {reason}. Leave it out, "
            "or use another engine."
        )


def require_arguments(arguments: Sequence[str]) -> None:
    """Refuse further arguments that would open what is kept closed.

    Raises:
        InvalidPoint: Names the argument and the remedy.
    """
    for name, remedy in refused(arguments):
        raise InvalidPoint(f"engine_args: {name} is refused; {remedy}.")
