"""What a test, a project or an option may get wrong: told, and never green."""

import sys

import pytest
from typer.testing import CliRunner

from pytest_joules.cli import app
from tests.fakes.private import hide

POWER = "power_w=lambda stack, point: 400.0 * {factor}"
CHECKED = """
    import pytest
    from pytest_joules import Point

    QWEN = Point(model="Qwen/Qwen3-8B", batch_size=16)

    {marks}
    def test_energy(energy_bench):
        energy_bench.check(QWEN{arguments})
"""


def checked(marks: str = "", arguments: str = "") -> str:
    return CHECKED.format(marks=marks, arguments=arguments)


@pytest.mark.parametrize("value", ["None", "3", "'x'", "[1]"])
def test_a_wrong_marker_value_is_a_collection_error(joules, value):
    joules.tests(checked(marks=f"@pytest.mark.joules(tolerance={value})"))

    run = joules.run()

    assert run.ret == 2
    run.stdout.fnmatch_lines(["*ConfigurationError: *pytest.mark.joules tolerance=*"])


@pytest.mark.parametrize("value", ["0", "5", "-0.1", "True", "'x'", "float('nan')"])
def test_a_wrong_tolerance_of_a_check_is_a_collection_error(joules, value):
    joules.tests(
        checked()
        + f"""
    def test_wrong(energy_bench):
        energy_bench.check(QWEN.but(batch_size=8), tolerance={value})
"""
    )
    joules.run("--joules-record")  # judges nothing, so needs no tolerance

    run = joules.run()

    assert run.ret == 2
    run.stdout.fnmatch_lines(["*ConfigurationError: check(tolerance=...)=*"])
    run.stdout.fnmatch_lines(["*launches made: none*"])


def test_a_second_tolerance_of_one_point_does_not_get_the_first_ones_verdict(joules):
    joules.machine(POWER.format(factor=1.0))
    joules.tests("""
        from pytest_joules import Point

        QWEN = Point(model="Qwen/Qwen3-8B", batch_size=16)

        def test_wide(energy_bench):
            energy_bench.check(QWEN, tolerance=0.3)

        def test_narrow(energy_bench):
            energy_bench.check(QWEN, tolerance=0.03)
    """)

    run = joules.run()

    assert run.ret == 2
    run.stdout.fnmatch_lines(["*ConfigurationError*30.0% and 3.0%*"])


def test_a_stack_is_not_compared_with_itself(joules):
    joules.pyproject("[tool.pytest-joules.stacks.new]\npython = 'a'\n")

    run = joules.run("--joules-stack=new", "--joules-against=new")

    assert run.ret == 4
    run.stderr.fnmatch_lines(["*--joules-against=new: that is the stack under test itself*"])


def test_the_fixture_may_be_asked_for_by_name(joules):
    joules.tests("""
        import pytest

        @pytest.mark.joules(tolerance="5%")
        def test_dynamic(request):
            assert request.getfixturevalue("energy_bench")(model="a/b").is_valid
    """)

    joules.run().assert_outcomes(passed=1)


def test_a_fixture_may_use_a_measured_value(joules):
    joules.tests("""
        import pytest

        @pytest.fixture
        def energy_j(energy_bench):
            return energy_bench(model="a/b").energy_per_token_j

        def test_it(energy_j):
            assert energy_j > 0
    """)

    run = joules.run()

    run.assert_outcomes(passed=1)
    run.stdout.fnmatch_lines(["*launches made: 1"])


def test_a_broken_baseline_of_another_point_does_not_fail_this_one(joules):
    joules.tests("""
        from pytest_joules import Point

        def test_sound(energy_bench):
            energy_bench.check(Point(model="Qwen/Qwen3-8B", batch_size=4))

        def test_broken(energy_bench):
            energy_bench.check(Point(model="Qwen/Qwen3-14B", batch_size=4))
    """)
    joules.run("--joules-record")
    broken = next(name for name in joules.baseline_files() if "14b" in name)
    (joules.path / "baselines" / broken).write_text("{")

    run = joules.run()

    run.assert_outcomes(passed=1, failed=1)
    run.stdout.fnmatch_lines(["*FormatError: *14b.json: not the JSON*"])


def test_copies_of_one_recorded_result_are_no_launches(joules):
    (joules.path / "stored").mkdir()
    joules.run("--joules-record", "--joules-launches=1", "--joules-export=stored/all.json")
    (joules.path / "conftest.py").unlink()

    run = joules.run("--joules-source=recorded", "--joules-data=stored", "--joules-record")

    assert run.ret == 4
    run.stderr.fnmatch_lines(["*--joules-record measures a baseline, but the source is*"])


def test_an_export_that_cannot_be_written_is_red_and_keeps_the_table(joules):
    joules.tests("""
        from pathlib import Path

        def test_it(energy_bench):
            energy_bench(model="a/b", batch_size=8).power_w
            Path("out.csv").mkdir()
    """)

    run = joules.run("--joules-export=out.csv")

    assert run.ret == 1
    run.stdout.fnmatch_lines(["point *energy*", "--joules-export=out.csv: cannot be written*"])


@pytest.mark.parametrize(
    ("other", "code"),
    [
        ("@pytest.mark.xfail(strict=True)\ndef test_other(): pass", 1),
        ("def test_other(): pytest.skip('elsewhere')", 6),
        ("@pytest.mark.xfail\ndef test_other(): assert False", 6),
    ],
)
def test_six_means_that_nothing_is_red(joules, other, code):
    joules.tests(f"import pytest\n{other}\n", name="test_other.py")
    joules.run("--joules-record")

    assert joules.run("--joules-budget=1").ret == code


def test_a_collection_error_is_red(joules):
    joules.run("--joules-record")
    joules.tests("import no_such_module", name="test_other.py")

    assert joules.run("--joules-budget=1", "--continue-on-collection-errors").ret == 1


@pytest.fixture
def private(joules, monkeypatch):
    """A folder of another user, which nobody else may look into."""
    (joules.path / "private").mkdir()
    hide(joules.path / "private", monkeypatch)
    return joules


raises = pytest.mark.skipif(
    sys.version_info >= (3, 14), reason="what may not be looked into is not there since 3.14"
)


@raises
@pytest.mark.parametrize(
    "option", ["--joules-report=private/x.html", "--joules-export=private/x.csv"]
)
def test_a_place_that_may_not_be_looked_into_is_a_usage_error(private, option):
    run = private.run(option)

    assert run.ret == pytest.ExitCode.USAGE_ERROR
    run.stderr.fnmatch_lines(["*pytest-joules: *Permission denied*private*"])


@raises
def test_baselines_that_may_not_be_looked_into_are_told(private):
    run = private.run("test_energy.py", "--joules-baselines=private")

    run.assert_outcomes(failed=2)
    run.stdout.fnmatch_lines(["*FormatError: *private*cannot be read*Permission denied*"])


@raises
def test_results_that_may_not_be_looked_into_are_told(private):
    answer = CliRunner().invoke(app, ["show", str(private.path / "private" / "x.json")])

    assert answer.exit_code == 2
    assert "joules: [Errno 13] Permission denied" in answer.stderr
