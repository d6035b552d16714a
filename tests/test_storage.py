import json
import multiprocessing
import os
from pathlib import Path
from typing import Any

import pytest

from pytest_joules import storage
from pytest_joules.errors import FormatError


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("{", "f: not the JSON", id="cut"),
        pytest.param("", "f: not the JSON", id="empty"),
        pytest.param('{"a": NaN}', "a is NaN, which is no number", id="nan"),
        pytest.param('{"a": -Infinity}', "a is -Infinity, which is no number", id="infinity"),
        pytest.param('{"a": 1e999}', "a is 1e999, which is no number", id="overflow"),
        pytest.param('{"a": 1, "b": {"c": 1, "c": 2}}', "'c' stands twice", id="duplicate"),
        pytest.param("[" * 100_000, "f: not the JSON", id="too-deep"),
        pytest.param("1" * 5000, "f: not the JSON", id="too-long-a-number"),
        pytest.param(
            '{"b": [{"a": [0, -1' + "0" * 400 + "]}]}",
            r"f: .*: a is -10{18}\.\.\. \(402 characters\)",
            id="huge-integer",
        ),
        pytest.param("[[NaN]]", "the top is NaN", id="nan-outside-of-objects"),
        pytest.param("\ufeff{}", "f: not the JSON", id="byte-order-mark"),
    ],
)
def test_what_is_no_strict_json_is_refused(text: str, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        storage.parse(text, name="f")


def test_strict_json_is_read() -> None:
    assert storage.parse('{"a": [1, 2.5, null, true]}', name="f") == {"a": [1, 2.5, None, True]}


def test_what_was_broken_when_it_was_measured_may_hold_nan_but_nothing_else() -> None:
    found = storage.parse('{"a": NaN, "b": -Infinity}', name="f", is_strict=False)

    assert str(found) == "{'a': nan, 'b': -inf}"
    for text in ('{"a": 1, "a": 2}', '{"a": ' + "1" * 400 + "}", "[" * 100_000, '{"a": 1e999}'):
        with pytest.raises(FormatError, match="f: not the JSON"):
            storage.parse(text, name="f", is_strict=False)


@pytest.mark.parametrize("value", [2**64 - 1, 1e30, -1.5e-300, 0])
def test_numbers_of_measurements_are_read(value: float) -> None:
    assert storage.parse(json.dumps({"a": value}), name="f") == {"a": value}


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    latin = tmp_path / "latin.json"
    latin.write_bytes(b'"\xe4"')

    endless, pipe = tmp_path / "endless.json", tmp_path / "pipe.json"
    endless.symlink_to("/dev/zero")
    os.mkfifo(pipe)

    for path in (tmp_path / "missing.json", tmp_path, latin, endless, pipe):
        with pytest.raises(FormatError, match=f"{path}: cannot be read"):
            storage.read(path)


def test_files_below_a_folder_are_listed_without_what_is_being_written(tmp_path: Path) -> None:
    for name in ("b/c.json", "a.json", "b/.half.json", ".draft/d.json", "b/note.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("{}")

    assert storage.files_below(tmp_path, ".json") == [
        tmp_path / "a.json",
        tmp_path / "b/c.json",
    ]
    assert storage.files_below(tmp_path / "absent", ".json") == []


@pytest.mark.parametrize("error", [FileNotFoundError, PermissionError])
def test_a_folder_that_cannot_be_listed_is_an_error_and_not_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[OSError]
) -> None:
    """It was removed while its parent was listed, or belongs to someone else."""
    gone = tmp_path / "gone"
    gone.mkdir()
    (tmp_path / "a.json").write_text("{}")
    scandir = os.scandir

    def refusing(path: Any = ".") -> Any:
        if str(path) == str(gone):
            raise error(1, "not to be had", str(gone))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)

    with pytest.raises(FormatError, match="gone: cannot be listed: not to be had"):
        storage.files_below(tmp_path, ".json")


def test_a_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"a": 1}')

    assert storage.read(tmp_path / "a.json") == {"a": 1}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([], "f: must be object"),
        ({}, "f: must contain"),
        ({"gpu": "x", "points": [], "schema": 3}, "f: schema must be same"),
        ({"gpu": "", "points": [], "schema": 2}, "f: gpu must be longer"),
        ({"gpu": "x", "points": [{"point": {}}], "schema": 2}, r"f: points\[0\] must contain"),
        ({"gpu": "x", "points": [], "schema": 2, "more": 1}, "more"),
    ],
)
def test_the_schema_names_the_field(values: Any, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        storage.require_schema(values, "baseline", name="f")


def test_a_file_is_written_with_its_folders(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b.json"

    storage.write_atomically(path, "ä")

    assert path.read_text(encoding="utf-8") == "ä"
    assert list(path.parent.iterdir()) == [path]
    assert path.stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("broken", ["fsync", "replace"])
def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(
    broken: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.json"
    path.write_text("old")

    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(*((os, "fsync") if broken == "fsync" else (Path, broken)), fail)
    with pytest.raises(OSError, match="No space left"):
        storage.write_atomically(path, "new")

    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_ctrl_c_in_the_middle_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.json"
    path.write_text("old")

    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        storage.write_atomically(path, "new")

    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("exists", [True, False])
def test_what_a_link_names_is_written_and_the_link_stays(
    tmp_path: Path, *, exists: bool
) -> None:
    target, link = tmp_path / "shared" / "a.json", tmp_path / "a.json"
    if exists:
        target.parent.mkdir()
        target.write_text("old")
    link.symlink_to("shared/a.json")

    storage.write_atomically(link, "new")

    assert link.readlink() == Path("shared/a.json")
    assert target.read_text() == "new"
    assert [path.name for path in target.parent.iterdir()] == ["a.json"]


def test_a_pipe_is_written_to(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    (link := tmp_path / "stdout").symlink_to(f"/dev/fd/{writing}")

    storage.write_atomically(link, "told")

    os.close(writing)
    with os.fdopen(reading) as pipe:
        assert pipe.read() == "told"
    assert link.is_symlink()


def hold(path: Path, held: Any, release: Any) -> None:
    with storage.locked(path):
        held.set()
        release.wait(60)


def test_a_lock_that_another_process_holds_is_waited_for_and_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = multiprocessing.get_context("spawn")
    held, release = context.Event(), context.Event()
    path = tmp_path / "new" / "a.json"
    other = context.Process(target=hold, args=(path, held, release))
    other.start()
    try:
        assert held.wait(60)
        monkeypatch.setattr(storage, "_LOCK_WAIT_S", 0.01)
        with pytest.raises(FormatError, match="another process has held"), storage.locked(path):
            pytest.fail("two writers at once")
    finally:
        release.set()
        other.join(60)

    with storage.locked(path):
        assert other.exitcode == 0
