"""Stored sessions, `joules compare` and `joules baseline`."""

import json
import sys
from datetime import UTC, datetime, timedelta

import pytest
from typer.testing import CliRunner

from pytest_joules import baseline
from pytest_joules.cli import app
from pytest_joules.record import FOLDER, find
from pytest_joules.record.names import session_name
from pytest_joules.record.replaying import replay
from tests.fakes.private import hide

RUNNER = CliRunner()
NOISY = "power_w=lambda stack, point: 400.0 * {factor}, launch_noise=0.004, seed={seed}"


@pytest.fixture
def at_root(joules, monkeypatch):
    monkeypatch.chdir(joules.path)
    return joules


def sessions(joules):
    return sorted((joules.path / ".joules" / "sessions").iterdir())


def checked(joules, *args, factor=1.0):
    """Record with one machine, check on another; return run and stored session."""

    def make():
        return made(joules, *args, factor=factor)

    run, name = joules.remembered(make, args, factor)
    return run, joules.path / name


def made(joules, *args, factor):
    joules.machine(NOISY.format(factor=1.0, seed=1))
    joules.run("--joules-record", "--joules-launches=4")
    before = sessions(joules)
    joules.machine(NOISY.format(factor=factor, seed=2))
    run = joules.run("--junitxml=junit.xml", *args)
    (folder,) = set(sessions(joules)) - set(before)
    return run, folder.relative_to(joules.path)


@pytest.mark.parametrize("factor", [1.0, 1.02, 1.1])
@pytest.mark.parametrize("against", [False, True])
def test_stored_results_give_the_verdict_of_the_run_bit_for_bit(joules, factor, against):
    joules.pyproject("[tool.pytest-joules.stacks.old]\npython = 'python3'\n")
    args = ["--joules-against=old"] if against else []
    _, folder = checked(joules, *args, factor=factor)
    for path in joules.path.glob("baselines/**/*.json"):
        path.unlink()  # what was compared with is in the session

    replayed = replay(folder)

    assert len(replayed) == 2
    for each in replayed:
        assert each.is_same
        for name in ("change", "low", "high", "verdict"):
            assert getattr(each.comparison, name) == each.stored[name]
    stored = {str(each.stored["change"]) for each in replayed}
    assert stored <= set((joules.path / "junit.xml").read_text().split('"'))


def test_a_session_holds_settings_and_every_result_of_the_run(joules):
    run, folder = checked(joules, "--joules-export=all.json")

    settings = json.loads((folder / "session.json").read_text())
    assert settings["gpu"] == "h200"
    assert settings["source"] == "fake"
    assert settings["tolerance"] == 0.03
    lines = (folder / "results.jsonl").read_text().splitlines()
    exported = json.loads((joules.path / "all.json").read_text())
    for each in exported:
        assert each.pop("comparison")["verdict"] == "unchanged"
    # The session keeps the order of launches, the export puts points together.
    assert sorted(map(str, map(json.loads, lines))) == sorted(map(str, exported))
    assert (joules.path / ".joules" / ".gitignore").read_text() == "*\n"
    run.assert_outcomes(passed=2)


def test_results_are_stored_one_by_one_before_the_session_ends(joules):
    joules.tests("""
        from pathlib import Path

        def test_stored(energy_bench):
            energy_bench(model="a/b", batch_size=8).energy_per_token_j
            (path,) = Path(".joules/sessions").glob("*/results.jsonl")
            assert len(path.read_text().splitlines()) == 1
    """)

    joules.run().assert_outcomes(passed=1)


def test_nothing_is_stored_where_nothing_was_measured(joules):
    joules.run("--joules-plan")

    assert not (joules.path / ".joules").exists()


def test_compare_prints_the_verdicts_and_ends_like_the_run(at_root):
    run, folder = checked(at_root, factor=1.1)

    told = RUNNER.invoke(app, ["compare", folder.name])

    assert run.ret == told.exit_code == 1
    assert told.stdout.count("regression") == told.stdout.count("as in the run") == 2


def test_later_results_have_no_part_in_an_earlier_verdict(joules):
    _, folder = checked(joules)
    path = folder / "results.jsonl"
    first = path.read_text().splitlines()[0]
    with path.open("a") as stream:
        stream.write(first.replace('"series_energy_j": [', '"series_energy_j": [9') + "\n")

    assert [each.is_same for each in replay(folder)] == [True, True]


def rewrite(folder, name, of):
    """Change a field of the first stored verdict."""
    path = folder / "verdicts.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    lines[0]["comparison"][name] = of(lines[0]["comparison"][name])
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_a_changed_number_is_noticed(at_root):
    _, folder = checked(at_root)
    rewrite(folder, "change", lambda value: value * (1 + 2**-52))

    told = RUNNER.invoke(app, ["compare"])

    assert told.exit_code == 1
    assert told.stdout.count("NOT AS IN THE RUN") == 1


