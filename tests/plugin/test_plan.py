"""--joules-plan."""


def test_the_plan_is_printed_and_nothing_is_launched(joules):
    run = joules.run("--joules-plan")

    assert run.ret == 0
    run.stdout.fnmatch_lines(
        [
            "*energy plan: nothing is launched*",
            "vllm Qwen/Qwen3-8B bf16 on 1 x h200, stack default: about 4.5 GPU minutes",
            "*batch sizes 64, 16",
            "2 points, 1 launch, about 4.5 GPU minutes*",
            "*launches made: none",
        ]
    )


def test_a_plan_of_a_recording_does_not_complain_that_nothing_was_recorded(joules):
    run = joules.run("--joules-plan", "--joules-record")

    assert run.ret == 0
    run.stdout.fnmatch_lines(["recording makes 3 launches of each: about * GPU minutes"])
    run.stdout.no_fnmatch_line("*nothing was recorded*")


def test_a_point_that_cannot_be_is_an_error_in_the_plan_too(joules):
    joules.tests("""
        def test_point(energy_bench):
            energy_bench(model="a/b", batch_size=-1)
    """)

    run = joules.run("--joules-plan")

    assert run.ret == 2
    run.stdout.fnmatch_lines(["*batch_size=-1*"])


def test_the_plan_says_what_does_not_fit_in_memory(joules):
    joules.tests("""
        import pytest

        @pytest.mark.parametrize("fields", [
            dict(model="Qwen/Qwen3-235B-A22B-Instruct-2507", batch_size=64),
            dict(model="Qwen/Qwen3-235B-A22B-Instruct-2507", batch_size=64, num_gpus=8),
            dict(model="Qwen/Qwen3-8B", batch_size=8192),
            dict(model="a/b", batch_size=64),
        ], ids=str)
        def test_point(energy_bench, fields):
            energy_bench(**fields)
    """)

    run = joules.run("--joules-plan")

    lines = run.stdout.str().splitlines()
    told = [line.strip() for line in lines if "by estimate" in line]
    assert run.ret == 0
    assert len(told) == 2
    assert told[0] == (
        "batch 64: by estimate the weights leave no room for a request in the memory of "
        "1 x h200; use more GPUs or a lower precision"
    )
    assert told[1].startswith("batch 8192: by estimate about ")


def test_a_model_s_name_cannot_steer_the_terminal(joules):
    joules.tests(r"""
        def test_point(energy_bench):
            energy_bench(model="a/b\x1b[31m\n2 points, 9 launches\u202e", batch_size=8)
    """)

    run = joules.run("--joules-plan")

    text = run.stdout.str()
    assert r"a/b\x1b[31m\n2 points, 9 launches\u202e" in text
    assert "\x1b[31m" not in text
    assert "\u202e" not in text
