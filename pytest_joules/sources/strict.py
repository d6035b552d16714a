"""Fields of JSON files asked for by type; every refusal names file, place and field."""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from pytest_joules.errors import FormatError, is_expected

__tracebackhide__ = is_expected

_LONGEST = 80


class Fields:
    """One JSON object; each method raises ``FormatError`` for a field it cannot give."""

    def __init__(self, values: Any, path: Path | str, where: str) -> None:
        self._path, self._where = path, where
        if not isinstance(values, dict):
            raise FormatError(f"{path}: {where} is a {type(values).__name__}, not an object.")
        self._values = values

    def has(self, field: str) -> bool:
        return field in self._values

    def text(self, field: str) -> str:
        value = self._value(field)
        if not isinstance(value, str) or not value.strip():
            self.fail(field, value, "a text that is not empty")
        return value

    def texts(self, field: str) -> list[str]:
        value = self._value(field)
        if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
            self.fail(field, value, "a list of texts")
        return value

    def objects(self, field: str) -> Mapping[str, Any] | Sequence[Any]:
        value = self._value(field)
        if not isinstance(value, dict | list) or not value:
            self.fail(field, value, "a collection that is not empty")
        return value

    def number(self, field: str) -> float:
        value = self._value(field)
        if isinstance(value, bool) or not isinstance(value, int | float):
            self.fail(field, value, "a number")
        if not math.isfinite(value) or value <= 0:
            self.fail(field, value, "a number above 0")
        return float(value)

    def number_or_none(self, field: str) -> float | None:
        return None if self._values.get(field) is None else self.number(field)

    def numbers(self, field: str) -> list[float]:
        value = self._value(field)
        if not isinstance(value, list) or not all(_is_number(each) for each in value):
            self.fail(field, value, "a list of numbers, none below 0")
        return [float(each) for each in value]

    def inside(self, field: str) -> "Fields":
        """Return the object that a field holds."""
        return Fields(self._value(field), self._path, f"{self._where}, field {field}")

    def each(self, field: str) -> Iterator["Fields"]:
        """Yield the objects of the list that a field holds; there is at least one."""
        value = self._value(field)
        if not isinstance(value, list) or not value:
            self.fail(field, value, "a list that is not empty")
        for index, values in enumerate(value):
            yield Fields(values, self._path, f"{self._where}, {field} {index}")

    def flag(self, field: str) -> bool:
        value = self._value(field)
        if not isinstance(value, bool):
            self.fail(field, value, "true or false")
        return value

    def count(self, field: str) -> int:
        value = self._value(field)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            self.fail(field, value, "a whole number of at least 1")
        return value

    def fail(self, field: str, value: Any, expected: str) -> NoReturn:
        written = repr(value)
        shown = written if len(written) <= _LONGEST else f"{written[:_LONGEST]}..."
        raise FormatError(
            f"{self._path}, {self._where}, field {field}: {shown} is not {expected}."
        )

    def _value(self, field: str) -> Any:
        if field not in self._values:
            raise FormatError(f"{self._path}, {self._where}: field {field} is missing.")
        return self._values[field]


def _is_number(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return math.isfinite(value) and value >= 0
