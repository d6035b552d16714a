"""Where options come from, and what is refused."""

import json

import pytest

from pytest_joules.options.declared import DECLARED


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--joules-tolerance=0"], "*--joules-tolerance=0: give a share between 0 and 1*"),
        (["--joules-tolerance=abc"], "*--joules-tolerance=abc*"),
        (["--joules-window=-3"], "*--joules-window=-3: give a number above 0*"),
        (["--joules-window=nan"], "*--joules-window=nan: give a number above 0*"),
        (["--joules-launches=0"], "*--joules-launches=0*at least 1*"),
        (["--joules-budget=0"], "*--joules-budget=0*above 0*"),
        (["--joules-budget="], "*--joules-budget= is given without a value*leave*out*"),
        (["--joules-fleet="], "*--joules-fleet= is given without a value*"),
        (["--joules-source=guess"], "*--joules-source=guess: choose one of live, recorded*"),
        (["--joules-stack=old"], "*stack 'old' is not declared*pyproject.toml*"),
        (["--joules-against=old"], "*stack 'old' is not declared*"),
        (["--joules-export=out.xml"], "*out.xml*unknown*.csv*"),
        (["--joules-export=no/out.csv"], "*the folder no does not exist*mkdir*"),
        (["--joules-report=no/out.html"], "*--joules-report=no/out.html: the folder no*"),
        (["--joules-comment=no/out.md"], "*--joules-comment=no/out.md: the folder no*"),
    ],
)
def test_a_wrong_value_is_a_usage_error_with_value_and_remedy(joules, args, message):
    run = joules.run(*args)

    assert run.ret == 4
    run.stderr.fnmatch_lines([message])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[tool.pytest-joules]\ntolerence = 3", "*no key tolerence; known are*tolerance*"),
        ("[tool.pytest-joules]\nwindow = true", "*window=True: give a number*"),
        ("[tool.pytest-joules]\nwindow = [60]", "*window=[[]60[]]: give a number*"),
        ("[tool.pytest-joules]\ntolerance = {a = 1}", "*tolerance={'a': 1}: give a number*"),
        ("[tool.pytest-joules]\ntolerance = true", "*tolerance=True: give a number*"),
        ("[tool.pytest-joules]\nlaunches = 2.5", "*launches=2.5: give a whole number*"),
        ("[tool.pytest-joules]\nlaunches = false", "*launches=False: give a number*"),
        ("[tool.pytest-joules]\nlaunches = nan", "*launches=nan: give a whole number*"),
        ("[tool.pytest-joules]\ngpu = ['h200']", "*gpu=[[]'h200'[]]: give a string*"),
        ("[tool.pytest-joules]\nstack = 3", "*stack=3: give a string*"),
        ("[tool.pytest-joules]\nbaselines = false", "*baselines=False: give a string*"),
        ("[tool.pytest-joules]\nsource = ['live']", "*source=[[]'live'[]]: give a string*"),
        ("[tool.pytest-joules]\nrecord = 1", "*record=1: give true or false*"),
        ("[tool.pytest-joules]\nmodels = [1]", "*models=[[]1[]]: give a list of strings*"),
        ("[tool.pytest-joules]\nreport = 1979-05-27", "*report=datetime*: give a string*"),
        ("[tool.pytest-joules.stacks.old]\npyhton = 'x'", "*stacks.old*no key pyhton*python*"),
        ("[tool.pytest-joules]\nwindow = 'x'", "*[[]tool.pytest-joules[]] window=x*"),
        ("[tool.pytest-joules\n", "*pyproject.toml*"),
        ("[tool]\npytest-joules = ['gpu']", "*pyproject.toml: *where a table should*"),
        ("[tool.pytest-joules]\nstacks = 3", "*stacks: 3 stands where a table should*"),
        ("[tool.pytest-joules.stacks]\nold = 'x'", "*stacks.old*where a table should*"),
        ("[tool.pytest-joules.stacks.old]\ncommand = 'a b'", "*command='a b': *a list*"),
        ("[tool.pytest-joules.stacks.old]\nargs = 5", "*stacks.old[]] args=5: *a list*"),
        ("[tool.pytest-joules.stacks.old]\nenv = ['x']", "*env: give a table*"),
        ("[tool.pytest-joules.stacks.old]\npython = 3", "*python=3: *a path*"),
        ("[tool.pytest-joules.stacks.old]\nurl = 8000", "*url=8000: give a URL*"),
        ("[tool.pytest-joules.stacks.old]\napi_key_env = 'K'", "*api_key_env needs the url*"),
        (
            "[tool.pytest-joules.stacks.old]\nurl = 'http://x'\nargs = ['-x']",
            "*runs already*args can have no effect*",
        ),
        ("[tool.pytest-joules.stacks.old]\ndeadline = 0", "*deadline=0: *above 0*"),
    ],
)
def test_a_wrong_pyproject_table_is_a_usage_error(joules, text, message):
    joules.pyproject(text)
    (joules.path / "pytest.ini").write_text("[pytest]\n")

    run = joules.run(gpu=None) if "gpu" in message else joules.run()

    assert run.ret == 4
    run.stderr.fnmatch_lines([message])


