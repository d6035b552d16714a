"""Fail if a JUnit file lists a test that did not run, or no test at all."""

import sys
from xml.etree import ElementTree as ET

path, *rest = sys.argv[1:]
allowed = tuple(rest[1:]) if rest[:1] == ["--except"] else ()
cases = list(ET.parse(path).iter("testcase"))
missing = [
    f"{case.get('classname')}::{case.get('name')}: {skipped.get('message')}"
    for case in cases
    if (skipped := case.find("skipped")) is not None
    and not (allowed and str(case.get("classname")).startswith(allowed))
]
if not cases or missing:
    sys.exit("\n".join([f"{path}: {len(missing)} of {len(cases)} tests did not run", *missing]))
print(f"{path}: {len(cases)} tests, none missing")
