"""Files of one stored session that several workers of pytest-xdist write.

Each worker has files of its own beside the others', so none is lost with another one.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pytest_joules.errors import is_expected
from pytest_joules.storage import read, require_schema

__tracebackhide__ = is_expected

RESULTS = "results.jsonl"
COST = "cost.json"


def of_part(name: str, part: str) -> str:
    """Return the name of a worker's file; without pytest-xdist the part's name is empty.

    >>> of_part("results.jsonl", "gw0"), of_part("results.jsonl", "")
    ('results-gw0.jsonl', 'results.jsonl')
    """
    stem, _, suffix = name.partition(".")
    return f"{stem}-{part}.{suffix}" if part else name


def parts(folder: Path) -> list[str]:
    """Return the names of those who wrote results into a session."""
    stem, _, suffix = RESULTS.partition(".")
    found = [each.name for each in folder.glob(f"{stem}*.{suffix}")]
    names = [name.removeprefix(stem).removesuffix(f".{suffix}")[1:] for name in found]
    return sorted(names, key=lambda name: (len(name), name))


def cost_of(folder: Path, part: str) -> Mapping[str, Any]:
    """Return what a worker wrote of its cost; empty before the end of its first launch.

    Raises:
        FormatError: It cannot be read.
    """
    path = folder / of_part(COST, part)
    if not path.exists():
        return {}
    cost: Mapping[str, Any] = read(path)
    require_schema(cost, "session-cost", name=str(path))
    return cost