def test_a_verdict_worded_otherwise_by_another_version_is_the_same(at_root):
    run, folder = checked(at_root)
    rewrite(folder, "explanation", lambda text: f"{text} Worded otherwise.")

    told = RUNNER.invoke(app, ["compare"])

    assert told.exit_code == run.ret
    assert "NOT AS IN THE RUN" not in told.stdout


def test_a_session_cut_off_in_a_line_keeps_what_was_whole(at_root):
    _, folder = checked(at_root)
    with (folder / "results.jsonl").open("a") as stream:
        stream.write('{"point": ')

    assert RUNNER.invoke(app, ["compare", str(folder)]).exit_code == 0


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("session.json", '{"schema": 9}', "schema is 9"),
        ("verdicts.jsonl", "{]\n", "verdicts.jsonl, line 1"),
        ("results.jsonl", "{}\n", "results.jsonl, line 1: must contain"),
    ],
)
def test_a_broken_session_is_refused_with_file_and_reason(at_root, *, name, text, message):
    _, folder = checked(at_root)
    (folder / name).write_text(text)

    told = RUNNER.invoke(app, ["compare", str(folder)])

    assert told.exit_code == 1
    assert message in told.stderr


def _each_verdict(**changes):
    def change(folder):
        path = folder / "verdicts.jsonl"
        lines = [{**json.loads(line), **changes} for line in path.read_text().splitlines()]
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))

    return change


def _end(**changes):
    def change(folder):
        path = folder / "end.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    return change


def _folder_of_results(folder):
    (folder / "results.jsonl").unlink()
    (folder / "results.jsonl").mkdir()


ALL = ("show", "compare", "report")


@pytest.mark.parametrize(
    ("commands", "breaks", "message"),
    [
        (
            ALL,
            lambda f: (f / "results.jsonl").write_bytes(b"\xff\n"),
            "results.jsonl: cannot be",
        ),
        (ALL, _folder_of_results, "results.jsonl: cannot be read"),
        (ALL, lambda f: (f / "results.jsonl").unlink(), "results.jsonl: is missing"),
        (ALL[1:], lambda f: (f / "verdicts.jsonl").write_text("{}\n"), "jsonl, line 1: must"),
        (ALL[1:], lambda f: (f / "verdicts.jsonl").write_text("[]\n"), "jsonl, line 1: must"),
        (ALL[1:], _each_verdict(num_results="x"), "verdicts.jsonl, line 1: num_results must"),
        (ALL[1:], _each_verdict(num_results=9), "results.jsonl: holds 2 results"),
        (ALL[1:], _each_verdict(tolerances=[]), "verdicts.jsonl, line 1: tolerances lacks"),
        (ALL[1:], _each_verdict(point={}), "verdicts.jsonl, line 1: a point cannot be read"),
        (ALL[1:], lambda f: (f / "baselines.jsonl").unlink(), "baselines.jsonl: holds no run"),
        (ALL[2:], _end(surplus=1), "end.json: must not contain"),
        (ALL[2:], _end(spent_gpu_s="z"), "end.json: spent_gpu_s must be"),
    ],
)
def test_no_corruption_is_a_traceback_or_passed_over(
    at_root, tmp_path_factory, *, commands, breaks, message
):
    _, folder = checked(at_root)
    breaks(folder)
    out = tmp_path_factory.mktemp("page") / "page.html"

    for command in commands:
        more = ["--out", str(out)] if command == "report" else []
        told = RUNNER.invoke(app, [command, str(folder), *more])

        assert told.exit_code == 1, (command, told.output)
        assert message in told.stderr
    assert not out.exists()


def test_no_session_of_that_name_lists_those_there_are(at_root):
    _, folder = checked(at_root)

    told = RUNNER.invoke(app, ["compare", "nothing"])

    assert told.exit_code == 2
    assert folder.name in told.stderr


def test_only_the_newest_sessions_are_kept(joules):
    for _ in range(3):
        joules.run("--joules-record", "--joules-launches=1")
    three = sessions(joules)
    joules.run("--joules-record", "--joules-launches=1", "--joules-keep=2")

    assert len(three) == 3
    assert len(sessions(joules)) == 2
    assert sessions(joules)[0] == three[2]


def test_a_session_that_still_runs_is_kept(joules):
    joules.run("--joules-record", "--joules-launches=1")
    (running,) = sessions(joules)
    (running / "end.json").unlink()

    joules.run("--joules-record", "--joules-launches=1", "--joules-keep=1")

    assert running in sessions(joules)


def test_the_latest_session_is_the_last_one_also_within_one_second():
    begun = datetime(2026, 11, 21, 8, 0, 0, tzinfo=UTC)
    moments = [begun + timedelta(microseconds=i) for i in (0, 1, 10, 999_999, 1_000_000)]
    names = [session_name(moment) for moment in moments]

    assert sorted(names) == names


