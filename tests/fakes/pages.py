"""The code blocks of a Markdown page, with what comments before them say.

``<!-- file: NAME -->``     the block is a file of the page's project
``<!-- exit: CODE -->``     the commands of the block end with that code
``<!-- not run: WHY -->``   the block cannot run where the tests run
``<!-- command: NAME -->``  the block is run by the project's own CI script
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_FENCE = re.compile(
    r"(?P<marks>(?:^<!--[^\n]*-->\n)*)^```(?P<language>[\w{}-]*)\n(?P<text>.*?)^```$",
    re.DOTALL | re.MULTILINE,
)
_MARK = re.compile(r"<!-- (file|exit|not run|command): (.+?) -->")


@dataclass(frozen=True, kw_only=True)
class Block:
    language: str
    text: str
    marks: dict[str, str]
    line: int


def blocks(page: Path) -> Iterator[Block]:
    """Yield a page's fenced blocks in order."""
    source = page.read_text(encoding="utf-8")
    for found in _FENCE.finditer(source):
        yield Block(
            language=found["language"],
            text=found["text"],
            marks=dict(_MARK.findall(found["marks"])),
            line=source.count("\n", 0, found.start("language")) + 1,
        )


def shows(shown: str, output: str) -> str:
    """Return the first shown line that the output lacks in this order; empty for none.

    ``...`` stands for anything; runs of spaces are equal, because columns move with numbers.
    """
    lines = iter([" ".join(line.split()) for line in output.splitlines()])
    for line in filter(None, (" ".join(each.split()) for each in shown.splitlines())):
        pattern = re.compile(".*".join(re.escape(part.strip()) for part in line.split("...")))
        if not any(pattern.fullmatch(seen) for seen in lines):
            return line
    return ""
