"""Folders of the project's own results, each file a list as ``--joules-export`` writes it."""

import json
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pytest_joules import catalog, storage
from pytest_joules.errors import ConfigurationError, FormatError, JoulesError, is_expected
from pytest_joules.result import Result

__tracebackhide__ = is_expected


def write_results(folder: Path, results: Sequence[Result]) -> tuple[Path, ...]:
    """Write all results into a new folder, which appears complete or not at all.

    Returns:
        The files written, in order of their names.

    Raises:
        ConfigurationError: The folder already holds something, or there is nothing to write.
    """
    if not results:
        raise ConfigurationError(f"{folder}: there are no results to write.")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigurationError(
            f"{folder} already exists and is not empty; name a new folder or remove it first."
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    # On the same file system, so that the rename at the end is one step.
    draft = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        names = _write_files(draft, results)
        draft.chmod(0o755)  # mkdtemp makes it private; results are as readable as any file
        draft.replace(folder)
    finally:
        # Renamed away where all went well: what is still here is half-written.
        shutil.rmtree(draft, ignore_errors=True)
    return tuple(folder / name for name in names)


def _write_files(folder: Path, results: Sequence[Result]) -> list[Path]:
    files: dict[Path, list[Result]] = {}
    for result in results:
        files.setdefault(_name(result), []).append(result)
    for name, group in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        storage.write_atomically(path, _text(group))
    return sorted(files)


def _name(result: Result) -> Path:
    point = result.point
    # Whatever a file that was read says of itself: the GPU's name, too, is only a name.
    folder = Path(catalog.file_name(result.gpu), point.engine, point.task)
    return folder / f"{catalog.file_name(point.model)}.json"


def _text(results: Sequence[Result]) -> str:
    lines = ",\n".join(json.dumps(result.as_json(), sort_keys=True) for result in results)
    return f"[\n{lines}\n]\n"


def read_results(folder: Path) -> tuple[Result, ...]:
    """Read every result of a folder, in order of file names and rows.

    Raises:
        FormatError: A file is broken or of another format; names file, row and field.
        ConfigurationError: The folder holds no results.
    """
    files = storage.files_below(folder, ".json")
    results = tuple(result for path in files for result in results_in(path))
    if not results:
        raise ConfigurationError(
            f"{folder} holds no results: give a folder of the ML.ENERGY Leaderboard "
            "(index.json, tasks/), or one with files of `joules import mlenergy` or "
            "--joules-export=FILE.json."
        )
    return results


def results_in(path: Path) -> list[Result]:
    """Read a file of ``--joules-export``.

    Raises:
        FormatError: It is broken or of another format; names file, row and field.
    """
    rows = storage.read(path)
    if not isinstance(rows, list):
        raise FormatError(f"{path}: holds a {type(rows).__name__}, not a list of results.")
    return [result_of(values, f"{path}, row {index}") for index, values in enumerate(rows)]


def result_of(values: Any, name: str) -> Result:
    """Build one result from its JSON; of an invalid one only types must be right.

    Raises:
        FormatError: It cannot be read; names the field.
    """
    is_broken = isinstance(values, dict) and bool(values.get("reasons"))
    storage.require_schema(values, "result", name=name, types_alone=is_broken)
    try:
        return Result.from_json(values)
    except (JoulesError, LookupError, TypeError, ValueError) as error:
        told = f"field {error} is missing" if isinstance(error, KeyError) else str(error)
        raise FormatError(f"{name}: a result cannot be read: {told}.") from None
