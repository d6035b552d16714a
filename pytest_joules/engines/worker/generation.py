"""Continuous batching of the ``transformers`` library: a closed loop beside the model.

An order is ``{"requests": PATH, "batch_size": b, "deadline_s": d, ...}`` with a file of
``[index, prompt tokens, most output tokens]``; each request that ends gives an event
``request`` with its times, and the last event ``ended`` tells when the load began and ended.
Besides the library, only modules of the plugin that need nothing but the standard library are
used: the prompts of a seed, and the rule when a load was long enough.
"""

import gc
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from time import monotonic
from types import SimpleNamespace
from typing import Any

from pytest_joules.engines.worker.device import DTYPES, choose

_LOOK_S = 0.5
_NO_END = -1
_FAILURES = 8


class Work:
    """One model that generates continuously, loaded as ordered."""

    def __init__(self, job: Any, manager: Any, model: Any) -> None:
        self._job, self._manager, self._model = job, manager, model

    def facts(self) -> dict[str, Any]:
        """Tell what was built."""
        config = self._model.config.get_text_config()
        return {
            "pid": os.getpid(),
            "device": str(self._model.device),
            "model": type(self._model).__name__,
            "parameters": sum(p.numel() for p in self._model.parameters()),
            "attention": self._model.config._attn_implementation,  # noqa: SLF001  no other name
            "vocabulary": config.vocab_size,
            "context": getattr(config, "max_position_embeddings", None),
        }

    def run(self, order: Any) -> Iterator[tuple[str, dict[str, Any]]]:
        """Keep ``batch_size`` requests in the engine until there are enough."""
        loop = _Loop(order, self._manager, self._ids)
        started_s = monotonic()
        for _ in range(order["batch_size"]):
            loop.submit()
        while loop.in_flight:
            result = self._manager.get_result(timeout=_LOOK_S)
            if result is None:
                self._require_running()
                loop.require_before(started_s + order["deadline_s"])
            elif result.is_finished():
                yield "request", loop.take(result)
                loop.submit()
        yield (
            "ended",
            {
                "started_s": started_s,
                "ended_s": monotonic(),
                "given_up": loop.given_up,
            },
        )

    def _require_running(self) -> None:
        status = self._manager.background_thread_status
        if not self._manager.is_running() or status.fatal_error is not None:
            raise RuntimeError(f"continuous batching ended: {status.fatal_error}")

    def _ids(self, order: Any, index: int, length: int) -> list[int]:
        prompts = import_module("pytest_joules.prompts")
        made: list[int] = prompts.prompt_ids(order["seed"], index, length)
        return made


class _Loop:
    """Decides which request comes next, and remembers what is in flight."""

    def __init__(self, order: Any, manager: Any, ids: Any) -> None:
        self._order, self._manager, self._ids = order, manager, ids
        self._asked = iter(json.loads(Path(order["requests"]).read_text(encoding="utf-8")))
        self._enough = import_module("pytest_joules.steady_state").is_long_enough
        self._answered: list[Any] = []
        self._failed_in_a_row = self._issued = 0
        self._is_long = False
        self.in_flight: dict[str, tuple[int, float]] = {}
        self.given_up = ""

    def submit(self) -> None:
        """Hand the next request over, unless there are enough."""
        if self.given_up or self._is_enough():
            return
        following = next(self._asked, None)
        if following is None:
            return
        index, prompt_tokens, output_tokens = following
        key = f"{self._order['name']}-{index}"
        self._issued += 1
        self.in_flight[key] = index, monotonic()
        self._manager.add_request(
            self._ids(self._order, index, prompt_tokens),
            request_id=key,
            max_new_tokens=output_tokens,
            record_timestamps=True,
            eos_token_id=_NO_END if self._order["pinned"] else None,
        )

    def _is_enough(self) -> bool:
        order = self._order
        return order["is_open"] and self._issued >= 3 * order["batch_size"] and self._is_long

    def take(self, result: Any) -> dict[str, Any]:
        """Remember how a request ended; return what is told of it."""
        index, sent_s = self.in_flight.pop(result.request_id)
        finish_s = monotonic()
        self._answered.append(SimpleNamespace(sent_s=sent_s, finish_s=finish_s))
        if len(self._answered) % max(1, self._order["batch_size"] // 16) == 0:
            self._is_long = self._is_long or self._enough(
                self._answered, min_window_s=self._order["min_window_s"]
            )
        self._failed_in_a_row = self._failed_in_a_row + 1 if result.error else 0
        limit = max(_FAILURES, self._order["batch_size"])
        if self._failed_in_a_row >= limit and not self.given_up:
            self.given_up = (
                f"{self._failed_in_a_row} requests failed one after the other, the last with: "
                f"{result.error}"
            )
        return {
            "index": index,
            "sent_s": sent_s,
            # perf_counter and monotonic are one clock on Linux
            "scheduled_s": result.lifespan[0],
            "finish_s": finish_s,
            "prompt_tokens": len(result.prompt_ids),
            "output_tokens": len(result.generated_tokens),
            "token_s": [round(time_s, 5) for time_s in result.timestamps or ()],
            "error": result.error,
        }

    def require_before(self, end_s: float) -> None:
        """Give up what lasts too long: the rest is cancelled."""
        if monotonic() < end_s or self.given_up:
            return
        self.given_up = (
            f"it was not finished after its deadline of {self._order['deadline_s']:g} s."
        )
        for key in self.in_flight:
            self._manager.cancel_request(key)
        self.in_flight.clear()


@contextmanager
def prepared(job: Any) -> Iterator[Work]:
    """Load the job's model and start to batch; stop on leaving.

    Raises:
        RuntimeError: There is no GPU.
    """
    torch, transformers = import_module("torch"), import_module("transformers")
    settings = import_module("transformers.generation.configuration_utils")
    if not hasattr(settings, "ContinuousBatchingConfig"):
        raise RuntimeError(
            f"transformers {transformers.__version__} has no ContinuousBatchingConfig; install "
            "a newer one in the stack (5.19 is tested)."
        )
    batching = settings.ContinuousBatchingConfig(
        max_requests_per_batch=job["batch_size"],
        allow_block_sharing=job["prefix_caching"],
        seed=0,
        **job["arguments"],
    )
    model = _model(job, device=choose())
    generation = transformers.GenerationConfig(
        do_sample=False, eos_token_id=_ends(model), pad_token_id=0
    )
    manager = model.init_continuous_batching(generation, batching)
    with torch.no_grad():
        manager.warmup()
        manager.start()
    gc.collect()
    gc.freeze()  # a collection amid a load would walk all that was loaded
    try:
        yield Work(job, manager, model)
    finally:
        manager.stop(block=True, timeout=5)


def _ends(model: Any) -> Any:
    made = getattr(model.generation_config, "eos_token_id", None)
    found = made if made is not None else getattr(model.config, "eos_token_id", None)
    return _NO_END if found is None else found


def _model(job: Any, *, device: str) -> Any:
    torch, transformers = import_module("torch"), import_module("transformers")
    named = DTYPES.get(job["precision"])
    dtype = getattr(torch, named) if named else "auto"
    trust = {"trust_remote_code": job["trust_remote_code"]}
    made_by = transformers.AutoModelForCausalLM
    extra = {"attn_implementation": job["attention"]} if job["attention"] else {}
    if job["weights"] == "real":
        model = made_by.from_pretrained(job["model"], dtype=dtype, **trust, **extra)
        return model.to(device)
    config = transformers.AutoConfig.from_pretrained(job["model"], **trust)
    with torch.device(device):
        return made_by.from_config(config, dtype=dtype, **trust, **extra)
