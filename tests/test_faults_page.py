"""``docs/faults.md``, the table of faults and the tests that inject them say the same."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from tests.fakes.faults import TABLES, Fault, rows

ROOT = Path(__file__).parents[1]
FAULTS = [fault for faults in TABLES.values() for fault in faults]
NO_CODES = {"deadline", "dmesg"}


def test_the_page_shows_the_tables_row_by_row() -> None:
    page = (ROOT / "docs" / "faults.md").read_text()
    sections = {text.partition("\n")[0]: text for text in page.split("\n## ")[1:]}
    shown = {
        title: [line for line in sections[title].splitlines() if line.startswith("| ")][1:]
        for title in TABLES
    }

    assert shown == {title: rows(faults) for title, faults in TABLES.items()}


@cache
def source(file: str, function: str) -> str:
    """Return a test with its decorators and the tables of its module that it names."""
    text = (ROOT / file).read_text()
    body = ast.parse(text).body
    (test,) = [n for n in body if isinstance(n, ast.FunctionDef) and n.name == function]
    first = min([test.lineno, *(each.lineno for each in test.decorator_list)])
    lines = text.splitlines()
    own = "\n".join(lines[first - 1 : test.end_lineno])
    named = [
        ast.get_source_segment(text, n) or "" for n in body if _name(n) and _name(n) in own
    ]
    return "\n".join([own, *named])


def _name(node: ast.stmt) -> str:
    if isinstance(node, ast.Assign | ast.AnnAssign):
        target = node.target if isinstance(node, ast.AnnAssign) else node.targets[0]
        return target.id if isinstance(target, ast.Name) else ""
    return ""


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.what)
def test_each_row_has_a_test_that_expects_its_outcome(fault: Fault) -> None:
    file, function, case = re.fullmatch(r"(.+)::(\w+)(?:\[(.+)\])?", fault.test).groups()
    text = source(file, function)

    assert f'"{case or ""}"' in text or case is None, f"no case {case}"
    codes = set(re.findall(r"`([\w-]+)`", fault.outcome)) - NO_CODES
    assert not {code for code in codes if code not in text}
