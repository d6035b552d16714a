"""Time and memory of all claims on the published data: ``python -m tests.perf.claims_speed``.

Goal on two cores: under 10 s and 400 MB. A benchmark, not a test: nothing fails by it.
"""

import resource
import time

from pytest_joules.claims.checker import ClaimChecker
from pytest_joules.claims.dataset import Dataset
from pytest_joules.claims.registry import CLAIMS
from tests.fakes.leaderboard import published_folder


def main() -> None:
    start_s = time.perf_counter()
    dataset = Dataset.read(published_folder())
    read_s = time.perf_counter()
    checker = ClaimChecker(dataset=dataset)
    testable = [claim_id for claim_id, claim in CLAIMS.items() if claim.rule]
    for claim_id in testable:
        checker.check(claim_id)
    end_s = time.perf_counter()
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"read {len(dataset.results)} rows: {read_s - start_s:.2f} s")
    print(f"check {len(testable)} claims: {end_s - read_s:.2f} s")
    print(f"peak memory: {peak_mb:.0f} MB")


if __name__ == "__main__":
    main()
