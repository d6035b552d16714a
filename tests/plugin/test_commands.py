"""The `joules` command on sessions of a fake machine."""

import json
import sys

import pandas as pd
import pytest
from typer.testing import CliRunner

from pytest_joules import baseline
from pytest_joules.cli import app

RUNNER = CliRunner()
POINT = "qwen3-8b-text-conversation-bf16-1gpu-b16"
NOISY = "power_w=lambda stack, point: 400.0 * {factor}, launch_noise=0.004, seed={seed}"


def joules_(*args):
    return RUNNER.invoke(app, list(args))


def values_of(*args):
    told = joules_(*args, "--json")
    return json.loads(told.stdout), told.exit_code


@pytest.fixture
def at_root(joules, monkeypatch):
    monkeypatch.chdir(joules.path)
    return joules


def measured(joules, name, *, factor=1.0, seed=1, launches=4):
    """Record into a folder of its own, export to a file."""
    joules.machine(NOISY.format(factor=factor, seed=seed))
    args = [
        "--joules-record",
        f"--joules-launches={launches}",
        f"--joules-baselines={name}",
        f"--joules-export={name}.json",
    ]
    assert joules.remembered(lambda: joules.run(*args).ret, *args) == 0


@pytest.mark.parametrize(
    ("factor", "code", "verdict"),
    [(1.0, 0, "unchanged"), (1.1, 1, "regression"), (0.9, 0, "improvement")],
)
def test_two_folders_give_a_table_and_the_exit_code(at_root, *, factor, code, verdict):
    measured(at_root, "old")
    measured(at_root, "new", factor=factor, seed=2)

    told = joules_("compare", "old", "new")

    assert told.exit_code == code, told.output
    lines = told.stdout.splitlines()
    assert lines[0].split() == [
        "point", "source", "then", "now", "change", "interval", "launches", "verdict",
    ]  # fmt: skip
    rows = [line for line in lines if line.startswith(f"{POINT} ")]
    assert len(rows) == 1
    assert "4 -> 4" in rows[0]
    assert rows[0].endswith(verdict)
    assert "2 comparisons, chance of any false alarm at most 0.6 %" in lines


def test_every_kind_of_stored_results_can_be_compared_and_says_the_same(at_root):
    measured(at_root, "old")
    measured(at_root, "new", factor=1.1, seed=2)
    baseline_file = next((at_root.path / "old").rglob("*.json"))

    answers = [
        values_of("compare", old, new)
        for old in ("old", "old.json", str(baseline_file))
        for new in ("new.json", "latest")
    ]

    assert {code for _, code in answers} == {1}
    changes = {(row["point"], row["verdict"]) for values, _ in answers for row in values}
    assert len(changes) == 2
    for values, _ in answers:
        for row in values:
            assert row["comparison"]["change"] == pytest.approx(0.1, abs=0.01)
            assert row["comparison"]["num_launches"] == 4


def test_a_point_on_one_side_only_is_undecided_unless_only_common_ones_are_asked(at_root):
    measured(at_root, "old")
    text = (at_root.path / "old.json").read_text()
    fewer = [each for each in json.loads(text) if each["point"]["batch_size"] == 16]
    (at_root.path / "fewer.json").write_text(json.dumps(fewer))
    measured(at_root, "new", seed=2)

    lost = joules_("compare", "new.json", "fewer.json")

    assert lost.exit_code == 6
    assert "the new results do not hold it" in lost.stdout
    assert joules_("compare", "new.json", "fewer.json", "--common").exit_code == 0
    assert joules_("compare", "fewer.json", "new.json").exit_code == 6


def test_other_hardware_and_nothing_in_common_are_not_green(at_root):
    measured(at_root, "old")
    measured(at_root, "new", seed=2)
    text = (at_root.path / "new.json").read_text()
    (at_root.path / "other.json").write_text(
        text.replace('"power_limit_w": 700', '"power_limit_w": 500')
    )
    (at_root.path / "none.json").write_text(text.replace("Qwen/Qwen3-8B", "a/b"))

    other = joules_("compare", "old.json", "other.json")
    none = joules_("compare", "old.json", "none.json")

    assert other.exit_code == none.exit_code == 6
    assert "other hardware: power_limit_w 700" in other.stdout
    assert "not comparable" in other.stdout
    assert "no point is on both sides" in none.stderr


