"""Parts of a test: pytest's ``subtests`` and unittest's ``subTest``."""

import pytest

pytestmark = pytest.mark.skipif(pytest.version_tuple < (9,), reason="they came with pytest 9")

SUBTESTS = """
    import pytest
    from pytest_joules import Point

    QWEN = Point(model="Qwen/Qwen3-8B")

    def test_sizes(subtests, energy_bench):
        for batch_size in [16, {second}]:
            with subtests.test(batch_size=batch_size):
                {use}
"""
UNITTEST = """
    import unittest

    import pytest
    from pytest_joules import Point

    QWEN = Point(model="Qwen/Qwen3-8B")

    class TestSizes(unittest.TestCase):
        @pytest.fixture(autouse=True)
        def _bench(self, energy_bench):
            self.bench = energy_bench

        def test_sizes(self):
            energy_bench = self.bench
            for batch_size in [16, {second}]:
                with self.subTest(batch_size=batch_size):
                    {use}
"""
KINDS = pytest.mark.parametrize("text", [SUBTESTS, UNITTEST], ids=["pytest", "unittest"])
BOUND = "assert energy_bench.measure(QWEN.but(batch_size=batch_size)).power_w < {most_w}"


@KINDS
def test_all_parts_are_rehearsed_in_silence_and_share_a_launch(joules, text):
    joules.tests(text.format(second=64, use=BOUND.format(most_w=1000)))

    run = joules.run()

    assert run.ret == 0
    run.stdout.fnmatch_lines(["*launches made: 64,16", "1 launch,*"])
    assert run.parseoutcomes() == {"passed": 1}


@KINDS
def test_a_part_that_fails_is_told_once(joules, text):
    joules.machine("power_w=lambda stack, point: 300.0 + point.batch_size")
    joules.tests(text.format(second=64, use=BOUND.format(most_w=350)))

    run = joules.run()

    assert run.ret == 1
    assert len([line for line in run.outlines if line.startswith("SUBFAILED")]) == 1
    run.stdout.fnmatch_lines(["E *assert 364 W (*-b64 on h200, fake) < 350"])
    run.stdout.no_fnmatch_line("*RehearsalEnds*")
    run.stdout.no_fnmatch_line("*measured nothing*")


@KINDS
def test_a_wrong_point_in_a_part_is_a_collection_error(joules, text):
    joules.tests(text.format(second=0, use=BOUND.format(most_w=1000)))

    run = joules.run()

    assert run.ret == 2
    run.stdout.fnmatch_lines(["*InvalidPoint: batch_size=0: *", "*1 error during collection*"])
    assert "launches made: none" in run.stdout.str()


@KINDS
def test_a_part_that_is_undecided_makes_nothing_red(joules, text):
    joules.machine("foreign_pids=(99,)")
    joules.tests(text.format(second=64, use=BOUND.format(most_w=1000)))

    run = joules.run()

    assert run.ret == 6
    run.stdout.fnmatch_lines(
        ["E *InvalidMeasurement: *-b16:*", "E *InvalidMeasurement: *-b64:*"]
    )


@KINDS
def test_workers_of_xdist_rehearse_parts_too(joules, text):
    pytest.importorskip("xdist")
    joules.tests(text.format(second=64, use=BOUND.format(most_w=1000)))

    run = joules.run("-n1")

    assert run.ret == 0
    run.stdout.fnmatch_lines(["1 launch,*"])


def test_a_wrong_point_in_unittest_is_a_collection_error(joules):
    text = UNITTEST.format(second=64, use="energy_bench(model='a/b', batch_size=0)")
    joules.tests(text.replace("with self.subTest(batch_size=batch_size):", "if True:"))

    run = joules.run()

    assert run.ret == 2
    run.stdout.fnmatch_lines(["*InvalidPoint: batch_size=0: *"])
