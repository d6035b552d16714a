"""What one test sets by ``@pytest.mark.joules(...)`` or in a call."""

from dataclasses import dataclass, fields

import pytest

from pytest_joules.errors import ConfigurationError
from pytest_joules.options import values
from pytest_joules.options.frozen import parsed


@dataclass(frozen=True, kw_only=True)
class MarkerOptions:
    """What ``@pytest.mark.joules(...)`` may set for one test."""

    tolerance: float | None = None
    may_measure_nothing: bool = False
    """Whether the test may pass though it came to no measured value."""

    @classmethod
    def from_item(cls, item: pytest.Item) -> "MarkerOptions":
        """Read the test's marker.

        Raises:
            ConfigurationError: It has positional arguments, unknown keywords or wrong values.
        """
        marker = item.get_closest_marker("joules")
        if marker is None:
            return cls()
        known = [each.name for each in fields(cls)]
        unknown = sorted(set(marker.kwargs) - set(known))
        if marker.args or unknown:
            raise ConfigurationError(
                f"{item.nodeid}: @pytest.mark.joules takes the keywords {', '.join(known)}; "
                f"it was given {', '.join([*map(repr, marker.args), *unknown])}."
            )
        place = f"{item.nodeid}: @pytest.mark.joules"
        readers = {
            "tolerance": values.ratio,
            "may_measure_nothing": values.switch,
        }
        return cls(
            **{
                name: parsed(readers[name], value, f"{place} {name}")
                for name, value in marker.kwargs.items()
            }
        )


def share(value: object, place: str) -> float:
    """Read a share such as 0.03 or "3%".

    Raises:
        ConfigurationError: It is none; names the place.
    """
    read: float = parsed(values.ratio, value, place)
    return read
