import math
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

from pytest_joules.digest import Digest, Failed, rows_of
from pytest_joules.report.github import COMMENT, MARK, annotations, code, comment, markdown
from pytest_joules.result import Reason
from pytest_joules.verdict import Verdict
from tests.fakes.digests import sweep
from tests.fakes.results import make_comparison, make_result

FAILED = Failed(
    test="t.py::test_it", file="t.py", line=3, kind="EnergyRegression", text="worse"
)


class Seen(HTMLParser):
    """The tags and texts of a rendered page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.texts: list[str] = []
        self.feed(MarkdownIt("gfm-like", {"linkify": False, "html": True}).render(text))

    def handle_starttag(self, tag: str, attrs: object) -> None:
        del attrs
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def of(*results, **comparisons):
    found = {c.point: c for c in comparisons.values()}
    return Digest(rows=rows_of(results, found), num_launches=len(results), spent_gpu_s=90.0)


def test_the_worst_comes_first_and_numbers_are_told() -> None:
    good, bad = make_result(0.5, batch_size=8), make_result(0.55, batch_size=16)
    found = of(
        good,
        bad,
        good=make_comparison(good.point, verdict=Verdict.UNCHANGED, change=0.001),
        bad=make_comparison(bad.point),
    )

    lines = markdown(found).splitlines()

    assert lines[0] == "## Energy: 1 regression, 1 unchanged"
    assert lines[2] == "source <code>live</code>, 2 launches, 1.5 GPU minutes"
    rows = [line for line in lines if line.startswith(("| 🔴", "| 🟢"))]
    assert rows[0] == (
        "| 🔴 | **regression** | <code>qwen3-8b-text-conversation-bf16-1gpu-b16</code> | "
        "+10.0 % | +8.0 % to +12.0 % | 550 mJ/token | 500 mJ/token | 1 |"
    )
    assert len(rows) == 2


def test_a_change_that_was_not_estimated_is_left_blank() -> None:
    result = make_result(0.5)
    nothing = make_comparison(
        result.point, change=math.nan, low=math.nan, high=math.nan, verdict="inconclusive"
    )

    assert "nan" not in markdown(of(result, a=nothing)).lower()


def test_invalid_points_say_why() -> None:
    broken = make_result(reasons=(Reason(code="mig-on", text="MIG is on"),))

    assert "MIG is on" in markdown(of(broken))


def test_nothing_measured_is_said() -> None:
    assert markdown(Digest()).startswith("## Energy: nothing was measured\n")


def test_a_message_of_several_lines_is_one_line_without_signs_of_them() -> None:
    failed = replace(FAILED, text="b16: regression\n  energy per token +6.0 %\x1b")

    (line,) = (
        each for each in comment(Digest(failed=(failed,))).splitlines() if "energy" in each
    )

    told = "".join(Seen(line).texts).strip()
    assert told == "t.py::test_it (t.py:3): b16: regression energy per token +6.0 %\\x1b"


def test_what_is_left_out_is_counted_and_the_comment_fits() -> None:
    found = sweep(300)
    many = replace(found, failed=(replace(FAILED, text="<|>" * 4000),) * 30)

    text = comment(many)

    assert text.startswith(MARK)
    assert len(text) < 65_536  # GitHub's limit of a comment
    assert f"{len(found.rows) - COMMENT.rows} rows more" in text
    assert "20 failed tests more" in text
    assert len(markdown(many).encode()) < 2**20  # of a step summary


@pytest.mark.parametrize(
    "text",
    [
        "<img src=x>",
        "a | b",
        "`` ` ```",
        "@team",
        "[x](http://evil.example)",
        "www.evil.example",
        "# head\n- list",
        "&lt;b&gt;",
        "\x1b[31m",
    ],
)
def test_names_mean_nothing_in_markdown(text: str) -> None:
    seen = Seen(f"| a | b |\n| --- | --- |\n| {code(text)} | c |")

    assert seen.tags.count("td") == 2
    assert set(seen.tags) <= {"table", "thead", "tbody", "tr", "th", "td", "code"}
    shown = text.replace("\n", "\\n").replace("\x1b", "\\x1b")
    assert shown in "".join(seen.texts)


def test_annotations_are_relative_to_the_workspace_and_escaped(tmp_path: Path) -> None:
    hostile = replace(FAILED, test="a,b:c\n::stop", text="100%\n::error::x\x1b[0m")

    (line,) = annotations(Digest(failed=(hostile,)), root=tmp_path / "sub", workspace=tmp_path)

    assert line == (
        "::error file=sub/t.py,line=3,title=EnergyRegression%3A a%2Cb%3Ac\\n%3A%3Astop"
        "::100%25%0A::error::x\\x1b[0m"
    )


def test_a_test_outside_of_the_workspace_keeps_its_path(tmp_path: Path) -> None:
    (line,) = annotations(
        Digest(failed=(FAILED,)), root=tmp_path, workspace=tmp_path / "elsewhere"
    )

    assert "file=t.py," in line


def test_a_run_without_rows_says_too_that_its_source_measures_nothing(tmp_path: Path) -> None:
    empty = Digest(settings={"source": "simulated"}, failed=(FAILED,))

    (line,) = annotations(empty, root=tmp_path, workspace=tmp_path)

    assert line.endswith("::SIMULATED, nothing was measured.%0Aworse")
    assert "**Warning**: SIMULATED, nothing was measured." in comment(empty)
    live = replace(empty, settings={"source": "live"})
    assert next(annotations(live, root=tmp_path, workspace=tmp_path)).endswith("::worse")
    assert "SIMULATED" not in comment(live)
