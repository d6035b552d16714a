"""Every claim of the paper does what is recorded for it, and notices when data change."""

import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import MappingProxyType

import pytest

from pytest_joules.claims.__main__ import main
from pytest_joules.claims.checker import ClaimChecker, ClaimFailed, claim_named, not_testable
from pytest_joules.claims.claim import (
    AtLeast,
    Between,
    Claim,
    Counted,
    Criterion,
    Equal,
    MoreThan,
    Printed,
    Quantity,
    Status,
    evaluate,
    rounded,
)
from pytest_joules.claims.dataset import Dataset
from pytest_joules.claims.registry import CLAIMS, GROUPS
from pytest_joules.claims.table import document, terminal_lines
from pytest_joules.errors import ConfigurationError
from pytest_joules.sources.importers import import_mlenergy
from tests.fakes.leaderboard import (
    Tasks,
    change_energy,
    mutated,
    needs_published,
    published_folder,
    small_tasks,
    write_leaderboard,
)

ROOT = Path(__file__).parent.parent


def numbered(letter: str, last: int) -> list[str]:
    return [f"{letter}{number}" for number in range(1, last + 1)]


IDS = [
    *numbered("D", 9),
    *numbered("S", 5),
    *("T1a", "T1b", "T1c", "T1d", "T1e"),
    *numbered("M", 4),
    *numbered("F", 9),
    *numbered("B", 8),
    *numbered("A", 4),
    *numbered("G", 13),
    *("P-E8", "P-L8", "P-E17", "P-L17", "P-E65", "P-L65"),
    *("P7", "P8", "P9", "P10"),
    *numbered("N", 13),
    *("C1", "C2"),
]
NOT_TESTABLE = {"M4", "A4", "C2"}
TESTABLE = [claim_id for claim_id in IDS if claim_id not in NOT_TESTABLE]

REPRODUCES, APPROXIMATELY, DOES_NOT = (
    Status.REPRODUCES,
    Status.APPROXIMATELY,
    Status.DOES_NOT_REPRODUCE,
)


@cache
def published() -> Dataset:
    return Dataset.read(published_folder())


def test_every_quantitative_claim_of_the_paper_is_there() -> None:
    assert list(CLAIMS) == IDS
    assert sum(len(claims) for claims in GROUPS.values()) == len(IDS)


def test_claims_that_cannot_be_tested_say_why() -> None:
    assert {claim.id for claim in not_testable()} == NOT_TESTABLE
    assert all(claim.note and claim.rule is None for claim in not_testable())


@pytest.mark.parametrize("claim_id", TESTABLE)
def test_a_claim_has_a_rule_in_words(claim_id: str) -> None:
    claim = CLAIMS[claim_id]
    assert claim.rule_text
    assert claim.quantities
    assert len({quantity.name for quantity in claim.quantities}) == len(claim.quantities)


@needs_published
@pytest.mark.parametrize("claim_id", TESTABLE)
def test_a_claim_does_what_is_recorded_for_it(claim_id: str) -> None:
    ClaimChecker(dataset=published()).check(claim_id)


@needs_published
@pytest.mark.parametrize("claim_id", TESTABLE)
def test_known_values_are_those_that_differ_from_the_paper(claim_id: str) -> None:
    outcome = evaluate(CLAIMS[claim_id], published())
    differing = {name for name, s in outcome.by_quantity.items() if s is not REPRODUCES}
    assert set(CLAIMS[claim_id].known) == differing


def test_every_testable_claim_is_checked_by_one_benchmark() -> None:
    sources = [path.read_text() for path in (ROOT / "benchmarks").glob("test_*.py")]
    checked = [
        claim_id
        for source in sources
        for claim_id in re.findall(
            r'(?:check|pytest\.param)\(\s*"([A-Z][A-Z0-9a-e-]*)"', source
        )
    ]
    assert sorted(checked) == sorted(TESTABLE)


@needs_published
def test_the_page_in_the_docs_is_up_to_date() -> None:
    written = (ROOT / "docs" / "claims.md").read_text(encoding="utf-8")
    assert written == document(published()), (
        "docs/claims.md is stale: run `python -m pytest_joules.claims DATA --write`"
    )


# --- mutations of the data: which claims must notice, and why ---------------------------


def fp8_above_64_costs_more(tasks: Tasks) -> None:
    for rows in tasks.values():
        for row in rows:
            if row["weight_precision"] == "fp8" and row["max_num_seqs"] > 64:
                change_energy(row, 1.4)


