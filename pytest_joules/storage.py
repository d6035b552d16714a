"""JSON files: strict reading against a schema, atomic and locked writing."""

import json
import os
import secrets
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import fastjsonschema
from filelock import FileLock, Timeout

from pytest_joules.errors import FormatError, is_expected

__tracebackhide__ = is_expected

_LOCK_WAIT_S = 60.0
_DIGITS = 100
_TOO_LARGE = 10.0**_DIGITS
_SIZES = ("minimum", "exclusiveMinimum", "maximum", "minItems")


def parse(text: str, *, name: str, is_strict: bool = True) -> Any:
    """Parse JSON strictly: no NaN, no Infinity, no huge number, no duplicate keys.

    Args:
        text: The JSON.
        name: Of the file, for errors.
        is_strict: ``False`` allows NaN and Infinity, which broken measurements may hold.

    Raises:
        FormatError: Names the file and the field.
    """
    try:
        return json.loads(
            text,
            parse_constant=_refused if is_strict else float,
            parse_float=_float,
            parse_int=_int,
            object_pairs_hook=_object,
        )
    except _NoNumber:
        raise _unmeasured(text, name=name, is_strict=is_strict) from None
    except (ValueError, RecursionError) as error:
        raise _not_json(error, name) from None


def _not_json(error: Exception, name: str) -> FormatError:
    return FormatError(f"{name}: not the JSON it should be: {error}.")


def _unmeasured(text: str, *, name: str, is_strict: bool) -> FormatError:
    """Parse once more to find the field of a wrong number: naming all of them is slow."""
    try:
        values = json.loads(
            text,
            parse_constant=_Wrong if is_strict else float,
            parse_float=_or_wrong(_float),
            parse_int=_or_wrong(_int),
            object_pairs_hook=_object_of_numbers,
        )
        _require_numbers("the top", values)
    except (ValueError, RecursionError) as error:
        return _not_json(error, name)
    raise AssertionError(f"{name}: a number was wrong and is not any more")


def read(path: Path) -> Any:
    """Read and parse a JSON file.

    Raises:
        FormatError: It cannot be read or is not JSON.
    """
    return parse(text_of(path), name=str(path))


