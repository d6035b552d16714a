"""Files of one stored session that several workers of pytest-xdist write.

Each worker has files of its own beside the others', so none is lost with another one.
"""

from pathlib import Path

RESULTS = "results.jsonl"
COSTS = "costs.jsonl"


def of_part(name: str, part: str) -> str:
    """Return the name of a worker's file; without pytest-xdist the part's name is empty.

    >>> of_part("results.jsonl", "gw0"), of_part("results.jsonl", "")
    ('results-gw0.jsonl', 'results.jsonl')
    """
    stem, _, suffix = name.partition(".")
    return f"{stem}-{part}.{suffix}" if part else name


def parts(folder: Path, name: str = RESULTS) -> list[str]:
    """Return the names of those who wrote such a file, by default results, into a session."""
    stem, _, suffix = name.partition(".")
    found = [each.name for each in folder.glob(f"{stem}*.{suffix}")]
    names = [name.removeprefix(stem).removesuffix(f".{suffix}")[1:] for name in found]
    return sorted(names, key=lambda name: (len(name), name))