def test_a_session_after_the_clock_was_set_back_is_the_latest_all_the_same():
    now = datetime(2026, 11, 21, 8, 0, 0, tzinfo=UTC)
    names = list[str]()
    for moment in (now, now - timedelta(days=1), now - timedelta(hours=1)):
        names.append(session_name(moment, ["2027-by-hand", *names]))

    assert sorted(names) == names
    assert [name[:23] for name in names] == [
        "20261121T080000.000000Z",
        "20261121T080000.000001Z",
        "20261121T080000.000002Z",
    ]


def test_a_session_of_another_user_is_none_of_ours(tmp_path, monkeypatch):
    """As one run with sudo leaves it: later in name, and private."""
    ours, theirs = (tmp_path / FOLDER / name for name in ("20260101T000000", "20260102T000000"))
    for folder in (ours, theirs):
        folder.mkdir(parents=True)
        (folder / "session.json").write_text("{}")
    hide(theirs, monkeypatch)

    assert find("latest", tmp_path) == ours


POINT = "qwen3-8b-text-conversation-bf16-1gpu-b16"


def test_accepting_moves_one_point_and_keeps_the_reason(at_root):
    checked(at_root, factor=1.1)
    path = at_root.path / "baselines" / at_root.baseline_files()[0]
    before = baseline.entries(path)

    told = RUNNER.invoke(app, ["baseline", "accept", POINT, "--reason", "new kernels"])

    assert told.exit_code == 0, told.output
    after = baseline.entries(path)
    (point,) = [point for point in after if point.id == POINT]
    assert [p for p in after if after[p] != before[p]] == [point]
    (move,) = after[point].accepted
    assert move.reason == "new kernels"
    assert move.change == pytest.approx(0.1, abs=0.01)
    assert f"{POINT}: +" in told.stdout
    at_root.run().assert_outcomes(passed=1, failed=1)


def test_a_file_names_all_of_its_points_and_moves_add_up(at_root):
    checked(at_root, "--joules-export=out.json", factor=1.1)
    path = at_root.path / "baselines" / at_root.baseline_files()[0]
    command = ["baseline", "accept", str(path), "--results=out.json", "--reason"]

    RUNNER.invoke(app, [*command, "first"])
    told = RUNNER.invoke(app, [*command, "second"])

    assert told.exit_code == 0, told.output
    for entry in baseline.entries(path).values():
        assert [move.reason for move in entry.accepted] == ["first", "second"]
        assert entry.accepted[1].change == pytest.approx(0, abs=1e-3)
    at_root.run().assert_outcomes(passed=2)


@pytest.mark.parametrize(
    ("code", "args", "message"),
    [
        (2, ["no-such-point", "--reason=x"], "no such point; they hold qwen3-8b"),
        (2, [POINT, "--reason= "], "--reason is empty"),
        (2, [POINT, "--reason=x", "--stack=other"], "not stack other"),
        (1, [POINT, "--reason=x", "--baselines=elsewhere"], "no baseline for h200 to move"),
        (2, [POINT, "--reason=x", "--results=missing.json"], "missing.json"),
    ],
)
def test_what_cannot_be_accepted_is_said_and_changes_nothing(at_root, *, code, args, message):
    checked(at_root, factor=1.1)
    path = at_root.path / "baselines" / at_root.baseline_files()[0]
    before = path.read_text()

    told = RUNNER.invoke(app, ["baseline", "accept", *args])

    assert told.exit_code == code
    assert message in told.stderr
    assert path.read_text() == before


def test_of_two_stacks_one_must_be_named(at_root):
    at_root.pyproject("[tool.pytest-joules.stacks.old]\npython = 'python3'\n")
    checked(at_root, "--joules-against=old", factor=1.1)
    command = ["baseline", "accept", POINT, "--reason=x"]

    refused = RUNNER.invoke(app, command)
    told = RUNNER.invoke(app, [*command, "--stack=default"])

    assert refused.exit_code == 2
    assert "default, old" in refused.stderr
    assert told.exit_code == 0


def test_baselines_are_listed_and_shown(at_root):
    checked(at_root, factor=1.1)
    RUNNER.invoke(app, ["baseline", "accept", POINT, "--reason=new kernels"])

    listed = RUNNER.invoke(app, ["baseline", "list"])
    shown = RUNNER.invoke(app, ["baseline", "show", POINT])

    assert listed.stdout.count("qwen3-8b") == 2
    assert "new kernels" in shown.stdout
    assert "mJ/token" in shown.stdout
    assert RUNNER.invoke(app, ["baseline", "show", "nothing"]).exit_code == 1
    assert RUNNER.invoke(app, ["baseline", "list", "--baselines=elsewhere"]).exit_code == 1


def test_calibrate_runs_pytest_with_its_arguments(at_root):
    command = [sys.executable, "-c", "from pytest_joules.cli import app; app()", "calibrate"]

    run = at_root.pytester.run(*command, "--gpu=h200", "-k16", "-q")

    assert run.ret == 0
    run.stdout.fnmatch_lines(["point against itself*", "*-b16 * 8 *of 70*"])
    shown = RUNNER.invoke(app, ["baseline", "show", POINT])
    assert "0 of 70" in shown.stdout
