import math
from statistics import mean

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.stats import lognorm

from pytest_joules.errors import InvalidPoint
from pytest_joules.tasks import TASKS, Lengths, Task, task, task_of_dataset


def lengths() -> st.SearchStrategy[Lengths]:
    """Any valid length distribution."""

    def build(bounds: tuple[int, int, int], cv: float) -> Lengths:
        shortest, middle, longest = sorted(bounds)
        return Lengths(mean=middle, cv=cv, shortest=shortest, longest=longest)

    tokens = st.integers(1, 100_000)
    return st.builds(build, st.tuples(tokens, tokens, tokens), st.floats(0, 5))


def clipped_mean(of: Lengths) -> float:
    """Mean of the clipped log-normal, by quadrature of its survival function."""
    sigma = math.sqrt(math.log1p(of.cv**2))
    shape = lognorm(sigma, scale=of.mean * math.exp(-(sigma**2) / 2))
    tail, _ = quad(shape.sf, of.shortest, of.longest, limit=500, points=[of.mean])
    return of.shortest + tail


@pytest.mark.parametrize(
    ("values", "named"),
    [
        pytest.param({"mean": 0.5}, "mean=0.5", id="mean-below-shortest"),
        pytest.param({"mean": 10, "shortest": 0}, "shortest=0", id="shortest-zero"),
        pytest.param({"mean": 10, "shortest": 11}, "shortest=11", id="shortest-above-mean"),
        pytest.param({"mean": 10, "longest": 9}, "longest=9", id="longest-below-mean"),
        pytest.param({"mean": 10, "cv": -0.1}, "cv=-0.1", id="cv-negative"),
        pytest.param({"mean": 10, "cv": 5.01}, "cv=5.01", id="cv-too-large"),
        pytest.param({"mean": math.nan}, "mean=nan", id="mean-nan"),
        pytest.param({"mean": 10, "cv": math.nan}, "cv=nan", id="cv-nan"),
        pytest.param({"mean": math.inf, "longest": math.inf}, "mean=inf", id="infinite"),
        pytest.param({"mean": "10"}, "mean='10'", id="text"),
        pytest.param({"mean": True}, "mean=True", id="truth-is-no-number"),
        pytest.param({"mean": 10, "longest": 20.5}, "longest=20.5", id="part-of-a-token"),
    ],
)
def test_what_is_no_distribution_is_refused_by_value(
    values: dict[str, float], named: str
) -> None:
    with pytest.raises(InvalidPoint, match=rf"{named}.*1 <= shortest <= mean <= longest"):
        Lengths(**values)


@pytest.mark.parametrize(
    "values",
    [
        pytest.param({"mean": 1}, id="one-token"),
        pytest.param({"mean": 10, "shortest": 10, "longest": 10}, id="all-equal"),
        pytest.param({"mean": 10, "cv": 5}, id="largest-cv"),
    ],
)
def test_bounds_themselves_are_allowed(values: dict[str, float]) -> None:
    assert Lengths(**values).mean == values["mean"]


def test_without_spread_every_length_is_the_mean() -> None:
    drawn = {Lengths(mean=128).draw(i, seed=i, what="output") for i in range(50)}

    assert drawn == {128}


@given(of=lengths(), index=st.integers(0, 10**9), seed=st.integers(0, 2**63))
def test_a_length_lies_in_its_bounds_and_is_always_the_same(
    of: Lengths, index: int, seed: int
) -> None:
    drawn = of.draw(index, seed=seed, what="output")

    assert of.shortest <= drawn <= of.longest
    assert drawn == of.draw(index, seed=seed, what="output")


@given(of=lengths(), indices=st.lists(st.integers(0, 1000), max_size=20))
def test_a_length_does_not_depend_on_how_many_were_drawn_before(
    of: Lengths, indices: list[int]
) -> None:
    alone = {i: of.draw(i, seed=7, what="input") for i in set(indices)}

    assert [of.draw(i, seed=7, what="input") for i in indices] == [alone[i] for i in indices]


@pytest.mark.parametrize("name", [name for name in TASKS if TASKS[name].output_tokens])
def test_drawn_lengths_have_the_mean_that_was_asked(name: str) -> None:
    """Against the clipped distribution's mean; five standard errors, one fixed seed."""
    of = TASKS[name].output_tokens
    assert of is not None
    count = 4000
    drawn = [of.draw(i, seed=0, what="output") for i in range(count)]

    standard_error = of.cv * of.mean / math.sqrt(count)
    assert abs(mean(drawn) - clipped_mean(of)) < 5 * standard_error
    assert abs(clipped_mean(of) / of.mean - 1) < 0.01  # clipping takes nothing noticeable


def test_seed_index_and_kind_each_make_another_length() -> None:
    of = Lengths(mean=10_000, cv=1, longest=10**9)
    drawn = [
        of.draw(0, seed=0, what="input"),
        of.draw(1, seed=0, what="input"),
        of.draw(0, seed=1, what="input"),
        of.draw(0, seed=0, what="output"),
    ]

    assert len(set(drawn)) == 4


def test_minus_zero_is_zero() -> None:
    assert repr(Lengths(mean=5, cv=-0.0)) == repr(Lengths(mean=5.0, cv=0))


def test_the_seven_tasks_by_both_names() -> None:
    assert {known.name: known.dataset_name for known in TASKS.values()} == {
        "problem-solving": "gpqa",
        "text-conversation": "lm-arena-chat",
        "code-completion": "sourcegraph-fim",
        "image-chat": "image-chat",
        "video-chat": "video-chat",
        "text-to-image": "text-to-image",
        "text-to-video": "text-to-video",
    }


@pytest.mark.parametrize("known", TASKS.values(), ids=list(TASKS))
def test_a_task_is_found_by_both_names_and_has_lengths_if_it_makes_tokens(known: Task) -> None:
    assert task(known.name) is known
    assert task_of_dataset(known.dataset_name) is known
    makes_tokens = known.work_unit == "token"
    assert (known.output_tokens is not None) == makes_tokens
    assert (known.input_tokens is not None) == makes_tokens


def test_unknown_names_list_the_known_ones() -> None:
    with pytest.raises(InvalidPoint, match=r"task='gpqa' is unknown.*problem-solving"):
        task("gpqa")
    with pytest.raises(InvalidPoint, match=r"dataset 'problem-solving' is unknown.*gpqa"):
        task_of_dataset("problem-solving")


def test_the_table_cannot_be_changed() -> None:
    with pytest.raises(TypeError):
        TASKS["new"] = TASKS["image-chat"]  # type: ignore[index]
