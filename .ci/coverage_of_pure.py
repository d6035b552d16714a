"""Fail if the pure modules are covered by less than 95 %; print the figures."""

import json
import sys
from pathlib import Path

LEAST = 95.0
PURE = """
batches budget catalog contract digest errors hiding intervals ledger pipelines plan
procedure progress prompts provenance result steady_state storage strategies tasks trace units
verdict visible
assess/ baseline/ claims/ counter/ diagnose/ expect/ gate/ point/ report/
fleet/placing fleet/schedule leases/allocation record/parts session/boards session/referee
"""
ENTRIES = PURE.split()


def names(pure: str, path: str) -> bool:
    return path.startswith(pure) if pure.endswith("/") else path == f"{pure}.py"


def is_pure(name: str) -> bool:
    path = name.removeprefix("pytest_joules/")
    return any(names(pure, path) for pure in ENTRIES)


files = json.loads(Path(sys.argv[1]).read_text())["files"]
pure = {name: values["summary"] for name, values in files.items() if is_pure(name)}
gone = [
    p for p in ENTRIES if not any(names(p, n.removeprefix("pytest_joules/")) for n in files)
]
if gone:
    sys.exit(f"no such modules: {', '.join(gone)}")
total = sum(s["num_statements"] + s["num_branches"] for s in pure.values())
covered = sum(s["covered_lines"] + s["covered_branches"] for s in pure.values())
for name, summary in sorted(pure.items(), key=lambda item: item[1]["percent_covered"])[:8]:
    print(f"{name:45} {summary['percent_covered']:6.1f} %")
share = 100 * covered / total
print(f"{len(pure)} pure modules: {share:.1f} % of lines and branches, at least {LEAST} %")
sys.exit(share < LEAST)
