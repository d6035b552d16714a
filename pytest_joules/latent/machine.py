"""A simulated GPU machine: one point's model on its GPUs, step by step.

Its fields are causes that can be changed one at a time with ``but``; they are what a changed
energy is traced back to, and what the simulated source plants.
"""

from dataclasses import dataclass, replace
from typing import Any

from pytest_joules import catalog
from pytest_joules.errors import InvalidPoint, is_expected
from pytest_joules.latent.architecture import (
    BYTES_PER_PARAM,
    Architecture,
    DiffusionArchitecture,
    LanguageArchitecture,
    architecture_of,
)
from pytest_joules.latent.parameters import Parameters, parameters_of
from pytest_joules.latent.work import Step, Work, step
from pytest_joules.point import Point

__tracebackhide__ = is_expected

_STATE_BYTES = 4.0  # vLLM keeps state-space states in FP32


@dataclass(frozen=True, kw_only=True)
class _Machine:
    point: Point
    parameters: Parameters
    num_gpus: int
    clock_factor: float = 1.0
    """Of the GPU's clock: arithmetic slows with it, dynamic energy falls with its square."""

    power_limit_factor: float = 1.0
    """Of the GPU's power limit (TDP)."""

    static_power_factor: float = 1.0
    precision_overhead_factor: float = 1.0
    """Of the time to scale and convert activations of low-precision layers."""

    input_rate_factor: float = 1.0
    """Of the rate at which the host prepares images and video."""

    kv_memory_factor: float = 1.0
    """Of the memory left for keys and values."""

    def but(self, **changes: Any) -> Any:
        """Return this machine with some causes changed."""
        return replace(self, **changes)

    def _step(self, work: Work) -> Step:
        p = self.parameters
        changed = replace(
            p,
            static_power_w=p.static_power_w * self.static_power_factor,
            fp8_layer_overhead_s=p.fp8_layer_overhead_s * self.precision_overhead_factor,
        )
        limit_w = p.gpu.tdp_w * self.power_limit_factor
        return step(work, changed, clock=self.clock_factor, power_limit_w=limit_w)


@dataclass(frozen=True, kw_only=True)
class LanguageMachine(_Machine):
    """Serves a language model with continuous batching."""

    architecture: LanguageArchitecture
    output_tokens: float
    """Mean tokens of one answer."""

    @property
    def prompt_tokens(self) -> float:
        """Mean tokens read for one request, those of images and video included."""
        given = self.point.input_tokens
        typical = self.parameters.prompt_tokens[self.point.task]
        if given is None:
            return typical
        own = self.point.spec.input_tokens
        seen = 0.0 if own is None or self.point.spec.modality == "text" else typical - own.mean
        return given.mean + max(0.0, seen)

    @property
    def mean_context_tokens(self) -> float:
        """Mean length of a sequence in flight: its prompt and half of its answer."""
        return self.prompt_tokens + self.output_tokens / 2

    @property
    def input_s_per_request(self) -> float:
        """Host seconds between two requests whose images or video are ready."""
        known = self.parameters.input_s_per_request.get(self.point.task, 0.0)
        return known / self.input_rate_factor

    def kv_bytes_per_sequence(self, context_tokens: float) -> float:
        """Of one sequence, on all GPUs together, copies included."""
        a = self.architecture
        copies = self.num_gpus / self._kv_shards
        return copies * (2 * a.kv_values(context_tokens) + _STATE_BYTES * a.state_values)

    @property
    def _kv_shards(self) -> float:
        a, groups = self.architecture, self.point.data_parallel
        heads = 1 if a.kv_values_per_token_per_layer is not None else a.num_kv_heads
        return groups * min(self.num_gpus / groups, heads)

    @property
    def kv_memory_bytes(self) -> float:
        """Left for keys and values on all GPUs together."""
        p = self.parameters
        usable = p.gpu.memory_gib * 2**30 * p.usable_memory_ratio - p.reserved_memory_bytes
        return (usable * self.num_gpus - self._weight_bytes_kept) * self.kv_memory_factor

    @property
    def _weight_bytes_kept(self) -> float:
        a = self.architecture
        copies = self.point.data_parallel - 1
        kept = self._always_bytes + self._expert_bytes + 2 * a.encoder_params
        lookup = 0.0 if a.has_tied_embeddings else 2 * a.embedding_params
        return kept + lookup + copies * self._bytes_per_param * a.attention_params

    @property
    def _bytes_per_param(self) -> float:
        """Of the weights that every token meets; MXFP4 checkpoints quantise experts only."""
        precision = self.point.precision
        return 2.0 if precision == "mxfp4" else BYTES_PER_PARAM[precision]

    @property
    def _always_bytes(self) -> float:
        a = self.architecture
        inner = a.always_read_params - a.embedding_params
        return self._bytes_per_param * inner + 2.0 * a.embedding_params

    @property
    def _expert_bytes(self) -> float:
        return BYTES_PER_PARAM[self.point.precision] * self.architecture.expert_params

    def max_batch_size(self, mean_context_tokens: float | None = None) -> int:
        """Largest number of sequences whose keys and values fit; 0 where weights do not."""
        context = (
            self.mean_context_tokens if mean_context_tokens is None else mean_context_tokens
        )
        return max(0, int(self.kv_memory_bytes / self.kv_bytes_per_sequence(context)))

    def step(self, batch: float, context_tokens: float, prefill_tokens: float = 0) -> Step:
        """Cost one step that decodes ``batch`` sequences and reads ``prefill_tokens``."""
        return self._step(self.work(batch, context_tokens, prefill_tokens))

    def work(self, batch: float, context_tokens: float, prefill_tokens: float = 0) -> Work:
        """Say what such a step asks of each GPU."""
        a, g = self.architecture, self.num_gpus
        tokens = batch + prefill_tokens
        touched = a.experts_touched(tokens) / a.num_experts if a.num_experts else 0.0
        copies = (self.point.data_parallel - 1) * self._bytes_per_param * a.attention_params
        is_fp8 = self.point.precision in ("fp8", "int8")
        requests = prefill_tokens / self.prompt_tokens
        exchanged = tokens * a.hidden_size * 2
        attention_flop = 4 * context_tokens * a.num_heads * a.head_size * a.attention_layers
        return Work(
            num_gpus=g,
            weight_bytes=(self._always_bytes + copies + touched * self._expert_bytes) / g,
            kv_bytes=batch * self.kv_bytes_per_sequence(context_tokens) / g
            + batch * _STATE_BYTES * a.state_values / g,
            decode_flop=batch * (2 * a.active_params + attention_flop) / g,
            prefill_flop=prefill_tokens * 2 * (a.active_params + a.encoder_params) / g,
            fp8_ratio=float(is_fp8),
            num_layers=a.num_layers,
            num_expert_layers=a.expert_layers,
            num_fp8_layers=a.num_layers * is_fp8,
            num_collectives=2 * a.num_layers * (g > 1),
            link_bytes=2 * a.num_layers * exchanged * 2 * (g - 1) / g,
            num_sequences=batch,
            host_s=self.parameters.host_step_s.get(self.point.task, 0.0),
            input_s=requests * self.input_s_per_request,
        )


