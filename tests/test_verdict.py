import pytest

from pytest_joules.verdict import Verdict


@pytest.mark.parametrize(
    ("verdict", "fails"),
    [
        (Verdict.UNCHANGED, False),
        (Verdict.IMPROVEMENT, False),
        (Verdict.REGRESSION, True),
        (Verdict.INCONCLUSIVE, True),
        (Verdict.INVALID, True),
    ],
)
def test_only_unchanged_and_improvement_pass(verdict: Verdict, *, fails: bool) -> None:
    assert verdict.fails is fails
    assert str(verdict) == verdict.name.lower()


def test_there_are_five_answers() -> None:
    assert len(Verdict) == 5
