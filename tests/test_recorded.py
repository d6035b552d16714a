"""Recorded results are found by point, and published ones stand beside live ones."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from pytest_joules import catalog
from pytest_joules.errors import ConfigurationError, FormatError, NotMeasured
from pytest_joules.measure import Failure
from pytest_joules.plan import Stack, plan
from pytest_joules.point import Point
from pytest_joules.result import Result
from pytest_joules.sources.recorded import RecordedSource, answers
from pytest_joules.sources.reference import reference_note
from pytest_joules.sources.store import read_results, write_results
from tests.fakes.leaderboard import small_tasks, text_row, write_leaderboard
from tests.fakes.results import make_evidence, make_result

ASKED = Point(model="maker/talker-8b", batch_size=8)
PAINTED = Point(model="maker/painter", task="text-to-image", batch_size=4, num_gpus=2)
AS_PUBLISHED = {"mode": "natural", "shared_server": False, "tensor_parallel": 1}


def recorded(*results: Result) -> RecordedSource:
    return RecordedSource(results=results, origin="a folder")


def published(energy: float = 0.5, **point: object) -> Result:
    fields = {"model": "maker/talker-8b", "batch_size": 8, **AS_PUBLISHED, **point}
    return make_result(energy, source="recorded", **fields)


@pytest.mark.parametrize(
    ("change", "found"),
    [
        pytest.param({}, True, id="as-published"),
        pytest.param({"mode": "fixed", "shared_server": True}, True, id="other-requests"),
        pytest.param({"seed": 3}, True, id="other-seed"),
        pytest.param({"tensor_parallel": None}, True, id="parallelism-not-asked"),
        pytest.param({"model": "maker/other"}, False, id="model"),
        pytest.param({"task": "problem-solving"}, False, id="task"),
        pytest.param({"batch_size": 16}, False, id="batch-size"),
        pytest.param({"precision": "fp8"}, False, id="precision"),
        pytest.param({"num_gpus": 2}, False, id="gpus"),
        pytest.param({"num_gpus": 2, "tensor_parallel": 2}, False, id="parallelism-asked"),
        pytest.param({"weights": "dummy"}, False, id="dummy-weights"),
        pytest.param({"expert_parallel": True}, False, id="experts-asked"),
    ],
)
def test_what_a_recorded_row_answers(change: Mapping[str, object], *, found: bool) -> None:
    row = published().point
    assert answers(row, row.but(**change)) is found


@pytest.mark.parametrize(
    ("change", "found"),
    [
        pytest.param({}, True, id="defaults"),
        pytest.param({"steps": 20}, True, id="steps"),
        pytest.param({"steps": 21}, False, id="other-steps"),
        pytest.param({"height": 512}, False, id="other-height"),
        pytest.param({"ulysses_degree": 2, "ring_degree": 1}, True, id="degrees"),
        pytest.param({"ulysses_degree": 1, "ring_degree": 2}, False, id="other-degrees"),
    ],
)
def test_diffusion_fields_are_compared_where_asked(
    change: Mapping[str, object], *, found: bool
) -> None:
    row = PAINTED.but(steps=20, height=1024, width=512, ulysses_degree=2, ring_degree=1)
    assert answers(row, PAINTED.but(**change)) is found


def test_on_one_gpu_xdit_answers_for_diffusers() -> None:
    asked = PAINTED.but(num_gpus=1)
    assert asked.engine == "diffusers"
    assert answers(asked.but(engine="xdit", ulysses_degree=1, ring_degree=1), asked)


def test_data_parallel_attention_is_another_configuration() -> None:
    row = published(num_gpus=2, data_parallel=2).point

    assert answers(row, ASKED.but(num_gpus=2, data_parallel=2))
    assert not answers(row, ASKED.but(num_gpus=2))


def test_an_expert_parallel_row_answers_a_point_that_does_not_ask() -> None:
    row = published(num_gpus=2, expert_parallel=True).point
    assert answers(row, ASKED.but(num_gpus=2))


def test_fp8_of_a_model_is_answered_by_its_fp8_checkpoint() -> None:
    model = next(m for m in catalog.models().values() if m.fp8_model_id)
    row = published(model=model.fp8_model_id, precision="fp8", num_gpus=8).point
    asked = Point(model=model.model_id, batch_size=8, num_gpus=8)

    assert answers(row, asked.but(precision="fp8"))
    assert not answers(row, asked)


def test_a_result_carries_the_point_that_was_asked_and_says_what_was_recorded() -> None:
    result = recorded(published()).measure(ASKED, gpu="b200")

    assert result.point == ASKED
    assert result.energy_per_token_j == 0.5
    assert [(note.code, note.text) for note in result.notes] == [
        (
            "recorded-as",
            "recorded with mode='natural', shared_server=False, tensor_parallel=1.",
        )
    ]


def test_of_repeats_the_first_is_given_and_the_others_are_named() -> None:
    source = recorded(published(0.5), published(0.56), published(0.9, batch_size=16))

    assert len(source.find(ASKED, gpu="b200")) == 2
    result = source.measure(ASKED, gpu="b200")
    assert result.energy_per_token_j == 0.5
    assert "recorded 2 times; the others: 0.56 J" in result.notes[-1].text


def test_a_point_that_is_missing_names_the_nearest() -> None:
    source = recorded(
        published(batch_size=64), published(batch_size=16), published(model="maker/other")
    )
    with pytest.raises(NotMeasured, match=r"talker-8b.*-b8-\w+ on b200: not recorded") as error:
        source.measure(ASKED, gpu="b200")

    text = str(error.value)
    assert text.index("batch_size=16") < text.index("batch_size=64") < text.index("maker/other")
    assert "--joules-source=live" in text


def test_another_gpu_is_not_an_answer() -> None:
    with pytest.raises(NotMeasured, match="on 1 x b200, batch_size=8"):
        recorded(published()).measure(ASKED, gpu="h100")


def test_rows_of_several_configurations_are_no_answer() -> None:
    four = PAINTED.but(num_gpus=4)
    rows = [
        make_result(point=four.but(ulysses_degree=u, ring_degree=4 // u)) for u in (1, 2, 4)
    ]
    with pytest.raises(ConfigurationError, match="set ulysses_degree one of 1, 2, 4 and ring"):
        recorded(*rows).measure(four, gpu="b200")


def test_a_session_gets_results_and_failures() -> None:
    other = ASKED.but(batch_size=16)
    launch = plan([ASKED, other], stack=Stack(), gpu="b200").launches[0]
    outcomes = {o.point: o for o in recorded(published()).outcomes(launch, {})}

    assert isinstance(outcomes[ASKED], Result)
    assert isinstance(outcomes[other], Failure)
    assert isinstance(outcomes[other].error, NotMeasured)


def test_the_source_says_what_it_is() -> None:
    source = recorded(published())
    launch = plan([ASKED], stack=Stack(), gpu="b200").launches[0]

    assert (source.name, source.launches, source.clock()) == ("recorded", False, 0.0)
    assert source.identity(launch).gpu_model == "NVIDIA B200"


# --- folders ----------------------------------------------------------------------------


def test_a_leaderboard_is_opened(tmp_path: Path) -> None:
    source = RecordedSource.from_options(write_leaderboard(tmp_path / "d", small_tasks()))
    assert source.measure(ASKED, gpu="b200").energy_per_token_j == 0.5


def test_own_results_are_opened(tmp_path: Path) -> None:
    mine = make_result(0.25, batch_size=32)
    write_results(tmp_path / "mine", [mine])
    source = RecordedSource.from_options(tmp_path / "mine")
    assert source.find(mine.point, gpu="b200") == (mine,)


@pytest.mark.parametrize(
    ("folder", "message"),
    [
        pytest.param(None, "needs --joules-data=PATH", id="none"),
        pytest.param("absent", "there is no such folder", id="absent"),
        pytest.param(".", "holds no results", id="empty"),
    ],
)
def test_a_folder_that_cannot_be_used(tmp_path: Path, folder: str | None, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        RecordedSource.from_options(tmp_path / folder if folder else None)


def test_stored_results_come_back_equal(tmp_path: Path) -> None:
    results = (
        make_result(0.5, batch_size=8, median_itl_s=0.01, evidence=make_evidence()),
        make_result(0.5, batch_size=8, median_itl_s=0.01),
        make_result(9e3, point=PAINTED, gpu="h100", source="recorded"),
    )
    files = write_results(tmp_path / "out", results)

    assert [str(path.relative_to(tmp_path / "out")) for path in files] == [
        "b200/vllm/text-conversation/qwen-qwen3-8b.json",
        "h100/xdit/text-to-image/maker-painter.json",
    ]
    assert read_results(tmp_path / "out") == results


def test_a_folder_that_holds_something_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "precious").write_text("kept")

    with pytest.raises(ConfigurationError, match="already exists and is not empty"):
        write_results(tmp_path / "out", [make_result()])
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "precious"]


def test_nothing_half_written_remains(tmp_path: Path) -> None:
    unwritable = make_result().but(mean_output_tokens=object())

    with pytest.raises(TypeError):
        write_results(tmp_path / "out", [make_result(batch_size=4), unwritable])
    assert list(tmp_path.iterdir()) == []


def test_nothing_to_write_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no results to write"):
        write_results(tmp_path / "out", [])


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        pytest.param("0.25", "-0.25", r"row 0: energy_per_work_unit_j must be", id="negative"),
        pytest.param("0.25", '"a"', r"row 0: energy_per_work_unit_j must be", id="text"),
        pytest.param('"source": "live"', '"source": "hearsay"', r"row 0: source", id="source"),
        pytest.param('"precision": "bf16"', '"precision": "fp7"', r"row 0: .*fp7", id="point"),
        pytest.param("[\n", '{"rows": [\n', r"not the JSON it should be", id="broken"),
        pytest.param('"gpu": "b200"', '"gpus": "b200"', r"row 0: ", id="renamed"),
    ],
)
def test_a_broken_file_names_file_and_row(
    tmp_path: Path, *, before: str, after: str, message: str
) -> None:
    (path,) = write_results(tmp_path / "out", [make_result(0.25)])
    assert before in path.read_text()
    path.write_text(path.read_text().replace(before, after))

    with pytest.raises(FormatError, match=message) as error:
        read_results(tmp_path / "out")
    assert str(path) in str(error.value)


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.json").write_text('{"a": 1}')
    with pytest.raises(FormatError, match=r"notes\.json: holds a dict, not a list of results"):
        read_results(tmp_path)


# --- the reference ----------------------------------------------------------------------


def test_a_live_result_stands_beside_the_published_one(tmp_path: Path) -> None:
    tasks = {"lm-arena-chat": [text_row(energy_per_token_joules=0.209)]}
    source = RecordedSource.open(write_leaderboard(tmp_path / "d", tasks))
    mine = make_result(0.214, point=ASKED)

    assert reference_note(mine, source) == (
        "your B200 214 mJ/token, published 209 mJ/token (1.02 x), vLLM 0.11.1"
    )


def test_repeats_are_averaged() -> None:
    note = reference_note(
        make_result(0.5, point=ASKED), recorded(published(0.4), published(0.6))
    )
    assert note == "your B200 500 mJ/token, published 500 mJ/token, mean of 2 (1.00 x)"


@pytest.mark.parametrize(
    "mine",
    [
        pytest.param(make_result(point=ASKED.but(batch_size=9)), id="nothing-published"),
        pytest.param(make_result(point=ASKED, gpu="h200"), id="another-gpu"),
        pytest.param(published(), id="itself-recorded"),
    ],
)
def test_without_a_published_point_there_is_no_note(mine: Result) -> None:
    assert reference_note(mine, recorded(published())) is None
