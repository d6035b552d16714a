import math
from dataclasses import replace

import pytest

from pytest_joules.ledger import Ledger
from pytest_joules.provenance import Context
from pytest_joules.report.terminal import summary
from pytest_joules.result import Reason, Result
from pytest_joules.verdict import Comparison, Verdict
from tests.fakes.results import make_result

TABLE = """\
point                                    source         energy   power   throughput  batch  n   change     verdict
qwen3-8b-text-conversation-bf16-1gpu-b8    live   550 mJ/token  55.0 W  100 token/s    8.0  2  +10.0 %  regression
x-text-to-image-bf16-1gpu-b1-HASHED        live  1.50 kJ/image   300 W  0.2 image/s      -  1              invalid
3 launches, 4.5 GPU minutes"""  # noqa: E501  as wide as it is printed


def compared(result: Result, *, reference: str = "baseline") -> Comparison:
    return Comparison(
        point=result.point,
        verdict=Verdict.REGRESSION,
        reference=reference,
        change=0.1,
        low=0.08,
        high=0.12,
        tolerance=0.03,
        detectable=0.02,
        energy_per_work_unit_j=0.55,
        reference_energy_per_work_unit_j=0.5,
        num_launches=2,
        num_reference_launches=3,
    )


def of_stack(result: Result, stack: str) -> Result:
    return result.but(provenance=replace(result.provenance, context=Context(stack=stack)))


def lines(
    *results: Result, comparison: Comparison | None = None, launches: int = 0
) -> list[str]:
    ledger = Ledger(results=list(results), num_launches=launches, spent_gpu_s=90.0 * launches)
    if comparison:
        ledger.comparisons[comparison.point] = comparison
    return summary(ledger)


def test_the_table() -> None:
    small, other = make_result(0.5, batch_size=8), make_result(0.6, batch_size=8)
    image = make_result(
        1500.0,
        model="x",
        task="text-to-image",
        throughput_work_units_per_s=0.2,
        mean_batch_size=None,
        reasons=(Reason(code="mig-on", text="MIG is on"),),
    )

    found = lines(small, other, image, comparison=compared(small), launches=3)

    # (0.5 + 0.6) / 2 J/token; at 100 token/s 50 and 60 W; 1500 J x 0.2 image/s
    assert "\n".join(found) == TABLE.replace("HASHED", image.point.hash[:6])


def test_a_change_that_was_not_estimated_is_left_blank() -> None:
    result = make_result(0.5)
    unknown = replace(compared(result), change=math.nan, verdict=Verdict.INCONCLUSIVE)

    assert lines(result, comparison=unknown)[1].endswith("  1          inconclusive")


def test_old_and_new_stack_have_rows_of_their_own() -> None:
    old, new = of_stack(make_result(0.5), "old"), of_stack(make_result(0.6), "new")

    # Launched B A B A: the last one is the old stack's.
    found = lines(new, old, new, old, comparison=compared(new, reference="old"))

    assert len(found) == 3
    assert found[1].split()[1:] == [
        "(new)", "live", "600", "mJ/token", "60.0", "W", "100", "token/s", "1.0", "2",
        "+10.0", "%", "regression",
    ]  # fmt: skip
    assert found[2].split()[1:5] == ["(old)", "live", "500", "mJ/token"]
    assert "regression" not in found[2]


def test_an_invalid_launch_does_not_enter_the_mean() -> None:
    broken = make_result(9.0, reasons=(Reason(code="mig-on", text="MIG is on"),))

    row = lines(make_result(0.5), broken)[1]

    assert "500 mJ/token" in row
    assert "invalid" not in row


def test_each_note_of_a_point_is_told_once() -> None:
    def noted(text: str) -> Result:
        return make_result(0.5, notes=(Reason(code="power-capped", text=text),))

    found = lines(noted("in 3 readings"), noted("in 5 readings"))

    point = make_result().point.id
    assert found[2:] == [f"note: {point}: in 5 readings"]


@pytest.mark.parametrize(
    ("launches", "expected"), [(0, []), (2, ["2 launches, 3.0 GPU minutes"])]
)
def test_without_a_result_only_the_cost_is_told(launches: int, expected: list[str]) -> None:
    assert lines(launches=launches) == expected