@dataclass(frozen=True, kw_only=True)
class DiffusionMachine(_Machine):
    """Generates batches of images or videos."""

    architecture: DiffusionArchitecture

    def batch(self, batch_size: int) -> Step:
        """Cost one batch, from prompts to pixels."""
        return self._step(self.work(batch_size))

    def max_batch_size(self) -> int:
        """Largest batch whose activations fit; 0 where weights do not."""
        p, a = self.parameters, self.architecture
        usable = p.gpu.memory_gib * 2**30 * p.usable_memory_ratio - p.reserved_memory_bytes
        left = usable - 2 * (a.total_params + a.encoder_params)
        height, width, frames, _ = self._shape
        tokens = a.latent_tokens(height, width, frames) + a.text_tokens
        each = p.activations_per_token * 2 * a.hidden_size * tokens / self.num_gpus
        return max(0, int(left / each))

    @property
    def _shape(self) -> tuple[int, int, int, int]:
        known, point = catalog.model(self.point.model), self.point
        height = point.height or (known.default_height if known else None)
        width = point.width or (known.default_width if known else None)
        frames = point.num_frames or (known.default_frames if known else None) or 1
        steps = point.steps or (known.default_steps if known else None)
        if height is None or width is None or steps is None:
            raise InvalidPoint(f"{point.id}: give steps, height and width to predict it.")
        return height, width, frames, steps

    def work(self, batch_size: int) -> Work:
        """Say what such a batch asks of each GPU."""
        a, g = self.architecture, self.num_gpus
        height, width, frames, steps = self._shape
        tokens = a.latent_tokens(height, width, frames) + a.text_tokens
        passes = steps * a.passes_per_step
        exchanged = 4 * batch_size * tokens * a.hidden_size * 2 * a.num_layers * passes
        return Work(
            num_gpus=g,
            weight_bytes=passes * 2 * a.total_params,
            diffusion_flop=batch_size * passes * 2 * a.params_per_token * tokens / g,
            attention_flop=batch_size
            * passes
            * 4
            * a.attention_layers
            * a.hidden_size
            * tokens**2
            / g,
            num_passes=float(steps),
            num_diffusion_layers=a.num_layers,
            num_collectives=4.0 * a.num_layers * steps * (g > 1),
            link_bytes=exchanged / g * (g - 1) / g,
            pixels=batch_size * height * width * frames,
        )


Machine = LanguageMachine | DiffusionMachine


def machine(
    point: Point,
    gpu: str,
    *,
    parameters: Parameters | None = None,
    architecture: Architecture | None = None,
) -> Machine:
    """Set up the machine that would run a point.

    Raises:
        InvalidPoint: The model's shape or the GPU is unknown.
    """
    p = parameters or parameters_of(gpu)
    shape = architecture or architecture_of(point.model)
    if isinstance(shape, DiffusionArchitecture):
        return DiffusionMachine(
            point=point, parameters=p, num_gpus=point.num_gpus, architecture=shape
        )
    given = point.output_tokens
    return LanguageMachine(
        point=point,
        parameters=p,
        num_gpus=point.num_gpus,
        architecture=shape,
        output_tokens=given.mean if given else p.output_tokens[point.task],
    )
