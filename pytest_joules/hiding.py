"""Secrets that no log, error or file may show.

A secret is the value of an environment variable whose name says so, or the password of a URL
in any variable. Numbers and values of less than ``SHORTEST`` characters are none: they would
be found in every other line.
"""

import json
import os
import re
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Final
from urllib.parse import quote

SHORTEST: Final = 6
MASK: Final = "***"

_NAMES: Final = re.compile(
    # Not a tokenizer, and not a number of tokens.
    r"TOKEN(?!I[ZS]|S)|KEY|SECRET|PASSW(?:OR)?D|PASSPHRASE|CREDENTIAL",
    re.IGNORECASE,
)
_IN_URL: Final = re.compile(r"//[^/@\s:]*:([^/@\s]+)@")
_NUMBER: Final = re.compile(r"[-+.\d]+")
_ANY: Final = "surrogatepass"
"""An environment may hold bytes that are no text."""

_remembered: set[str] = set()


@cache
def names_secret(name: str) -> bool:
    """Tell whether a variable or option of this name holds a secret.

    >>> names_secret("HF_TOKEN"), names_secret("--api-key"), names_secret("--tokenizer")
    (True, True, False)
    """
    return _NAMES.search(name) is not None


def secrets_of(environ: Mapping[str, str]) -> frozenset[str]:
    """Return the secrets of an environment."""
    named = (value for name, value in environ.items() if names_secret(name))
    in_urls = (found for value in environ.values() for found in _IN_URL.findall(value))
    return frozenset(each for each in (*named, *in_urls) if _is_secret(each))


def _is_secret(value: str) -> bool:
    return len(value) >= SHORTEST and _NUMBER.fullmatch(value) is None


def holder(texts: Iterable[str], environ: Mapping[str, str]) -> str:
    """Name the variable whose secret stands in one of the texts; empty for none.

    >>> holder(["--tokenizer=hf_abcdef"], {"HOME": "/root", "HF_TOKEN": "hf_abcdef"})
    'HF_TOKEN'
    """
    whole = "\n".join(texts)
    for name, value in environ.items():
        found = secrets_of({name: value}) if "@" in value or names_secret(name) else ()
        if any(form in whole for form in spellings(found)):
            return name
    return ""


def spellings(secrets: Iterable[str]) -> tuple[str, ...]:
    """Return how programs write them: as they are, quoted and escaped; the longest first."""
    found = {
        form
        for each in secrets
        for form in (
            *(each, json.dumps(each)[1:-1], json.dumps(each, ensure_ascii=False)[1:-1]),
            *(repr(each)[1:-1], quote(each, errors=_ANY), quote(each, safe="", errors=_ANY)),
        )
    }
    return tuple(sorted(found, key=lambda form: (-len(form), form)))


def remember(secrets: Iterable[str]) -> None:
    """Let ``told`` hide what a process of ours was given, from now on."""
    _remembered.update(secrets)


def told(text: str) -> str:
    """Hide every secret of this process's environment, and those remembered.

    Where text of others leaves this process: in errors, and in what results say.
    """
    for form in spellings(secrets_of(os.environ) | _remembered):
        text = text.replace(form, MASK)
    return text


def beginning(text: str, most: int) -> str:
    """Hide secrets, then cut: half a secret would not be found any more, and tells much."""
    return told(text)[:most]
