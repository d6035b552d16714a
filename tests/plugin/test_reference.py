"""--joules-data beside another source: published results as a reference, never a gate."""

from typer.testing import CliRunner

from pytest_joules.cli import app
from tests.fakes.leaderboard import small_tasks, write_leaderboard

TESTS = """
    def test_point(energy_bench):
        energy_bench(model={model!r}, task={task!r}, batch_size={batch!r})
"""


def test_a_published_result_of_the_same_point_is_shown(joules):
    tasks = small_tasks()
    row = next(iter(tasks["lm-arena-chat"]))
    write_leaderboard(joules.path / "published", tasks)
    gpu = row["gpu_model"].lower()
    joules.machine(f"gpu={gpu!r}")
    joules.tests(
        TESTS.format(model=row["model_id"], task="text-conversation", batch=row["max_num_seqs"])
    )

    run = joules.run("--joules-data=published", gpu=gpu)

    run.assert_outcomes(passed=1)
    run.stdout.fnmatch_lines([f"reference: *your {gpu.upper()} *, published *J/token*"])


def test_a_stored_session_is_shown_with_its_references(joules, monkeypatch):
    tasks = small_tasks()
    row = next(iter(tasks["lm-arena-chat"]))
    write_leaderboard(joules.path / "published", tasks)
    gpu = row["gpu_model"].lower()
    joules.machine(f"gpu={gpu!r}")
    joules.tests(
        TESTS.format(model=row["model_id"], task="text-conversation", batch=row["max_num_seqs"])
    )
    joules.run(gpu=gpu)
    monkeypatch.chdir(joules.path)

    shown = CliRunner().invoke(app, ["show", "latest", "--data", "published"])

    assert shown.exit_code == 0, shown.output
    assert f"your {gpu.upper()}" in shown.stdout
    assert CliRunner().invoke(app, ["show", "nothing"]).exit_code == 2


def test_points_that_were_not_published_have_none(joules):
    write_leaderboard(joules.path / "published", small_tasks())
    joules.tests(TESTS.format(model="a/b", task="text-conversation", batch=8))

    run = joules.run("--joules-data=published")

    run.assert_outcomes(passed=1)
    assert "reference:" not in run.stdout.str()


def test_a_folder_that_is_none_is_a_usage_error_before_any_launch(joules):
    run = joules.run("--joules-data=missing")

    assert run.ret == 4
    run.stderr.fnmatch_lines(["*missing*"])
