"""The documents say what the code does, and what they show to type really works."""

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from pytest_joules import contract
from pytest_joules.report.export import FORMATS
from tests.fakes.pages import Block, blocks, shows

pytestmark = pytest.mark.takes_long

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
MACHINE = "-p tests.fakes.docs_machine"
LANGUAGES = {"python", "sh", "text", "toml", "yaml", "", "{toctree}", "{eval-rst}"}


def rows(table):
    return [
        f"| `{code}` | {rule.when} | {rule.remedy} |" for code, rule in sorted(table.items())
    ]


def test_every_validity_rule_and_note_is_documented_as_it_is():
    lines = (DOCS / "validity.md").read_text().splitlines()
    listed = [line for line in lines if line.startswith("| `")]

    assert listed == rows(contract.RULES) + rows(contract.NOTES)


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


class Reader:
    """Does what a page says, in an empty folder, on a machine that does not exist."""

    def __init__(self, folder: Path, *, brings_machine: bool) -> None:
        self.folder, self.output = folder, ""
        commands = folder / "bin"
        commands.mkdir()
        for name, module in (("pytest", "pytest"), ("joules", "pytest_joules")):
            command = commands / name
            command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m {module} "$@"\n')
            command.chmod(0o755)
        self.project = folder / "project"
        self.project.mkdir()
        (self.project / "pytest.ini").touch()
        self._env = {
            **os.environ,
            "PATH": f"{commands}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "PYTEST_ADDOPTS": f"{'' if brings_machine else MACHINE} -p no:cacheprovider",
            "COLUMNS": "200",
            "NO_COLOR": "1",
            "PY_COLORS": "0",
        }

    def do(self, block: Block) -> None:
        if "not run" in block.marks or "command" in block.marks:
            return
        match block.language:
            case "python" | "toml" | "yaml":
                self._keep(block)
            case "sh":
                self._type(block)
            case "text":
                assert not shows(block.text, self.output), self.output

    def _keep(self, block: Block) -> None:
        if "file" in block.marks:
            path = self.project / block.marks["file"]
            path.write_text(block.text)
            if path.name == "pyproject.toml":
                (self.project / "pytest.ini").unlink(missing_ok=True)
        match block.language:
            case "toml":
                tomllib.loads(block.text)
            case "yaml":
                yaml.safe_load(block.text)
            case "python":
                exec(compile(block.text, "<page>", "exec"), {"__name__": "page"})

    def _type(self, block: Block) -> None:
        ended = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", block.text],
            cwd=self.project,
            env=self._env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        self.output = ended.stdout
        assert ended.returncode == int(block.marks.get("exit", "0")), ended.stdout


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_what_a_page_shows_works(page, tmp_path):
    whole = list(blocks(page))
    is_whole = any(block.marks.get("file") == "conftest.py" for block in whole)
    reader = Reader(tmp_path, brings_machine=is_whole)  # then nothing hidden may be needed
    for block in whole:
        assert block.language in LANGUAGES, f"line {block.line}"
        try:
            reader.do(block)
        except AssertionError as error:
            error.add_note(f"{name_of(page)}, line {block.line}")
            raise


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_what_is_not_run_says_why(page):
    for block in blocks(page):
        assert len(block.marks.get("not run", "a reason of some length")) > 20


def test_a_shown_output_is_really_compared():
    assert not shows("a ... c\nd", "x\na  b  c\n\nd\n")
    assert shows("d\na ... c", "a b c\nd") == "a ... c"
    assert shows("a c", "a b c") == "a c"


def test_every_export_format_is_documented():
    lines = (DOCS / "reports.md").read_text().splitlines()

    assert [line.split("`")[1] for line in lines if line.startswith("| `")] == list(FORMATS)
