"""Plain asserts on results explain themselves."""


def test_a_failed_bound_names_point_unit_and_distance(joules):
    joules.machine("power_w=lambda stack, point: 400.0")
    joules.tests("""
        def test_bound(energy_bench):
            result = energy_bench(model="a/b", batch_size=16)
            assert result.energy_per_token_j < 0.25
    """)

    run = joules.run()

    run.assert_outcomes(failed=1)
    run.stdout.fnmatch_lines(
        [
            "E*assert 500 mJ/token (b-text-*-bf16-1gpu-b16-?????? on h200, fake) < 0.25",
            "E*differs from the right one by +100.0 %",
        ]
    )


def test_energy_per_image_of_a_text_point_is_an_error(joules):
    joules.tests("""
        def test_unit(energy_bench):
            energy_bench(model="a/b", batch_size=16).energy_per_image_j
    """)

    run = joules.run()

    run.assert_outcomes(failed=1)
    run.stdout.fnmatch_lines(["*WrongUnit: *energy_per_token_j*"])
