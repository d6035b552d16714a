"""Runs steps of a campaign; what each one did lies in the campaign's folder at once."""

import json
import os
import re
import signal
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic

from benchmarks.campaign.steps import Done, Step, following, held_out, read
from pytest_joules.errors import JoulesError, MeterError
from pytest_joules.meter import nvml
from pytest_joules.record import resume

HERE = Path(__file__).resolve().parent
BENCHMARKS = HERE.parent
_SESSIONS = Path(".joules") / "sessions"
ENDING_S = 30.0
"""After the polite signal: engines are ended and what was measured is stored."""

_RESUME, _REFUSED = "--joules-resume=", 4
_BOOT = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, kw_only=True)
class Campaign:
    """A folder with a campaign's project, results and logs."""

    out: Path
    gpu: str
    python: str = sys.executable
    engine_python: str = sys.executable
    """Interpreter with torch and the engines; each stack gets it."""

    steps_file: Path = HERE / "steps.toml"
    points_file: Path = HERE / "points.toml"
    project_file: Path = HERE / "project.toml"

    def prepare(self) -> None:
        """Make the folder, or go on in the one that is there."""
        (self.out / "steps").mkdir(parents=True, exist_ok=True)
        project = self.out / "pyproject.toml"
        if not project.exists():
            asked = held_out(self.steps_file, self.points_file)
            (self.out / "held-out.json").write_text(json.dumps(asked, indent=1) + "\n")
            project.write_text(self._project(), encoding="utf-8")

    def _project(self) -> str:
        """Return the project's settings with the engines' interpreter in every stack."""
        text = self.project_file.read_text(encoding="utf-8")
        if self.engine_python == self.python:
            return text
        python = json.dumps(self.engine_python)
        return re.sub(
            r"(?m)^\[tool\.pytest-joules\.stacks\..*\]$", rf"\g<0>\npython = {python}", text
        )

    def steps(self) -> list[Step]:
        return read(self.steps_file)

    def done(self) -> dict[str, Done]:
        """Return what became of steps so far, by name."""
        found = {}
        for path in sorted((self.out / "steps").glob("*.json")):
            values = json.loads(path.read_text(encoding="utf-8"))
            values["sessions"] = tuple(values["sessions"])
            found[path.stem] = Done(**values)
        return found

    def command(self, step: Step) -> list[str]:
        """Return the step's whole command line."""
        if step.command:
            places = {
                "python": self.python,
                "engine_python": self.engine_python,
                "here": HERE,
                "out": self.out,
                "gpu": self.gpu,
            }
            return [word.format(**places) for word in step.command]
        tests = [
            str(BENCHMARKS / word) if word.endswith(".py") else word for word in step.pytest
        ]
        return [
            *(self.python, "-m", "pytest", "-c", str(self.out / "pyproject.toml")),
            *(f"--rootdir={self.out}", f"--gpu={self.gpu}", f"--points={self.points_file}"),
            *(f"--junitxml={self.out / 'steps' / step.name}.xml", "-q"),
            *tests,
            *self._going_on(step),
        ]

    def _going_on(self, step: Step) -> list[str]:
        """Return the option that goes on with what a step had measured when it was cut off.

        Only where the machine has not been started again: another one would be refused.
        """
        before = self.done().get(step.name)
        if before is None or not (before.cut_off and before.boot and before.boot == boot()):
            return []
        for name in reversed(before.sessions):
            with suppress(JoulesError):  # it left nothing to go on with
                return [f"{_RESUME}{resume.interrupted(self.out, name).name}"]
        return []


def run(campaign: Campaign, *, seconds: float, names: Sequence[str] = ()) -> Iterator[Done]:
    """Run steps that are not done, as many as fit; yield what became of each.

    Args:
        campaign: Where and with what.
        seconds: Time that may be used, the end of a step that is cut off included; no step is
            begun that is expected to take longer than what is left of it.
        names: Only these steps, also those that are done; empty means all that are not.
    """
    ends_s = monotonic() + seconds - ENDING_S
    steps = [step for step in campaign.steps() if not names or step.name in names]
    # A step that is named is run again; one that is cut off now is for the next run, for at
    # once it would not fare better.
    tried: dict[str, Done] = {}
    with _driver_kept():
        while step := following(
            steps, tried if names else {**campaign.done(), **tried}, ends_s - monotonic()
        ):
            finished = _ran(campaign, step, left_s=ends_s - monotonic())
            _store(campaign.out / "steps" / f"{step.name}.json", asdict(finished))
            tried[step.name] = replace(finished, cut_off=False)
            yield finished


