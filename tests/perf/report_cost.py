"""Size and time of the HTML report: ``python -m tests.perf.report_cost``.

Goals: under 6 MB for 500 points, under 10 s for 2,000. A benchmark, not a test: nothing fails
by it. The noise of the series is seeded.
"""

import time

from pytest_joules.report import html
from tests.fakes.digests import sweep


def main() -> None:
    html.render(sweep(1))  # loads the libraries
    for num_points in (500, 2000):
        digest = sweep(num_points, launches=4)
        start_s, busy_s = time.perf_counter(), time.process_time()
        text = html.render(digest)
        took_s, busy_s = time.perf_counter() - start_s, time.process_time() - busy_s
        size_mb = len(text.encode()) / 1e6
        print(f"{num_points} points: {size_mb:.1f} MB in {took_s:.1f} s, {busy_s:.1f} s of CPU")


if __name__ == "__main__":
    main()
