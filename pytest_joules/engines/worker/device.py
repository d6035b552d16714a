"""Where a worker computes: on its GPU, and on the CPU only where that is asked for."""

import os
from importlib import import_module

DEVICE = "PYTEST_JOULES_DEVICE"
"""Environment variable: the kind of device to run on. Without a GPU the worker fails, unless
this says ``cpu``: a GPU's energy must never be taken for the CPU's work."""

DTYPES = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}
"""torch's names of the precisions that any weights can be loaded in."""


def choose() -> str:
    """Return this rank's device, in torch's words, and make it the current one.

    Raises:
        RuntimeError: There is no GPU.
    """
    torch = import_module("torch")
    device = os.environ.get(DEVICE, "cuda")
    if device != "cuda":
        return device
    if not torch.cuda.is_available():
        raise RuntimeError(
            f"torch {torch.__version__} sees no GPU. Install a build of torch for this "
            f"GPU in the stack; {DEVICE}=cpu runs on the CPU, whose energy no GPU tells."
        )
    chosen = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
    torch.cuda.set_device(chosen)
    return chosen
