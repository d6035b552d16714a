"""Kill pytest at random moments, a hundred times, and look for what it left: docs/faults.md.

``python -m tests.perf.kill_soak [KILLS] [SEED]`` runs a repository's energy tests through the
real supervisor, load generator, sampler and Zeus, on a program that looks like vLLM and a mock
NVML library, half of them in workers (``-n2``), and ends each run by SIGTERM, SIGKILL or SIGINT
at a random moment, alone or with its whole process group. After each kill it counts processes
left, files that cannot be read, and results that were announced on the screen but are not
stored. Ends with 1 if any is found.
"""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic, sleep
from typing import BinaryIO

from pytest_joules import baseline, record
from pytest_joules.errors import JoulesError
from pytest_joules.record.replaying import replay
from tests.engines.project import Project
from tests.fakes.mock_nvml import MockNvml, compile_library
from tests.fakes.vllm_program import make_stack

SIGNALS = (signal.SIGTERM, signal.SIGKILL, signal.SIGINT)
PATIENCE_S = 180.0
MARK = "JOULES_KILL_SOAK"
"""Variable that every process of a run inherits; the supervised ones carry their own, too."""

SETTINGS = """
    window = 1.5
    tolerance = "30%"
    launches = 1
"""
TESTS = """
    from pytest_joules import Lengths, Point

    POINT = Point(
        model="org/model",
        batch_size=4,
        weights="dummy",
        input_tokens=Lengths(mean=8, cv=0.5, longest=30),
        output_tokens=Lengths(mean=50, cv=0.5, shortest=10, longest=100),
    )

    def test_energy(energy_bench):
        energy_bench.check(POINT)
"""
_ANNOUNCED = re.compile(
    r"^(?:\[gw\d\] )?joules.*: (?:\S+ \S?J/token in |invalid \()", re.MULTILINE
)
_PHASES = (
    ("after the last test", r"^=+ .*(passed|failed).* in "),
    ("after a result", _ANNOUNCED.pattern),
    ("under load", r"^(\[gw\d\] )?joules.*load model"),
    ("while starting the server", r"^(\[gw\d\] )?joules.*launch \d"),
    ("while collecting", r"^collect"),
    ("before collecting", r""),
)


@dataclass
class Found:
    """What was counted."""

    kills: Counter[str] = field(default_factory=Counter)
    phases: Counter[str] = field(default_factory=Counter)
    with_workers: int = 0
    announced: int = 0
    stored: int = 0
    recorded: int = 0
    json_files: int = 0
    cut_lines: int = 0
    drafts: int = 0
    slowest_end_s: float = 0.0
    faults: list[str] = field(default_factory=list)

    @property
    def num_kills(self) -> int:
        return sum(self.kills.values())


