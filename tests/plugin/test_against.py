"""--joules-against: old stack and new side by side, launches interleaved."""

import pytest

STACKS = """
    [tool.pytest-joules.stacks.old]
    python = "python3"
"""
ONE = """
    from pytest_joules import Point

    def test_energy(energy_bench):
        energy_bench.check(Point(model="Qwen/Qwen3-8B", batch_size=16))
"""
TELL = """
    def pytest_sessionfinish(session):
        letters = {"old": "A", "default": "B"}
        print("\\norder:", "".join(letters[each.stack.name] for each in machine.launches))
"""


@pytest.fixture
def upgrade(joules):
    joules.pyproject(STACKS)
    joules.tests(ONE)
    return joules


def machine(joules, *, old=1.0, new=1.0, noise=0.0, seed=0):
    """Let the fake machine draw this much of 400 W under each stack."""
    joules.machine(
        f"power_w=lambda stack, point: 400.0 * ({old} if stack.name == 'old' else {new}), "
        f"launch_noise={noise}, seed={seed}",
        TELL,
    )


def test_no_change_is_green_and_needs_no_baseline(upgrade):
    machine(upgrade)

    run = upgrade.run("--joules-against=old")

    run.assert_outcomes(passed=1)
    run.stdout.fnmatch_lines(["*b16 (default)*unchanged", "1 comparison has*0.6 %*"])
    assert upgrade.baseline_files() == []


def test_a_worse_new_stack_is_red_with_change_and_software(upgrade):
    machine(upgrade, new=1.1)

    run = upgrade.run("--joules-against=old")

    run.assert_outcomes(failed=1)
    run.stdout.fnmatch_lines(
        [
            "*EnergyRegression: *b16 [[]fake[]]: regression",
            "*energy per token +10.0 %: 500* mJ/token -> 550* mJ/token",
            "*software: fake-engine: old -> default",
        ]
    )


def test_a_better_new_stack_is_green(upgrade):
    machine(upgrade, new=0.9)

    run = upgrade.run("--joules-against=old")

    run.assert_outcomes(passed=1)
    run.stdout.fnmatch_lines(["*(default)*-10.0 %*improvement"])


def test_a_power_limit_that_changes_between_launches_leaves_nothing_to_judge(upgrade):
    """The second launch draws 10 % less, as under a lower limit: that is no improvement."""
    upgrade.machine(
        "power_w=lambda stack, point: limited()",
        """
    def limited():
        machine.gpus.power_limit_factor = 1.0 if len(machine.launches) == 1 else 0.8
        return 500.0 * (0.5 + machine.gpus.power_limit_factor / 2)
    """,
    )

    run = upgrade.run("--joules-against=old")

    assert run.ret == 6
    run.stdout.fnmatch_lines(["*InvalidMeasurement*", "*power_limit_w was 560.0 and 700.0 in*"])


def order(run):
    (line,) = [line for line in run.stdout.lines if line.startswith("order: ")]
    return line.removeprefix("order: ")


def test_launches_alternate_so_that_a_drift_cancels(upgrade):
    machine(upgrade, noise=0.05, seed=1)

    made = order(upgrade.run("--joules-against=old"))

    assert len(made) > 8
    assert ("ABBA" * 6).startswith(made)


def test_with_a_baseline_new_launches_come_first_then_pairs(upgrade):
    machine(upgrade, noise=0.05)
    upgrade.run("--joules-record", "--joules-launches=4")
    machine(upgrade, noise=0.05, seed=7)

    made = order(upgrade.run("--joules-against=old"))

    assert len(made) > 8
    assert ("BBBB" + "AB" * 10).startswith(made)


def test_both_stacks_do_the_work_of_the_first_launch(upgrade):
    machine(upgrade, noise=0.03)
    upgrade.tests(
        ONE
        + """
    import pytest

    @pytest.mark.joules(may_measure_nothing=True)
    def test_work(energy_bench):
        results = energy_bench._session.ledger.results
        work = {(r.evidence.num_requests, r.evidence.start_index, r.evidence.end_index)
                for r in results}
        assert len({r.provenance.context.stack for r in results}) == 2
        assert len(work) == 1
    """
    )

    run = upgrade.run("--joules-against=old")

    run.assert_outcomes(passed=2)
    assert order(run).startswith("ABBA")


def test_a_change_against_the_baseline_is_put_to_the_old_stack_before_it_is_red(upgrade):
    machine(upgrade)
    upgrade.run("--joules-record", "--joules-launches=4")
    machine(upgrade, new=1.1)

    run = upgrade.run("--joules-against=old")

    run.assert_outcomes(failed=1)
    assert order(run) == "BBAA"
    run.stdout.fnmatch_lines(["*EnergyRegression*", "*+10.0 %*"])
    assert "the old stack old itself" not in run.stdout.str()


def test_main_that_is_already_worse_is_not_this_changes_fault(upgrade):
    machine(upgrade)
    upgrade.run("--joules-record", "--joules-launches=4")
    machine(upgrade, old=1.1, new=1.1)

    run = upgrade.run("--joules-against=old")

    run.assert_outcomes(passed=1)
    run.stdout.fnmatch_lines(["*unchanged", "note: *old stack old itself is +10.0 % from*"])


def test_a_change_on_top_of_a_worse_main_is_told_apart(upgrade):
    machine(upgrade)
    upgrade.run("--joules-record", "--joules-launches=4")
    machine(upgrade, old=1.1, new=1.21)

    run = upgrade.run("--joules-against=old")

    run.assert_outcomes(failed=1)
    run.stdout.fnmatch_lines(
        ["*energy per token +10.0 %: 550* -> 605*", "*The old stack itself is +10.0 %*"]
    )


def test_a_stack_against_itself_is_a_usage_error(upgrade):
    run = upgrade.run("--joules-against=old", "--joules-stack=old")

    assert run.ret == 4
    run.stderr.fnmatch_lines(["*--joules-against=old*itself*joules calibrate*"])


def test_an_old_stack_that_got_better_is_heard_though_the_baseline_says_unchanged(upgrade):
    machine(upgrade)
    upgrade.run("--joules-record", "--joules-launches=8")
    machine(upgrade, old=0.8)

    run = upgrade.run("--joules-against=old")

    run.assert_outcomes(failed=1)
    run.stdout.fnmatch_lines(["*EnergyRegression*", "*+25.0 %*", "*"])