def text_of(path: Path) -> str:
    """Read a whole text file. A pipe or a device is none: it may never end.

    Raises:
        FormatError: It cannot be read.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise FormatError(f"{path}: cannot be read: no plain file; put one in its place.")
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise FormatError(f"{path}: cannot be read: {error}.") from None


def exists(path: Path) -> bool:
    """Tell whether a file is there.

    Raises:
        FormatError: Its folder may not be looked into, so nobody can tell.
    """
    try:
        return path.exists()
    except PermissionError as error:
        raise FormatError(f"{path}: cannot be read: {error}.") from None


def files_below(folder: Path, suffix: str) -> list[Path]:
    """Return the files below a folder whose names end so, in order of paths.

    Hidden files and folders are left out: what is being written is hidden until it is complete.
    A folder that does not exist holds none.

    Raises:
        FormatError: A folder cannot be listed, or was removed meanwhile.
    """

    def refuse(error: OSError) -> None:
        raise FormatError(
            f"{error.filename}: cannot be listed: {error.strerror}. Make it readable; if "
            f"something else writes in {folder}, run again when it has ended."
        )

    if not folder.exists():
        return []
    found = []
    for parent, folders, names in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [
            Path(parent, name)
            for name in names
            if name.endswith(suffix) and not name.startswith(".")
        ]
    return sorted(found)


def require_schema(values: Any, schema: str, *, name: str, types_alone: bool = False) -> None:
    """Validate against ``schemas/<schema>.json``.

    Args:
        values: What a file holds.
        schema: Its name.
        name: Of the file, for errors.
        types_alone: Let numbers be of any size, or null: those of broken measurements are.

    Raises:
        FormatError: Names the file and the field, and what it should be.
    """
    try:
        _validator(schema, types_alone=types_alone)(values)
    except fastjsonschema.JsonSchemaException as error:
        raise FormatError(f"{name}: {str(error).removeprefix('data').lstrip('. ')}.") from None


@cache
def _validator(schema: str, *, types_alone: bool) -> Callable[[Any], Any]:
    def text(uri: str) -> Any:
        found = json.loads(_schema_text(uri))
        return _without_sizes(found) if types_alone else found

    made: Callable[[Any], Any] = fastjsonschema.compile(
        text(f"{schema}.json"), handlers={"": text}, use_default=False
    )
    return made


def _without_sizes(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_without_sizes(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {key: _without_sizes(each) for key, each in schema.items() if key not in _SIZES}
    return {**kept, "type": ["number", "null"]} if kept.get("type") == "number" else kept


def _schema_text(uri: str) -> str:
    return (files("pytest_joules") / "schemas" / uri).read_text(encoding="utf-8")


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a whole file or nothing: temporary file, fsync, rename, fsync of the folder.

    A link stays one: the file that it names is written. A pipe or a device, such as
    ``/dev/stdout``, is written to.

    Raises:
        OSError: The folder cannot be written; the old file is untouched.
    """
    data = content.encode() if isinstance(content, str) else content
    if path.exists() and not path.is_file():
        path.write_bytes(data)
        return
    path = path.resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    # Not tempfile: its files are private, and this one shall be what the umask says.
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        with temporary.open("xb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
        _sync_folder(path.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def append_durably(path: Path, lines: Iterable[str]) -> None:
    """Append lines; once this returns they survive the death of the machine.

    Raises:
        OSError: They cannot be written; a part of them may stand there.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    is_new = not path.exists()
    with path.open("a", encoding="utf-8") as stream:
        stream.writelines(f"{line}\n" for line in lines)
        stream.flush()
        os.fsync(stream.fileno())
    if is_new:
        _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """Put the names of a folder on disk: a file without one is lost as well."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Keep a second writer out of a file while the block runs.

    Raises:
        FormatError: Another process holds the lock for more than a minute.
    """
    path = path.resolve()  # who writes it under another name waits as well
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = path.with_name(f".{path.name}.lock")
    try:
        with FileLock(lock, timeout=_LOCK_WAIT_S):
            yield
    except Timeout:
        raise FormatError(
            f"{path}: another process has held {lock.name} for {_LOCK_WAIT_S:g} s; wait for "
            "it, or remove the lock if that process is gone."
        ) from None


class _Wrong(str):
    """What stands for a number but is none; refused as soon as its field is known."""

    __slots__ = ()


class _NoNumber(Exception):
    """A number that no measurement gives."""


def _refused(text: str) -> float:
    raise _NoNumber(text)


def _float(text: str) -> float:
    value = float(text)
    return value if abs(value) < _TOO_LARGE else _refused(text)


def _int(text: str) -> float:
    # Python refuses thousands of digits, and floats overflow at 309.
    return int(text) if len(text) <= _DIGITS else _refused(text)


def _or_wrong(read: Callable[[str], float]) -> Callable[[str], float | _Wrong]:
    def reading(text: str) -> float | _Wrong:
        try:
            return read(text)
        except _NoNumber:
            return _Wrong(text)

    return reading


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {twice!r} stands twice")
    return made


def _object_of_numbers(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = _object(pairs)
    for name, value in pairs:
        if isinstance(value, _Wrong | list):
            _require_numbers(name, value)
    return made


def _require_numbers(name: str, value: Any) -> None:
    if isinstance(value, _Wrong):
        shown = f"{value[:20]}... ({len(value)} characters)" if len(value) > _DIGITS else value
        raise ValueError(f"{name} is {shown}, which is no number of a measurement")  # noqa: TRY004
    if isinstance(value, list):
        for item in value:
            _require_numbers(name, item)