def swap_gpus(tasks: Tasks) -> None:
    other = {"B200": "H100", "H100": "B200"}
    for rows in tasks.values():
        for row in rows:
            row["gpu_model"] = other[row["gpu_model"]]


def drop_pixart(tasks: Tasks) -> None:
    rows = tasks["text-to-image"]
    rows[:] = [row for row in rows if not row["model_id"].startswith("PixArt")]


def reverse_deepseek_r1(tasks: Tasks) -> None:
    rows = [row for row in tasks["gpqa"] if row["model_id"] == "deepseek-ai/DeepSeek-R1-0528"]
    energies = [row["energy_per_token_joules"] for row in rows]
    for row, energy in zip(rows, reversed(energies), strict=True):
        change_energy(row, energy / row["energy_per_token_joules"])


def double_video_energy(tasks: Tasks) -> None:
    for row in tasks["text-to-video"]:
        change_energy(row, 2)


# FP8 models on B200 enter the means over models: DeepSeek R1 and V3.1, Qwen 3 235B, Llama 405B.
FP8_ABOVE_64 = {
    "S3": "their minimum-energy configurations are above 64, so energy per response rises",
    "S4": "and rises more in Problem Solving; S5 asks for an order only, which stands",
    "B1": "from 64 to the next batch size some curves now rise",
    "B4": "power goes with energy at unchanged throughput, so its steps change too",
    "B5": "DeepSeek R1 gains 9.87 / (1.4 x 2.38) = 3.0, less than 3; B7 still saves 14 %",
    "C1": "as B1",
    "G1": "at 50 ms 235B FP8 on 2 x B200 stays at 64 and beats the dearer 8 x H100: 64 wins",
    "G6": "the H100 configuration has batch 192, the B200 one 64",
    "G13": "64 of 72 is 89 %",
    "P-E65": "the bin above 64; latency and smaller bins do not change",
    "P7": "its batch sizes above 64 lose energy now; P9 lost before",
    "N10": "0.418 J x 1.4; other curves are above it or scale alike, so N9, N11, N13 stand",
}
# Everything that does not name a GPU, and orders and ratios that hold on both GPUs.
STANDS_WITH_GPUS_SWAPPED = {
    *("D1", "D2", "D3", "D4", "D5", "D6", "D7", "D8", "D9"),  # sets and identities
    *("B1", "B2", "B3", "B4"),  # all curves of both GPUs
    *("P-E8", "P-L8", "P-E17", "P-L17", "P-E65", "P-L65", "P8"),  # pairs on equal GPUs, pooled
    *("F2", "F9"),  # steps, parameters and frames
    *("S5", "M3", "A1", "A3", "F3", "F6", "F7"),  # orders that H100 shows as well
    "F8",  # both videos cost about as much on H100, so their ratio still rounds to 4
}
DROPPED_PIXART = {
    "D1": "45 models",
    "D3": "70 configurations fewer",
    "D5": "6 Text to Image models",
    "F2": "it is the smallest, 0.6 B; F1 has other extremes",
    "F5": "the mean energy per image",
    "G8": "three comparisons fewer; G9's median moves from 14.9 to 15.2 and still prints 15",
}
REVERSED_R1 = {
    "S1": "its minimum moves to batch 8, which answered at another mean length",
    "S3": "so its energy per response changes; S5's energies are the same numbers",
    "S4": "as S3; S2 still rounds to 10",
    "B1": "its four falling steps and its ends rise",
    "B5": "energy at the smallest batch is now the least: a gain of 1",
    "B7": "the last doubling costs more; B6 looks at throughput, B4's power still rises",
    "C1": "as B1",
}
DOUBLED_VIDEO = {
    "F4": "26 kJ to 1.16 MJ; F7, F8, G10, G11 are ratios of videos",
    "F5": "mean over mean; F6 was above 100 before",
}


@needs_published
@pytest.mark.parametrize(
    ("mutate", "expected"),
    [
        pytest.param(fp8_above_64_costs_more, set(FP8_ABOVE_64), id="fp8-above-64-x1.4"),
        pytest.param(swap_gpus, set(TESTABLE) - STANDS_WITH_GPUS_SWAPPED, id="gpus-swapped"),
        pytest.param(drop_pixart, set(DROPPED_PIXART), id="a-model-dropped"),
        pytest.param(reverse_deepseek_r1, set(REVERSED_R1), id="a-curve-reversed"),
        pytest.param(double_video_energy, set(DOUBLED_VIDEO), id="video-x2"),
    ],
)
def test_a_mutation_fails_exactly_the_claims_about_it(
    tmp_path: Path, mutate: Callable[[Tasks], None], expected: set[str]
) -> None:
    folder = mutated(published_folder(), tmp_path / "data", mutate)
    assert failing(Dataset.read(folder)) == expected


