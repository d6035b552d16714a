"""How the processes of a load tell why they cannot go on: in words, on standard error."""

import sys
from collections.abc import Callable

from pytest_joules.errors import LoadError


def in_words(job: Callable[[], int]) -> int:
    """Run a process's job; return its exit code.

    What a user can mend, such as a full disk or too few open files, is one line; everything
    else is a bug and keeps its traceback.
    """
    try:
        return job()
    except (OSError, LoadError) as error:
        told: BaseException = error
    except BaseExceptionGroup as group:
        expected = group.subgroup((OSError, LoadError))
        if expected is None:
            raise
        told = _first(expected)
    sys.stderr.write(f"it cannot go on: {told}\n")
    return 1


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
