"""What of a model decides its time and energy: shapes, counts of parameters, bytes to keep.

The shapes of known models are ``data/architectures.toml``; an unknown one is described by a
few numbers or by its Hugging Face ``config.json`` (see ``describe``).
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from pytest_joules.errors import InvalidPoint, is_expected

__tracebackhide__ = is_expected

BYTES_PER_PARAM: Mapping[str, float] = {
    "fp32": 4.0,
    "bf16": 2.0,
    "fp16": 2.0,
    "fp8": 1.0,
    "int8": 1.0,
    "mxfp4": 4.25 / 8,  # 32 values of 4 bits share one scale of 8 bits
    "nvfp4": 4.5 / 8,  # 16 values share one
    "int4": 4.5 / 8,
}


@dataclass(frozen=True, kw_only=True)
class LanguageArchitecture:
    """Shape of a language model; parameters and bytes follow from it."""

    source: str
    num_layers: int
    hidden_size: int
    num_heads: int
    num_kv_heads: int
    head_size: int
    vocabulary_size: int
    intermediate_size: int = 0
    """Of a dense MLP; 0 where every layer has experts."""

    num_experts: int = 0
    experts_per_token: int = 0
    expert_intermediate_size: int = 0
    shared_intermediate_size: int = 0
    """Of experts that every token visits."""

    num_expert_layers: int | None = None
    """Layers with experts; ``None`` means all, where there are experts."""

    num_attention_layers: int | None = None
    """Layers with attention; ``None`` means all."""

    num_mlp_layers: int | None = None
    """Layers with a dense MLP; ``None`` means all that have no experts."""

    num_matrices_per_mlp: int = 3
    """3 where the MLP is gated, else 2."""

    sliding_window: int = 0
    num_sliding_layers: int = 0
    kv_values_per_token_per_layer: int | None = None
    """Values stored for a token; ``None`` means 2 x KV heads x head size."""

    attention_params_per_layer: float | None = None
    """``None`` means query, key, value and output projections."""

    num_state_layers: int = 0
    """State-space layers, whose memory of a sequence does not grow with its length."""

    state_values_per_layer: int = 0
    state_params_per_layer: float = 0.0
    has_tied_embeddings: bool = False
    encoder_params: float = 0.0
    """Of the encoders of images, videos and sound."""

    tokens_per_image: float = 1024.0
    """What an image of one megapixel becomes."""

    @property
    def attention_layers(self) -> int:
        """Layers that keep keys and values."""
        given = self.num_attention_layers
        return self.num_layers if given is None else given

    @property
    def expert_layers(self) -> int:
        """Layers with experts."""
        given = self.num_expert_layers
        return (self.num_layers if self.num_experts else 0) if given is None else given

    @property
    def mlp_layers(self) -> int:
        """Layers with a dense MLP."""
        given = self.num_mlp_layers
        return self.num_layers - self.expert_layers if given is None else given

    @property
    def attention_params(self) -> float:
        """Of all attention layers."""
        own = self.attention_params_per_layer
        heads = 2 * self.num_heads + 2 * self.num_kv_heads
        each = self.hidden_size * self.head_size * heads if own is None else own
        return self.attention_layers * each

    @property
    def params_per_expert(self) -> float:
        """Of one routed expert of one layer."""
        return 3.0 * self.hidden_size * self.expert_intermediate_size

    @property
    def expert_params(self) -> float:
        """Of all routed experts of all layers."""
        return self.expert_layers * self.num_experts * self.params_per_expert

    @property
    def embedding_params(self) -> float:
        """Of one vocabulary matrix; the output one is read at every step."""
        return float(self.vocabulary_size * self.hidden_size)

    @property
    def always_read_params(self) -> float:
        """Read at every step whatever the tokens: all but routed experts and encoders."""
        mlp = self.num_matrices_per_mlp * self.hidden_size * self.intermediate_size
        shared = 3 * self.hidden_size * self.shared_intermediate_size
        layers = self.mlp_layers * mlp + self.expert_layers * shared
        states = self.num_state_layers * self.state_params_per_layer
        return self.attention_params + layers + states + self.embedding_params

    @property
    def active_params(self) -> float:
        """Multiplied for one token."""
        routed = self.expert_layers * self.experts_per_token * self.params_per_expert
        return self.always_read_params + routed

    @property
    def total_params(self) -> float:
        """Kept in memory, encoders included."""
        lookup = 0.0 if self.has_tied_embeddings else self.embedding_params
        return self.always_read_params + self.expert_params + lookup + self.encoder_params

    def kv_values(self, context_tokens: float) -> float:
        """Count the values kept for one sequence of this length, states aside."""
        own = self.kv_values_per_token_per_layer
        each = 2 * self.num_kv_heads * self.head_size if own is None else own
        near = min(context_tokens, self.sliding_window)
        far_layers = self.attention_layers - self.num_sliding_layers
        return float(each * (far_layers * context_tokens + self.num_sliding_layers * near))

    @property
    def state_values(self) -> float:
        """Kept for one sequence by its state-space layers, at any length."""
        return float(self.num_state_layers * self.state_values_per_layer)


@dataclass(frozen=True, kw_only=True)
class DiffusionArchitecture:
    """Shape of a diffusion transformer and what surrounds it."""

    source: str
    num_layers: int
    hidden_size: int
    total_params: float
    """Of the transformer."""

    params_per_token: float
    """Multiplied for one latent token: without the weights that only meet text or time."""

    encoder_params: float
    """Of text encoders and VAE, kept in memory."""

    pixels_per_token: int
    """Side of the square of pixels that one token stands for: VAE factor x patch."""

    frames_per_token: int = 1
    text_tokens: int = 0
    """Text tokens that run through the transformer beside the latent ones."""

    passes_per_step: int = 2
    """2 with classifier-free guidance, 1 where guidance is distilled."""

    num_attention_layers: int | None = None
    """Self-attentions over all tokens; ``None`` means one a layer, 0 linear attention."""

    @property
    def attention_layers(self) -> int:
        """Self-attentions whose work grows with the square of the tokens."""
        given = self.num_attention_layers
        return self.num_layers if given is None else given

    def latent_tokens(self, height: int, width: int, num_frames: int = 1) -> float:
        """Count the tokens of one image or video."""
        frames = 1 + -(-(num_frames - 1) // self.frames_per_token)
        return float(frames * height * width / self.pixels_per_token**2)


Architecture = LanguageArchitecture | DiffusionArchitecture


@cache
def architectures() -> Mapping[str, Architecture]:
    """Return the shapes of all known models by their Hugging Face repository."""
    path = files("pytest_joules") / "data" / "architectures.toml"
    table = tomllib.loads(path.read_text(encoding="utf-8"))
    known: dict[str, Architecture] = {}
    for row in table["language"]:
        models = row.pop("models")
        known |= dict.fromkeys(models, LanguageArchitecture(**row))
    for row in table["diffusion"]:
        models = row.pop("models")
        known |= dict.fromkeys(models, DiffusionArchitecture(**row))
    return known


def architecture_of(model_id: str) -> Architecture:
    """Look up a model's shape.

    Raises:
        InvalidPoint: The model is unknown.
    """
    found = architectures().get(model_id)
    if found is None:
        raise InvalidPoint(
            f"{model_id}: no shape is known, so nothing can be predicted. Give the model's "
            "config.json (--config) or a few numbers (--parameters, --layers, ...)."
        )
    return found
