"""--joules-record, --joules-launches, --joules-baselines."""

import json


def test_recording_writes_one_run_for_each_launch(joules):
    run = joules.run("--joules-record")

    run.assert_outcomes(passed=2)
    run.stdout.fnmatch_lines(
        ["recorded in baselines/fake/h200/vllm/text-conversation/qwen-qwen3-8b.json"]
    )
    assert joules.baseline_files() == ["fake/h200/vllm/text-conversation/qwen-qwen3-8b.json"]
    stored = json.loads((joules.path / "baselines" / joules.baseline_files()[0]).read_text())
    assert [len(entry["runs"]) for entry in stored["points"]] == [3, 3]
    run.stdout.fnmatch_lines(["*launches made: 64,16 | 64,16 | 64,16"])


def test_the_number_of_launches_is_an_option(joules):
    joules.run("--joules-record", "--joules-launches=2").assert_outcomes(passed=2)

    stored = json.loads((joules.path / "baselines" / joules.baseline_files()[0]).read_text())
    assert [len(entry["runs"]) for entry in stored["points"]] == [2, 2]


def test_recording_again_adds_runs(joules):
    joules.run("--joules-record")
    joules.run("--joules-record", "--joules-launches=1")

    stored = json.loads((joules.path / "baselines" / joules.baseline_files()[0]).read_text())
    assert [len(entry["runs"]) for entry in stored["points"]] == [4, 4]


def test_later_runs_repeat_the_work_of_the_first(joules):
    joules.run("--joules-record")

    stored = json.loads((joules.path / "baselines" / joules.baseline_files()[0]).read_text())
    for entry in stored["points"]:
        work = {
            (
                r["evidence"]["num_requests"],
                r["evidence"]["start_index"],
                r["evidence"]["end_index"],
            )
            for r in entry["runs"]
        }
        assert len(work) == 1


def test_recording_again_repeats_the_stored_work_whatever_window_is_asked(joules):
    joules.run("--joules-record", "--joules-launches=1")
    joules.run("--joules-record", "--joules-launches=1", "--joules-window=90")

    stored = json.loads((joules.path / "baselines" / joules.baseline_files()[0]).read_text())
    for entry in stored["points"]:
        first, second = (run["evidence"] for run in entry["runs"])
        for name in ("num_requests", "start_index", "end_index"):
            assert first[name] == second[name]


def test_another_folder_can_be_named(joules):
    joules.run("--joules-record", "--joules-baselines=elsewhere").assert_outcomes(passed=2)

    assert (joules.path / "elsewhere" / "fake" / "h200").is_dir()
    assert joules.baseline_files() == []


def test_an_invalid_measurement_is_not_recorded(joules):
    joules.machine("foreign_pids=(77,)")

    run = joules.run("--joules-record")

    run.assert_outcomes(failed=2)
    run.stdout.fnmatch_lines(["*InvalidMeasurement*", "*foreign-process*77*"])
    assert joules.baseline_files() == []


def test_nothing_is_written_without_the_option(joules):
    joules.run().assert_outcomes(failed=2)

    assert joules.baseline_files() == []


def test_a_broken_baseline_is_an_error_and_stays_as_it_is(joules):
    joules.run("--joules-record")
    path = joules.path / "baselines" / joules.baseline_files()[0]
    path.write_text(path.read_text().replace('"energy_per_work_unit_j": ', '"energy": ', 1))
    before = path.read_text()

    run = joules.run("--joules-record")

    run.assert_outcomes(failed=2)
    run.stdout.fnmatch_lines(["*FormatError: *qwen-qwen3-8b.json: points*runs*"])
    run.stdout.fnmatch_lines(["*launches made: none"])  # nothing spent on it
    assert path.read_text() == before


def test_runs_of_other_hardware_are_not_added_to_a_baseline(joules):
    joules.run("--joules-record")
    path = joules.path / "baselines" / joules.baseline_files()[0]
    path.write_text(path.read_text().replace('"power_limit_w": 700', '"power_limit_w": 500'))
    before = path.read_text()

    run = joules.run("--joules-record")

    run.assert_outcomes(failed=2)
    run.stdout.fnmatch_lines(["*BaselineMismatch*power_limit_w=500*700*--joules-baselines*"])
    assert path.read_text() == before


def test_a_run_that_records_nothing_says_so(joules):
    joules.pytester.makepyfile(
        test_energy="""
        def test_one(energy_bench):
            energy_bench(model="Qwen/Qwen3-8B", batch_size=32)
        """
    )
    run = joules.run("--joules-record")

    run.assert_outcomes(passed=1)
    run.stdout.fnmatch_lines(["nothing was recorded: *check(point)*"])
    assert joules.baseline_files() == []
    joules.run().stdout.no_fnmatch_line("*recorded*")


def test_workers_tell_what_they_recorded(joules):
    run = joules.run("--joules-record", "-n1")

    run.assert_outcomes(passed=2)
    run.stdout.fnmatch_lines(["recorded in baselines/fake/h200/*/qwen-qwen3-8b.json"])
