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


def test_asserts_on_objects_that_have_any_attribute_are_left_alone(joules):
    joules.tests("""
        from unittest.mock import Mock, call

        class Unconnected:
            def __getattr__(self, name):
                raise RuntimeError(f"no connection to ask for {name}")

        def test_calls():
            asked = Mock()
            asked(1)
            assert asked.call_args == call(2)

        def test_mock():
            assert Mock(name="made") == 3

        def test_unconnected():
            assert 3 == Unconnected()
    """)

    run = joules.run(gpu=None)

    run.assert_outcomes(failed=3)
    run.stdout.fnmatch_lines(
        [
            "E*assert call(1) == call(2)",
            "E*assert <Mock name='made' *> == 3",
            "E*assert 3 == <*Unconnected object at *",
        ]
    )
    run.stdout.no_fnmatch_line("*joules_explain*")