@contextmanager
def _driver_kept() -> Iterator[None]:
    """Keep NVML open, where there is one: persistence mode may be off, and is left as it is.

    Without either, the driver unloads after every program, and each next one waits until it
    has set the GPU up again.
    """
    with ExitStack() as stack:
        with suppress(MeterError):
            stack.enter_context(nvml.session())
            nvml.handles()
        yield


def boot() -> str:
    """Return what names this start of the machine; empty where nothing does."""
    return _BOOT.read_text(encoding="ascii").strip() if _BOOT.exists() else ""


def _ran(campaign: Campaign, step: Step, *, left_s: float) -> Done:
    before, command = _sessions(campaign.out), campaign.command(step)
    goes_on = command[-1].startswith(_RESUME)
    began, started_s = datetime.now(UTC).isoformat(timespec="seconds"), monotonic()
    log = campaign.out / "steps" / f"{step.name}.log"
    with log.open("wb") as stream, _beside(campaign, step.beside):
        child = subprocess.Popen(
            command,
            cwd=campaign.out if step.pytest else BENCHMARKS.parent,
            stdout=stream,
            stderr=subprocess.STDOUT,
            env=_environment(),
            preexec_fn=_hear_interrupts,  # noqa: PLW1509  no thread of this program runs yet
        )
        code, cut_off = _awaited(child, min(step.most_seconds, left_s))
    earlier_s = campaign.done()[step.name].took_s if goes_on else 0.0
    return Done(
        name=step.name,
        part=step.part,
        exit_code=code,
        took_s=round(earlier_s + monotonic() - started_s, 1),
        cut_off=cut_off or (goes_on and code == _REFUSED),  # the next run begins anew
        began=began,
        boot=boot(),
        sessions=tuple(sorted(_sessions(campaign.out) - before)),
    )


def _hear_interrupts() -> None:
    """Undo that a shell lets what it starts in the background ignore SIGINT."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _awaited(child: subprocess.Popen[bytes], seconds: float) -> tuple[int, bool]:
    """Wait for a command; end one that takes too long, politely first."""
    try:
        return child.wait(seconds), False
    except subprocess.TimeoutExpired:
        child.send_signal(signal.SIGINT)
    try:
        return child.wait(ENDING_S), True
    except subprocess.TimeoutExpired:
        child.kill()
        return child.wait(), True


@contextmanager
def _beside(campaign: Campaign, script: str) -> Iterator[None]:
    """Keep another process on the GPU meanwhile."""
    if not script:
        yield
        return
    command = [campaign.engine_python, str(HERE / script)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=_environment()) as child:
        try:
            if child.stdout is None or not child.stdout.readline().startswith(b"ready"):
                raise RuntimeError(f"{script} could not be started; see the end of its output.")
            yield
        finally:
            child.kill()


def _environment() -> Mapping[str, str]:
    root = str(BENCHMARKS.parent)
    path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH", "")]))
    return {**os.environ, "PYTHONPATH": path, "HF_HUB_OFFLINE": "1"}


def _sessions(out: Path) -> set[str]:
    return {path.name for path in (out / _SESSIONS).glob("*") if path.is_dir()}


def _store(path: Path, values: Mapping[str, object]) -> None:
    draft = path.with_suffix(".new")
    draft.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
    draft.rename(path)


def pack(campaign: Campaign, target: Path) -> None:
    """Write a campaign but the engines' folders into one archive, whole or not at all."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        draft = Path(folder) / "draft"
        with tarfile.open(draft, "w:gz") as archive:
            archive.add(campaign.out, arcname=".", filter=_kept)
        draft.rename(target)


def _kept(info: tarfile.TarInfo) -> tarfile.TarInfo | None:
    return None if info.name.startswith("./.joules/launches") else info


def unpack(source: Path, out: Path) -> None:
    """Restore a campaign that was packed elsewhere, to go on with it."""
    with tarfile.open(source) as archive:
        # Python before 3.11.4 has no filters (Debian 12 has 3.11.2).
        archive.extraction_filter = getattr(tarfile, "data_filter", None)
        archive.extractall(out)
