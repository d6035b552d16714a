"""A simulated GPU machine: one point's model on its GPUs, step by step.

Its fields are causes that can be changed one at a time with ``but``; they are what a changed
energy is traced back to, and what the simulated source plants.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Self

from pytest_joules.errors import InvalidPoint, is_expected
from pytest_joules.latent import rendering as diffusion
from pytest_joules.latent import step as language
from pytest_joules.latent.architecture import (
    BYTES_PER_PARAM,
    Architecture,
    DiffusionArchitecture,
    LanguageArchitecture,
    architecture_of,
)
from pytest_joules.latent.fitted import parameters_of
from pytest_joules.latent.parameters import Parameters
from pytest_joules.latent.rendering import Rendering
from pytest_joules.latent.serving import Serving, serving
from pytest_joules.point import Point

__tracebackhide__ = is_expected

# What a lower clock slows down; memory, links and the host have clocks of their own.
_CLOCKED = ("arithmetic", "attention", "prefill", "overhead", "precision", "activations")
_HOST = ("host", "input")


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

    uncapped_power_w: float
    """What one GPU would draw without a power limit."""

    terms_s: Mapping[str, float]
    """Seconds by cause; they add up to ``duration_s``."""

    terms_j: Mapping[str, float]
    """Joules of all GPUs by cause; they add up to ``energy_j``."""

    @property
    def power_w(self) -> float:
        """Of all GPUs."""
        return self.energy_j / self.duration_s


@dataclass(frozen=True, kw_only=True)
class _Machine:
    point: Point
    parameters: Parameters
    num_gpus: int
    clock_factor: float = 1.0
    """Of the GPU's clock: arithmetic slows with it, its energy falls with its square."""

    power_limit_factor: float = 1.0
    """Of the GPU's power limit (TDP)."""

    static_power_factor: float = 1.0
    """Of what a waiting GPU draws."""

    precision_overhead_factor: float = 1.0
    """Of the time to scale and convert activations of FP8 layers."""

    input_rate_factor: float = 1.0
    """Of the rate at which the host prepares images and video."""

    kv_memory_factor: float = 1.0
    """Of the memory left for keys and values."""

    def but(self, **changes: Any) -> Self:
        """Return this machine with some causes changed."""
        return replace(self, **changes)

    @property
    def power_limit_w(self) -> float:
        """Of one GPU."""
        return self.parameters.gpu.tdp_w * self.power_limit_factor

    def _clocked(self, seconds: Mapping[str, Any]) -> dict[str, float]:
        slowed = {
            cause: float(value) / (self.clock_factor if cause in _CLOCKED else 1.0)
            for cause, value in seconds.items()
        }
        if "precision" in slowed:
            slowed["precision"] *= self.precision_overhead_factor
        return slowed

    def _capped(
        self, seconds: dict[str, float], joules: Mapping[str, Any], *, work: tuple[float, float]
    ) -> Step:
        """Hold the power of a step at the limit.

        At the data sheet's limit the fitted rates already hold what throttling costs. Below
        it the clock falls: dynamic power goes with the cube of the clock, time with its
        inverse.
        """
        spent = {
            cause: float(value)
            * (self.static_power_factor if cause == "static" else self.clock_factor**2)
            for cause, value in joules.items()
        }
        duration_s, energy_j = sum(seconds.values()), sum(spent.values())
        wanted_w = energy_j / duration_s
        sheet_w = language.capped_w(wanted_w, self.parameters.gpu.tdp_w)
        allowed_w = min(sheet_w, language.capped_w(wanted_w, self.power_limit_w))
        static_w = min(spent["static"] / duration_s, 0.9 * allowed_w)
        slower = max(1.0, ((sheet_w - static_w) / (allowed_w - static_w)) ** (1 / 3))
        seconds["power cap"] = duration_s * (slower - 1)
        share = allowed_w * duration_s * slower / energy_j * self.num_gpus
        flop, bytes_moved = work
        return Step(
            duration_s=duration_s * slower,
            energy_j=energy_j * share,
            flop=flop * self.num_gpus,
            bytes_moved=bytes_moved * self.num_gpus,
            waiting_s=sum(seconds.get(cause, 0.0) for cause in _HOST),
            uncapped_power_w=wanted_w,
            terms_s=seconds,
            terms_j={cause: value * share for cause, value in spent.items()},
        )


