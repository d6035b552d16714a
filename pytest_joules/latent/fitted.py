"""The fitted parameters of each GPU, with their errors; ``data/latent.json``, from ``fit``."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from pytest_joules import catalog, storage
from pytest_joules.errors import InvalidPoint, is_expected
from pytest_joules.latent.parameters import Parameters, with_values

__tracebackhide__ = is_expected

# A GPU that was not measured borrows the rates of a relative, as shares of its data sheet.
_RELATIVES: Mapping[str, str] = {
    "h200": "h100",
    "h200-nvl": "h100",
    "h100-nvl": "h100",
    "h100-pcie": "h100",
    "gh200": "h100",
    "gh200-144gb": "h100",
    "gb200": "b200",
    "rtx-pro-6000": "b200",
}
_FURTHEST = "h100"


@dataclass(frozen=True, kw_only=True)
class KnownError:
    """Errors of a quantity on rows of models that the fit had not seen."""

    num_rows: int
    median: float
    """Of the absolute relative error."""

    p90: float
    """90th percentile of the same."""

    low: float
    """5th percentile of measured over predicted."""

    high: float
    """95th percentile of measured over predicted."""


@cache
def _stored() -> Any:
    path = files("pytest_joules") / "data" / "latent.json"
    return storage.parse(path.read_text(encoding="utf-8"), name=str(path))


def fitted_gpus() -> tuple[str, ...]:
    """Return the GPUs whose parameters were fitted to measurements."""
    return tuple(_stored()["gpus"])


def basis_of(gpu: str) -> str:
    """Return the GPU whose fitted parameters stand for this one: itself where it has some."""
    return gpu if gpu in fitted_gpus() else _RELATIVES.get(gpu, _FURTHEST)


def values_of(gpu: str) -> Mapping[str, float]:
    """Return the fitted values that stand for a GPU, by flat names: its own or a relative's."""
    found: Mapping[str, float] = _stored()["gpus"][basis_of(gpu)]["parameters"]
    return found


def parameters_of(gpu: str) -> Parameters:
    """Return a GPU's parameters; those of a relative where it was not measured.

    Raises:
        InvalidPoint: The GPU is unknown.
    """
    known = catalog.gpu(gpu)
    if known is None:
        raise InvalidPoint(
            f"gpu {gpu!r} is unknown, so nothing can be predicted; "
            f"known are {', '.join(catalog.gpus())}."
        )
    return with_values(known, values_of(gpu))


def known_error(gpu: str, task: str, quantity: str = "energy") -> KnownError | None:
    """Return the error on unseen models; ``None`` for a GPU that was not measured.

    Args:
        gpu: As ``--gpu`` names it.
        task: The paper's name.
        quantity: ``energy``, ``latency`` or ``power``.
    """
    if gpu not in fitted_gpus():
        return None
    return KnownError(**_stored()["gpus"][gpu]["errors"][task][quantity])