def test_results_against_themselves_are_one_launch_each_way(at_root):
    measured(at_root, "old", launches=1)

    told = joules_("compare", "old.json", "old.json")

    assert told.exit_code == 6
    assert "inconclusive" in told.stdout


def test_a_session_of_two_stacks_asks_whose(at_root):
    at_root.pyproject("[tool.pytest-joules.stacks.old]\npython = 'python3'\n")
    at_root.run("--joules-against=old")
    (session,) = (at_root.path / ".joules" / "sessions").iterdir()
    measured(at_root, "new", seed=2)

    mixed = joules_("compare", session.name, "new.json")
    named = joules_("compare", session.name, "new.json", "--old-stack=old")

    assert mixed.exit_code == 2
    assert "--old-stack=NAME" in mixed.stderr
    assert "software: fake-engine: old -> default" in named.stdout


@pytest.mark.parametrize("share", ["0", "x", "200%"])
def test_a_tolerance_that_is_none_is_a_usage_error(at_root, share):
    measured(at_root, "old")

    told = joules_("compare", "old.json", "old.json", f"--tolerance={share}")

    assert told.exit_code == 2
    assert f"--tolerance={share}:" in told.stderr


def test_a_replay_in_json_tells_whether_it_is_the_runs(at_root):
    measured(at_root, "baselines")
    at_root.run()

    values, code = values_of("compare")

    assert code == 0
    assert [each["verdict"] for each in values] == ["unchanged", "unchanged"]
    assert all(each["is_as_in_the_run"] for each in values)


def test_a_session_is_exported_with_its_verdicts(at_root):
    measured(at_root, "baselines")
    at_root.run()

    told = joules_("export", "latest", "out.csv")

    assert told.exit_code == 0, told.output
    frame = pd.read_csv(at_root.path / "out.csv")
    assert set(frame["verdict"]) == {"unchanged"}
    assert joules_("export", "baselines", "base.json").exit_code == 0
    assert len(json.loads((at_root.path / "base.json").read_text())) == 8
    assert joules_("export", "latest", "out.xyz").exit_code == 2
    assert joules_("export", "nothing", "out.csv").exit_code == 2


def test_a_session_is_shown_with_its_verdicts(at_root):
    measured(at_root, "baselines")
    at_root.run()

    lines = joules_("show", "latest").stdout.splitlines()

    (row,) = (line for line in lines if line.startswith(f"{POINT} "))
    assert row.endswith("unchanged")
    (row,) = (
        line
        for line in joules_("show", "baselines").stdout.splitlines()
        if line.startswith(f"{POINT} ")
    )
    assert not row.endswith("unchanged")  # nothing was compared when they were recorded


def test_show_in_json_is_what_the_export_holds(at_root):
    measured(at_root, "baselines")

    values, code = values_of("show", "latest")

    exported = json.loads((at_root.path / "baselines.json").read_text())
    assert code == 0
    assert all(launch.pop("comparison") is None for launch in exported)
    assert by_launch(values) == by_launch(exported)


def by_launch(results):
    """An export puts launches together by point, a session by when they were made."""
    return {
        (each["evidence"]["launch_id"], each["point"]["batch_size"]): each for each in results
    }


def test_the_history_is_drawn_on_one_scale_with_its_boards(at_root):
    measured(at_root, "baselines")

    lines = joules_("baseline", "show", POINT).stdout.splitlines()

    rows = [line for line in lines if "\N{BLACK CIRCLE}" in line]
    assert len(rows) == 4
    assert len({len(line) for line in rows}) == 1
    assert any(line.startswith("board #1: GPU-") for line in lines)
    values, _ = values_of("baseline", "show", POINT)
    assert len(values[0]["runs"]) == 4
    assert values_of("baseline", "list")[0][0]["num_runs"] == 4


def entries(joules):
    return baseline.entries(joules.path / "baselines" / joules.baseline_files()[0])


def test_pruning_tells_first_and_does_it_when_told(at_root):
    measured(at_root, "baselines", launches=5)
    before = entries(at_root)
    command = ["baseline", "prune", POINT, "--keep=2", "--reason=old"]

    told = joules_(*command)

    assert told.exit_code == 0, told.output
    assert "1 point would change; --yes does it." in told.stdout
    assert entries(at_root) == before
    assert joules_(*command, "--yes").exit_code == 0
    after = entries(at_root)
    (point,) = [each for each in after if each.id == POINT]
    assert after[point].runs == before[point].runs[-2:]
    assert after[point].accepted[0].reason == "old (pruned: 2 of 5 runs kept)"
    assert [p for p in after if after[p] != before[p]] == [point]
    assert "every run stays" in joules_(*command, "--yes").stdout


