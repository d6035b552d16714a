"""What a diffusion model asks of each GPU, and what one batch costs: the formulas.

As in ``serving``, every quantity may be a number or an array.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from pytest_joules import catalog
from pytest_joules.errors import InvalidPoint, is_expected
from pytest_joules.latent.architecture import DiffusionArchitecture
from pytest_joules.latent.parameters import Parameters
from pytest_joules.point import Point

__tracebackhide__ = is_expected

Value = Any  # float or numpy array; numpy's own types do not unite both
_SHARPNESS = 4.0


@dataclass(frozen=True, kw_only=True)
class Rendering:
    """One image or video of a point, as one GPU sees it."""

    num_gpus: Value
    matrix_flop: Value
    attention_flop: Value
    activation_values: Value
    """Values of one vector of the hidden size, over all tokens, layers and passes."""

    weight_bytes: Value
    """Read for a batch, however large."""

    num_layer_launches: Value
    """Layers started for a batch, however large: layers x steps."""

    link_bytes: Value
    pixels: Value
    """Of all frames."""


def shape_of(point: Point) -> tuple[int, int, int, int]:
    """Return height, width, frames and steps, the catalog's where the point says nothing.

    Raises:
        InvalidPoint: Neither says.
    """
    known = catalog.model(point.model)
    height = point.height or (known.default_height if known else None)
    width = point.width or (known.default_width if known else None)
    frames = point.num_frames or (known.default_frames if known else None) or 1
    steps = point.steps or (known.default_steps if known else None)
    if height is None or width is None or steps is None:
        raise InvalidPoint(f"{point.id}: give steps, height and width to predict it.")
    return height, width, frames, steps


def rendering(point: Point, a: DiffusionArchitecture, *, num_gpus: int) -> Rendering:
    """Spread the tokens of one image or video over the GPUs (sequence parallelism).

    Raises:
        InvalidPoint: Steps or size are unknown.
    """
    height, width, frames, steps = shape_of(point)
    tokens = a.latent_tokens(height, width, frames) + a.text_tokens
    passes, g = steps * a.passes_per_step, num_gpus
    vectors = tokens * a.hidden_size * a.num_layers * passes
    return Rendering(
        num_gpus=float(g),
        matrix_flop=2.0 * passes * a.params_per_token * tokens / g,
        attention_flop=4.0 * passes * a.attention_layers * a.hidden_size * tokens**2 / g,
        activation_values=vectors / g,
        weight_bytes=2.0 * passes * a.total_params,
        num_layer_launches=float(a.num_layers * steps),
        # Query, key, value and output change places once a layer.
        link_bytes=4.0 * 2.0 * vectors / g * (g - 1) / g,
        pixels=float(height * width * frames),
    )


def batch_s(r: Rendering, p: Parameters, batch: Value) -> dict[str, Value]:
    """Seconds of one batch by cause, at the data sheet's clock."""
    bandwidth, flop_per_s = p.gpu.bandwidth_bytes_per_s, p.gpu.bf16_flop_per_s
    busy = {
        "weights": r.weight_bytes / bandwidth,
        "activations": batch * 2 * r.activation_values * p.activation_moves / bandwidth,
        "arithmetic": batch * r.matrix_flop / (flop_per_s * p.diffusion_flop_ratio),
        "attention": batch * r.attention_flop / (flop_per_s * p.attention_flop_ratio),
        "collectives": batch * r.link_bytes / p.diffusion_link_bytes_per_s,
        "pixels": batch * r.pixels * p.pixel_s,
    }
    in_layers_s = sum(busy.values()) - busy["pixels"]
    launch_s = r.num_layer_launches * (
        p.launch_layer_s + p.parallel_launch_layer_s * (r.num_gpus > 1)
    )
    # The host runs ahead of the GPU, or the GPU waits for it: the slower one sets the pace.
    paced_s = (in_layers_s**_SHARPNESS + launch_s**_SHARPNESS) ** (1 / _SHARPNESS)
    return {**busy, "host": np.maximum(0.0, paced_s - in_layers_s)}


def batch_j(
    r: Rendering, p: Parameters, seconds: Mapping[str, Value], *, batch: Value
) -> dict[str, Value]:
    """Joules of one batch on one GPU by cause, before any cap."""
    total_s, tdp_w = sum(seconds.values()), p.gpu.tdp_w
    moved = r.weight_bytes + batch * 2 * r.activation_values * p.activation_moves
    return {
        "static": p.diffusion_static_power_ratio * tdp_w * total_s,
        "busy": p.diffusion_busy_power_ratio * tdp_w * (total_s - seconds["host"]),
        "arithmetic": batch
        * (r.matrix_flop + r.attention_flop)
        * p.diffusion_energy_per_flop_j,
        "memory": moved * p.diffusion_energy_per_byte_j,
    }
