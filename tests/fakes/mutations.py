"""Valid files harmed at random, by structure and by bytes; the same seed harms the same way."""

import codecs
import json
import tomllib
from collections.abc import Callable, Iterator
from copy import deepcopy
from random import Random
from typing import Any, NamedTuple

Place = tuple[str | int, ...]

STRANGE: tuple[Any, ...] = (
    *(
        None,
        True,
        False,
        0,
        -1,
        1,
        2,
        3.5,
        -0.0,
        1e-320,
        1e15,
        1e99,
        -1e99,
        2**31,
        2**63,
        10**99,
    ),
    *(10**100, float("nan"), float("inf"), float("-inf"), 1e308),
    *(
        "",
        " ",
        "\0",
        "../../x",
        "/etc/passwd",
        "-x",
        "1",
        "1e3",
        "nan",
        "true",
        "null",
        "\ud800",
    ),
    *("a" * 300, "\u202eabc", "\N{FULLWIDTH SOLIDUS}", "\x1b[31m", "e\u0301", "{}", "\n", "%s"),
    *("live", "h200", "token", "eJwDAAAAAAE=", "=cmd", "2026-01-01T00:00:00+00:00"),
    *([], {}, [[]], [None], [{}], {"": None}, {"a": {"b": [1]}}, ["x", 1], [0.5] * 9),
)
_DEEP = 3_000


class Spot(NamedTuple):
    """A place in a tree that is about to change."""

    holder: Any
    step: Any
    tree: Any


def mutated(stream: Random, tree: Any) -> tuple[Any, Place]:
    """Return a changed copy, and where it was changed: one place, drawn evenly."""
    changed = deepcopy(tree)
    place = stream.choice(list(_places(changed)))
    if not place:
        return deepcopy(stream.choice(STRANGE)), place
    holder = changed
    for step in place[:-1]:
        holder = holder[step]
    stream.choice(_CHANGES)(stream, Spot(holder, place[-1], changed))
    return changed, place


def _places(tree: Any, above: Place = ()) -> Iterator[Place]:
    yield above
    if isinstance(tree, dict | list):
        for step, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
            yield from _places(value, (*above, step))


def _drop(_: Random, spot: Spot) -> None:
    holder, step, _tree = spot
    del holder[step]


def _replace(stream: Random, spot: Spot) -> None:
    holder, step, _tree = spot
    holder[step] = deepcopy(stream.choice(STRANGE))


def _transplant(stream: Random, spot: Spot) -> None:
    """Put what stands somewhere else: of a right type, but of another meaning."""
    holder, step, tree = spot
    value = tree
    for other in stream.choice(list(_places(tree))):
        value = value[other]
    holder[step] = deepcopy(value)


def _rename(stream: Random, spot: Spot) -> None:
    holder, step, _tree = spot
    if isinstance(holder, dict):
        name = stream.choice(
            [f"{step}x", step.upper(), "", "schema", "\0", "__class__", "self"]
        )
        holder[name] = holder.pop(step)
    else:
        stream.shuffle(holder)


def _repeat(stream: Random, spot: Spot) -> None:
    holder, step, _tree = spot
    if isinstance(holder, list):
        holder[step:step] = [deepcopy(holder[step])] * stream.choice([1, 2, 50])
    else:
        holder[f"{step} "] = deepcopy(holder[step])


def _retype(stream: Random, spot: Spot) -> None:
    holder, step, _tree = spot
    value = holder[step]
    holder[step] = stream.choice([str(value), [value], {"value": value}, {str(value): 1}])


def _rescale(stream: Random, spot: Spot) -> None:
    holder, step, _tree = spot
    value = holder[step]
    if isinstance(value, str):
        holder[step] = stream.choice([value[:-1], value[::-1], value * 2, value.upper()])
    elif isinstance(value, int | float) and not isinstance(value, bool):
        holder[step] = stream.choice([-value, value + 1, value * 2, value * 1e30, float(value)])
    else:
        holder[step] = deepcopy(stream.choice(STRANGE))


_CHANGES: tuple[Callable[[Random, Spot], None], ...] = (
    *(_drop, _replace, _replace, _transplant, _rename, _repeat, _retype, _rescale, _rescale),
)


def harmed(stream: Random, data: bytes) -> bytes:
    """Return a file's bytes as no program would write them."""
    at = stream.randrange(len(data) + 1)
    made = stream.choice(
        [
            *(b"", b"\0", b"{", b"[", b"null", codecs.BOM_UTF8 + data, data[:at], data + data),
            *(data.decode(errors="replace").encode("utf-16"), data.replace(b'"', b"'")),
            data[:at] + bytes(stream.randrange(256) for _ in range(3)) + data[at + 3 :],
            data[:at]
            + stream.choice([b"\xff", b"\n", b"\r", b"\0", b"#", b"\xe2\x80\xa8"])
            + data[at:],
            b"[" * _DEEP + b"]" * _DEEP,
            b'{"a":' * _DEEP + b"1" + b"}" * _DEEP,
            data.replace(b"1", b"9" * 5_000, 1),
            data.replace(b"1", b"1e999", 1),
            data.replace(b"{", b'{"schema": 2, "schema": 2,', 1),
        ]
    )
    return bytes(made)


def as_json(tree: Any) -> bytes:
    """Write a tree, also one that strict JSON has no text for."""
    return json.dumps(tree, indent=1).encode()


def as_lines(tree: Any) -> bytes:
    """Write a list as one JSON a line."""
    rows = tree if isinstance(tree, list) else [tree]
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def as_toml(tree: Any) -> bytes:
    """Write a tree as one inline table after ``[tool]``, without null, which TOML has not."""
    return b"[tool]\npytest-joules = " + _toml(tree).encode(errors="replace") + b"\n"


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        items = {key: each for key, each in value.items() if each is not None}
        return "{" + ", ".join(f"{json.dumps(k)} = {_toml(v)}" for k, v in items.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_toml(each) for each in value if each is not None) + "]"
    if isinstance(value, float):
        return repr(value)
    return '""' if value is None else json.dumps(value)


def parsed(path: str, data: bytes) -> Any:
    """Read a file back into a tree, so that it can be changed further.

    Raises:
        ValueError: It is none any more.
    """
    text = data.decode()
    if path.endswith(".toml"):
        return tomllib.loads(text)["tool"]["pytest-joules"]
    if path.endswith(".jsonl"):
        return [json.loads(row) for row in text.splitlines()]
    return json.loads(text)