@pytest.mark.skipif(pytest.version_tuple < (9,), reason="pytest 9 has a table of its own")
def test_a_wrong_type_in_pytest_s_own_table_is_a_usage_error(joules):
    joules.pyproject("[tool.pytest]\njoules_window = ['60']\n")

    run = joules.run()

    assert run.ret == 4
    run.stderr.fnmatch_lines(["*joules_window*expects a string, got list*"])


def test_right_types_are_read(joules):
    joules.pyproject("""
        [tool.pytest-joules]
        tolerance = 0.08
        launches = 2
        record = true
        baselines = "here"
        models = ["a/b", "c/d"]
    """)
    (joules.path / "pytest.ini").write_text("[pytest]\n")

    joules.run().assert_outcomes(passed=2)

    stored = json.loads(next((joules.path / "here").rglob("*.json")).read_text())
    assert [len(entry["runs"]) for entry in stored["points"]] == [2, 2]


@pytest.mark.parametrize("name", ["H200", "NVIDIA H200", "nvidia-h200", "nvidia h200", "h200"])
def test_a_gpu_goes_by_nvml_s_name_too(joules, name):
    run = joules.run("--joules-plan", gpu=name)

    assert run.ret == 0
    run.stdout.fnmatch_lines(["joules: gpu h200,*", "* on 1 x h200, *"])


def test_the_command_line_wins_over_pyproject_and_pyproject_over_ini(joules):
    (joules.path / "pytest.ini").write_text(
        "[pytest]\njoules_tolerance = 9%\njoules_window = 45\n"
    )
    joules.pyproject("[tool.pytest-joules]\ntolerance = '8%'\n")

    joules.run().stdout.fnmatch_lines(["joules: *tolerance 8.0 %*"])
    joules.run("--joules-tolerance=7%").stdout.fnmatch_lines(["joules: *tolerance 7.0 %*"])


def test_the_marker_sets_one_tests_tolerance(joules):
    joules.machine("power_w=lambda stack, point: 400.0")
    joules.run("--joules-record")
    joules.machine("power_w=lambda stack, point: 400.0 * 1.1")
    joules.tests("""
        import pytest
        from pytest_joules import Point

        QWEN = Point(model="Qwen/Qwen3-8B")

        @pytest.mark.joules(tolerance=0.2)
        def test_wide(energy_bench):
            energy_bench.check(QWEN.but(batch_size=16))

        def test_narrow(energy_bench):
            energy_bench.check(QWEN.but(batch_size=64))
    """)

    joules.run().assert_outcomes(passed=1, failed=1)


def test_an_unknown_marker_keyword_is_a_collection_error(joules):
    joules.tests("""
        import pytest

        @pytest.mark.joules(tolerence=0.2)
        def test_wide(energy_bench):
            energy_bench(model="a/b", batch_size=8)
    """)

    run = joules.run()

    assert run.ret == 2
    run.stdout.fnmatch_lines(["*ERROR collecting test_energy.py::test_wide*"])
    run.stdout.fnmatch_lines(["*@pytest.mark.joules takes the keywords tolerance*tolerence*"])


@pytest.mark.parametrize("value", ["'15 percent'", "5", "-0.1", "None", "[]"])
def test_a_wrong_marker_value_is_a_collection_error(joules, value):
    joules.tests(
        f"""
        import pytest

        @pytest.mark.joules(tolerance={value})
        def test_wide(energy_bench):
            energy_bench(model="a/b", batch_size=8)
        """
    )

    run = joules.run()

    assert run.ret == 2
    run.stdout.fnmatch_lines(["*test_wide: @pytest.mark.joules tolerance=*"])


def test_recorded_results_cannot_be_recorded_again(joules):
    (joules.path / "conftest.py").write_text("")
    (joules.path / "data").mkdir()
    (joules.path / "data" / "empty.json").write_text("[]")

    run = joules.run("--joules-source=recorded", "--joules-data=data", "--joules-record")

    assert run.ret == 4


def test_every_option_is_in_the_help_and_in_the_ini(joules):
    text = " ".join(joules.run("--help").stdout.str().split())
    for option in DECLARED:
        assert option.flag or f"--joules-{option.name}" in text
        assert f"{option.dest} (string)" in text


def test_a_short_window_is_marked(joules):
    joules.tests("""
        from pytest_joules import Lengths

        def test_point(energy_bench):
            energy_bench(model="a/b", batch_size=8, output_tokens=Lengths(mean=100))
    """)

    run = joules.run("--joules-window=20")

    run.assert_outcomes(passed=1)
    run.stdout.fnmatch_lines(["note: *steady state of * s, shorter than 30 s*"])
