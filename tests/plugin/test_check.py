"""Checking against baselines: the verdict is the test's outcome."""

from xml.etree import ElementTree as ET

POWER = "power_w=lambda stack, point: 400.0 * {factor}"


def test_no_change_passes(joules):
    joules.run("--joules-record")

    run = joules.run()

    run.assert_outcomes(passed=2)
    run.stdout.fnmatch_lines(["*qwen3-8b-*-b16*unchanged*"])


def test_a_regression_fails_the_test_and_says_by_how_much(joules):
    joules.machine(POWER.format(factor=1.0))
    joules.run("--joules-record")
    joules.machine(POWER.format(factor=1.1))

    run = joules.run("--junitxml=junit.xml")

    run.assert_outcomes(failed=2)
    assert run.ret == 1
    run.stdout.fnmatch_lines(
        [
            "*EnergyRegression: qwen3-8b-text-*-b16 [[]fake[]]: regression",
            "*energy per token +10.0 %: 500* mJ/token -> 550* mJ/token",
            "*joules baseline accept*",
        ]
    )
    suite = ET.parse(joules.path / "junit.xml").getroot()[0]
    assert suite.get("failures") == "2"
    case = suite.find("testcase")
    properties = {p.get("name"): p.get("value") for p in case.iter("property")}
    assert properties["joules_verdict"] == "regression"
    assert abs(float(properties["joules_change"]) - 0.1) < 0.001


def test_an_improvement_passes_and_moves_no_baseline(joules):
    joules.machine(POWER.format(factor=1.0))
    joules.run("--joules-record")
    path = joules.path / "baselines" / joules.baseline_files()[0]
    before = path.read_text()
    joules.machine(POWER.format(factor=0.8))

    run = joules.run()

    run.assert_outcomes(passed=2)
    run.stdout.fnmatch_lines(["*-20.0 %*improvement*"])
    assert path.read_text() == before


def test_no_baseline_is_a_failure_that_names_the_option(joules):
    run = joules.run()

    run.assert_outcomes(failed=2)
    run.stdout.fnmatch_lines(["*BaselineMissing: *--joules-record*"])
    assert "launches made: none" in run.stdout.str()


def test_a_baseline_of_other_hardware_is_refused_before_anything_is_launched(joules):
    joules.run("--joules-record")
    path = joules.path / "baselines" / joules.baseline_files()[0]
    path.write_text(path.read_text().replace('"power_limit_w": 700', '"power_limit_w": 500'))

    run = joules.run()

    run.assert_outcomes(failed=2)
    run.stdout.fnmatch_lines(["*BaselineMismatch*power_limit_w=500*700*"])
    assert "launches made: none" in run.stdout.str()


def test_a_launch_that_fails_is_made_once_for_all_its_points(joules):
    joules.run("--joules-record")
    joules.machine("fails_to_launch='no such model'")

    run = joules.run()

    run.assert_outcomes(failed=2)
    run.stdout.fnmatch_lines(["*LaunchError*no such model*"])
    run.stdout.fnmatch_lines(["*launches made: 64,16"])


def test_an_engine_that_dies_is_no_regression_and_no_pass(joules):
    joules.run("--joules-record")
    joules.machine("dies_after_requests=40")

    run = joules.run()

    assert run.ret != 0
    run.stdout.fnmatch_lines(["*ServerDied*"])
    assert "EnergyRegression" not in run.stdout.str()


def test_a_starved_batch_is_invalid(joules):
    joules.machine("largest_batch=12")
    joules.tests("""
        def test_starved(energy_bench):
            energy_bench(model="Qwen/Qwen3-8B", batch_size=16)
    """)

    run = joules.run()

    run.assert_outcomes(failed=1)
    run.stdout.fnmatch_lines(["*batch*16*"])
