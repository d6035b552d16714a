"""Fail if the pure modules are covered by less than 95 %; print the figures."""

import json
import sys
from pathlib import Path

LEAST = 95.0
PURE = """
assess baseline batches boards budget catalog digest energy engine_arguments engine_rules errors
hiding intervals ledger leases/allocation parts pipelines plan point procedure progress prompts
provenance referee request_times result sampling_error schedule steady_state storage strategies
tasks timeline trace units validity verdict visible vision
counter/ expect/ gate/ claims/ report/
"""


def is_pure(name: str) -> bool:
    path = name.removeprefix("pytest_joules/")
    return any(
        path == f"{pure}.py" or (pure.endswith("/") and path.startswith(pure))
        for pure in PURE.split()
    )


files = json.loads(Path(sys.argv[1]).read_text())["files"]
pure = {name: values["summary"] for name, values in files.items() if is_pure(name)}
total = sum(s["num_statements"] + s["num_branches"] for s in pure.values())
covered = sum(s["covered_lines"] + s["covered_branches"] for s in pure.values())
for name, summary in sorted(pure.items(), key=lambda item: item[1]["percent_covered"])[:8]:
    print(f"{name:45} {summary['percent_covered']:6.1f} %")
share = 100 * covered / total
print(f"{len(pure)} pure modules: {share:.1f} % of lines and branches, at least {LEAST} %")
sys.exit(share < LEAST)
