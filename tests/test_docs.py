"""The documents say what the code does."""

from pathlib import Path

from pytest_joules import contract
from pytest_joules.report.export import FORMATS

DOCS = Path(__file__).parents[1] / "docs"


def rows(table):
    return [
        f"| `{code}` | {rule.when} | {rule.remedy} |" for code, rule in sorted(table.items())
    ]


def test_every_validity_rule_and_note_is_documented_as_it_is():
    lines = (DOCS / "validity.md").read_text().splitlines()
    listed = [line for line in lines if line.startswith("| `")]

    assert listed == rows(contract.RULES) + rows(contract.NOTES)


def test_every_export_format_is_documented():
    lines = (DOCS / "reports.md").read_text().splitlines()

    assert [line.split("`")[1] for line in lines if line.startswith("| `")] == list(FORMATS)
