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
        sys.stderr.write(f"it cannot go on: {error}\n")
    return 1
