"""Compare a real vLLM with itself: ``vllm_same_stack.py ENGINE_PYTHON [BATCH_SIZE ...]``.

Two points for each batch size (4 to 8), old and new stack the same, judged side by side as
users do; the GPU is the mock's, whose power follows the tokens that vLLM really makes. Any
``regression`` or ``improvement`` is a false alarm. It wants two idle cores: on a busy machine
measurements become ``invalid``, which is no verdict.
"""

import re
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from pytest_joules.plan import Stack  # noqa: E402  the path comes first
from tests.engines.follower import STEADY, Follower  # noqa: E402
from tests.engines.project import CPU_ENV, Project, make_tiny_model, slowed  # noqa: E402
from tests.fakes.mock_nvml import MockNvml, compile_library  # noqa: E402

SETTINGS = """
    window = 8
    tolerance = "5%"
"""
TESTS = """
    import pytest
    from pytest_joules import Lengths, Point

    TINY = Point(
        model={model!r},
        weights="dummy",
        max_model_len=512,
        engine_args=["--enforce-eager"],
        input_tokens=Lengths(mean=16, cv=0.5, longest=64),
        output_tokens=Lengths(mean=40, cv=0.5, shortest=8, longest=120),
    )

    @pytest.mark.parametrize("seed", range({seeds}))
    @pytest.mark.parametrize("batch_size", {sizes})
    def test_same(energy_bench, batch_size, seed):
        energy_bench.check(TINY.but(batch_size=batch_size, seed=seed))
"""
SEEDS = 2
SIZES = (4, 5, 6, 7, 8)
VERDICTS = ("unchanged", "improvement", "regression", "inconclusive", "invalid")


def main(engine_python: str, *sizes: str) -> int:
    batch_sizes = [int(size) for size in sizes] or list(SIZES)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        library = compile_library(folder)
        mock = MockNvml.create(folder / "state", library, num_gpus=1)
        tiny = make_tiny_model(engine_python, folder / "tiny")
        model = slowed(tiny, folder / "slow-llama")
        stack = Stack(python=engine_python, env=CPU_ENV)
        (folder / "project").mkdir()
        project = Project(folder / "project", stack=stack, mock=mock)
        project.write(SETTINGS, TESTS.format(model=str(model), sizes=batch_sizes, seeds=SEEDS))
        began_s = time.monotonic()
        with Follower(mock, model, **STEADY):
            run = project.run("--joules-against=same", "-q", patience_s=7200)
    print(run.stdout[-12_000:], run.stderr[-2_000:])
    seen = Counter(
        found for line in run.stdout.splitlines() if (found := _verdict(line)) and "-b" in line
    )
    print(f"{sum(seen.values())} verdicts in {time.monotonic() - began_s:.0f} s: {dict(seen)}")
    # An invalid measurement is no verdict: it may not stand for "no false alarm".
    return int(seen["unchanged"] + seen["inconclusive"] != SEEDS * len(batch_sizes))


def _verdict(line: str) -> str | None:
    found = re.search(rf"\b({'|'.join(VERDICTS)})\s*$", line)
    return found.group(1) if found else None


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
