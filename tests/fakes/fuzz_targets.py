"""Every kind of file that the package reads, with the way it takes until people see it.

A target is a small valid folder and a function that reads it as a command of the package
does. ``Workspace`` puts harmed bytes in the place of one file and tells what came of it.
"""

import json
import shutil
import tempfile
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest_joules
from pytest_joules import baseline, record
from pytest_joules.commands import baselines, comparing, explaining, exporting, sessions, stored
from pytest_joules.digest import Digest, rows_of
from pytest_joules.engines.endpoint import target_of
from pytest_joules.errors import ConfigurationError, FormatError, Incomparable, JoulesError
from pytest_joules.gate.ruling import Case, rule
from pytest_joules.ledger import Judgement
from pytest_joules.options.frozen import Options
from pytest_joules.options.marker import MarkerOptions
from pytest_joules.record.recorder import Recorder
from pytest_joules.report import export, github, html
from pytest_joules.result import Result
from pytest_joules.run.outputs import settings_of
from pytest_joules.sources.mlenergy import read_leaderboard
from pytest_joules.sources.mlenergy_raw import read_raw
from pytest_joules.sources.recorded import RecordedSource
from pytest_joules.stack import interpreter
from tests.fakes import leaderboard, mutations, raw_runs
from tests.fakes.results import make_run

Write = Callable[[Any], bytes]
ROOT = str(Path(pytest_joules.__file__).parent)


@dataclass(frozen=True, kw_only=True)
class Target:
    """One kind of file."""

    name: str
    trees: Mapping[str, Any]
    """What each file of a valid folder holds, by its path in it."""

    use: Callable[[Path], object]
    """Reads the folder, to the last thing that people would see of it."""

    write: Callable[[str], Write] = lambda _: mutations.as_json
    """By a file's path, how its tree becomes bytes."""

    def data(self, path: str, tree: Any) -> bytes:
        return self.write(path)(tree)


def _tell(results: list[Result]) -> None:
    """Do with results what `joules show` and `joules export` do."""
    sessions.measured(results, None)
    _export(Digest(rows=rows_of(results, {})))
    with suppress(Incomparable):
        comparing.compared(_runs(), results, tolerance=0.03)
    _explain(results)


def _explain(results: list[Result]) -> None:
    """Do what `joules explain` does."""
    side = {result.point: [result] for result in results}
    then = {_runs()[0].point: _runs()}
    with suppress(ConfigurationError):  # nothing to pair
        explaining.explained(then, side)


def _export(digest: Digest) -> None:
    export.as_csv(digest)
    export.as_json(digest)
    github.comment(digest)


def _use_baseline(folder: Path) -> None:
    baselines.listed(folder)
    _tell(stored.every_result_at(str(folder)))


def _use_session(folder: Path) -> None:
    with suppress(FormatError):
        record.plan_of(folder)  # another may be asked to go on with it
    digest = record.digest_of(folder)
    sessions.measured(record.results_of(folder), None)
    _export(digest)
    html.render(digest)
    sessions.replayed(folder)


def _use_export(folder: Path) -> None:
    _tell(stored.every_result_at(str(folder / "all.json")))
    exporting._digest(str(folder / "all.json"))  # noqa: SLF001  what is written is not the point


def _use_store(folder: Path) -> None:
    _tell(list(RecordedSource.open(folder).results))


def _use_leaderboard(folder: Path) -> None:
    _tell(list(read_leaderboard(folder).results))


def _use_raw(folder: Path) -> None:
    _tell(list(read_raw(folder, precision="bf16")))


def _use_configuration(folder: Path) -> None:
    ini = _foreign(folder / "ini.json")
    config: Any = SimpleNamespace(
        rootpath=folder,
        getoption=lambda _: None,
        getini=ini.get,
    )
    chosen = Options.from_pytest(config)
    settings_of(chosen, chosen.source)
    for name in chosen.stacks:
        stack = chosen.stack_named(name)
        if stack.url:
            target_of(stack, "org/model")
        else:
            interpreter(stack)


def _use_marker(folder: Path) -> None:
    kwargs = _foreign(folder / "marker.json")
    marker = SimpleNamespace(args=(), kwargs=kwargs)
    item: Any = SimpleNamespace(nodeid="marker.json::test", get_closest_marker=lambda _: marker)
    MarkerOptions.from_item(item)


def _foreign(path: Path) -> dict[str, Any]:
    """Read what pytest or Python reads for us; what they refuse does not come to us."""
    try:
        values = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        return {}
    return values if isinstance(values, dict) else {"x": values}


@cache
def _runs() -> list[Result]:
    return [
        make_run(energy, batch_size=8, gpu="h200", launch_id=f"launch-{index}")
        for index, energy in enumerate((1.0, 1.01, 0.99))
    ]


def _baseline_tree() -> Any:
    runs = _runs()
    return json.loads(baseline.dump("h200", {runs[0].point: runs}))


def _session_trees() -> dict[str, Any]:
    """Let the package itself write a session that found a regression."""
    then, now = (
        _runs(),
        [run.but(energy_per_work_unit_j=run.energy_per_work_unit_j * 1.1) for run in _runs()],
    )
    point, stack = then[0].point, then[0].provenance.context.stack
    case = Case(stack=stack, tolerances={point: 0.03}, baselines={point: tuple(then)})
    launched = {(point, stack): now}
    comparison = case.compared(point, rule(point, launched, case))
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / ".joules" / "sessions" / "s"
        recorder = Recorder(folder=folder, settings={"gpu": "h200", "source": "live"})
        for run in now:
            recorder.finished(run)
        recorder.judged(Judgement(comparison=comparison, case=case, num_results=len(now)))
        recorder.ended(Digest(rows=(), num_launches=3, spent_gpu_s=60.0))
        # Not the lock, which holds nothing.
        return {path.name: _tree(path) for path in sorted(folder.glob("*.json*"))}


