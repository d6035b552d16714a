"""--joules-report, --joules-comment, `joules report`, and what GitHub Actions gets."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pytest_joules.cli import app
from pytest_joules.digest import Digest, rows_of
from pytest_joules.intervals import LatencyIntervals
from pytest_joules.report import html
from tests.fakes.results import make_result

POWER = "power_w=lambda stack, point: 400.0 * {factor}"
RUNNER = CliRunner()


@pytest.fixture
def worse(joules):
    """Recorded at 400 W; the machine now draws 10 % more."""
    joules.machine(POWER.format(factor=1.0))
    joules.run("--joules-record")
    joules.machine(POWER.format(factor=1.1))
    return joules


def test_a_report_holds_verdicts_failures_and_that_nothing_was_measured(worse):
    worse.run("--joules-report=out.html").assert_outcomes(failed=2)

    text = (worse.path / "out.html").read_text()
    for part in ("qwen3-8b-text-conversation-bf16-1gpu-b16", "2 regression", "+10.0 %"):
        assert part in text
    assert "EnergyRegression" in text
    assert "test_energy.py::test_energy[16]" in text
    assert "FAKE, a machine that does not exist" in text


def test_latencies_stand_with_their_sampling_error():
    pytest.importorskip("plotly", reason="pytest-joules[report] is not installed")
    known = LatencyIntervals(
        num_itl_requests=16,
        num_ttft_requests=15,
        median_itl_s=(0.019, 0.022),
        p99_itl_s=(0.03, None),
    )
    told = make_result(median_itl_s=0.02, p99_itl_s=0.035, latency_intervals=known)

    with_them, without = (
        html.render(Digest(rows=rows_of([each], {}))) for each in (told, make_result())
    )

    assert "<td>20.0 ms (19.0 ms to 22.0 ms)</td>" in with_them
    assert "<td>35.0 ms (30.0 ms or more)</td>" in with_them
    assert "<td>16</td><td>15</td>" in with_them
    assert "Table of latencies" not in without


def test_a_stored_session_makes_the_same_page(worse, monkeypatch):
    monkeypatch.chdir(worse.path)
    worse.run("--joules-report=run.html")

    told = RUNNER.invoke(app, ["report", "latest", "--out", "stored.html"])

    assert told.exit_code == 0, told.output
    run, stored = ((worse.path / name).read_text() for name in ("run.html", "stored.html"))
    assert stored == run


def test_a_session_that_was_cut_off_says_so(worse, monkeypatch):
    monkeypatch.chdir(worse.path)
    worse.run()
    newest = max(Path(".joules/sessions").iterdir())
    (newest / "end.json").unlink()

    RUNNER.invoke(app, ["report", str(newest), "--out", "cut.html"])

    text = Path("cut.html").read_text()
    assert "own end was not recorded" in text
    assert "2 regression" in text


@pytest.mark.parametrize("out", ["missing/out.html", "."])
def test_a_report_that_cannot_be_written_is_told_in_a_line(worse, monkeypatch, out):
    monkeypatch.chdir(worse.path)

    told = RUNNER.invoke(app, ["report", "latest", "--out", out])

    assert told.exit_code == 2
    assert f"--out={out}" in told.stderr
    assert "Traceback" not in told.stderr


def test_a_missing_library_is_told_before_anything_is_launched(joules, monkeypatch):
    monkeypatch.setattr("pytest_joules.report.html.find_spec", lambda _: None)

    run = joules.run("--joules-record", "--joules-report=out.html")

    assert run.ret == 4
    run.stderr.fnmatch_lines(["*jinja2 and plotly*pip install 'pytest-joules[[]report[]]'*"])
    assert not (joules.path / ".joules").exists()


def test_a_test_that_measured_nothing_is_in_the_report_too(joules):
    joules.run("--joules-report=out.html").assert_outcomes(failed=2)  # no baseline

    text = (joules.path / "out.html").read_text()
    assert "nothing was measured" in text
    assert text.count("BaselineMissing") == 2


def test_the_plan_writes_nothing(joules, monkeypatch):
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(joules.path / "summary.md"))

    joules.run("--joules-plan", "--joules-report=out.html", "--joules-comment=c.md")

    assert not {"out.html", "c.md", "summary.md"} & {p.name for p in joules.path.iterdir()}


def test_github_gets_a_summary_after_what_stood_there(worse, monkeypatch):
    path = worse.path / "summary.md"
    path.write_text("# before\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(path))

    worse.run()

    text = path.read_text()
    assert text.startswith("# before\n## Energy: 2 regression, 2 failed tests\n")
    assert "**regression**" in text
    assert "FAKE" in text


def test_a_comment_can_be_found_again(worse):
    worse.run("--joules-comment=comment.md")

    text = (worse.path / "comment.md").read_text()
    assert text.startswith("<!-- pytest-joules -->\n## Energy: 2 regression")


def test_annotations_stand_on_the_tests_line(worse, monkeypatch):
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_WORKSPACE", str(worse.path.parent))

    run = worse.run()

    (first, second) = [line for line in run.outlines if line.startswith("::error ")]
    line = (worse.path / "test_energy.py").read_text().split("def test_energy")[0]
    number = line.count("\n")  # where the decorator of the test begins
    assert f"file={worse.path.name}/test_energy.py,line={number}," in first
    assert "title=EnergyRegression%3A test_energy.py%3A%3Atest_energy[16]::" in first
    assert "energy per token +10.0 %25" in first
    assert "test_energy[64]" in second


def test_elsewhere_no_annotation_is_printed(worse):
    assert not [line for line in worse.run().outlines if line.startswith("::")]


def test_undecided_tests_are_warnings(worse, monkeypatch):
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    worse.machine(POWER.format(factor=1.1) + ", foreign_pids=(77,)")

    run = worse.run()

    assert [line for line in run.outlines if line.startswith("::warning ")]
    assert not [line for line in run.outlines if line.startswith("::error ")]


def test_wrong_points_are_annotated_as_well(joules, monkeypatch):
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    joules.tests("""
        def test_it(energy_bench):
            energy_bench(model="a/b", batch_size=-1)
    """)

    run = joules.run()

    (line,) = [line for line in run.outlines if line.startswith("::error ")]
    assert "InvalidPoint" in line
    assert "batch_size=-1" in line


def test_several_exports_at_once(worse):
    worse.run("--joules-export=a.json,bencher:b.json,openmetrics:c.txt,github-benchmark:d.json")

    assert json.loads((worse.path / "a.json").read_text())[0]["comparison"]
    assert all("fake" in name for name in json.loads((worse.path / "b.json").read_text()))
    assert 'source="fake"' in (worse.path / "c.txt").read_text()
    assert "fake" in json.loads((worse.path / "d.json").read_text())[0]["name"]


@pytest.mark.parametrize(("colour", "mark"), [("yes", "\x1b[31m\x1b[1mregression"), ("no", "")])
def test_verdicts_are_coloured_where_colour_is_asked(worse, colour, mark):
    run = worse.run(f"--color={colour}")

    rows = [line for line in run.outlines if line.startswith("qwen3") and "n" in line]
    assert rows
    for row in rows:
        assert mark in row if mark else "\x1b" not in row


def test_a_narrow_terminal_folds_the_table(worse, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    worse.machine(
        POWER.format(factor=1.1),
        extra="""
        @pytest.hookimpl(trylast=True)
        def pytest_sessionstart(session):
            session.config.pluginmanager.get_plugin("terminalreporter").isatty = lambda: True
        """,
    )

    run = worse.run()

    begin = run.outlines.index("qwen3-8b-text-conversation-bf16-1gpu-b16")
    assert run.outlines[begin + 1].split()[-1] == "regression"
    assert len(run.outlines[begin + 1]) <= 80
