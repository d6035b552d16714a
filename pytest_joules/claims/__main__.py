"""``python -m pytest_joules.claims DATA [--write [PATH]]``: the table of all claims."""

import argparse
import sys
from pathlib import Path

from pytest_joules.claims.dataset import Dataset
from pytest_joules.claims.table import document
from pytest_joules.errors import JoulesError
from pytest_joules.storage import write_atomically

DOCS = Path("docs/claims.md")


def main(arguments: list[str] | None = None) -> int:
    """Print or write the page; return 0, or 2 where the data cannot be read."""
    parser = argparse.ArgumentParser(prog="python -m pytest_joules.claims", description=__doc__)
    parser.add_argument("data", type=Path, help="folder of the ML.ENERGY Leaderboard")
    parser.add_argument(
        "--write",
        type=Path,
        nargs="?",
        const=DOCS,
        metavar="PATH",
        help=f"write the page to PATH (default: {DOCS}) instead of printing it",
    )
    chosen = parser.parse_args(arguments)
    try:
        page = document(Dataset.read(chosen.data))
    except JoulesError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    if chosen.write:
        write_atomically(chosen.write, page)
    else:
        sys.stdout.write(page)
    return 0


if __name__ == "__main__":
    sys.exit(main())