def test_pruning_other_boards_never_empties_a_baseline(at_root):
    measured(at_root, "baselines")
    before = entries(at_root)
    board = next(iter(before.values())).runs[0].provenance.context.gpu_uuids[0]
    command = ["baseline", "prune", "--reason=x", "--yes"]

    refused = joules_(*command, "--board=GPU-elsewhere")

    assert refused.exit_code == 2
    assert "would be empty" in refused.stderr
    assert joules_(*command, f"--board={board}").exit_code == 0
    assert entries(at_root) == before


@pytest.mark.parametrize(
    ("code", "args", "message"),
    [
        (2, ["--reason=x"], "--keep=N, --board=UUID"),
        (2, ["--reason=x", "--keep=0"], "keep at least one"),
        (2, ["--reason= ", "--keep=1"], "--reason is empty"),
        (1, ["nothing", "--reason=x", "--keep=1"], "nothing: no baseline"),
        (2, ["--keep=1"], "reason"),
    ],
)
def test_what_cannot_be_pruned_is_said(at_root, *, code, args, message):
    measured(at_root, "baselines")

    told = joules_("baseline", "prune", *args)

    assert told.exit_code == code
    assert message in told.stderr


def run_joules(joules, *args):
    code = "from pytest_joules.cli import app; app()"
    return joules.pytester.run(sys.executable, "-c", code, *args)


def test_the_plan_is_a_table_and_json_and_passes_options_on(at_root):
    run = run_joules(at_root, "plan", "test_energy.py", "--gpu=h200", "--joules-record")

    assert run.ret == 0
    run.stdout.fnmatch_lines(
        [
            "server *GPU minutes",
            "vllm Qwen/Qwen3-8B bf16  1 x h200  default       64, 16          4.5",
            "2 points, 1 launch, about 4.5 GPU minutes for one launch each",
            "recording makes 3 launches of each: about 13.5 GPU minutes",
        ]
    )
    again = run_joules(at_root, "plan", "--gpu=h200", "--json", "-k", "b16 or 16")
    values = json.loads(again.stdout.str())
    assert values["launches"][0]["points"] == [POINT]
    assert values["gpu_minutes"] == pytest.approx(3.0)


def test_a_plan_that_cannot_be_made_is_what_pytest_says(at_root):
    at_root.tests("def test_broken(energy_bench): energy_bench(model='a/b', batch_size=-1)")
    broken = run_joules(at_root, "plan", "--gpu=h200", "--json")
    usage = run_joules(at_root, "plan", "--gpu=h200", "--joules-window=x")

    assert (broken.ret, usage.ret) == (2, 4)
    broken.stderr.fnmatch_lines(["*batch_size=-1*"])
    usage.stderr.fnmatch_lines(["*--joules-window=x*"])
    assert not broken.stdout.str()


def test_a_calibration_in_json_is_what_the_baseline_stores(at_root):
    run = run_joules(at_root, "calibrate", "--json", "--gpu=h200", "-k16", "-q")

    assert run.ret == 0
    (made,) = json.loads(run.stdout.str())
    assert made["point"] == POINT
    stored = next(iter(entries(at_root).values())).calibration
    assert made["launch_sd"] == stored["launch_sd"]
    run.stderr.fnmatch_lines(["*1 passed*"])


@pytest.mark.parametrize(
    "command",
    [["show", "evil.json"], ["compare", "evil.json", "evil.json"], ["baseline", "show", POINT]],
)
def test_foreign_names_do_not_steer_the_terminal(at_root, command):
    measured(at_root, "baselines")
    escape, text = "\x1b[2J", (at_root.path / "baselines.json").read_text()
    (at_root.path / "evil.json").write_text(
        text.replace('"stack": "default"', json.dumps({"stack": escape})[1:-1])
    )
    path = at_root.path / "baselines" / at_root.baseline_files()[0]
    stored = path.read_text().replace('"stack": "default"', json.dumps({"stack": escape})[1:-1])
    path.write_text(stored)

    told = joules_(*command)

    assert "\x1b" not in told.stdout + told.stderr
