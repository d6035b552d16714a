"""A test that has ``energy_bench`` and comes to no measured value cannot pass."""

import pytest

NOTHING = "*this test used energy_bench but measured nothing*"


@pytest.mark.parametrize(
    "body",
    [
        "pass",
        "for point in []: energy_bench.measure(point)",
        """
            try:
                energy_bench(model="a/b", batch_size=0)
            except Exception:
                pass""",
    ],
)
def test_it_fails(joules, body):
    joules.tests(f"""
        def test_point(energy_bench):
            {body.strip()}
    """)

    run = joules.run()

    run.assert_outcomes(failed=1)
    run.stdout.fnmatch_lines([NOTHING])


def test_one_that_asks_for_the_fixture_by_name_fails_too(joules):
    joules.tests("""
        def test_point(request):
            request.getfixturevalue("energy_bench")
    """)

    joules.run().assert_outcomes(failed=1)


UNITTEST = """
    import unittest

    import pytest

    class TestPoint(unittest.TestCase):
        @pytest.fixture(autouse=True)
        def _bench(self, energy_bench):
            self.bench = energy_bench

        def test_point(self):
            {use}
"""


def test_one_of_unittest_fails_too(joules):
    joules.tests(UNITTEST.format(use="pass"))

    run = joules.run()

    run.assert_outcomes(failed=1)
    run.stdout.fnmatch_lines([NOTHING])


@pytest.mark.parametrize(
    ("use", "outcome"),
    [
        ("self.assertGreater(self.bench(model='a/b', batch_size=8).power_w, 0)", "passed"),
        ("self.skipTest('none to measure')", "skipped"),
    ],
)
def test_a_measured_or_skipped_one_of_unittest_does_not(joules, use, outcome):
    joules.tests(UNITTEST.format(use=use))

    joules.run().assert_outcomes(**{outcome: 1})


@pytest.mark.parametrize(
    ("use", "outcome"),
    [("1 + 1", "failed"), ("bench(model='a/b', batch_size=8).gpu", "passed")],
)
def test_one_of_doctest_fails_where_it_measured_nothing(joules, use, outcome):
    wanted = {"failed": 2, "passed": "'h200'"}[outcome]
    text = f">>> bench = getfixture('energy_bench')\n>>> {use}\n{wanted}\n"
    (joules.path / "energy.txt").write_text(text)

    run = joules.run("--doctest-glob=*.txt", "energy.txt")

    run.assert_outcomes(**{outcome: 1})


def test_one_that_is_the_first_to_ask_for_the_fixture_fails_too(joules):
    joules.pyproject("""
        [tool.pytest-joules]
        gpu = "h200"
    """)
    joules.tests("""
        def test_point(request):
            request.getfixturevalue("energy_bench")
    """)

    run = joules.run(gpu=None)

    run.assert_outcomes(failed=1)
    run.stdout.fnmatch_lines([NOTHING])


@pytest.mark.parametrize(
    "use",
    [
        'energy_bench(model="a/b", batch_size=8)',
        'energy_bench.sweep(Point(model="a/b"), batch_size=[8])',
        'energy_bench.measure(Point(model="a/b"))',
        "pytest.skip('none to measure')",
        "pytest.xfail('known')",
    ],
)
def test_a_measured_or_skipped_one_does_not(joules, use):
    joules.tests(f"""
        import pytest
        from pytest_joules import Point

        def test_point(energy_bench):
            {use}
    """)

    run = joules.run()

    assert "failed" not in run.parseoutcomes()
    run.stdout.no_fnmatch_line(NOTHING)


def test_a_fixture_may_measure_for_it_and_recording_counts(joules):
    joules.tests("""
        import pytest
        from pytest_joules import Point

        @pytest.fixture
        def result(energy_bench):
            return energy_bench(model="a/b", batch_size=8)

        @pytest.mark.parametrize("limit", [1, 2])
        def test_point(result, limit):
            assert result.energy_per_token_j < limit * 1000

        def test_check(energy_bench):
            energy_bench.check(Point(model="a/b", batch_size=16))
    """)

    joules.run("--joules-record").assert_outcomes(passed=3)


def test_an_expected_regression_is_a_measured_one(joules):
    joules.machine("power_w=lambda stack, point: 400.0")
    joules.run("--joules-record")
    joules.machine("power_w=lambda stack, point: 440.0")
    joules.tests("""
        import pytest
        from pytest_joules import Point
        from pytest_joules.errors import EnergyRegression

        def test_point(energy_bench):
            with pytest.raises(EnergyRegression):
                energy_bench.check(Point(model="Qwen/Qwen3-8B", batch_size=16))
    """)

    joules.run().assert_outcomes(passed=1)


def test_the_marker_lets_one_pass_that_says_so(joules):
    joules.tests("""
        import pytest
        from pytest_joules.errors import InvalidPoint

        @pytest.mark.joules(may_measure_nothing=True)
        def test_refused(energy_bench):
            with pytest.raises(InvalidPoint):
                energy_bench(model="a/b", batch_size=0)
    """)

    joules.run().assert_outcomes(passed=1)


def test_the_marker_takes_true_or_false(joules):
    joules.tests("""
        import pytest

        @pytest.mark.joules(may_measure_nothing="perhaps")
        def test_point(energy_bench): ...
    """)

    run = joules.run()

    assert run.ret == 2
    run.stdout.fnmatch_lines(["*may_measure_nothing=perhaps: give true or false*"])


HIDDEN = """
    import pytest
    from pytest_joules import Point
    from pytest_joules.errors import BaselineMissing

    P = Point(model="a/b")

    @pytest.mark.xfail
    def test_expected(energy_bench):
        energy_bench.check(P.but(batch_size=16))

    def test_caught(energy_bench):
        assert energy_bench.measure(P.but(batch_size=8)).energy_per_token_j > 0
        with pytest.raises(BaselineMissing):
            energy_bench.check(P.but(batch_size=32))
"""


def test_a_green_run_names_the_points_that_no_result_came_of(joules):
    """Neither has a baseline: one error was expected by a mark, one was caught."""
    joules.tests(HIDDEN)

    run = joules.run()

    assert run.ret == 0
    run.assert_outcomes(passed=1, xfailed=1)
    run.stdout.fnmatch_lines(["note: no result of *-b16-*, *-b32-*: *"])


def test_a_green_run_that_measured_all_and_a_red_one_name_none(joules):
    joules.tests(HIDDEN.partition("    def test_caught")[0].replace("check", "measure"))
    green = joules.run()
    joules.tests(HIDDEN + "\n    def test_red():\n        assert False\n")
    red = joules.run()

    assert (green.ret, red.ret) == (0, 1)
    assert "no result of" not in green.stdout.str() + red.stdout.str()
