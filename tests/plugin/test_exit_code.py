"""Exit codes: 1 something red, 6 nothing red but something undecided (DESIGN, section 9)."""

INVALID = """
    def test_invalid(energy_bench):
        energy_bench(model="a/b", batch_size=8)
"""


def test_invalid_alone_is_six(joules):
    joules.machine("foreign_pids=(77,)")
    joules.tests(INVALID)

    assert joules.run().ret == 6


def test_invalid_and_a_failed_test_is_one(joules):
    joules.machine("foreign_pids=(77,)")
    joules.tests(INVALID + "\n    def test_red():\n        assert False\n")

    assert joules.run().ret == 1


def test_all_green_is_zero(joules):
    joules.tests(INVALID)

    assert joules.run().ret == 0


def test_a_missing_baseline_is_one(joules):
    assert joules.run().ret == 1


def test_a_spent_budget_is_inconclusive(joules):
    joules.run("--joules-record")

    run = joules.run("--joules-budget=3")

    run.assert_outcomes(failed=2)
    assert run.ret == 6
    run.stdout.fnmatch_lines(["*Inconclusive*3 GPU minutes*--joules-budget*"])


def test_an_engine_that_dies_is_invalid(joules):
    joules.machine("dies_after_requests=40", window=60)
    joules.tests(INVALID)

    assert joules.run().ret == 6
