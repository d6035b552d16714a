"""How the end of a process is told."""

import pytest

from pytest_joules.engines.logs import ended, why


@pytest.mark.parametrize(
    ("code", "told"),
    [
        (0, "ended with code 0"),
        (7, "ended with code 7"),
        (-9, "was ended by signal 9 (SIGKILL)"),
        (-11, "was ended by signal 11 (SIGSEGV)"),
        (-40, "was ended by signal 40"),
    ],
)
def test_a_signal_is_named(*, code: int, told: str) -> None:
    assert ended(code) == told


def test_only_sigkill_is_explained_by_memory() -> None:
    assert "out of memory" in why(-9)
    assert not any(map(why, (None, 0, 1, -11, -15)))
