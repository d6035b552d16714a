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


def test_a_point_that_cannot_be_is_an_error_in_the_plan_too(joules):
    joules.tests("""
        def test_point(energy_bench):
            energy_bench(model="a/b", batch_size=-1)
    """)

    run = joules.run("--joules-plan")

    assert run.ret == 2
    run.stdout.fnmatch_lines(["*batch_size=-1*"])


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