@dataclass(frozen=True, kw_only=True)
class LanguageMachine(_Machine):
    """Serves a language model with continuous batching."""

    architecture: LanguageArchitecture
    output_tokens: float
    """Mean tokens of one answer."""

    @cached_property
    def serving(self) -> Serving:
        """The model spread over the GPUs."""
        return serving(
            self.point,
            self.architecture,
            num_gpus=self.num_gpus,
            output_tokens=self.output_tokens,
        )

    @cached_property
    def prompt_tokens(self) -> float:
        """Mean tokens read for one request, those of images and video included."""
        return float(language.prompt_tokens(self.serving, self.parameters))

    @property
    def mean_context_tokens(self) -> float:
        """Mean length of a sequence in flight: its prompt and half of its answer."""
        return self.prompt_tokens + self.output_tokens / 2

    @property
    def input_s_per_request(self) -> float:
        """Host seconds between two requests whose images or video are ready; 0 for text."""
        alone = language.input_s_per_request(self.serving, self.parameters)
        return float(alone) / self.input_rate_factor

    def kv_bytes_per_sequence(self, context_tokens: float) -> float:
        """Of one sequence's keys, values and states on one GPU."""
        s = self.serving
        return float(language.kv_bytes(s, context_tokens) + s.state_bytes)

    @property
    def kv_memory_bytes(self) -> float:
        """Left for keys and values on one GPU."""
        p, a, s = self.parameters, self.architecture, self.serving
        lookup = 0.0 if a.has_tied_embeddings else 2 * a.embedding_params
        kept = s.dense_bytes + s.expert_bytes + (lookup + 2 * a.encoder_params) / self.num_gpus
        return float(p.usable_memory_bytes - kept) * self.kv_memory_factor

    def max_batch_size(self, mean_context_tokens: float | None = None) -> int:
        """Largest number of sequences whose keys and values fit; 0 where weights do not."""
        context = (
            self.mean_context_tokens if mean_context_tokens is None else mean_context_tokens
        )
        return max(0, int(self.kv_memory_bytes / self.kv_bytes_per_sequence(context)))

    def running_batch(self, batch: float) -> float:
        """Sequences decoded at once where ``batch`` are asked: fewer where inputs are late."""
        p = replace(
            self.parameters,
            input_s_per_request=_slower(
                self.parameters.input_s_per_request, self.input_rate_factor
            ),
            shared_input_s_per_request=_slower(
                self.parameters.shared_input_s_per_request, self.input_rate_factor
            ),
        )
        context = self.mean_context_tokens
        return float(language.running_batch(self.serving, p, batch, context=context))

    def step(self, batch: float, context_tokens: float, prefill_tokens: float = 0) -> Step:
        """Cost one step that decodes ``batch`` sequences and reads ``prefill_tokens``."""
        s, p = self.serving, self.parameters
        asked = {"context": context_tokens, "prefill": prefill_tokens}
        seconds = self._clocked(language.step_s(s, p, batch, **asked))
        joules = language.step_j(s, p, seconds, batch=batch, **asked)
        moved = sum(language.bytes_moved(s, p, batch, **asked))
        flop = language.flop(s, batch, **asked)
        return self._capped(seconds, joules, work=(float(flop), float(moved)))


def _slower(seconds: Mapping[str, float], rate_factor: float) -> dict[str, float]:
    return {task: value / rate_factor for task, value in seconds.items()}


@dataclass(frozen=True, kw_only=True)
class DiffusionMachine(_Machine):
    """Generates batches of images or videos."""

    architecture: DiffusionArchitecture

    @property
    def rendering(self) -> Rendering:
        """One image or video spread over the GPUs."""
        return diffusion.rendering(self.point, self.architecture, num_gpus=self.num_gpus)

    def batch(self, batch_size: float) -> Step:
        """Cost one batch, from prompts to pixels."""
        r, p = self.rendering, self.parameters
        seconds = self._clocked(diffusion.batch_s(r, p, batch_size))
        joules = diffusion.batch_j(r, p, seconds, batch=batch_size)
        flop = batch_size * (r.matrix_flop + r.attention_flop)
        moved = r.weight_bytes + batch_size * 2 * r.activation_values * p.activation_moves
        return self._capped(seconds, joules, work=(float(flop), float(moved)))

    def max_batch_size(self) -> int:
        """Largest batch whose activations fit; 0 where weights do not."""
        p, a = self.parameters, self.architecture
        left = p.usable_memory_bytes - BYTES_PER_PARAM[self.point.precision] * (
            a.total_params + a.encoder_params
        )
        height, width, frames, _ = diffusion.shape_of(self.point)
        tokens = a.latent_tokens(height, width, frames) + a.text_tokens
        each = p.activations_per_token * 2 * a.hidden_size * tokens / self.num_gpus
        return max(0, int(left / each))


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
        InvalidPoint: The model's shape or the GPU is unknown, or the shape is of another
            kind of model than the task asks for.
    """
    p = parameters or parameters_of(gpu)
    shape = architecture or architecture_of(point.model)
    if isinstance(shape, DiffusionArchitecture) != (point.work_unit != "token"):
        kind = "diffusion" if isinstance(shape, DiffusionArchitecture) else "language"
        raise InvalidPoint(
            f"{point.id}: {point.model} is a {kind} model, which task={point.task!r} does "
            "not ask for."
        )
    if isinstance(shape, DiffusionArchitecture):
        return DiffusionMachine(
            point=point, parameters=p, num_gpus=point.num_gpus, architecture=shape
        )
    given = point.output_tokens or point.spec.output_tokens
    if given is None:
        raise InvalidPoint(f"{point.id}: give output_tokens to predict it.")
    return LanguageMachine(
        point=point,
        parameters=p,
        num_gpus=point.num_gpus,
        architecture=shape,
        output_tokens=given.mean,
    )
