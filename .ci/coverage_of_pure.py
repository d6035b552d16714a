"""Fail if the pure modules are covered by less than 95 %; print the figure."""

import json
import subprocess
import sys
from pathlib import Path

PURE = (
    "units point tasks catalog provenance trace result plan steady_state energy procedure "
    "validity assess counter window circumstances limits baseline storage expect gate design "
    "launch_value boundaries noise verdict strategies"
).split()
LEAST = 95.0

tests = [
    sys.executable,
    "-m",
    "pytest",
    "-q",
    "--cov=pytest_joules",
    "--cov-report=json:.ci/cov.json",
]
subprocess.run([*tests, "--ignore=tests/engines", "tests"], check=True)
files = json.loads(Path(".ci/cov.json").read_text())["files"]
known = {Path(name).stem: value["summary"] for name, value in files.items()}
pure = {name: known[name] for name in PURE if name in known}
total = sum(s["num_statements"] + s["num_branches"] for s in pure.values())
covered = sum(s["covered_lines"] + s["covered_branches"] for s in pure.values())
for name, summary in sorted(pure.items(), key=lambda item: item[1]["percent_covered"]):
    print(f"{name:20} {summary['percent_covered']:6.1f} %")
print(f"pure modules: {100 * covered / total:.1f} % of lines and branches, at least {LEAST} %")
sys.exit(100 * covered / total < LEAST)