def failing(dataset: Dataset) -> set[str]:
    checker = ClaimChecker(dataset=dataset)
    failed = set()
    for claim_id in TESTABLE:
        try:
            checker.check(claim_id)
        except ClaimFailed:
            failed.add(claim_id)
    return failed


# --- criteria ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("criterion", "paper", "ours", "expected"),
    [
        pytest.param(Printed(), 25, 25.49, REPRODUCES, id="rounds-to-it"),
        pytest.param(Printed(), 25, 25.5, APPROXIMATELY, id="rounds-away"),
        pytest.param(Printed(), 25, 27.5, APPROXIMATELY, id="10-percent"),
        pytest.param(Printed(), 25, 27.51, DOES_NOT, id="above-10-percent"),
        pytest.param(Printed(), -12, -12.5, APPROXIMATELY, id="half-goes-away-from-zero"),
        pytest.param(Printed(), 0, 1.0, APPROXIMATELY, id="one-unit-of-nothing"),
        pytest.param(Printed(), 0, 1.01, DOES_NOT, id="more-than-a-unit-of-nothing"),
        pytest.param(Printed(3), 0.209, 0.20949, REPRODUCES, id="three-decimals"),
        pytest.param(Printed(3), 0.209, 0.2096, APPROXIMATELY, id="not-in-the-third"),
        pytest.param(Printed(-1), 1160, 1164.9, REPRODUCES, id="tens"),
        pytest.param(Printed(-1), 1160, 1165.0, APPROXIMATELY, id="next-ten"),
        pytest.param(Counted(), 63, 63, REPRODUCES, id="counted"),
        pytest.param(Counted(), 63, 62, APPROXIMATELY, id="one-less"),
        pytest.param(Counted(), 63, 65, DOES_NOT, id="two-more"),
        pytest.param(Equal(), "b200, h100", "b200, h100", REPRODUCES, id="same-set"),
        pytest.param(Equal(), True, 1, DOES_NOT, id="one-is-not-yes"),
        pytest.param(Equal(), 46, 45, DOES_NOT, id="no-near-miss"),
        pytest.param(AtLeast(), "always", 100.0, REPRODUCES, id="always"),
        pytest.param(AtLeast(), "always", 99.9, APPROXIMATELY, id="almost-always"),
        pytest.param(AtLeast(), "always", 90.0, APPROXIMATELY, id="90-percent"),
        pytest.param(AtLeast(), "always", 89.9, DOES_NOT, id="below-90-percent"),
        pytest.param(Between(3, 5), "3 to 5", 3.0, REPRODUCES, id="on-the-lower-end"),
        pytest.param(Between(3, 5), "3 to 5", 5.0, REPRODUCES, id="on-the-upper-end"),
        pytest.param(Between(3, 5), "3 to 5", 5.5, APPROXIMATELY, id="10-percent-above"),
        pytest.param(Between(3, 5), "3 to 5", 5.51, DOES_NOT, id="further-above"),
        pytest.param(Between(3, 5), "3 to 5", 2.69, DOES_NOT, id="further-below"),
        pytest.param(MoreThan(1), "> 1", 1.001, REPRODUCES, id="more"),
        pytest.param(MoreThan(1), "> 1", 1.0, DOES_NOT, id="equal-is-not-more"),
    ],
)
def test_criterion(
    *, criterion: Criterion, paper: object, ours: object, expected: Status
) -> None:
    assert criterion.judge(paper, ours) is expected


def test_rounding_is_that_of_print_not_of_bankers() -> None:
    assert [rounded(x, 0) for x in (0.5, 1.5, 2.5, -0.5)] == [1, 2, 3, -1]


# --- the checker ------------------------------------------------------------------------


def small_dataset(tmp_path: Path) -> Dataset:
    return Dataset.read(write_leaderboard(tmp_path / "data", small_tasks()))


def a_claim(published: float, **fields: object) -> Claim:
    return Claim(
        id="X1",
        section="9.9",
        text="there are some rows",
        quantities=(Quantity(name="rows", published=published, criterion=Counted()),),
        rule=count_rows,
        **fields,
    )


