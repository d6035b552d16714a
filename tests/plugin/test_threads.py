"""A test may ask from several threads; the machine is measured once at a time."""

THREADS = """
    from concurrent.futures import ThreadPoolExecutor
    from threading import Barrier

    from pytest_joules import Point

    together = Barrier(4)

    def test_sizes(energy_bench):
        def asked(batch_size):
            together.wait()
            return {ask}

        with ThreadPoolExecutor(4) as pool:
            found = list(pool.map(asked, [8, 8, 16, 16]))
        assert found[0] is found[1]
        assert found[2] is found[3]
"""


def test_points_that_threads_ask_for_are_measured_once(joules):
    joules.tests(THREADS.format(ask="energy_bench(model='a/b', batch_size=batch_size)"))

    run = joules.run()

    run.assert_outcomes(passed=1)
    run.stdout.fnmatch_lines(["*launches made: 16,8", "1 launch,*"])


def test_points_that_threads_check_are_judged_once(joules):
    point = "Point(model='Qwen/Qwen3-8B', batch_size=2 * batch_size)"
    joules.machine("power_w=lambda stack, point: 400.0")
    joules.tests(THREADS.format(ask=f"energy_bench.check({point})"))

    joules.run("--joules-record", "--joules-launches=2").assert_outcomes(passed=1)

    assert (joules.path / "baselines").is_dir()
    run = joules.run()

    run.assert_outcomes(passed=1)
    run.stdout.fnmatch_lines(["*launches made: 32,16*"])
