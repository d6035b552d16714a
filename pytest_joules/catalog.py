"""Known models and GPUs, with the source of every figure; unknown models are fine.

The tables are ``data/models.toml`` and ``data/gpus.toml``.
"""

import hashlib
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from pytest_joules.errors import ConfigurationError, is_expected

__tracebackhide__ = is_expected

_LONGEST_NAME = 150  # leaves a file name room for a suffix and a temporary name


@dataclass(frozen=True, kw_only=True)
class Model:
    """One row of the paper's Table 3, or a model of the same kind."""

    model_id: str
    """Hugging Face repository."""

    nickname: str
    tasks: tuple[str, ...]
    architecture: str
    """``dense``, ``moe``, ``hybrid`` (state-space layers beside attention) or ``diffusion``."""

    precision: str
    """Precision of the published weights: bf16, fp8 or mxfp4."""

    total_params_b: float
    """Billions of parameters."""

    active_params_b: float
    """Billions of parameters used for one token."""

    fp8_model_id: str | None = None
    """The same model's published FP8 checkpoint."""

    default_steps: int | None = None
    default_height: int | None = None
    default_width: int | None = None
    default_frames: int | None = None
    default_fps: int | None = None
    pipeline: str | None = None
    """Class name in ``diffusers``, for diffusion models."""

    diffusers_model_id: str | None = None
    """Repository with the same weights in the layout of ``diffusers``, where it is another."""


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """What a vendor's data sheet says of one GPU; dense rates, without sparsity."""

    slug: str
    """What ``--gpu`` calls it."""

    nvml_names: tuple[str, ...]
    """NVML's device names, whole: an A10G is no A10 and an L40S no L4."""

    memory_gib: float
    bandwidth_bytes_per_s: float
    bf16_flop_per_s: float
    fp8_flop_per_s: float | None
    """``None`` where the GPU has no FP8 arithmetic."""

    tdp_w: float
    source: str


def _rows(name: str) -> list[Mapping[str, Any]]:
    text = (files("pytest_joules") / "data" / name).read_text(encoding="utf-8")
    return [row for rows in tomllib.loads(text).values() for row in rows]


@cache
def models() -> Mapping[str, Model]:
    """Return all known models by their Hugging Face repository."""
    rows = [{**row, "tasks": tuple(row["tasks"])} for row in _rows("models.toml")]
    return {row["model_id"]: Model(**row) for row in rows}


@cache
def gpus() -> Mapping[str, Gpu]:
    """Return all known GPUs by slug."""
    rows = [{"fp8_flop_per_s": None, **row} for row in _rows("gpus.toml")]
    return {row["slug"]: Gpu(**{**row, "nvml_names": tuple(row["nvml_names"])}) for row in rows}


def model(model_id: str) -> Model | None:
    """Look up a model; ``None`` where the catalog does not know it."""
    return models().get(model_id)


def gpu(slug: str) -> Gpu | None:
    """Look up a GPU by slug; ``None`` where the catalog does not know it."""
    return gpus().get(slug)


def slug(text: str) -> str:
    """Turn any name into lower-case letters, digits, dots and single dashes.

    >>> slug("NVIDIA H200 NVL")
    'nvidia-h200-nvl'

    Raises:
        ConfigurationError: Nothing is left of it.
    """
    made = re.sub(r"[^a-z0-9.]+", "-", text.lower()).strip("-.")
    if not made:
        raise ConfigurationError(f"{text!r} holds no letter or digit to make a name of.")
    return made


def file_name(text: str) -> str:
    """Turn any name of a model or GPU into that of a file or folder; it leads nowhere else.

    Names that make the same one share what is stored under it.

    >>> file_name("../../etc/passwd"), file_name("..")
    ('etc-passwd', 'model')
    """
    letters = any(c.isascii() and c.isalnum() for c in text)
    name = slug(text) if letters else "model"
    if len(name) <= _LONGEST_NAME:
        return name
    digest = hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()
    return f"{name[:_LONGEST_NAME]}-{digest[:8]}"


def gpu_slug(nvml_name: str) -> str:
    """Name a GPU as ``--gpu`` does: the catalog's slug, or NVML's name as a slug.

    Names match whole, so that an H200 NVL is not taken for an H200 nor an RTX 4090 Laptop for
    an RTX 4090. A MIG slice goes by the GPU that it is cut from.

    >>> gpu_slug("NVIDIA H100 80GB HBM3 MIG 1g.10gb")
    'h100'

    Raises:
        ConfigurationError: The name is unknown and holds nothing to make a slug of.
    """
    whole = nvml_name.partition(" MIG ")[0].strip()
    named = {slug(name): known.slug for known in gpus().values() for name in known.nvml_names}
    return named.get(slug(whole)) or slug(nvml_name)
