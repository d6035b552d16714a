"""What of a GPU decides time and energy: fitted parameters, each with a meaning and a unit.

Rates stand as fractions of the data sheet's, so that the parameters of one GPU say something
of its relatives. The fitted values are ``data/latent.json``; ``fit`` writes it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from pytest_joules import catalog
from pytest_joules.catalog import Gpu
from pytest_joules.errors import InvalidPoint, is_expected

__tracebackhide__ = is_expected


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """One GPU, in the machine that it was measured in."""

    gpu: Gpu
    weight_bandwidth_ratio: float = 0.75
    """Achieved over data-sheet memory bandwidth while reading weights."""

    kv_bandwidth_ratio: float = 0.5
    """The same while reading keys, values and states."""

    decode_flop_ratio: float = 0.5
    """Achieved over data-sheet arithmetic rate while decoding."""

    prefill_flop_ratio: float = 0.5
    """The same while reading prompts and images."""

    step_overhead_s: float = 2e-3
    """Of the GPU and the engine in every step, whatever the model."""

    layer_overhead_s: float = 20e-6
    """Of every layer in every step: launching its kernels."""

    expert_layer_overhead_s: float = 40e-6
    """On top, of every layer with experts: routing and gathering tokens."""

    fp8_layer_overhead_s: float = 60e-6
    """On top, of every layer in FP8: scaling and converting activations."""

    sequence_overhead_s: float = 20e-6
    """Of every sequence in every step: sampling, scheduling, detokenising."""

    collective_latency_s: float = 15e-6
    """Of one exchange between GPUs; a layer has two."""

    link_bytes_per_s: float = 300e9
    """Between one GPU and the others."""

    host_step_s: Mapping[str, float] = field(default_factory=dict)
    """By task: seconds in which the host prepares a step while the GPU waits."""

    input_s_per_request: Mapping[str, float] = field(default_factory=dict)
    """By task: host seconds to turn one request's images or video into tensors."""

    prompt_tokens: Mapping[str, float] = field(
        default_factory=lambda: {
            "problem-solving": 300.0,
            "text-conversation": 200.0,
            "code-completion": 3000.0,
            "image-chat": 1000.0,
            "video-chat": 4000.0,
        }
    )
    """By task: tokens read for one request, images and video included."""

    output_tokens: Mapping[str, float] = field(
        default_factory=lambda: {
            "problem-solving": 7000.0,
            "text-conversation": 620.0,
            "code-completion": 250.0,
            "image-chat": 720.0,
            "video-chat": 390.0,
        }
    )
    """By task: mean answer, where the point does not say."""

    usable_memory_ratio: float = 0.9
    """Share of memory that the engine uses (vLLM's --gpu-memory-utilization)."""

    reserved_memory_bytes: float = 4e9
    """Of every GPU: activations, kernels' work space, captured graphs."""

    activations_per_token: float = 20.0
    """Vectors of the hidden size that a diffusion model keeps for one token at its peak."""

    static_power_w: float = 150.0
    """Drawn by one GPU that waits with its clocks up."""

    busy_power_w: float = 100.0
    """On top, while any kernel runs."""

    energy_per_flop_j: float = 0.4e-12
    """Per BF16 operation."""

    fp8_energy_ratio: float = 0.6
    """Energy of an FP8 operation over that of a BF16 operation."""

    energy_per_byte_j: float = 60e-12
    """Per byte read from the GPU's memory."""

    energy_per_link_byte_j: float = 50e-12
    """Per byte sent to another GPU."""

    diffusion_flop_ratio: float = 0.5
    """Achieved over data-sheet arithmetic rate in a diffusion model's matrices."""

    attention_flop_ratio: float = 0.4
    """The same in self-attention over all latent tokens."""

    diffusion_layer_overhead_s: float = 200e-6
    """Of every layer in every pass."""

    pixel_s: float = 60e-9
    """Of the VAE and everything else that is done once for every pixel of every frame."""


def parameters_of(gpu: str) -> Parameters:
    """Look up the fitted parameters of a GPU.

    Raises:
        InvalidPoint: The GPU is unknown.
    """
    known = catalog.gpu(gpu)
    if known is None:
        raise InvalidPoint(
            f"gpu {gpu!r} is unknown, so nothing can be predicted; "
            f"known are {', '.join(catalog.gpus())}."
        )
    scale = known.tdp_w / 700
    return Parameters(gpu=known, static_power_w=150 * scale, busy_power_w=100 * scale)
