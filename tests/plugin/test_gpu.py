"""--gpu."""


def test_without_a_gpu_named_energy_tests_are_red_and_others_run(joules):
    joules.tests(
        """
        def test_plain():
            pass

        def test_energy(energy_bench):
            energy_bench(model="a/b", batch_size=8)
        """
    )

    run = joules.run(gpu=None)

    run.assert_outcomes(passed=1, errors=1)
    run.stdout.fnmatch_lines(["*ConfigurationError: no GPU is named*--gpu=NAME*"])
    run.stdout.fnmatch_lines(["*launches made: none*"])


def test_an_energy_option_without_a_gpu_named_is_a_usage_error(joules):
    run = joules.run("--joules-plan", gpu=None)

    assert run.ret == 4
    run.stderr.fnmatch_lines(["*no GPU is named*--gpu=NAME*"])


def test_settings_from_files_are_in_the_header_too(joules):
    joules.pyproject("[tool.pytest-joules]\ngpu = 'h200'\n")

    run = joules.run(gpu=None)

    assert run.stdout.str().count("joules: gpu h200, source fake") == 1


def test_without_energy_tests_no_gpu_is_needed(joules):
    joules.tests("def test_plain(): pass")

    run = joules.run(gpu=None)

    run.assert_outcomes(passed=1)
    assert "joules:" not in run.stdout.str()


ONE_POINT = """
    def test_plain():
        pass

    def test_point(energy_bench):
        energy_bench(model="a/b", batch_size=8)
"""


def test_a_gpu_that_is_not_there_is_a_usage_error_that_names_what_is(joules):
    joules.machine("gpu='h100'")
    joules.tests(ONE_POINT)

    run = joules.run(gpu="h200")

    assert run.ret == 4
    run.assert_outcomes()
    run.stderr.fnmatch_lines(["*--gpu=h200*H100*(h100)*--joules-source*"])
    assert "launches made: none" in run.stdout.str()


def test_where_only_a_file_names_the_gpu_other_tests_run_without_it(joules):
    joules.machine("gpu='h100'")
    joules.pyproject("[tool.pytest-joules]\ngpu = 'h200'\n")
    joules.tests(ONE_POINT)

    run = joules.run(gpu=None)

    run.assert_outcomes(passed=1, failed=1)
    run.stdout.fnmatch_lines(["*MeterError: *needs 1 x h200*H100*"])
    assert "launches made: none" in run.stdout.str()


def test_a_plan_needs_no_gpu(joules):
    joules.machine("gpu='h100'")
    joules.tests(ONE_POINT)

    assert joules.run("--joules-plan", gpu="h200").ret == 0


def test_without_energy_tests_the_gpu_need_not_be_there(joules):
    joules.machine("gpu='h100'")
    joules.tests("def test_plain(): pass")

    joules.run(gpu="h200").assert_outcomes(passed=1)


def test_more_gpus_than_there_are_is_an_error(joules):
    joules.machine("num_gpus=2")
    joules.tests("""
        def test_point(energy_bench):
            energy_bench(model="a/b", batch_size=8, num_gpus=4)
    """)

    run = joules.run()

    run.assert_outcomes(failed=1)
    run.stdout.fnmatch_lines(["*needs 4 x h200*"])


def test_the_gpu_may_stand_in_pyproject(joules):
    joules.pyproject("""
        [tool.pytest-joules]
        gpu = "h200"
    """)
    joules.tests("""
        def test_point(energy_bench):
            assert energy_bench(model="a/b", batch_size=8).gpu == "h200"
    """)

    joules.run(gpu=None).assert_outcomes(passed=1)


def test_the_header_names_gpu_source_and_stack(joules):
    run = joules.run()

    run.stdout.fnmatch_lines(["joules: gpu h200, source fake, stack default*FAKE*"])