def count_rows(dataset: Dataset) -> dict[str, int]:
    """Count the rows."""
    return {"rows": len(dataset.results)}


@pytest.mark.parametrize(
    ("claim", "difference"),
    [
        pytest.param(a_claim(3), "", id="reproduces-as-recorded"),
        pytest.param(a_claim(4), "approximately, recorded: reproduces", id="no-longer"),
        pytest.param(
            a_claim(9, expected=DOES_NOT, known={"rows": 3}), "", id="differs-as-recorded"
        ),
        pytest.param(
            a_claim(9, expected=DOES_NOT, known={"rows": 4}),
            "rows: 3, recorded: 4",
            id="differs-otherwise",
        ),
        pytest.param(
            a_claim(9, expected=DOES_NOT),
            "rows: does not reproduce, recorded: reproduces",
            id="no-known-value",
        ),
        pytest.param(
            a_claim(3, expected=DOES_NOT, known={"rows": 3}),
            "reproduces, recorded: does not reproduce",
            id="reproduces-unexpectedly",
        ),
    ],
)
def test_a_claim_is_held_to_what_is_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, claim: Claim, difference: str
) -> None:
    use_only(monkeypatch, claim)
    checker = ClaimChecker(dataset=small_dataset(tmp_path))
    if not difference:
        checker.check("X1")
        return
    with pytest.raises(
        ClaimFailed, match=re.escape(f"X1 (section 9.9): {claim.text}")
    ) as error:
        checker.check("X1")
    assert difference in str(error.value)
    assert "rule: Count the rows." in str(error.value)


def use_only(monkeypatch: pytest.MonkeyPatch, claim: Claim) -> None:
    claims = MappingProxyType({claim.id: claim})
    monkeypatch.setattr("pytest_joules.claims.checker.CLAIMS", claims)


def test_a_claim_whose_rows_are_missing_fails_and_names_them(tmp_path: Path) -> None:
    with pytest.raises(ClaimFailed, match=r"T1a: cannot be recomputed: no row of .*Qwen3-32B"):
        ClaimChecker(dataset=small_dataset(tmp_path)).check("T1a")


def test_a_claim_that_cannot_be_tested_is_never_green() -> None:
    with pytest.raises(ConfigurationError, match="M4 is not testable: the public data hold no"):
        claim_named("M4")


def test_an_unknown_claim_is_an_error() -> None:
    with pytest.raises(ConfigurationError, match="'Z9' is unknown; there are D1, "):
        claim_named("Z9")


@needs_published
def test_the_terminal_lists_what_was_checked_and_what_cannot_be() -> None:
    checker = ClaimChecker(dataset=published())
    outcomes = [checker.check(claim_id) for claim_id in ("D1", "N12")]
    lines = terminal_lines(outcomes)

    assert [line.split()[0] for line in lines[:-1]] == ["claim", "D1", "N12", "M4", "A4", "C2"]
    assert re.match(r"D1 +46 models were measured +46 +46 +reproduces$", lines[1])
    assert "the public data hold no KV-cache use" in lines[3]
    assert lines[-1] == "1 reproduces, 1 does not reproduce"


# --- the command ------------------------------------------------------------------------


@needs_published
def test_the_command_writes_the_page(tmp_path: Path) -> None:
    page = tmp_path / "claims.md"
    assert main([str(published_folder()), "--write", str(page)]) == 0
    assert page.read_text(encoding="utf-8") == document(published())


@needs_published
def test_the_command_prints_a_row_of_a_known_difference(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main([str(published_folder())]) == 0
    row = next(line for line in capsys.readouterr().out.splitlines() if "| N12 |" in line)
    assert row.endswith(
        "| b200: 2, 4, h100: 2, 8 | b200: 2, 4, h100: 4, 8 | does not reproduce |"
    )


def test_the_command_says_what_is_wrong_with_the_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(tmp_path)]) == 2
    assert "holds no results" in capsys.readouterr().err


# --- imported results -------------------------------------------------------------------


@pytest.mark.no_cover
@needs_published
def test_claims_hold_on_imported_results_but_for_what_those_do_not_store(
    tmp_path: Path,
) -> None:
    """Published power and energy per response are derived in the project's own format."""
    import_mlenergy(str(published_folder()), tmp_path / "imported")

    assert failing(Dataset.read(tmp_path / "imported")) == {"D7", "D8"}
