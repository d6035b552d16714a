"""What of a GPU decides time and energy: fitted parameters, each with a meaning and a unit.

Rates stand as fractions of the data sheet's, so that the parameters of one GPU say something
of its relatives. The fitted values are ``data/latent.json``; ``fit`` writes it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pytest_joules.catalog import Gpu


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """One GPU, in the machine and with the engines that it was measured with."""

    gpu: Gpu

    # Language models: seconds of one step.
    weight_bandwidth_ratio: float
    """Achieved over data-sheet memory bandwidth while reading weights that all tokens meet."""

    expert_bandwidth_ratio: float
    """The same while reading experts in BF16."""

    fp8_expert_bandwidth_ratio: float
    """The same while reading experts in FP8."""

    mxfp4_expert_bandwidth_ratio: float
    """The same while reading experts in MXFP4."""

    fp8_untouched_ratio: float
    """Share of the experts that no token visits whose weights FP8 kernels read all the same."""

    expert_imbalance: float
    """How far the busiest of several GPUs exceeds the mean, in deviations expected of it."""

    kv_bandwidth_ratio: float
    """Achieved over data-sheet bandwidth while reading keys and values."""

    state_bandwidth_ratio: float
    """The same while reading and writing state-space states."""

    decode_flop_ratio: float
    """Achieved over data-sheet arithmetic rate while decoding, outside experts."""

    expert_flop_ratio: float
    """The same inside experts, whose matrices meet few tokens each."""

    fp8_flop_ratio: float
    """What FP8 keeps of its data-sheet advantage over BF16."""

    fp8_expert_flop_ratio: float
    """The same inside experts."""

    prefill_flop_ratio: float
    """Achieved over data-sheet arithmetic rate while reading prompts and images."""

    group_stall: float
    """How many times longer a prompt takes where attention is data-parallel and the groups
    wait for each other, than on one group alone."""

    layer_moves: float
    """Vectors of the hidden size read or written for one token in one layer."""

    expert_visit_moves: float
    """The same for one token's visit to one expert; every GPU sorts all tokens."""

    step_overhead_s: float
    """Of the engine and its kernels in every step, whatever the model."""

    layer_overhead_s: float
    """Of every layer in every step: starting its kernels."""

    expert_layer_overhead_s: float
    """On top, of every layer with experts: routing and gathering tokens."""

    state_layer_overhead_s: float
    """On top, of every state-space layer."""

    prompt_layer_overhead_s: float
    """On top, of every layer in a step that reads a prompt: its kernels are not captured in
    one graph."""

    prompt_state_layer_overhead_s: float
    """The same, on top, of every state-space layer."""

    fp8_layer_overhead_s: float
    """On top, of every layer in FP8: scaling and converting activations."""

    fp8_expert_layer_overhead_s: float
    """On top, of every layer with experts in FP8."""

    sequence_overhead_s: float
    """GPU time of every sequence in every step: sampling, book-keeping."""

    collective_latency_s: float
    """Of one exchange between GPUs; a layer has two."""

    link_bytes_per_s: float
    """Between one GPU and the others, adding up partial results."""

    expert_link_bytes_per_s: float
    """The same, bringing tokens to experts and back."""

    # The host, by task: how the measured machine was loaded beside.
    host_step_s: Mapping[str, float]
    """Seconds for which each step waits for the host of a launch with one GPU; a launch with
    more GPUs has so many times the share of the host."""

    host_half_batch: Mapping[str, float]
    """Batch at which half of ``host_step_s`` is reached: requests being prepared compete."""

    host_sequence_s: float
    """Host seconds of every sequence in every step, with one GPU's share of the host."""

    input_s_per_request: Mapping[str, float]
    """Host seconds to prepare one request's image or video, however many GPUs."""

    shared_input_s_per_request: Mapping[str, float]
    """The same of work that goes faster with a larger share of the host."""

    megapixels_per_image: float
    """Size of the mean image of image-chat, where the model keeps its size."""

    tokens_per_video: float
    """What the mean video of video-chat becomes."""

    # Language models: joules.
    static_power_ratio: float
    """Drawn by a GPU that waits with its clocks up, over its power limit (TDP)."""

    busy_power_ratio: float
    """On top, over TDP, while memory or arithmetic units work."""

    overhead_power_ratio: float
    """On top, over TDP, while kernels start, exchange and keep books."""

    fp8_overhead_power_ratio: float
    """On top, over TDP, while activations are scaled and converted."""

    energy_per_flop_j: float
    """Per BF16 operation while decoding."""

    energy_per_prefill_flop_j: float
    """Per BF16 operation while reading prompts."""

    fp8_energy_ratio: float
    """Energy of an FP8 operation over that of a BF16 operation."""

    energy_per_byte_j: float
    """Per byte of weights read."""

    energy_per_kv_byte_j: float
    """Per byte of keys, values and states read."""

    energy_per_link_byte_j: float
    """Per byte sent to another GPU."""

    # Diffusion.
    diffusion_flop_ratio: float
    """Achieved over data-sheet arithmetic rate in a diffusion model's matrices."""

    attention_flop_ratio: float
    """The same in self-attention over all latent tokens."""

    activation_moves: float
    """Vectors of the hidden size read or written for one token in one layer."""

    launch_layer_s: float
    """Host seconds to start one layer's kernels; the GPU waits where it is faster."""

    parallel_launch_layer_s: float
    """On top with several GPUs."""

    diffusion_link_bytes_per_s: float
    """Between one GPU and the others, in sequence parallelism."""

    pixel_s: float
    """Of the VAE and all that is done once for a pixel of a frame."""

    diffusion_static_power_ratio: float
    """Drawn by a GPU that waits, over TDP."""

    diffusion_busy_power_ratio: float
    """On top while it works."""

    diffusion_energy_per_flop_j: float
    """Per operation in matrices and attention."""

    diffusion_energy_per_byte_j: float
    """Per byte of activations and weights moved."""

    # Memory; set, not fitted.
    usable_memory_ratio: float = 0.9
    """Share of memory that the engine uses (vLLM's --gpu-memory-utilization)."""

    reserved_memory_bytes: float = 4e9
    """Of every GPU: activations, kernels' work space, captured graphs."""

    activations_per_token: float = 20.0
    """Vectors of the hidden size that a diffusion model keeps for one token at its peak."""

    @property
    def usable_memory_bytes(self) -> float:
        """What weights, keys, values and a batch's activations may take of one GPU."""
        whole = self.gpu.memory_gib * 2**30
        return whole * self.usable_memory_ratio - self.reserved_memory_bytes


def with_values(gpu: Gpu, values: Mapping[str, Any]) -> Parameters:
    """Build parameters from flat names, where ``host_step_s.image-chat`` is by task."""
    nested: dict[str, Any] = {}
    for name, value in values.items():
        quantity, _, task = name.partition(".")
        if task:
            nested.setdefault(quantity, {})[task] = value
        else:
            nested[quantity] = value
    return Parameters(gpu=gpu, **nested)
