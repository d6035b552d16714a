"""What the fields of a point must be, each for itself and beside the others."""

from collections.abc import Collection, Mapping, Sequence
from types import NoneType
from typing import Any, Final

from pytest_joules.errors import InvalidPoint, is_expected
from pytest_joules.point.engine_rules import require_arguments, require_engine
from pytest_joules.point.vision import FIELDS, require_absent
from pytest_joules.tasks import Lengths, Task

__tracebackhide__ = is_expected

PRECISIONS: Final = ("fp32", "bf16", "fp16", "fp8", "mxfp4", "nvfp4", "int8", "int4")
ENGINES: Final = ("vllm", "transformers", "diffusers", "xdit", "endpoint")
LENGTHS: Final = ("input_tokens", "output_tokens")
_DEGREES: Final = ("ulysses_degree", "ring_degree")
_DIFFUSION: Final = ("steps", "height", "width", "num_frames", "fps", *_DEGREES)
_COUNTS: Final = (
    *("batch_size", "num_gpus", "data_parallel", "tensor_parallel", "num_requests"),
    *("max_model_len", "num_images", *_DIFFUSION),
)
_NAMES: Final = ("model", "task", "precision", "engine", "weights", "mode", "media")
_SWITCHES: Final = ("prefix_caching", "shared_server", "expert_parallel", "trust_remote_code")


def require_types(values: Mapping[str, Any], *, may_be_none: Collection[str]) -> None:
    """Refuse a field of a wrong type, or a number out of its range.

    Args:
        values: The fields by name.
        may_be_none: Numbers that need not be set.

    Raises:
        InvalidPoint: Names the field, with its value.
    """
    for name in (*_COUNTS, "seed"):
        if values[name] is not None or name not in may_be_none:
            _require_whole_number(name, values[name], least=0 if name == "seed" else 1)
    _require_each(values, _NAMES, str, wanted="a string")
    _require_each(values, _SWITCHES, bool, wanted="True or False")
    _require_each(
        values, LENGTHS, (Lengths, NoneType), wanted="Lengths(mean=..., cv=...) or None"
    )
    args, model = values["engine_args"], values["model"]
    if not isinstance(args, list | tuple) or not all(isinstance(arg, str) for arg in args):
        raise InvalidPoint(f"engine_args={args!r}: give a list of strings.")
    if not model.strip() or "\0" in model or model.startswith("-"):
        # An engine would take a leading dash for one of its own options.
        raise InvalidPoint(f"model={model!r}: give a Hugging Face repository or a folder.")


def _require_whole_number(name: str, value: Any, *, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise InvalidPoint(f"{name}={value!r}: give a whole number of at least {least}.")


def _require_each(
    values: Mapping[str, Any], names: Sequence[str], kind: Any, *, wanted: str
) -> None:
    for name in names:
        if not isinstance(values[name], kind):
            raise InvalidPoint(f"{name}={values[name]!r}: give {wanted}.")


def require_consistent(values: Mapping[str, Any], asked: Task, given: Collection[str]) -> None:
    """Refuse fields that mean nothing or contradict each other; those of vision tell later.

    Args:
        values: The fields by name, with precision and engine filled in.
        asked: The point's task.
        given: Fields that were set away from their defaults.

    Raises:
        InvalidPoint: Names the fields with their values and the remedy.
    """
    _require_one_of("precision", values["precision"], PRECISIONS)
    _require_one_of("engine", values["engine"], ENGINES)
    _require_one_of("weights", values["weights"], ("real", "dummy"))
    _require_one_of("mode", values["mode"], ("fixed", "natural"))
    least = 3 * values["batch_size"]
    if values["num_requests"] is not None and values["num_requests"] < least:
        raise InvalidPoint(
            f"num_requests={values['num_requests']} cannot hold {values['batch_size']} "
            "requests in flight long enough to measure: one batch is spent ramping up and "
            f"another draining. Use num_requests >= {least}, or leave it out."
        )
    require_engine(values["engine"], asked, given)
    require_arguments(values["engine_args"])
    _require_parallelism(values)
    _require_diffusion(values, asked)


def _require_one_of(name: str, value: str, allowed: Sequence[str]) -> None:
    if value not in allowed:
        raise InvalidPoint(f"{name}={value!r} is unknown; choose one of {', '.join(allowed)}.")


def _require_parallelism(values: Mapping[str, Any]) -> None:
    tensor, data = values["tensor_parallel"] or 1, values["data_parallel"]
    num_gpus = values["num_gpus"]
    if tensor * data > num_gpus:
        raise InvalidPoint(
            f"tensor_parallel={tensor} x data_parallel={data} needs {tensor * data} GPUs, but "
            f"num_gpus={num_gpus}. Use num_gpus={tensor * data} or lower the parallelism."
        )
    if num_gpus % data:
        raise InvalidPoint(
            f"num_gpus={num_gpus} cannot be divided into data_parallel={data} equal groups."
        )


def _require_diffusion(values: Mapping[str, Any], asked: Task) -> None:
    shown = FIELDS if asked.vision else ()
    out_of_place = {
        "token": [name for name in _DIFFUSION if name not in shown],
        "image": ["num_frames", "fps", "num_images", "media"],
        "video": ["num_images", "media"],
    }
    require_absent(out_of_place[asked.work_unit], values, asked)
    num_gpus = values["num_gpus"]
    if values["engine"] == "diffusers" and num_gpus > 1:
        raise InvalidPoint(
            f"engine='diffusers' runs on one GPU, but num_gpus={num_gpus}; use "
            "engine='xdit', or leave engine out."
        )
    ulysses, ring = (values[name] for name in _DEGREES)
    degrees = (ulysses or 1) * (ring or 1)
    if (ulysses or ring) and degrees != num_gpus:
        raise InvalidPoint(
            f"ulysses_degree x ring_degree = {degrees}, but num_gpus={num_gpus}: "
            "their product must equal the number of GPUs."
        )
