"""What further arguments of an engine may not say, whoever writes them.

An argument that this package sets itself, or that opens what it keeps closed, would be
obeyed by the engine though point, plan and report say otherwise.
"""

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Final

from pytest_joules.hiding import names_secret

_ENDS: Final = ("token", "key", "secret", "password", "passwd", "passphrase", "credentials")

_TRUST: Final = "set trust_remote_code=True on the point, where plan and report show it"
_ADDRESS: Final = "servers listen on 127.0.0.1 alone, at a port that is free"
_MODEL: Final = "set the point's model"
_REFUSED: Final[Mapping[str, str]] = MappingProxyType(
    {
        "trust-remote-code": _TRUST,
        "model": _MODEL,
        "model-tag": _MODEL,
        "served-model-name": _MODEL,
        "host": _ADDRESS,
        "port": _ADDRESS,
        "uds": _ADDRESS,
        "grpc": _ADDRESS,
        "grpc-port": _ADDRESS,
        "master-port": _ADDRESS,
        "data-parallel-address": _ADDRESS,
        "master-addr": _ADDRESS,
        "config": "name its settings one by one: a file could set what is refused here",
        "middleware": "it could let in requests without the key",
        "ssl-keyfile": "the load is offered on 127.0.0.1, without TLS",
        "ssl-certfile": "the load is offered on 127.0.0.1, without TLS",
    }
)
_PUBLIC: Final = (
    "a command line is public, and a point is stored: set it as an environment variable, in "
    "your shell or in the stack's env"
)


def refused(arguments: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield each argument that is refused, without its value, and what to do instead.

    Engines take ``_`` for ``-`` and, as argparse does, the beginning of a name for the name.
    """
    for argument in arguments:
        name, mark, _ = argument.partition("=")
        plain = name.lstrip("-").replace("_", "-").lower()
        found = [_REFUSED[each] for each in _REFUSED if _means(argument, plain, each)]
        if "trust-remote-code" in argument.replace("_", "-").lower():  # also within JSON
            found.append(_TRUST)
        is_named = name.startswith("-") or mark
        if found or (is_named and plain.endswith(_ENDS)):
            yield name, found[0] if found else _PUBLIC


def secrets_in(command: Sequence[str]) -> Iterator[str]:
    """Yield the names of ``NAME=VALUE`` in a run command that hold a secret."""
    for argument in command:
        name, mark, value = argument.partition("=")
        if mark and value and names_secret(name):
            yield name


def _means(argument: str, plain: str, option: str) -> bool:
    if not (argument.startswith("-") or "=" in argument):
        return False
    return plain == option or (argument.startswith("--") and option.startswith(plain))
