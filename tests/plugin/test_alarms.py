"""The chance of a false alarm is shared, tolerances below the noise are refused."""

import json
from math import log
from statistics import stdev

import pytest

NARROW = """
    from pytest_joules import Point

    def test_narrow(energy_bench):
        energy_bench.check(Point(model="Qwen/Qwen3-8B", batch_size=16), tolerance={tolerance})
"""


def test_the_section_says_how_alarms_are_shared(joules):
    joules.run("--joules-record")

    run = joules.run()

    run.stdout.fnmatch_lines(
        ["2 comparisons share a chance of at most 0.6 % of any false alarm"]
    )


def test_recording_compares_nothing(joules):
    assert "false alarm" not in joules.run("--joules-record").stdout.str()


def test_a_tolerance_below_the_noise_is_a_collection_error_with_the_number(joules):
    joules.machine("launch_noise=0.02")
    joules.run("--joules-record", "--joules-launches=8")
    joules.tests(NARROW.format(tolerance=0.01))

    run = joules.run()

    assert run.ret == 2
    run.stdout.fnmatch_lines(
        ["*ConfigurationError: tolerance=1.0%: launches*vary by*rise of *%*--joules-against*"]
    )
    assert "launches made: none" in run.stdout.str()


def test_a_small_baseline_refuses_nothing_because_its_noise_is_not_known(joules):
    joules.machine("launch_noise=0.02")
    joules.run("--joules-record", "--joules-launches=7")
    joules.tests(NARROW.format(tolerance=0.01))

    assert "collection" not in joules.run().stdout.str()


def test_recording_more_is_never_refused(joules):
    joules.machine("launch_noise=0.02")
    joules.tests(NARROW.format(tolerance=0.01))
    joules.run("--joules-record", "--joules-launches=8")

    joules.run("--joules-record", "--joules-launches=8").assert_outcomes(passed=1)


def test_two_tolerances_for_one_point_are_a_collection_error(joules):
    joules.tests(NARROW.format(tolerance=0.03), name="test_first.py")
    joules.tests(NARROW.format(tolerance=0.2), name="test_second.py")

    run = joules.run("test_first.py", "test_second.py")

    assert run.ret == 2
    run.stdout.fnmatch_lines(["*ConfigurationError*tolerances 3.0% and 20.0%*"])


def test_calibrating_stores_noise_alarms_and_the_detectable_change(joules):
    joules.machine("launch_noise=0.004")

    run = joules.run("--joules-calibrate")

    run.assert_outcomes(passed=2)
    run.stdout.fnmatch_lines(
        ["point against itself*false alarms*detectable*", "*-b16 * 8 *0 of 70*0 of 70*3 %*"]
    )
    stored = json.loads((joules.path / "baselines" / joules.baseline_files()[0]).read_text())
    for entry in stored["points"]:
        made = entry["calibration"]
        assert len(entry["runs"]) == made["num_launches"] == 8
        assert made["num_splits"] == 70
        assert made["num_false_alarms"] == 0
        logs = [log(run["energy_per_work_unit_j"]) for run in entry["runs"]]
        assert made["launch_sd"] == pytest.approx(stdev(logs), rel=0.05)
        assert made["detectable_change_beside_old"] < made["detectable_change"]


def test_a_calibration_stays_when_runs_are_added(joules):
    joules.run("--joules-calibrate")
    joules.run("--joules-record")

    stored = json.loads((joules.path / "baselines" / joules.baseline_files()[0]).read_text())
    for entry in stored["points"]:
        assert len(entry["runs"]) == 11
        assert entry["calibration"]["num_launches"] == 8


def test_too_few_launches_to_calibrate_are_a_usage_error(joules):
    run = joules.run("--joules-calibrate", "--joules-launches=3")

    assert run.ret == 4
    run.stderr.fnmatch_lines(["*3 launches are too few*--joules-launches=4*"])
