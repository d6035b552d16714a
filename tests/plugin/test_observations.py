"""``pytest benchmarks/``: claims on recorded data, live forms on a machine, never a mix."""

import shutil
from pathlib import Path

import pytest

from tests.fakes.leaderboard import (
    needs_published,
    published_folder,
    small_tasks,
    write_leaderboard,
)

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def benchmarks(joules):
    shutil.copytree(BENCHMARKS, joules.path / "benchmarks")
    (joules.path / "conftest.py").unlink()  # no fake machine: its source would be used
    return joules


@needs_published
def test_every_claim_of_the_paper_runs_on_the_published_data(benchmarks):
    run = benchmarks.run(
        "benchmarks",
        "--joules-source=recorded",
        f"--joules-data={published_folder()}",
        gpu="b200",
    )

    run.assert_outcomes(passed=79, deselected=23)
    run.stdout.fnmatch_lines(
        [
            "joules: left out 23 tests that measure this machine: the source is recorded",
            "*the paper's claims on recorded data*",
            "N12 *2, 8 *4, 8 *does not reproduce",
            "M4 *the public data hold no KV-cache use *not testable",
            "62 reproduces, 9 approximately, 8 does not reproduce",
        ]
    )


def test_data_that_no_longer_say_so_are_red(benchmarks):
    folder = write_leaderboard(benchmarks.path / "data", small_tasks())
    run = benchmarks.run(
        "benchmarks/test_dataset.py",
        "-k=size_of_the_study",
        "--joules-source=recorded",
        f"--joules-data={folder}",
    )

    run.assert_outcomes(passed=1, failed=3, deselected=5)
    run.stdout.fnmatch_lines(
        [
            "*ClaimFailed: D1 (section abstract, 1): 46 models were measured: does not*",
            "*models: paper 46, recomputed 3: does not reproduce (reproduces: equal*",
        ]
    )


def test_a_live_run_measures_and_says_what_it_leaves_out(benchmarks):
    run = benchmarks.run(
        "benchmarks", "--collect-only", "-q", "--joules-models=Qwen/Qwen3-8B,maker/unknown"
    )

    text = run.stdout.str()
    assert "left out 79 tests that recompute the paper's claims: the source is live" in text
    assert "tests that no model of --joules-models fits" in text
    for name in ("Qwen3-8B", "unknown"):
        assert f"test_a_large_batch_costs_less_and_takes_longer[{name}]" in text
    # An unknown model is taken for one that talks, and for nothing more.
    assert "test_long_answers_cost_more_per_token[Qwen3-8B]" in text
    assert "test_long_answers_cost_more_per_token[unknown]" not in text
    assert "test_more_frames_cost_more_per_video" not in text


def test_without_named_models_each_form_measures_its_own(benchmarks):
    text = benchmarks.run("benchmarks", "--collect-only", "-q").stdout.str()

    assert "test_more_frames_cost_more_per_video[Wan2.1-T2V-1.3B-Diffusers]" in text
    assert "test_moe_costs_less_than_dense_of_similar_size[Qwen3-30B-A3B" in text
