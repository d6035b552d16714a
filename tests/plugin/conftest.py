"""Runs of pytest on a machine that does not exist, through the public fakes."""

import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd
import pytest
import scipy.optimize
import scipy.special
from typer.testing import CliRunner

import pytest_joules.run
import pytest_joules.testing
from pytest_joules.cli import app

# Loaded here, or every run in this process would load them (and numpy) again.
LOADED = (pytest_joules.run, pytest_joules.testing, pd, scipy.optimize, scipy.special)

# So would the command line: Typer loads pydantic when a command is first called.
CliRunner().invoke(app, ["compare", "--help"])

MACHINE = """
    import pytest
    from pytest_joules.testing import FakeMachine, source_of

    machine = FakeMachine({machine})

    def pytest_joules_source(options):
        return source_of(machine, window_s=min(options.window, {window}))

    def pytest_sessionfinish(session):
        made = [",".join(str(p.batch_size) for p in each.points) for each in machine.launches]
        print("launches made:", " | ".join(made) or "none")
"""

CHECK = """
    import pytest
    from pytest_joules import Point

    QWEN = Point(model="Qwen/Qwen3-8B")

    @pytest.mark.parametrize("batch_size", [16, 64])
    def test_energy(energy_bench, batch_size):
        energy_bench.check(QWEN.but(batch_size=batch_size))
"""


T = TypeVar("T")
_MADE: dict[Any, Any] = {}


class Joules:
    """A scratch project with energy tests and a fake machine."""

    def __init__(self, pytester: pytest.Pytester) -> None:
        self.pytester = pytester
        self.path = pytester.path

    def machine(self, arguments: str = "", extra: str = "", *, window: float = 15) -> None:
        """Write a conftest whose machine has these properties.

        Its windows are short unless asked: what they cost here is mostly their length.
        """
        made = MACHINE.format(machine=arguments, window=window)
        text = textwrap.dedent(made) + textwrap.dedent(extra)
        (self.path / "conftest.py").write_text(text)

    def tests(self, text: str, name: str = "test_energy.py") -> None:
        (self.path / name).write_text(textwrap.dedent(text))

    def pyproject(self, text: str) -> None:
        (self.path / "pyproject.toml").write_text(textwrap.dedent(text))

    def run(self, *args: str, gpu: str | None = "h200") -> pytest.RunResult:
        chosen = [f"--gpu={gpu}"] if gpu else []
        return self.pytester.runpytest_inprocess("-s", *chosen, *args)

    def remembered(self, make: Callable[[], T], *key: object) -> T:
        """Call ``make``, or give the project the files that it left when called before.

        Projects that tests only read need to be measured once. What ``make`` depends on is
        ``key`` and the project's files.
        """
        whole = (key, *sorted(self.files().items()))
        if whole not in _MADE:
            _MADE[whole] = (make(), self.files())
        made, texts = _MADE[whole]
        for path, text in texts.items():
            (self.path / path).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            (self.path / path).write_bytes(text)
        return made

    def files(self) -> dict[Path, bytes]:
        """Return the content of every file but of what Python compiled."""
        paths = [each for each in self.path.rglob("*") if each.is_file()]
        return {
            path.relative_to(self.path): path.read_bytes()
            for path in paths
            if path.suffix != ".pyc"
        }

    def baseline_files(self) -> list[str]:
        root = self.path / "baselines"
        return sorted(str(p.relative_to(root)) for p in root.rglob("*.json"))


@pytest.fixture
def joules(pytester: pytest.Pytester) -> Joules:
    made = Joules(pytester)
    made.machine()
    made.tests(CHECK)
    return made
