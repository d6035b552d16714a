"""Fuzz every kind of file that the package reads: ``python tests/perf/fuzz_files.py``.

Half of the inputs are drawn by Hypothesis, which harms valid files by structure; half come
from atheris (pip install atheris, Python up to 3.13), which is led by the coverage of the
package and mutates bytes and structure by turns. Seeds are fixed. An input is read, or
refused with one of the package's own errors that names the file; anything else (an exception
from inside, an error without the file, a changed folder, 30 s) is printed and makes the exit
code 1.
"""

import argparse
import json
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from random import Random
from time import process_time
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

SEED = 20_261_127
LIMIT_S = 30
NAMES = (
    *("baseline", "session", "export", "results", "leaderboard", "raw", "configuration"),
    "marker",
)
_WIDTH = 14
Try = Callable[[str, bytes], None]


def main() -> int:
    """Run both engines on every target; return 1 where a promise was broken."""
    arguments = _parser().parse_args()
    if arguments.worker:
        _ENGINES[arguments.engine](arguments.worker, arguments.inputs, Path(arguments.out))
        return 0
    engines = [arguments.engine] if arguments.engine else list(_ENGINES)
    share = -(-arguments.inputs // (len(engines) * len(arguments.targets)))
    totals: Counter[str] = Counter()
    for engine in engines:
        for name in arguments.targets:
            found = _apart(engine, name, share)
            _show(engine, name, found)
            totals.update(found["counts"])
    print(f"{sum(totals.values())} inputs: {dict(totals)}")
    return 0 if set(totals) <= {"read", "refused"} else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=100_000, help="of all targets together")
    parser.add_argument("--targets", nargs="+", choices=NAMES, default=NAMES)
    parser.add_argument("--engine", choices=list(_ENGINES), default="")
    parser.add_argument("--worker", default="", help=argparse.SUPPRESS)
    parser.add_argument("--out", default="", help=argparse.SUPPRESS)
    return parser


def _apart(engine: str, name: str, inputs: int) -> dict[str, Any]:
    """Run one target in a process of its own, as libFuzzer ends the one it runs in."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "found.json"
        command = [sys.executable, __file__, f"--engine={engine}", f"--worker={name}"]
        run = subprocess.run(
            [*command, f"--inputs={inputs}", f"--out={out}"],
            capture_output=True,
            text=True,
            check=False,
        )
        if not out.exists():
            raise SystemExit(f"{engine} on {name} ended with {run.returncode}:\n{run.stderr}")
        found: dict[str, Any] = json.loads(out.read_text())
        return found


def _show(engine: str, name: str, found: Mapping[str, Any]) -> None:
    counts = dict(found["counts"])
    told = ", ".join(f"{number} {kind}" for kind, number in sorted(counts.items()))
    print(f"{engine:10} {name:{_WIDTH}} {told}; {found['cpu_s']:.0f} CPU s", flush=True)
    for each in found["broken"]:
        print(f"    {each}")


class Tally:
    """Counts what came of the inputs of one target, and keeps an input of each fault."""

    def __init__(self, space: Any, out: Path) -> None:
        self._space, self._out = space, out
        self.counts: Counter[str] = Counter()
        self._broken: dict[str, str] = {}
        signal.signal(signal.SIGALRM, _too_slow)

    def take(self, path: str, data: bytes) -> None:
        signal.alarm(LIMIT_S)
        outcome = self._space.outcome(path, data)
        signal.alarm(0)
        self.counts[outcome.kind] += 1
        if outcome.kind not in ("read", "refused"):
            key = f"{outcome.kind}: {outcome.text}"[:160]
            self._broken.setdefault(
                key, f"{outcome.kind} {path}: {outcome.text} {data[:300]!r}"
            )

    def write(self) -> None:
        found = {
            "counts": self.counts,
            "broken": list(self._broken.values()),
            "cpu_s": process_time(),
        }
        self._out.write_text(json.dumps(found))


def _too_slow(*_: object) -> None:
    raise TimeoutError(f"longer than {LIMIT_S} s")


def _by_hypothesis(name: str, inputs: int, out: Path) -> None:
    from hypothesis import HealthCheck, Phase, given, seed, settings
    from hypothesis import strategies as st

    from tests.fakes.fuzz_targets import drawn, targets, workspace

    target = targets()[name]
    with workspace(target) as space:
        tally = Tally(space, out)

        @seed(SEED)
        @settings(
            max_examples=inputs,
            database=None,
            deadline=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(st.randoms(use_true_random=False))
        def each(stream: Random) -> None:
            tally.take(*drawn(stream, target))

        each()
        tally.write()


def _by_atheris(name: str, inputs: int, out: Path) -> None:
    try:
        import atheris
    except ImportError:
        raise SystemExit("atheris is not installed: pip install atheris") from None
    with atheris.instrument_imports(include=["pytest_joules"]):
        from tests.fakes import fuzz_targets
    target = fuzz_targets.targets()[name]
    paths = sorted(target.trees)
    with fuzz_targets.workspace(target) as space, tempfile.TemporaryDirectory() as corpus:
        tally = Tally(space, out)
        for index, path in enumerate(paths):
            valid = bytes([index]) + target.data(path, target.trees[path])
            (Path(corpus) / str(index)).write_bytes(valid)

        def one(data: bytes) -> None:
            if data:
                tally.take(paths[data[0] % len(paths)], data[1:])
            if tally.counts.total() in (inputs - 10, inputs - 1, inputs):
                tally.write()  # libFuzzer ends the process without coming back

        def mutator(data: bytes, most: int, number: int) -> bytes:
            stream = Random(number)
            made = _by_structure(stream, target, data) if number % 2 else None
            return made if made and len(made) <= most else atheris.Mutate(data, most)

        flags = [f"-seed={SEED}", f"-runs={inputs}", "-max_len=40000", "-verbosity=0"]
        atheris.Setup(["fuzz", *flags, corpus], one, custom_mutator=mutator)
        atheris.Fuzz()


def _by_structure(stream: Random, target: Any, data: bytes) -> bytes | None:
    from tests.fakes import mutations

    if not data:
        return None
    paths = sorted(target.trees)
    path = paths[data[0] % len(paths)]
    try:
        tree = mutations.parsed(path, data[1:])
    except (ValueError, LookupError, TypeError, RecursionError):
        return None
    made = target.data(path, mutations.mutated(stream, tree)[0])
    return data[:1] + (mutations.harmed(stream, made) if stream.random() < 0.05 else made)


_ENGINES: Mapping[str, Callable[[str, int, Path], None]] = {
    "hypothesis": _by_hypothesis,
    "atheris": _by_atheris,
}

if __name__ == "__main__":
    sys.exit(main())
