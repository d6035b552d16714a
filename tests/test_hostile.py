"""Names, versions and messages of others are inert wherever they are shown."""

import csv
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path

from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from pytest_joules.digest import Digest, Failed, rows_of
from pytest_joules.errors import EnergyRegression, JoulesError
from pytest_joules.ledger import Ledger
from pytest_joules.report import export, github, html, terminal, text, trackers
from pytest_joules.result import Reason, Result
from pytest_joules.visible import visible
from tests.fakes.digests import of_stack
from tests.fakes.results import make_comparison, make_result

EVIL = [
    "<script>alert(1)</script>",
    "\x1b]0;owned\x07\x1b[31m",
    "\n::error file=x::y\r\n",
    "=cmd|' /C calc'!A0",
    "{{7*7}}{% for x in y %}",
    "\u202eabc\u2028",
    "x" * 10_000,
    "a" + "<b>|`" * 2_000,
    "' onmouseover='alert(1)",
    "--> <!-- ]]>",
]
PLACE = Path("/nowhere")
CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\u2028\u2029]")
TEXTS = st.one_of(
    st.sampled_from(EVIL),
    st.text(st.characters(exclude_characters="\0", codec="utf-8"), min_size=1),
)


def evil(name: str) -> tuple[Digest, Ledger]:
    """Make a session in which everything that others name has this name."""
    model = name if name.strip() and not name.startswith("-") else f"m{name}"
    result = make_result(
        0.5,
        model=model,
        gpu=name,
        notes=(Reason(code=name, text=name),),
    )
    new, old = of_stack(result, name, **{name: name}), of_stack(result, "old")
    broken = of_stack(
        make_result(model=model, batch_size=4, reasons=(Reason(code=name, text=name),)), name
    )
    compared = make_comparison(result.point, reference="old", explanation=name)
    failed = Failed(test=name, file=name, line=1, kind="JoulesError", text=name)
    digest = Digest(
        settings={"gpu": name, "stack": name, "against": name, "plugin": name},
        rows=rows_of([new, old, broken], {result.point: compared}),
        failed=(failed,),
    )
    ledger = Ledger(results=[new, old, broken], comparisons={result.point: compared})
    return digest, ledger


def hostile(test):
    """Try each explicit name and many found by Hypothesis."""
    for name in EVIL:
        test = example(name)(test)
    return given(TEXTS)(test)


@hostile
def test_terminals_obey_nothing(name: str) -> None:
    digest, ledger = evil(name)
    row = digest.rows[0]
    told = [
        *terminal.summary(ledger, width=80),
        *text.explain(row.comparison, [visible(name)]).split("\n"),
        *text.software_changes(row.results[0], row.references[0]),
        str(JoulesError(name)).replace("\n", ""),
        str(EnergyRegression(name)).replace("\n", ""),
    ]

    for line in told:
        assert not CONTROL.search(line.replace("\t", ""))
        assert "\n" not in line


class Tags(HTMLParser):
    """The tags and attributes of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.seen: list[tuple[str, tuple[str, ...]]] = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, tuple(sorted(name for name, _ in attrs))))


def test_a_page_has_the_same_tags_whatever_the_names() -> None:
    plain = Tags(html.render(evil("plain")[0])).seen

    for name in EVIL:
        assert Tags(html.render(evil(name)[0])).seen == plain, name[:40]


@hostile
def test_markdown_has_the_same_tags_whatever_the_names(name: str) -> None:
    def tags(text: str) -> list[tuple[str, tuple[str, ...]]]:
        rendered = MarkdownIt("gfm-like", {"linkify": False, "html": True}).render(text)
        return Tags(rendered).seen

    found = tags(github.comment(evil(name)[0]))

    assert found == tags(github.comment(evil("plain")[0]))


@hostile
def test_an_annotation_is_one_line_with_one_command(name: str) -> None:
    (line,) = github.annotations(evil(name)[0], root=PLACE, workspace=PLACE)

    assert not CONTROL.search(line)
    assert "\n" not in line
    assert re.fullmatch(r"::error file=[^:,]*,line=1,title=[^:,]*::.*", line)


@hostile
def test_a_csv_has_no_formula_and_no_torn_row(name: str) -> None:
    digest, _ = evil(name)

    head, *rows = csv.reader(io.StringIO(export.as_csv(digest)))

    assert len(rows) == 3
    for row in rows:
        assert len(row) == len(head)
        for cell in row:
            assert cell[:1] not in ("=", "+", "@", "\t", "\r", "\n")
            assert not cell.startswith("-") or float(cell) < 0


@hostile
def test_trackers_read_it_back(name: str) -> None:
    digest, _ = evil(name)

    assert all(len(each) <= 1024 for each in json.loads(trackers.bencher(digest)))
    assert json.loads(trackers.github_benchmark(digest))
    families = list(text_string_to_metric_families(trackers.openmetrics(digest)))
    (tokens,) = [f for f in families if f.name == "joules_energy_per_token_joules"]
    assert {sample.labels["stack"] for sample in tokens.samples} == {visible(name), "old"}


@hostile
def test_json_holds_names_as_they_are(name: str) -> None:
    digest, _ = evil(name)

    values = json.loads(export.as_json(digest))

    assert [Result.from_json(each) for each in values] == [
        result for row in digest.rows for result in row.results
    ]


@hostile
def test_a_point_makes_a_short_plain_file_name(name: str) -> None:
    point = evil(name)[0].rows[0].point

    assert re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,170}", point.id)


def test_half_a_character_can_be_shown() -> None:
    assert visible("a\ud800b") == "a\\ud800b"
