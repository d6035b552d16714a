"""Print one of the README's commands, found by the comment that names it."""

import re
import sys
from pathlib import Path

name = sys.argv[1]
text = Path("README.md").read_text(encoding="utf-8")
found = re.search(
    rf"<!-- command: {name} -->\n```(?:sh|bash|shell)\n(.*?)\n```", text, re.DOTALL
)
if found is None:
    sys.exit(f"README.md has no block after <!-- command: {name} -->")
print(found.group(1).replace("$ ", ""))
