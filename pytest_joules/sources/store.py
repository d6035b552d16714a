"""A folder of the project's own results: one JSON file a GPU, engine, task and model."""

import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pytest_joules import catalog
from pytest_joules.errors import ConfigurationError, FormatError, JoulesError
from pytest_joules.result import Result
from pytest_joules.sources.strict import Fields, read_json

SCHEMA = 1


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
        with path.open("w", encoding="utf-8") as file:
            file.write(_text(group))
            file.flush()
            os.fsync(file.fileno())
    return sorted(files)


def _name(result: Result) -> Path:
    point = result.point
    model = catalog.slug(point.model.rstrip("/"))
    return Path(result.gpu, point.engine, point.task, f"{model}.json")


def _text(results: Sequence[Result]) -> str:
    lines = ",\n".join(json.dumps(result.as_json(), sort_keys=True) for result in results)
    return f'{{"schema": {SCHEMA}, "results": [\n{lines}\n]}}\n'


def read_results(folder: Path) -> tuple[Result, ...]:
    """Read every result of a folder, in order of file names and lines.

    Raises:
        FormatError: A file is broken or of another format; names file and row.
        ConfigurationError: The folder holds no results.
    """
    results = tuple(
        result for path in sorted(folder.rglob("*.json")) for result in _read_file(path)
    )
    if not results:
        raise ConfigurationError(
            f"{folder} holds no results: give a folder of the ML.ENERGY Leaderboard "
            "(index.json, tasks/) or one that `joules import` wrote."
        )
    return results


def _read_file(path: Path) -> list[Result]:
    document = Fields(read_json(path), path, "the file")
    if document.count("schema") != SCHEMA:
        document.fail("schema", document.count("schema"), f"{SCHEMA}, which this version reads")
    return [
        _result(values, path, index) for index, values in enumerate(document.objects("results"))
    ]


def _result(values: Any, path: Path, index: int) -> Result:
    fields = Fields(values, path, f"row {index}")
    for name in ("energy_per_work_unit_j", "throughput_work_units_per_s"):
        fields.number(name)
    fields.text("gpu")
    try:
        return Result.from_json(values)
    except (JoulesError, KeyError, TypeError, AttributeError) as error:
        raise FormatError(
            f"{path}, row {index}: not a result: {type(error).__name__} {error}."
        ) from error
