"""Diffusion pipelines of ``diffusers``, on one device or with xDiT on several.

An order is ``{"batches": n, "batch_size": b, "arguments": {...}}``; each batch gives an event
``batch`` with when the pipeline was called and had returned on every rank, and what it made.
"""

import gc
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from importlib import import_module
from time import monotonic
from typing import Any

from pytest_joules.engines.worker import components
from pytest_joules.engines.worker.device import choose

_THINGS = ("lighthouse", "market", "violin", "glacier", "tram", "orchard", "desert", "harbour")


class Work:
    """One pipeline, called as ordered."""

    def __init__(self, job: Any, pipe: Any, *, device: str, call: Callable[..., Any]) -> None:
        self._job, self._pipe, self._call = job, pipe, call
        self._torch = import_module("torch")
        self._device = device
        self._embeds: dict[int, dict[str, Any]] = {}

    def facts(self) -> dict[str, Any]:
        """Tell what was built."""
        transformer = self._pipe.transformer
        return {
            "pid": os.getpid(),
            "device": self._device,
            "pipeline": type(self._pipe).__name__,
            "transformer": type(transformer).__name__,
            "parameters": sum(p.numel() for p in transformer.parameters()),
        }

    def run(self, order: Any) -> Iterator[tuple[str, dict[str, Any]]]:
        """Call the pipeline; nothing but its calls lies between a batch's two times."""
        arguments = {**order["arguments"], **self._conditions(order["batch_size"])}
        generator = self._torch.Generator(self._device).manual_seed(self._job["seed"])
        self._settle()
        for _ in range(order["batches"]):
            started_s = monotonic()
            output = self._call(generator=generator, **arguments)
            self._settle()
            yield (
                "batch",
                {
                    "started_s": started_s,
                    "finish_s": monotonic(),
                    "made": made(output),
                },
            )

    def _conditions(self, batch_size: int) -> dict[str, Any]:
        pipeline = self._job["pipeline"]
        if self._job["components"] is None:
            return {**pipeline["arguments"], "prompt": prompts(batch_size)}
        if batch_size not in self._embeds:
            self._embeds[batch_size] = components.embeds(
                pipeline, self._pipe, batch_size=batch_size, device=self._device
            )
        absent = dict.fromkeys(pipeline["absent"])
        return {**pipeline["arguments"], **absent, **self._embeds[batch_size]}

    def _settle(self) -> None:
        """Wait until the device has done all it was given, and so have the other ranks'."""
        if self._device.startswith("cuda"):
            self._torch.cuda.synchronize()
        if self._torch.distributed.is_initialized():
            self._torch.distributed.barrier()


def prompts(batch_size: int) -> list[str]:
    """Return prompts; pipelines pad them to one length, so their words cost nothing."""
    return [
        f"A photograph of a {_THINGS[index % len(_THINGS)]} at dawn, number {index}"
        for index in range(batch_size)
    ]


def made(output: Any) -> list[int] | None:
    """Return how many were made, of how many frames, height and width.

    ``None`` on ranks that return nothing: with xDiT only the last one decodes.
    """
    found: Any = getattr(output, "images", getattr(output, "frames", None))
    if found is None or len(found) == 0 or found[0] is None:
        return None
    first = found[0]
    if hasattr(first, "size") and hasattr(first, "height"):  # a PIL image
        return [len(found), 1, first.height, first.width]
    if isinstance(first, list):  # a video as PIL images
        return [len(found), len(first), first[0].height, first[0].width]
    return [len(found), *first.shape[:3]]  # a video as an array


@contextmanager
def prepared(job: Any) -> Iterator[Work]:
    """Build the job's pipeline; tear it and what it runs on down.

    Raises:
        RuntimeError: There is no GPU.
    """
    device = choose()
    with ExitStack() as stack:
        if job["engine"] == "xdit":
            xdit = import_module("pytest_joules.engines.worker.xdit")
            pipe, call = stack.enter_context(xdit.parallel(job, device=device))
        else:
            pipe = call = components.pipeline(job, device=device)
        pipe.set_progress_bar_config(disable=True)
        if job["pipeline"]["tiling"]:
            pipe.vae.enable_tiling()
        gc.collect()
        gc.freeze()  # a collection amid a batch would walk all that was loaded
        yield Work(job, pipe, device=device, call=call)
