"""The energy section as it stands on terminals of 80 and 120 columns, plain and coloured."""

from pytest_joules.ledger import Ledger
from pytest_joules.report.terminal import summary
from pytest_joules.verdict import Verdict
from tests.fakes.results import make_comparison, make_result

WIDE = """\
point                                     source        energy   power   throughput  batch  n   change     verdict
qwen3-8b-text-conversation-bf16-1gpu-b8     live  550 mJ/token  55.0 W  100 token/s    8.0  1  +10.0 %  regression
qwen3-8b-text-conversation-bf16-1gpu-b64    live  100 mJ/token  10.0 W  100 token/s   64.0  1   -2.0 %   unchanged"""  # noqa: E501  as wide as it is printed
NARROW = """\
point
  source        energy   power   throughput  batch  n   change     verdict
qwen3-8b-text-conversation-bf16-1gpu-b8
    live  550 mJ/token  55.0 W  100 token/s    8.0  1  +10.0 %  regression
qwen3-8b-text-conversation-bf16-1gpu-b64
    live  100 mJ/token  10.0 W  100 token/s   64.0  1   -2.0 %   unchanged"""


def ledger() -> Ledger:
    worse, same = make_result(0.55, batch_size=8), make_result(0.1, batch_size=64)
    found = [
        make_comparison(worse.point, verdict=Verdict.REGRESSION, change=0.1),
        make_comparison(same.point, verdict=Verdict.UNCHANGED, change=-0.02),
    ]
    return Ledger(results=[worse, same], comparisons={each.point: each for each in found})


def red(text: str, verdict: str) -> str:
    return f"<red>{text}</red>" if verdict == "regression" else text


def test_120_columns_hold_the_whole_table() -> None:
    assert summary(ledger(), width=120) == WIDE.splitlines()
    assert max(map(len, WIDE.splitlines())) <= 120


def test_80_columns_give_each_point_a_line_of_its_own() -> None:
    assert summary(ledger(), width=80) == NARROW.splitlines()
    assert max(map(len, NARROW.splitlines())) <= 80


def test_a_log_has_no_width_and_is_not_folded() -> None:
    assert summary(ledger()) == WIDE.splitlines()


def test_only_the_verdict_is_coloured() -> None:
    for width, plain in ((80, NARROW), (120, WIDE)):
        coloured = summary(ledger(), width=width, paint=red)

        expected = plain.replace("regression", "<red>regression</red>")
        assert coloured == expected.splitlines()
