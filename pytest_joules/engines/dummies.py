"""Configurations of known language models, so that dummy weights need no download."""

import json
import tomllib
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

from pytest_joules.latent.architecture import LanguageArchitecture, architecture_of
from pytest_joules.point import Point

_NAMES: Final = {
    "hidden_size": "hidden_size",
    "num_layers": "num_hidden_layers",
    "num_heads": "num_attention_heads",
    "num_kv_heads": "num_key_value_heads",
    "head_size": "head_dim",
    "vocabulary_size": "vocab_size",
    "intermediate_size": "intermediate_size",
    "num_experts": "num_experts",
    "experts_per_token": "num_experts_per_tok",
    "expert_intermediate_size": "moe_intermediate_size",
    "has_tied_embeddings": "tie_word_embeddings",
}
"""Fields of an architecture, and what a ``config.json`` calls them."""


@cache
def _table() -> Mapping[str, Mapping[str, Any]]:
    path = files("pytest_joules") / "data" / "language_configs.toml"
    found: dict[str, Mapping[str, Any]] = {}
    for row in tomllib.loads(path.read_text(encoding="utf-8"))["configs"]:
        found |= dict.fromkeys(row.pop("models"), row)
    return found


def known() -> tuple[str, ...]:
    """Return the models that can be built without a download."""
    return tuple(_table())


def config(model: str) -> dict[str, Any] | None:
    """Return what a model's ``config.json`` says; ``None`` where it is not known here.

    Source:
        ``data/architectures.toml`` and ``data/language_configs.toml`` name the files.
    """
    beside = _table().get(model)
    if beside is None:
        return None
    shape = architecture_of(model)
    if not isinstance(shape, LanguageArchitecture):
        raise TypeError(f"{model} is no language model.")
    # What is 0 or false is no part of that kind of model.
    own = {name: getattr(shape, field) for field, name in _NAMES.items()}
    rest = {name: value for name, value in beside.items() if name != "source"}
    return {name: value for name, value in own.items() if value} | {
        "tie_word_embeddings": shape.has_tied_embeddings,
        **rest,
    }


def located(point: Point, folder: Path) -> str:
    """Return what the engine loads: the model's own name, or a folder with its configuration.

    Args:
        point: With dummy weights of a known model, the folder is made; nothing is downloaded.
        folder: The launch's own.
    """
    made = config(point.model) if point.weights == "dummy" else None
    if made is None:
        return point.model
    home = folder / "model"
    home.mkdir()
    (home / "config.json").write_text(json.dumps(made, indent=1), encoding="utf-8")
    return str(home.resolve())
