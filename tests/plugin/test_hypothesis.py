"""docs/hypothesis.md, executed."""

import re
from pathlib import Path

DOC = Path(__file__).parents[2] / "docs" / "hypothesis.md"
(EXAMPLE,) = re.findall(r"```python\n(.*?)```", DOC.read_text(), re.DOTALL)
SUPPRESSED = "    suppress_health_check=[HealthCheck.function_scoped_fixture],\n"


def run(joules, example, *args):
    # With Hypothesis' own pytest plugin, whose check it is.
    joules.tests(example)
    its_plugin = ("-p", "hypothesispytest")
    return joules.pytester.runpytest_subprocess(*its_plugin, "--gpu=h200", "-s", *args)


def test_the_example_searches_and_measures(joules):
    made = run(joules, EXAMPLE)

    made.assert_outcomes(passed=1)
    made.stdout.fnmatch_lines(["qwen3-8b-text-conversation-bf16-1gpu-b8 *J/token*"])


def test_the_plan_shows_the_first_example_only(joules):
    made = run(joules, EXAMPLE, "--joules-plan")

    made.stdout.fnmatch_lines(["1 point, 1 launch, *"])


def test_the_example_finds_the_smallest_counter_example(joules):
    made = run(joules, EXAMPLE.replace("< 1.0", "< 0.2"))

    made.assert_outcomes(failed=1)
    made.stdout.fnmatch_lines(["*point=Point(model='Qwen/Qwen3-8B', batch_size=8)*"])


def test_without_the_suppression_it_fails_and_says_so(joules):
    assert SUPPRESSED in EXAMPLE
    made = run(joules, EXAMPLE.replace(SUPPRESSED, ""))

    made.assert_outcomes(failed=1)
    made.stdout.fnmatch_lines(["*launches made: none*", "*unction-scoped*energy_bench*"])
