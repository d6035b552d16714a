"""What ends a process of a load is one line where a user can mend it."""

import pytest

from pytest_joules.errors import LoadError
from pytest_joules.load.words import in_words


def raising(error: BaseException):
    def job() -> int:
        raise error

    return job


FULL = OSError(28, "No space left on device")


@pytest.mark.parametrize("error", [FULL, LoadError("No space left")])
def test_what_a_user_can_mend_is_one_line(error: BaseException, capsys) -> None:
    assert in_words(raising(error)) == 1

    (line,) = capsys.readouterr().err.splitlines()
    assert "No space left" in line


def test_a_bug_keeps_its_traceback() -> None:
    with pytest.raises(KeyError):
        in_words(raising(KeyError("x")))


def test_the_code_of_the_job_is_kept() -> None:
    assert [in_words(lambda code=code: code) for code in (0, 1)] == [0, 1]
