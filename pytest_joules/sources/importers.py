"""``joules import mlenergy``: other people's results into the project's own files."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Any

from pytest_joules.errors import (
    ConfigurationError,
    FormatError,
    InvalidPoint,
    MissingDependency,
    is_expected,
)
from pytest_joules.result import Result
from pytest_joules.sources.mlenergy import (
    diffusion_result,
    is_leaderboard,
    read_leaderboard,
    text_result,
)
from pytest_joules.sources.mlenergy_raw import read_raw
from pytest_joules.sources.store import write_results
from pytest_joules.sources.strict import Fields
from pytest_joules.tasks import task_of_dataset

__tracebackhide__ = is_expected

HUGGING_FACE = "hf"
_PACKAGE = "mlenergy-data"
# The package's first releases had the second name, which later ones only alias.
_MODULES = ("mlenergy.data.records", "mlenergy_data.records")
_DATASET = "https://huggingface.co/datasets/ml-energy/benchmark-v3"


def import_mlenergy(origin: str, target: Path, *, precision: str = "") -> tuple[Path, ...]:
    """Read ML.ENERGY results and write them as a folder for ``--joules-data``.

    Args:
        origin: ``hf`` for the package's Hugging Face data set, else a folder: the
            leaderboard's JSON or raw results of the benchmark.
        target: A folder that does not exist yet; it appears complete or not at all.
        precision: As for ``read_raw``.

    Returns:
        The files written.

    Raises:
        FormatError: A file is broken or partial; names file, row and field.
        ConfigurationError: Origin or target cannot be used.
        MissingDependency: ``hf`` without the package.
    """
    return write_results(target, results_from(origin, precision=precision))


def results_from(origin: str, *, precision: str = "") -> tuple[Result, ...]:
    """Read ML.ENERGY results; see ``import_mlenergy``."""
    if origin == HUGGING_FACE:
        return hugging_face_results()
    folder = Path(origin)
    if not folder.is_dir():
        raise ConfigurationError(
            f"{origin}: there is no such folder. Give a folder of the leaderboard or of raw "
            f"results, or {HUGGING_FACE} for the Hugging Face data set."
        )
    if is_leaderboard(folder):
        return read_leaderboard(folder).results
    return read_raw(folder, precision=precision)


def hugging_face_results() -> tuple[Result, ...]:
    """Download all stable runs through the ``mlenergy-data`` package.

    Raises:
        MissingDependency: It is not installed.
        ConfigurationError: The data set cannot be had; says how to ask for it.
        FormatError: A run is broken; names run and field.
    """
    records = _records()
    try:
        runs = [*records.LLMRuns.from_hf(), *records.DiffusionRuns.from_hf()]
    except OSError as error:  # the hub's errors, gated and network alike, derive from it
        raise ConfigurationError(
            f"the Hugging Face data set cannot be read ({type(error).__name__}: {error}). It "
            f"is gated: request access on {_DATASET} (granted automatically), make a token on "
            "https://huggingface.co/settings/tokens and set HF_TOKEN to it."
        ) from error
    return package_results(runs)


def _records() -> Any:
    for name in _MODULES:
        try:
            return import_module(name)
        except ModuleNotFoundError as error:
            if not name.startswith(f"{error.name}"):
                raise MissingDependency(
                    f"{_PACKAGE} is installed, but needs {error.name}: pip install it."
                ) from error
    raise MissingDependency(
        f"{_PACKAGE} is not installed: pip install 'pytest-joules[mlenergy]'."
    )


def package_results(runs: Iterable[Any]) -> tuple[Result, ...]:
    """Turn ``LLMRun`` and ``DiffusionRun`` records into results; all or nothing.

    Raises:
        FormatError: A run is broken; names run and field.
    """
    return tuple(_package_result(asdict(run), index) for index, run in enumerate(runs))


def _package_result(values: Mapping[str, Any], index: int) -> Result:
    where = f"run {index}"
    fields = Fields(dict(values), _PACKAGE, where)
    try:
        asked = task_of_dataset(fields.text("task"))
        if asked.work_unit == "token":
            return text_result(fields, asked, "")
        renamed = Fields(_as_leaderboard(values, asked.work_unit), _PACKAGE, where)
        return diffusion_result(renamed, asked, "")
    except InvalidPoint as error:
        raise FormatError(f"{_PACKAGE}, {where}: {error}") from error


def _as_leaderboard(values: Mapping[str, Any], unit: str) -> dict[str, Any]:
    """Name a diffusion run's fields as the leaderboard does."""
    names = {
        "energy_per_generation_joules": f"energy_per_{unit}_joules",
        "throughput_generations_per_sec": f"throughput_{unit}s_per_sec",
        "height": f"{unit}_height",
        "width": f"{unit}_width",
    }
    return {names.get(name, name): value for name, value in values.items()}
