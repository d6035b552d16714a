"""What one step asks of each GPU, and what that costs: the model's formulas.

Every quantity may be a number or an array, so that the fit evaluates all rows at once with
the same code as a prediction.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pytest_joules.latent.parameters import Parameters

Value = Any  # float or numpy array; numpy's own types do not unite both


@dataclass(frozen=True, kw_only=True)
class Work:
    """Asked of one GPU in one step; of all of them where it says so."""

    num_gpus: Value
    weight_bytes: Value = 0.0
    kv_bytes: Value = 0.0
    decode_flop: Value = 0.0
    prefill_flop: Value = 0.0
    diffusion_flop: Value = 0.0
    attention_flop: Value = 0.0
    fp8_ratio: Value = 0.0
    """Share of the arithmetic in FP8."""

    num_layers: Value = 0.0
    num_expert_layers: Value = 0.0
    num_fp8_layers: Value = 0.0
    num_passes: Value = 1.0
    num_diffusion_layers: Value = 0.0
    num_collectives: Value = 0.0
    link_bytes: Value = 0.0
    num_sequences: Value = 0.0
    pixels: Value = 0.0
    host_s: Value = 0.0
    input_s: Value = 0.0
    """Host time for the inputs of this step."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """One step of an engine, or one batch of a diffusion model."""

    duration_s: float
    energy_j: float
    """Of all GPUs."""

    flop: float
    bytes_moved: float
    waiting_s: float
    """Of ``duration_s``: the GPUs wait for the host."""

    terms_s: Mapping[str, float]
    """Seconds by cause; they add up to ``duration_s``."""

    terms_j: Mapping[str, float]
    """Joules of all GPUs by cause; they add up to ``energy_j``."""

    @property
    def power_w(self) -> float:
        """Of all GPUs."""
        return self.energy_j / self.duration_s


def times_s(work: Work, p: Parameters, *, clock: Value = 1.0) -> dict[str, Value]:
    """Seconds of one step by cause; all but ``host`` and ``input`` keep the GPU busy."""
    flop_per_s = p.gpu.bf16_flop_per_s * clock
    speed = 1 + work.fp8_ratio * (
        (p.gpu.fp8_flop_per_s or p.gpu.bf16_flop_per_s) / p.gpu.bf16_flop_per_s - 1
    )
    bandwidth = p.gpu.bandwidth_bytes_per_s
    overhead_s = (
        p.step_overhead_s * (work.num_layers > 0)
        + work.num_layers * p.layer_overhead_s
        + work.num_diffusion_layers * work.num_passes * p.diffusion_layer_overhead_s
        + work.pixels * p.pixel_s
    )
    busy = {
        "weights": work.weight_bytes / (bandwidth * p.weight_bandwidth_ratio),
        "kv": work.kv_bytes / (bandwidth * p.kv_bandwidth_ratio),
        "arithmetic": work.decode_flop / (flop_per_s * speed * p.decode_flop_ratio)
        + work.diffusion_flop / (flop_per_s * p.diffusion_flop_ratio)
        + work.attention_flop / (flop_per_s * p.attention_flop_ratio),
        "prefill": work.prefill_flop / (flop_per_s * speed * p.prefill_flop_ratio),
        "overhead": overhead_s / clock,
        "experts": work.num_expert_layers * p.expert_layer_overhead_s / clock,
        "precision": work.num_fp8_layers * p.fp8_layer_overhead_s / clock,
        "sequences": work.num_sequences * p.sequence_overhead_s,
        "collectives": work.num_collectives * p.collective_latency_s
        + work.link_bytes / p.link_bytes_per_s,
    }
    busy_s = sum(busy.values())
    return {
        **busy,
        "host": work.host_s,
        "input": np.maximum(0.0, work.input_s - busy_s - work.host_s),
    }


def energies_j(
    work: Work, seconds: Mapping[str, Value], p: Parameters, *, clock: Value = 1.0
) -> dict[str, Value]:
    """Joules of one step on one GPU by cause, before any cap."""
    total_s = sum(seconds.values())
    busy_s = total_s - seconds["host"] - seconds["input"]
    flop = work.decode_flop + work.prefill_flop + work.diffusion_flop + work.attention_flop
    cheaper = 1 - work.fp8_ratio * (1 - p.fp8_energy_ratio)
    return {
        "static": p.static_power_w * total_s,
        "busy": p.busy_power_w * busy_s * clock**2,
        "arithmetic": flop * cheaper * p.energy_per_flop_j * clock**2,
        "memory": (work.weight_bytes + work.kv_bytes) * p.energy_per_byte_j,
        "link": work.link_bytes * p.energy_per_link_byte_j,
    }


def step(
    work: Work, p: Parameters, *, clock: float = 1.0, power_limit_w: float | None = None
) -> Step:
    """Cost one step, its power held at the limit by lowering the clock.

    Dynamic power goes with the cube of the clock (voltage falls with it), time with its
    inverse: at the limit the step takes ``((P - static) / (limit - static)) ** (1/3)`` longer.
    """
    limit_w = p.gpu.tdp_w if power_limit_w is None else power_limit_w
    seconds = times_s(work, p, clock=clock)
    joules = energies_j(work, seconds, p, clock=clock)
    duration_s = float(sum(seconds.values()))
    energy_j = float(sum(joules.values()))
    dynamic_w = (energy_j - joules["static"]) / duration_s
    room_w = max(limit_w - p.static_power_w, 1e-3 * limit_w)
    slower = max(1.0, (dynamic_w / room_w) ** (1 / 3))
    seconds["power cap"] = duration_s * (slower - 1)
    joules = {
        cause: value * slower if cause == "static" else value / slower**2
        for cause, value in joules.items()
    }
    return _step(work, seconds, joules)


def _step(work: Work, seconds: Mapping[str, float], joules: Mapping[str, float]) -> Step:
    gpus = float(work.num_gpus)
    flop = work.decode_flop + work.prefill_flop + work.diffusion_flop + work.attention_flop
    return Step(
        duration_s=float(sum(seconds.values())),
        energy_j=gpus * float(sum(joules.values())),
        flop=gpus * float(flop),
        bytes_moved=gpus * float(work.weight_bytes + work.kv_bytes),
        waiting_s=float(seconds["host"] + seconds["input"]),
        terms_s={cause: float(value) for cause, value in seconds.items()},
        terms_j={cause: gpus * float(value) for cause, value in joules.items()},
    )


def scaled(work: Work, **factors: float) -> Work:
    """Return the work with some quantities multiplied."""
    return replace(work, **{name: getattr(work, name) * by for name, by in factors.items()})
