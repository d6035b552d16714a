"""Lines between processes: one JSON object each; errors by name."""

import json
import os
import sys
from collections.abc import Mapping
from io import TextIOWrapper
from typing import Any, TextIO

from pytest_joules import errors
from pytest_joules.errors import FormatError, JoulesError, is_expected

__tracebackhide__ = is_expected

Message = Mapping[str, Any]


def line(message: Message) -> str:
    """Write a message; numbers read back bit for bit."""
    return json.dumps(message, separators=(",", ":")) + "\n"


def message(text: str) -> Message:
    """Read a message.

    Raises:
        FormatError: It is none.
    """
    try:
        read = json.loads(text)
    except ValueError:
        read = None
    if not isinstance(read, dict):
        raise FormatError(f"a node said {text[:200]!r}, which is no message.")
    return read


def own_stdout() -> TextIO:
    """Keep standard output for messages: what a library prints goes to standard error.

    Who reads them sees their end when this process ends, not before.
    """
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8", closefd=False)
    os.dup2(2, 1)
    # In the order in which it happens: the last line tells what a process died of.
    assert isinstance(sys.stdout, TextIOWrapper)
    sys.stdout.reconfigure(line_buffering=True)
    return answers


def error_json(error: JoulesError) -> dict[str, str]:
    """Return an error by the nearest class that ``errors`` lists."""
    known = {each for each in vars(errors).values() if isinstance(each, type)}
    kind = next(each for each in type(error).__mro__ if each in known)
    return {"kind": kind.__name__, "text": str(error)}


def error_from(values: Mapping[str, str], where: str = "") -> JoulesError:
    """Rebuild an error; one that is not known here is a plain ``JoulesError``."""
    kind = getattr(errors, values["kind"], None)
    text = f"{where}: {values['text']}" if where else values["text"]
    if isinstance(kind, type) and issubclass(kind, JoulesError):
        return kind(text)
    return JoulesError(text)
