"""What other options and plugins deselect is neither planned nor measured."""

import pytest

SIZES = """
    import pytest

    @pytest.mark.parametrize("batch_size", [8, 16, 32])
    def test_point(energy_bench, batch_size):
        energy_bench(model="a/b", batch_size=batch_size)
        assert batch_size != 16
"""


def test_only_what_failed_last_is_measured_again(joules):
    joules.tests(SIZES)
    joules.run().assert_outcomes(passed=2, failed=1)

    run = joules.run("--last-failed", "test_energy.py")

    run.assert_outcomes(failed=1, deselected=2)
    run.stdout.fnmatch_lines(["*launches made: 16", "1 launch,*"])


def test_only_what_failed_last_is_planned(joules):
    joules.tests(SIZES)
    joules.run()

    run = joules.run("--last-failed", "--joules-plan", "test_energy.py")

    run.stdout.fnmatch_lines(["*batch size* 16", "1 point, 1 launch,*"])


def test_what_failed_first_comes_first_and_servers_stay_together(joules):
    joules.tests("""
        import pytest

        @pytest.mark.parametrize("model", ["a/b", "a/c"])
        @pytest.mark.parametrize("batch_size", [8, 16])
        def test_point(energy_bench, model, batch_size):
            energy_bench(model=model, batch_size=batch_size)
            assert (model, batch_size) != ("a/c", 8)
    """)
    joules.run()

    run = joules.run("--failed-first", "-v")

    done = [
        line.split("[")[1].split("]")[0] for line in run.outlines if "::test_point[" in line
    ]
    assert done[:4] == ["8-a/c", "16-a/c", "8-a/b", "16-a/b"]


@pytest.mark.parametrize("mark", ["", "trylast=True", "wrapper=True, tryfirst=True"])
def test_what_a_conftest_deselects_is_not_measured(joules, mark):
    joules.machine(
        extra=f"""
            @pytest.hookimpl({mark})
            def pytest_collection_modifyitems(items):
                {"yield" if "wrapper" in mark else "pass"}
                items[:] = [item for item in items if "16" in item.name]
        """
    )
    joules.tests(SIZES)

    run = joules.run()

    run.stdout.fnmatch_lines(["*launches made: 16"])
