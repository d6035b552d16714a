"""Reference pages that the code itself declares: options of pytest, commands of ``joules``."""

import re
from collections.abc import Iterator
from typing import Any

import typer

from pytest_joules.cli import app
from pytest_joules.options.declared import DECLARED, Option

_OPTIONS = """\
# Options

Each option may stand on pytest's command line, in `[tool.pytest-joules]` of `pyproject.toml`
or in pytest's own ini section; the first of these that sets it wins. Stacks are declared in
`[tool.pytest-joules.stacks.NAME]`: `python` or `command`, `env`, `args`, `deadline`. One test's
tolerance is set by `@pytest.mark.joules(tolerance="5%")`.

| command line | table key | ini option | what it does |
|---|---|---|---|
"""
_COMMAND = """\
# The joules command

Every command takes `--help` and `--json`. Exit codes: 0 all is well; 1 a regression, or the
job failed; 2 it was used wrongly; 6 nothing red, but something inconclusive, invalid or not
comparable. Commands that run pytest end with pytest's code.

"""


def options_page() -> str:
    """Return the page of pytest's options."""
    return _OPTIONS + "".join(f"{_option(option)}\n" for option in DECLARED)


def _option(option: Option) -> str:
    value = f"={option.metavar}" if option.metavar else ""
    value = f"[{value}]" if option.bare else value
    flag = (option.flag or f"--joules-{option.name}") + value
    cells = (f"`{flag}`", f"`{option.name}`", f"`{option.dest}`", option.help)
    return f"| {' | '.join(_cell(each) for each in cells)} |"


def _cell(text: str) -> str:
    return text.replace("%%", "%").replace("|", "\\|")


def command_page() -> str:
    """Return the page of the command line tool."""
    return _COMMAND + "\n".join(_commands(typer.main.get_command(app), "joules"))


def _commands(group: Any, path: str) -> Iterator[str]:
    for name, command in group.commands.items():
        here = f"{path} {name}"
        if hasattr(command, "commands"):
            yield from _commands(command, here)
        else:
            yield from _described(command, here)


def _described(command: Any, path: str) -> Iterator[str]:
    yield f"## {path}\n"
    # Typer keeps the docstring's lines; pages break theirs themselves.
    for paragraph in re.split(r"\n\s*\n", command.help):
        yield f"{' '.join(paragraph.split())}\n"
    yield "| | |\n|---|---|"
    for each in command.params:
        names = ", ".join(f"`{name}`" for name in each.opts if name != "--help")
        if names:
            yield f"| {names} | {_cell(getattr(each, 'help', None) or '')} |"
    yield ""
