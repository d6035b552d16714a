"""engine="endpoint": one start of a server that we do not start is one sample."""

import json

CHECK = """
    from pytest_joules import Point

    SERVED = Point(model="Qwen/Qwen3-8B", engine="endpoint", batch_size=16)

    def test_energy(energy_bench):
        energy_bench.check(SERVED)

    def test_measured(energy_bench):
        assert energy_bench.measure(SERVED).energy_per_token_j > 0
"""


def test_a_session_records_one_launch_however_many_are_asked(joules):
    joules.tests(CHECK)

    joules.run("--joules-record", "--joules-launches=3").assert_outcomes(passed=2)

    (name,) = joules.baseline_files()
    (entry,) = json.loads((joules.path / "baselines" / name).read_text())["points"]
    assert len(entry["runs"]) == 1


def test_a_verdict_that_needs_a_second_start_is_undecided_and_says_so(joules):
    joules.tests(CHECK)
    joules.run("--joules-record")

    run = joules.run()

    run.assert_outcomes(passed=1, failed=1)
    assert run.ret == 6
    run.stdout.fnmatch_lines(["*Inconclusive*one start of the server*restart the server*"])
    run.stdout.fnmatch_lines(["*launches made: 16"])


ATTACHED = """
    from contextlib import contextmanager
    from pytest_joules.testing import FakeMachine

    class Attached(FakeMachine):
        @contextmanager
        def started(self, launch, *, gpu_uuids):
            with super().started(launch, gpu_uuids=gpu_uuids) as server:
                server.launch_id = "its-only-start"
                yield server

    machine = Attached(num_gpus=1, attaches=True)
"""


def test_the_start_that_a_baseline_holds_is_neither_recorded_again_nor_compared(joules):
    joules.machine(extra=ATTACHED)
    joules.tests(CHECK)
    joules.run("--joules-record").assert_outcomes(passed=2)

    for options in ([], ["--joules-record"]):
        run = joules.run(*options, "-k", "test_energy")

        assert run.ret == 6
        run.stdout.fnmatch_lines(["*Inconclusive*a run of this very start of the server*"])