class Soak:
    """One repository, in which runs are killed one after the other."""

    def __init__(self, folder: Path, library: Path, seed: int) -> None:
        self.found = Found()
        self._random, self._number, self._mark = random.Random(seed), 0, ""
        self._scratch = folder / "scratch"
        self._project, self._temporary = folder / "project", folder / "tmp"
        for each in (self._project, self._temporary, self._scratch):
            each.mkdir()
        self._mock = MockNvml.create(folder / "gpu", library, num_gpus=1)
        self._mock.set_power(0, 300.0)
        stack = make_stack(folder / "env")
        Project(self._project, stack=stack, mock=self._mock).write(SETTINGS, TESTS)
        self._typical_s = 0.0

    def run_whole(self, *args: str) -> None:
        """Run undisturbed; what the kills left must not be in the way."""
        began_s = monotonic()
        text, code = self._run(args, kill=lambda run: run.wait())
        self._typical_s = monotonic() - began_s
        # 6: a busy machine may leave a verdict open or disturb a measurement, never red.
        if code not in {0, 6}:
            self._fault(f"undisturbed, it ended with {code}:\n{text}")

    def kill(self) -> None:
        """Start a run, kill it, and look."""
        chosen = self._random
        args = chosen.choice([(), ("--joules-record",)]) + chosen.choice([(), ("-n2",)])
        number, to_group = chosen.choice(SIGNALS), chosen.random() < 0.3
        # Half of them in the moments in which results are told, stored and recorded.
        after_result = chosen.random() < 0.5
        after_s = chosen.uniform(0.0, 1.0 if after_result else self._typical_s)

        def kill(run: subprocess.Popen[bytes]) -> None:
            while after_result and run.poll() is None and not _ANNOUNCED.search(self._text()):
                sleep(0.005)
            try:
                run.wait(after_s)
            except subprocess.TimeoutExpired:
                # Ctrl-C in a terminal goes to the whole group.
                to_all = to_group or number == signal.SIGINT
                (os.killpg if to_all else os.kill)(run.pid, number)
                self.found.kills[number.name + (" to its group" if to_all else "")] += 1

        before = self.found.num_kills
        text, _ = self._run(args, kill)
        if self.found.num_kills == before:
            return  # it had ended
        self.found.with_workers += "-n2" in args
        phase = next(name for name, seen in _PHASES if re.search(seen, text, re.MULTILINE))
        self.found.phases[phase] += 1

    def _run(
        self, args: tuple[str, ...], kill: Callable[[subprocess.Popen[bytes]], object]
    ) -> tuple[str, int]:
        self._number += 1
        self._mark = f"{self._scratch}/{self._number}.log"
        sessions, runs = self._sessions(), self._runs()
        with Path(self._mark).open("wb") as out:
            process = self._start(args, out)
        kill(process)
        began_s = monotonic()
        code = process.wait(PATIENCE_S)
        text = self._text()
        self.require_nothing_runs(self._mark)
        self.found.slowest_end_s = max(self.found.slowest_end_s, monotonic() - began_s)
        self.require_readable()
        self.require_kept(text, sum(map(self._stored, self._sessions() - sessions)))
        if "--joules-record" in args:
            self._require_recorded(text, self._runs() - runs)
        return text, code

    def _text(self) -> str:
        return Path(self._mark).read_text()

    def _start(self, args: tuple[str, ...], out: BinaryIO) -> subprocess.Popen[bytes]:
        env = {
            **self._mock.env(),
            MARK: self._mark,
            "TMPDIR": str(self._temporary),
            "PYTHONPATH": str(Path(__file__).parents[2]),
            # Plugins that happen to be installed would cost more than the run itself.
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        }
        plugins = ["-p", "no:cacheprovider", "-p", "pytest_joules.plugin", "-p", "xdist.plugin"]
        return subprocess.Popen(
            [sys.executable, "-m", "pytest", "-v", *plugins, *args],
            cwd=self._project,
            env=env,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            # A shell has background jobs ignore Ctrl-C.
            preexec_fn=_heed_ctrl_c,  # noqa: PLW1509 this process has one thread
        )

    # --- what is left ------------------------------------------------------------------------

    def _fault(self, text: str) -> None:
        self.found.faults.append(f"run {self._number}: {text}")

    def require_nothing_runs(self, mark: str) -> None:
        left = self._left(f"{MARK}={mark}".encode())
        if left:
            self._fault(f"processes {left} are left")

    def require_kept(self, text: str, stored: int) -> None:
        announced = len(_ANNOUNCED.findall(text))
        self.found.announced += announced
        self.found.stored += stored
        if announced > stored:
            self._fault(f"{announced} results announced, {stored} stored\n{text}")

    def _require_recorded(self, text: str, grown: int) -> None:
        # A test that records has passed only when its runs are in the file.
        passed = text.count("PASSED")
        self.found.recorded += grown
        if passed > grown:
            self._fault(f"{passed} tests recorded, {grown} runs in the files\n{text}")

    def _left(self, mark: bytes) -> list[str]:
        deadline = monotonic() + PATIENCE_S
        while left := [p.name for p in Path("/proc").glob("[0-9]*") if carries(p, mark)]:
            if monotonic() > deadline:
                return left
            sleep(0.02)
        return []

    def _sessions(self) -> frozenset[Path]:
        return frozenset((self._project / record.FOLDER).glob("*"))

    def _stored(self, session: Path) -> int:
        return len(record.results_of(session)) if record.is_session(session) else 0

    def _runs(self) -> int:
        files = self._project.glob("baselines/**/*.json")
        return sum(len(runs) for file in files for runs in baseline.load(file).values())

    def require_readable(self) -> None:
        """Read every file of the run as its readers do, and all JSON by its syntax."""
        try:
            for session in self._sessions():
                if record.is_session(session):
                    record.digest_of(session)
                    replay(session)
            self._runs()
        except JoulesError as error:
            self._fault(str(error))
        for path in self._project.rglob("*.json"):
            self.found.json_files += 1
            try:
                json.loads(path.read_text())
            except ValueError as error:
                self._fault(f"{path}: {error}")
        for path in self._project.rglob("*.jsonl"):
            self._read_lines(path)

        drafts = [*self._project.rglob(".*.json.*"), *self._temporary.iterdir()]
        self.found.drafts = sum(each.suffix != ".lock" for each in drafts)

    def _read_lines(self, path: Path) -> None:
        *whole, last = path.read_bytes().split(b"\n")
        self.found.cut_lines += bool(last)
        for line in whole:
            try:
                json.loads(line)
            except ValueError as error:
                self._fault(f"{path}: {error}")


def carries(process: Path, mark: bytes) -> bool:
    """Tell whether a process of /proc has this variable."""
    try:
        return mark in (process / "environ").read_bytes().split(b"\0")
    except OSError:
        return False


def _heed_ctrl_c() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def soak(folder: Path, library: Path, *, kills: int, seed: int) -> Found:
    """Kill so many runs in one repository, then run it once more undisturbed."""
    made = Soak(folder, library, seed)
    made.run_whole("--joules-record")
    while made.found.num_kills < kills:
        made.kill()
    made.run_whole()
    return made.found


def main(kills: int = 100, seed: int = 1) -> int:
    folder = Path(tempfile.mkdtemp(prefix="kill-soak-"))
    found = soak(folder, compile_library(folder), kills=kills, seed=seed)
    print(f"{found.num_kills} runs killed, seed {seed}")
    for title, counted in (("killed by", found.kills), ("killed", found.phases)):
        for name, count in counted.most_common():
            print(f"  {title} {name}: {count}")
    print(f"with workers {found.with_workers}")
    print(f"results announced {found.announced}, stored {found.stored}")
    print(f"runs added to baselines {found.recorded}")
    print(f"JSON files read {found.json_files}, last lines cut {found.cut_lines}")
    print(f"temporary files left {found.drafts}; slowest end {found.slowest_end_s:.1f} s")
    print(f"faults: {len(found.faults)}", *found.faults, sep="\n  ")
    if not found.faults:
        shutil.rmtree(folder)
    return bool(found.faults)


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
