"""How vLLM is started for a launch, and what its known failures mean; pure."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Final

from pytest_joules import catalog
from pytest_joules.errors import InvalidPoint, is_expected
from pytest_joules.hiding import beginning
from pytest_joules.plan import Launch
from pytest_joules.point import Point
from pytest_joules.stack import visible_gpus

__tracebackhide__ = is_expected

HOST: Final = "127.0.0.1"
"""Loopback only, worker ports included: nothing outside this machine can reach it."""

_CAUSE_CHARS: Final = 300
_DTYPES: Final = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}
_ERROR: Final = re.compile(r"\b[\w.]*(?:Error|Exception): .+$")
_DEATH: Final = re.compile(
    r"engine core exited unexpectedly|\b\w+ proc\w* .* died unexpectedly"
)
# What the API server says when an engine core has told the cause before.
_CONSEQUENCES: Final = ("Engine core initialization failed", "EngineDeadError")
_PORT_TAKEN: Final = re.compile(r"address already in use|EADDRINUSE|Errno 98\b", re.IGNORECASE)
_HINTS: Final = (
    (_PORT_TAKEN, "another process took the port in the meantime; run it again."),
    (
        re.compile(
            r"HFValidationError|Repo id must|does not appear to have a file named config"
        ),
        (
            "the model is neither a folder with a config.json nor a Hugging Face repository; "
            "check the point's model."
        ),
    ),
    (
        re.compile(r"offline mode is enabled|LocalEntryNotFoundError|couldn't connect to"),
        (
            "the model is not in the cache and cannot be downloaded; download it before, or "
            "unset HF_HUB_OFFLINE."
        ),
    ),
    (
        re.compile(r"GatedRepoError|401 Client Error|403 Client Error"),
        "the model needs a Hugging Face account that has accepted its licence; set HF_TOKEN.",
    ),
    (
        re.compile(r"architectures? .{0,80}not supported|are not supported for now", re.DOTALL),
        "this vLLM does not know the model's architecture; use a newer stack.",
    ),
    (
        re.compile(r"greater than the derived max_model_len"),
        "the context asked is longer than the model's; lower the point's max_model_len.",
    ),
    (
        re.compile(r"Cannot find any model weights|no \.safetensors|No such file.*safetensors"),
        'the model folder holds no weights; use weights="dummy" to measure without them.',
    ),
    (
        re.compile(r"To serve at least one request|No available memory for the cache blocks"),
        (
            "the KV cache cannot hold one request of full length; lower max_model_len, use "
            "more GPUs, or raise --gpu-memory-utilization (VLLM_CPU_KVCACHE_SPACE on a CPU)."
        ),
    ),
    (
        re.compile(
            r"Available memory on node|less than desired GPU memory|Free memory on device"
        ),
        (
            "another process holds the memory that vLLM asks for; end it, or lower "
            "--gpu-memory-utilization (VLLM_CPU_KVCACHE_SPACE on a CPU)."
        ),
    ),
    (
        re.compile(r"out of memory|OutOfMemoryError", re.IGNORECASE),
        "the model does not fit; use more GPUs, a lower precision or a smaller batch.",
    ),
    (
        re.compile(r"unrecognized arguments|error: argument "),
        (
            "this vLLM does not know one of the arguments; check the stack's args and the "
            "point's engine_args."
        ),
    ),
)


def argv(launch: Launch, port: int) -> tuple[str, ...]:
    """Return the arguments of the interpreter that serve a launch.

    The server is started for the launch's largest batch; smaller ones limit concurrency.

    Raises:
        InvalidPoint: The point asks a precision that its model does not come in.
    """
    point = launch.largest
    model, quantization = weights(point)
    return (
        *("-m", "vllm.entrypoints.openai.api_server"),
        *("--host", HOST, "--port", str(port), "--uvicorn-log-level", "warning"),
        *("--model", model, "--served-model-name", point.model),
        *("--max-num-seqs", str(point.batch_size), "--seed", "0"),
        *_parallelism(point),
        *quantization,
        *_options(point),
        *_vision(point),
        *launch.stack.args,
        *point.engine_args,
    )


def weights(point: Point) -> tuple[str, tuple[str, ...]]:
    """Return the model to load, and the arguments that make its precision the asked one.

    Raises:
        InvalidPoint: Its published weights have another precision that vLLM cannot turn
            into the asked one.
    """
    known = catalog.model(point.model)
    if known and known.precision == point.precision:
        return point.model, ()
    if point.precision == "fp8":
        if known and known.fp8_model_id:
            return known.fp8_model_id, ()
        return point.model, ("--quantization", "fp8")
    if known and (known.precision not in _DTYPES or point.precision not in _DTYPES):
        raise InvalidPoint(
            f"{point.id}: precision={point.precision!r}, but the weights of {point.model} are "
            f"published in {known.precision}. Name a repository with {point.precision} "
            f"weights, or leave precision out."
        )
    dtype = _DTYPES.get(point.precision)
    return point.model, ("--dtype", dtype) if dtype else ()


def _parallelism(point: Point) -> tuple[str, ...]:
    tensor = point.tensor_parallel or point.num_gpus // point.data_parallel
    return (
        *("--tensor-parallel-size", str(tensor)),
        *("--data-parallel-size", str(point.data_parallel)),
        *(("--enable-expert-parallel",) if point.expert_parallel else ()),
    )


def _options(point: Point) -> tuple[str, ...]:
    prefix = "" if point.prefix_caching else "no-"
    length = point.max_model_len
    return (
        f"--{prefix}enable-prefix-caching",
        *(("--load-format", "dummy") if point.weights == "dummy" else ()),
        *(("--max-model-len", str(length)) if length is not None else ()),
        *(("--trust-remote-code",) if point.trust_remote_code else ()),
    )


def _vision(point: Point) -> tuple[str, ...]:
    vision = point.vision
    if vision is None:
        return ()
    # Real users rarely show the same image twice: with a cache, the second would be free.
    cache = () if point.prefix_caching else ("--mm-processor-cache-gb", "0")
    limit = json.dumps({vision.kind: vision.num_images})
    rate = {"fps": vision.fps} if vision.fps else {}
    frames = {"video": {"num_frames": vision.num_frames, **rate}}
    # On the command line, for a server takes them from no request unless it trusts them all.
    loading = ("--media-io-kwargs", json.dumps(frames)) if vision.kind == "video" else ()
    return (*cache, "--limit-mm-per-prompt", limit, *loading)


def variables(api_key: str, gpu_uuids: Sequence[str]) -> Mapping[str, str]:
    """Return the environment variables that a server gets besides the stack's.

    GPUs are named by UUID: an index may mean different boards to CUDA and to NVML.
    """
    ours = {"VLLM_API_KEY": api_key, "VLLM_NO_USAGE_STATS": "1"}
    return {**ours, **visible_gpus(gpu_uuids)}


def is_port_taken(log: str) -> bool:
    """Tell whether a server failed because its port was taken between choice and use."""
    return _PORT_TAKEN.search(log) is not None


def hint(log: str) -> str:
    """Return what to do about a failure, where its log shows a known one; else nothing."""
    return next((text for pattern, text in _HINTS if pattern.search(log)), "")


def cause(log: str) -> str:
    """Return the first error of a log that is no consequence of another; else nothing.

    The end of a log shows what failed last: the process that waited for the one that failed.
    """
    for line in log.splitlines():
        if _DEATH.search(line):
            return beginning(line, _CAUSE_CHARS)
        found = None if "WARNING" in line else _ERROR.search(line)
        if found and not any(later in line for later in _CONSEQUENCES):
            return beginning(found.group(), _CAUSE_CHARS)
    return ""
