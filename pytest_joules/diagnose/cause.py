"""What a diagnosis is made of: causes with shares, evidence and the next step."""

import math
from dataclasses import dataclass
from typing import Literal

from pytest_joules.point import Point

Code = Literal[
    "batch-asked",
    "client-starved",
    "clocks",
    "configuration",
    "engine-slots",
    "gpu-waits",
    "gpu-work",
    "input-feed",
    "memory-capacity",
    "output-length",
    "parallelism",
    "power-cap",
    "prompt-length",
    "static-power",
    "thermal",
    "unknown",
]


@dataclass(frozen=True, kw_only=True)
class Sign:
    """One piece of evidence: a quantity then and now."""

    quantity: str
    then: float | str
    now: float | str
    unit: str = ""
    """``%`` for shares of 0 to 1; empty for names and plain counts."""


@dataclass(frozen=True, kw_only=True)
class Cause:
    """One latent factor and the part of the change that is its."""

    code: Code
    contribution: float
    """Its part of ln(energy now / energy then); positive is worse."""

    signs: tuple[Sign, ...] = ()

    @property
    def is_of_gpus(self) -> bool:
        """Whether the sides ran on different GPU models: told whatever is left for it."""
        return any(sign.quantity == "gpu" for sign in self.signs)

    @property
    def title(self) -> str:
        return TITLES[self.code][0]

    @property
    def next_step(self) -> str:
        return TITLES[self.code][1]


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """Why energy per work unit changed: contributions add up to the change."""

    point: Point
    """Now; ``then`` may be another one."""

    then: Point
    then_energy_j: float
    energy_j: float
    """Per work unit: the geometric means of the launches of each side."""

    identity: tuple[Sign, ...]
    """Power, step time and batch, whose changes add up exactly (``ln_parts``)."""

    ln_parts: tuple[float, ...]
    """ln P, ln step time, -ln batch, now minus then, in order of ``identity``."""

    causes: tuple[Cause, ...]
    """Largest first, ``unknown`` among them."""

    @property
    def ln_change(self) -> float:
        """ln(energy now / energy then)."""
        return math.log(self.energy_j / self.then_energy_j)

    def share(self, cause: Cause) -> float:
        """Return a cause's part of the change, 1 for all of it; NaN of no change."""
        return cause.contribution / self.ln_change if self.ln_change else math.nan


TITLES: dict[Code, tuple[str, str]] = {
    "batch-asked": (
        "another batch size was asked",
        "Compare equal batch sizes, or take the larger one where latency allows.",
    ),
    "memory-capacity": (
        "the memory holds fewer requests",
        (
            "Give the KV cache more room: --gpu-memory-utilization, an FP8 KV cache, shorter "
            "contexts or more GPUs; see what else the new stack keeps in memory."
        ),
    ),
    "engine-slots": (
        "requests wait though the KV cache has room",
        "See the engine's limits: --max-num-seqs, --max-num-batched-tokens, its scheduler.",
    ),
    "input-feed": (
        "requests are held up before the engine: the CPU cannot feed the GPU",
        "Profile tokenizing and image or video preprocessing; give the server more CPU cores.",
    ),
    "client-starved": (
        "the client keeps fewer requests in flight than asked",
        "Give the load generator a core of its own; see its lag and proxies on the way.",
    ),
    "gpu-waits": (
        "the GPU waits between kernels and draws static power",
        "Look at the host: CPU affinity and load, CUDA graphs, the scheduler's time per step.",
    ),
    "gpu-work": (
        "the GPU works longer for each step: precision overhead or less efficient kernels",
        "Profile a step in both stacks: attention backend, fused quantization, compilation.",
    ),
    "static-power": (
        "the GPU draws more power even when idle",
        "Compare temperature, memory clock, driver and persistence mode; see other boards.",
    ),
    "clocks": (
        "the GPU runs at other clocks",
        "See who set them: `nvidia-smi -q -d CLOCK`; reset with `nvidia-smi -rgc`.",
    ),
    "power-cap": (
        "the power limit holds the clocks down",
        "See `nvidia-smi -q -d POWER`; set the limit alike on both sides (`nvidia-smi -pl`).",
    ),
    "thermal": (
        "heat or the power supply holds the clocks down",
        "Look after cooling and power supply, then measure again.",
    ),
    "output-length": (
        "answers have another length, and with them the contexts that are read each step",
        "Compare stop conditions, sampling parameters and the chat template.",
    ),
    "prompt-length": (
        "prompts have another length, and with them the contexts that are read each step",
        "Compare the chat template and how images and videos become tokens.",
    ),
    "parallelism": (
        "another number of GPUs shares the work and waits for each other",
        "More GPUs pay where they allow a larger batch: compare each side's best batch size.",
    ),
    "configuration": (
        "what was asked for differs",
        "Compare results that differ in one field only to tell them apart.",
    ),
    "unknown": (
        "not told by what was measured",
        "Measure again with more launches; profile a step in both stacks.",
    ),
}
"""For each code what it means, and what to look at next."""
