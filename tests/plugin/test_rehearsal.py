"""Points are known before the first launch, so servers are shared and errors come early."""

import pytest


def test_a_sweep_of_24_points_costs_one_launch(joules):
    joules.tests("""
        import pytest
        from pytest_joules import Point

        @pytest.mark.parametrize("seed", range(3))
        @pytest.mark.parametrize("batch_size", [1, 2, 4, 8, 16, 32, 64, 128])
        def test_point(energy_bench, batch_size, seed):
            result = energy_bench(model="Qwen/Qwen3-8B", batch_size=batch_size, seed=seed)
            assert result.energy_per_token_j > 0
    """)

    run = joules.run()

    run.assert_outcomes(passed=24)
    run.stdout.fnmatch_lines(["*launches made: 128,128,128,64,*,1,1,1"])
    run.stdout.fnmatch_lines(["1 launch,*"])


def test_a_body_is_stopped_at_the_first_measured_value(joules):
    joules.tests("""
        seen = []

        def test_body(energy_bench):
            seen.append("begun")
            result = energy_bench(model="Qwen/Qwen3-8B", batch_size=8)
            try:
                value = result.energy_per_token_j
            except Exception:
                seen.append("handled")
            seen.append("after")
            assert seen == ["begun", "begun", "after"]
    """)

    joules.run().assert_outcomes(passed=1)


def test_an_invalid_point_is_a_collection_error_and_nothing_is_launched(joules):
    joules.tests("""
        import pytest

        @pytest.mark.parametrize("batch_size", [8, 0])
        def test_point(energy_bench, batch_size):
            energy_bench(model="Qwen/Qwen3-8B", batch_size=batch_size)
    """)

    run = joules.run()

    assert run.ret == 2
    run.stdout.fnmatch_lines(["*InvalidPoint: batch_size=0: *", "*1 error during collection*"])
    assert "launches made: none" in run.stdout.str()


def test_fp8_on_a_gpu_without_it_is_a_collection_error(joules):
    joules.machine("gpu='a100'")
    joules.tests("""
        def test_point(energy_bench):
            energy_bench(model="Qwen/Qwen3-8B", batch_size=8, precision="fp8")
    """)

    run = joules.run(gpu="a100")

    assert run.ret == 2
    run.stdout.fnmatch_lines(["*precision='fp8'*no FP8*bf16*"])


def test_tests_of_one_server_run_next_to_each_other(joules):
    joules.tests("""
        import pytest
        from pytest_joules import Point

        @pytest.mark.parametrize("precision", ["bf16", "fp8"])
        @pytest.mark.parametrize("batch_size", [8, 16])
        def test_point(energy_bench, precision, batch_size):
            energy_bench(model="a/b", batch_size=batch_size, precision=precision)

        def test_plain():
            pass
    """)

    run = joules.run("-v")

    run.assert_outcomes(passed=5)
    run.stdout.fnmatch_lines_random(["*8-bf16*", "*16-bf16*", "*8-fp8*", "*16-fp8*"])
    order = [
        line.split("[")[1].split("]")[0]
        for line in run.outlines
        if "PASSED" in line and "[" in line.split("PASSED")[0]
    ]
    assert order == ["8-bf16", "16-bf16", "8-fp8", "16-fp8"]
    run.stdout.fnmatch_lines(["*launches made: 16,8 | 16,8"])


def test_what_a_test_prints_in_the_rehearsal_is_not_shown_twice(joules):
    joules.tests("""
        def test_noisy(energy_bench):
            print("once")
            energy_bench(model="a/b", batch_size=8).energy_per_token_j
            assert False
    """)

    run = joules.pytester.runpytest_inprocess("--gpu=h200")

    run.assert_outcomes(failed=1)
    assert run.stdout.str().count("\nonce\n") == 1


def test_points_that_depend_on_results_are_measured_when_they_come(joules):
    joules.tests("""
        def test_adaptive(energy_bench):
            first = energy_bench(model="a/b", batch_size=8)
            batch = 16 if first.energy_per_token_j > 0 else 32
            assert energy_bench(model="a/b", batch_size=batch).is_valid
    """)

    run = joules.run()

    run.assert_outcomes(passed=1)
    run.stdout.fnmatch_lines(["*launches made: 8 | 16"])


def test_equal_points_are_measured_once(joules):
    joules.tests("""
        def test_a(energy_bench):
            energy_bench(model="a/b", batch_size=8)

        def test_b(energy_bench):
            energy_bench(model="a/b", batch_size=8)
    """)

    run = joules.run()

    run.assert_outcomes(passed=2)
    run.stdout.fnmatch_lines(["*launches made: 8"])


def test_a_skipped_test_is_not_rehearsed(joules):
    joules.tests("""
        import pytest

        @pytest.mark.skip(reason="not here")
        def test_skipped(energy_bench):
            energy_bench(model="a/b", batch_size=8)
    """)

    run = joules.run()

    run.assert_outcomes(skipped=1)
    assert "launches made: none" in run.stdout.str()


def test_collect_only_rehearses_nothing(joules):
    joules.tests("""
        def test_loud(energy_bench):
            print("body ran")
    """)

    run = joules.run("--collect-only")

    assert "body ran" not in run.stdout.str()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            "energy_bench(model='a/b', batchsize=8)",
            "*InvalidPoint: *no field batchsize*",
        ),
        ("energy_bench(batch_size=8)", "*InvalidPoint: *model*"),
        ("energy_bench.check('Qwen/Qwen3-8B')", "*InvalidPoint: 'Qwen/Qwen3-8B' is no Point*"),
        ("energy_bench.sweep('a/b', batch_size=[1])", "*InvalidPoint: 'a/b' is no Point*"),
    ],
)
def test_a_misspelt_call_is_a_collection_error(joules, call, message):
    joules.tests(f"def test_point(energy_bench):\n    {call}\n")

    run = joules.run()

    assert run.ret == 2
    run.stdout.fnmatch_lines([message])


ENDS = """
    import pytest
    from pytest_joules import Point

    @pytest.fixture
    def kept(energy_bench):
        found = []
        yield found
        {end}

    def test_point(energy_bench, kept):
        kept.append(energy_bench(model="a/b", batch_size=8))

    def test_check(energy_bench):
        energy_bench.check(Point(model="a/b", batch_size=16))
"""


def test_a_value_that_is_used_at_the_end_of_a_fixture_leaves_no_rehearsal_behind(joules):
    joules.tests(ENDS.format(end='print("drawn:", found[0].power_w)'))

    run = joules.run()

    run.assert_outcomes(passed=1, failed=1)
    run.stdout.fnmatch_lines(["*drawn: 250 W*", "*BaselineMissing: *-b16*"])


def test_a_rehearsal_that_is_left_behind_all_the_same_measures_nothing_and_says_so(joules):
    joules.tests(ENDS.format(end="raise SystemExit"))

    run = joules.run()

    run.assert_outcomes(failed=2, errors=1)
    run.stdout.fnmatch_lines(["*ConfigurationError: this energy_bench is left over*"])