def _tree(path: Path) -> Any:
    text = path.read_text()
    return (
        [json.loads(line) for line in text.splitlines()]
        if path.suffix == ".jsonl"
        else json.loads(text)
    )


def _leaderboard_trees() -> dict[str, Any]:
    tasks = leaderboard.small_tasks()
    files = {
        f"tasks/{name}.json": {"task": name, "configurations": rows}
        for name, rows in tasks.items()
    }
    return {"index.json": leaderboard.index_of(tasks), **files}


CONFIGURATION = {
    "gpu": "h200",
    "source": "live",
    "tolerance": "3%",
    "window": 60,
    "keep": 5,
    "budget": 30,
    "models": ["Qwen/Qwen3-8B"],
    "export": "a.csv",
    "plant": "clock:-5%",
    "stacks": {
        "old": {
            "python": "envs/old/bin/python",
            "env": {"VLLM_USE_V1": 1},
            "args": ["--max-num-batched-tokens", 2048],
            "deadline": 300,
        },
        "image": {"command": ["docker", "run", "image"], "python": "python3"},
        "there": {"url": "http://127.0.0.1:8000", "gpus": ["GPU-1"]},
    },
}


@cache
def targets() -> Mapping[str, Target]:
    """Return all targets by name."""
    lines = {"results.jsonl", "baselines.jsonl", "verdicts.jsonl"}
    listed = [run.as_json() for run in _runs()]
    made = [
        Target(name="baseline", trees={"h200/model.json": _baseline_tree()}, use=_use_baseline),
        Target(
            name="session",
            trees=_session_trees(),
            use=_use_session,
            write=lambda path: mutations.as_lines if path in lines else mutations.as_json,
        ),
        Target(name="export", trees={"all.json": listed}, use=_use_export),
        Target(name="results", trees={"h200/vllm/model.json": listed}, use=_use_store),
        Target(name="leaderboard", trees=_leaderboard_trees(), use=_use_leaderboard),
        Target(name="raw", trees=raw_runs.trees(), use=_use_raw),
        Target(
            name="configuration",
            trees={
                "pyproject.toml": CONFIGURATION,
                "ini.json": {"joules_window": "60", "joules_models": "a/b"},
            },
            use=_use_configuration,
            write=lambda path: (
                mutations.as_toml if path.endswith("toml") else mutations.as_json
            ),
        ),
        Target(
            name="marker",
            trees={"marker.json": {"tolerance": 0.03, "may_measure_nothing": True}},
            use=_use_marker,
        ),
    ]
    return {target.name: target for target in made}


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of one input."""

    kind: str
    """``read``, ``refused``, or what is wrong with the answer."""

    text: str = ""


@dataclass(frozen=True)
class Workspace:
    """A target's valid folder, in which one file at a time is another."""

    target: Target
    folder: Path

    def outcome(self, path: str, data: bytes) -> Outcome:
        """Put ``data`` in the place of a file, use the folder, and restore it."""
        file = self.folder / path
        file.write_bytes(data)
        before = _listing(self.folder)
        try:
            found = self._used()
        finally:
            changed = _listing(self.folder) != before or file.read_bytes() != data
            file.write_bytes(self.target.data(path, self.target.trees[path]))
        return Outcome(kind="wrote", text=str(path)) if changed else found

    def _used(self) -> Outcome:
        try:
            self.target.use(self.folder)
        except JoulesError as error:
            is_told = str(self.folder) in str(error) or not isinstance(error, FormatError)
            return Outcome(kind="refused" if is_told else "without file", text=str(error))
        except Exception as error:  # noqa: BLE001  what the promise is about
            return Outcome(kind="crash", text=_where(error))
        return Outcome(kind="read")


def _where(error: BaseException) -> str:
    ours = [f for f in traceback.extract_tb(error.__traceback__) if f.filename.startswith(ROOT)]
    place = f"{ours[-1].filename.removeprefix(ROOT)}:{ours[-1].lineno}" if ours else "outside"
    return f"{type(error).__name__} at {place}: {str(error)[:200]!r}"


def _listing(folder: Path) -> list[tuple[str, int, int]]:
    return sorted(
        (str(path), path.stat().st_mtime_ns, path.stat().st_size) for path in folder.rglob("*")
    )


@contextmanager
def workspace(target: Target) -> Iterator[Workspace]:
    """Write a target's valid folder, and see that it is read."""
    with tempfile.TemporaryDirectory(prefix="fuzz-") as place:
        folder = Path(place) / target.name
        for path, tree in target.trees.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(target.data(path, tree))
        target.use(folder)
        yield Workspace(target, folder)
        shutil.rmtree(folder)


def drawn(stream: Random, target: Target) -> tuple[str, bytes]:
    """Draw one harmed file of a target: its path and its bytes."""
    path = stream.choice(sorted(target.trees))
    tree = target.trees[path]
    for _ in range(stream.choice([1, 1, 1, 2, 3])):
        tree, _place = mutations.mutated(stream, tree)
    data = target.data(path, tree)
    return path, mutations.harmed(stream, data) if stream.random() < 0.15 else data
