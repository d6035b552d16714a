"""Hypothesis strategies over points."""

from typing import Any

from hypothesis import assume
from hypothesis import strategies as st

from pytest_joules.errors import InvalidPoint
from pytest_joules.point import Point

_SMALL_FIRST = ("batch_size", "num_gpus")


def points(base: Point, **axes: Any) -> st.SearchStrategy[Point]:
    """Search a space of points: ``base`` with each named field taken from its axis.

    An axis is a list of values, a Hypothesis strategy, or one value. A failing example
    shrinks to the smallest batch size, then the fewest GPUs, then the first value of each
    other list, and prints as a ``Point(...)`` that can be pasted into a test. Combinations
    that contradict themselves are left out.

    Raises:
        InvalidPoint: A field is unknown, or an axis lists nothing.
    """
    ordered = {name: axes[name] for name in (*_SMALL_FIRST, *axes) if name in axes}
    columns = {name: _axis(base, name, values) for name, values in ordered.items()}
    return _points(base, st.fixed_dictionaries(columns))


def _axis(base: Point, name: str, values: Any) -> st.SearchStrategy[Any]:
    base.but(**{name: getattr(base, name, None)})  # names an unknown field
    if isinstance(values, st.SearchStrategy):
        return values
    listed = list(values) if isinstance(values, list | tuple | range) else [values]
    if not listed:
        raise InvalidPoint(f"{name}={values!r} lists no value to search.")
    return st.sampled_from(sorted(listed) if name in _SMALL_FIRST else listed)


@st.composite
def _points(draw: st.DrawFn, base: Point, changes: st.SearchStrategy[dict[str, Any]]) -> Point:
    # Not a map: Hypothesis prints a mapped value as the call that made it.
    try:
        return base.but(**draw(changes))
    except InvalidPoint:
        assume(condition=False)
        raise
