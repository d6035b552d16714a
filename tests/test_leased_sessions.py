"""Sessions that lease: on which board they measure, what they wait for, what workers share."""

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from pytest_joules.digest import Digest
from pytest_joules.engines.vllm import VllmEngine
from pytest_joules.errors import ConfigurationError, Inconclusive, LaunchError, LeaseError
from pytest_joules.leases import Leases
from pytest_joules.leases.allocation import Request
from pytest_joules.ledger import Taken
from pytest_joules.meter import ZeusMeter
from pytest_joules.options.frozen import Options
from pytest_joules.plan import Boards, Stack, plan
from pytest_joules.point import Point
from pytest_joules.progress import LeaseWaits
from pytest_joules.record import digest_of, is_running, running_lock
from pytest_joules.record.costs import end_of
from pytest_joules.record.recorder import Recorder, close
from pytest_joules.record.replaying import replay, replayed
from pytest_joules.record.resume import begin
from pytest_joules.record.takeover import left_by
from pytest_joules.rig import Rig
from pytest_joules.run.gathering import gathered
from pytest_joules.session import JoulesSession, Wish
from pytest_joules.sources.live import LiveSource
from pytest_joules.storage import append_durably
from pytest_joules.testing import FakeMachine, source_of
from tests.fakes.mock_nvml import MockNvml

pytestmark = [pytest.mark.takes_long, pytest.mark.no_cover]

POINT = Point(model="Qwen/Qwen3-8B", batch_size=8)
WIDE = POINT.but(num_gpus=2)


class Bed:
    """Sessions on one fake machine with two GPUs, and a folder of locks."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.machine = FakeMachine(num_gpus=2, launch_noise=0.002)
        self.gpus = tuple(gpu.uuid for gpu in self.machine.identify())

    def leases(self, wait_s: float = 0.05) -> Leases:
        return Leases(folder=self.path / "leases", wait_s=wait_s, poll_s=0.01)

    def options(self, **changes: object) -> Options:
        made = Options(
            gpu="h200",
            baselines=self.path / "baselines",
            stacks={"old": Stack(name="old"), "default": Stack()},
        )
        return replace(made, **changes)  # type: ignore[arg-type]

    def session(self, part: str = "", **changes: object) -> JoulesSession:
        source = source_of(self.machine, leases=self.leases())
        recorder = Recorder(folder=self.path / "a" / "b" / "s", settings={}, part=part)
        return JoulesSession(self.options(**changes), source, listener=recorder)

    @contextmanager
    def taken(self, *gpus: str) -> Iterator[None]:
        asked = Request(count=len(gpus), gpus=gpus)
        with self.leases().held(asked, lambda _: None, what="somebody else"):
            yield


@pytest.fixture
def bed(tmp_path: Path) -> Bed:
    return Bed(tmp_path)


def test_a_taken_gpu_is_left_alone(bed: Bed) -> None:
    with bed.taken(bed.gpus[0]):
        result = bed.session().measure(POINT)

    assert bed.machine.boards == [bed.gpus[1:]]
    assert result.provenance.context.gpu_uuids == bed.gpus[1:]


def test_both_stacks_stay_on_the_board_of_the_first_launch(bed: Bed) -> None:
    session = bed.session(against="old")
    with bed.taken(bed.gpus[0]):
        session.measure(POINT)

    session.check(POINT)

    assert len(bed.machine.boards) > 2
    assert set(bed.machine.boards) == {bed.gpus[1:]}
    assert {launch.stack.name for launch in bed.machine.launches} == {"default", "old"}


def test_where_the_board_is_kept_by_others_the_comparison_ends_rather_than_moves(
    bed: Bed,
) -> None:
    session = bed.session(against="old")
    session.measure(POINT)

    with bed.taken(bed.gpus[0]), pytest.raises(LeaseError, match=f"needs {bed.gpus[0]};"):
        session.check(POINT)

    assert bed.machine.boards == [bed.gpus[:1]]


def recorded(bed: Bed) -> None:
    bed.session(record=True, launches=4).record(POINT)
    bed.machine.boards.clear()


def test_the_board_of_the_baseline_is_waited_for(bed: Bed) -> None:
    recorded(bed)

    with bed.taken(bed.gpus[0]), pytest.raises(LeaseError, match="somebody else"):
        bed.session().check(POINT)
    assert bed.machine.boards == []
    bed.session().check(POINT)
    assert set(bed.machine.boards) == {bed.gpus[:1]}


def test_beside_an_old_stack_another_board_will_do(bed: Bed) -> None:
    recorded(bed)

    with bed.taken(bed.gpus[0]):
        bed.session(against="old").check(POINT)

    assert set(bed.machine.boards) == {bed.gpus[1:]}


def test_recording_takes_what_is_free(bed: Bed) -> None:
    with bed.taken(bed.gpus[0]):
        recorded(bed)
    assert {path.name for path in (bed.path / "baselines").rglob("*.json")}

    bed.session(record=True, launches=1).record(POINT)

    assert bed.machine.boards == [bed.gpus[1:]]


def test_waiting_costs_no_gpu_minutes(bed: Bed) -> None:
    session = bed.session()
    with bed.taken(*bed.gpus), pytest.raises(LeaseError):
        session.measure(WIDE)

    assert session.ledger.spent_gpu_s == 0
    assert session.ledger.num_launches == 0


def test_who_goes_on_stays_on_the_board_of_the_interrupted_session(bed: Bed) -> None:
    died, recorder = interruptible(bed, "died", against="old")
    with bed.taken(bed.gpus[0]):
        died.measure(POINT)
    recorder.ended(Digest(), unfinished="interrupted")
    bed.machine.boards.clear()

    went_on, _ = interruptible(bed, "went-on", against="old", resume="died")
    went_on.check(POINT)

    assert went_on.ledger.taken is not None
    assert len(bed.machine.boards) > 1
    assert set(bed.machine.boards) == {bed.gpus[1:]}
    modes = [path.stat().st_mode & 0o777 for path in (bed.path / "a" / "b").glob("*")]
    assert modes == [0o700, 0o700]
    with pytest.raises(ConfigurationError, match="session went-on went on with it already"):
        interruptible(bed, "late", against="old", resume="died")


def test_nobody_takes_over_what_another_run_is_taking_over(bed: Bed) -> None:
    died, recorder = interruptible(bed, "died")
    died.measure(POINT)
    recorder.ended(Digest(), unfinished="interrupted")

    with (
        running_lock(bed.path / "a" / "b" / "died"),
        pytest.raises(ConfigurationError, match="just being taken over by another run"),
    ):
        interruptible(bed, "went-on", resume="died")


def interruptible(bed: Bed, name: str, **changes: object) -> tuple[JoulesSession, Recorder]:
    """A session that is asked to check one point, and who writes it down."""
    recorder = Recorder(folder=bed.path / "a" / "b" / name, settings={})
    source = source_of(bed.machine, leases=bed.leases())
    session = JoulesSession(bed.options(**changes), source, listener=recorder)
    session.note(POINT, Wish.CHECK)
    begin(session, recorder)
    return session, recorder


def test_an_interrupted_calibration_ends_like_any_other(tmp_path: Path) -> None:
    cost = {"num_launches": 1, "spent_gpu_s": 2.0, "calibrations": [[{}, {}]]}
    append_durably(tmp_path / "costs.jsonl", [json.dumps(cost)])

    close(tmp_path, resumed_by="another")

    end = end_of(tmp_path)
    assert (end["num_launches"], end["spent_gpu_s"]) == (1, 2.0)
    assert end["resumed_by"] == "another"


def test_a_lease_that_fails_fails_all_points_of_the_launch_once(bed: Bed) -> None:
    session, other = bed.session(), POINT.but(batch_size=16)
    for point in (POINT, other):
        session.note(point, Wish.MEASURE)
    with bed.taken(*bed.gpus), pytest.raises(LeaseError):
        session.measure(POINT)

    with pytest.raises(LeaseError):
        session.measure(other)


def test_a_launch_that_failed_gives_its_gpus_back(bed: Bed) -> None:
    bed.machine.fails_to_launch = "no"
    with pytest.raises(Exception, match="no"):
        bed.session().measure(WIDE)

    with bed.taken(*bed.gpus):
        pass


def test_the_gpus_of_a_running_server_are_held_as_well(tmp_path: Path) -> None:
    bed = Bed(tmp_path)
    bed.machine = FakeMachine(num_gpus=1, attaches=True)

    with bed.taken(*bed.gpus[:1]), pytest.raises(LeaseError, match=f"needs {bed.gpus[0]};"):
        bed.session().measure(POINT)
    assert bed.session().measure(POINT).provenance.context.gpu_uuids == bed.gpus[:1]


def test_waiting_for_the_gpus_of_a_running_server_costs_no_gpu_minutes(bed: Bed) -> None:
    """It is waited for inside the launch: only the server knows which GPUs it uses."""
    bed.machine = FakeMachine(num_gpus=1, attaches=True)
    alone = bed.session(part="alone")
    alone.measure(POINT)
    bed.machine = FakeMachine(num_gpus=1, attaches=True)
    asked = Request(count=1, gpus=bed.gpus[:1])
    others = ExitStack()
    others.enter_context(bed.leases().held(asked, lambda _: None, what="somebody else"))

    def hear(event: object) -> None:
        if isinstance(event, LeaseWaits):  # for an hour, until they go
            bed.machine.clock.now_s += 3600
            others.close()

    session = bed.session(part="waits")
    assert isinstance(session.source, LiveSource)
    session.source = session.source.saying(hear)
    session.measure(POINT)

    assert session.ledger.spent_gpu_s == pytest.approx(alone.ledger.spent_gpu_s)
    assert 0 < session.ledger.spent_gpu_s < 3600


MODELS = [Point(model=f"a/model-{number}", batch_size=8) for number in range(2)]


def workers(bed: Bed, **changes: object) -> list[JoulesSession]:
    """Two workers of one run: each has noted all points, and each judges one."""
    made = [bed.session(part=f"gw{number}", **changes) for number in range(2)]
    for session in made:
        for point in MODELS:
            session.note(point, Wish.CHECK)
    return made


def recorded_by_workers(bed: Bed) -> Path:
    """Let two workers record a baseline; return their session's folder, empty again."""
    for session, point in zip(workers(bed, record=True, launches=4), MODELS, strict=True):
        session.record(point)
    folder = Path(bed.path / "a" / "b" / "s")
    for path in folder.iterdir():
        path.unlink()
    return folder


def test_what_all_workers_found_out_is_put_together(bed: Bed) -> None:
    folder = recorded_by_workers(bed)
    made = workers(bed)
    for session, point in zip(made, MODELS, strict=True):
        session.check(point)

    digest, ledger = gathered(folder)

    assert len(ledger.results) == sum(len(each.ledger.results) for each in made)
    known = {**made[0].ledger.comparisons, **made[1].ledger.comparisons}
    assert str(ledger.comparisons) == str(known)  # they hold NaN, which equals nothing
    assert ledger.alphas == {**made[0].ledger.alphas, **made[1].ledger.alphas}
    assert ledger.num_launches == sum(each.ledger.num_launches for each in made)
    assert ledger.spent_gpu_s == sum(each.ledger.spent_gpu_s for each in made)
    assert [row.verdict for row in digest.rows] == ["unchanged", "unchanged"]
    assert all(each.is_same for each in replay(folder))
    assert len(replay(folder)) == 2
    assert digest_of(folder).num_launches == ledger.num_launches


def test_who_goes_on_with_workers_counts_one_board_a_server(bed: Bed) -> None:
    """A third worker measured the first one's server again, elsewhere, after that had died."""
    folder = recorded_by_workers(bed)
    first, second = workers(bed)
    first.check(MODELS[0])
    second.check(MODELS[1])
    third = bed.session(part="gw2")
    with bed.taken(bed.gpus[0]):
        third.measure(MODELS[0])

    taken = left_by(folder)

    counts = [len(each.ledger.results) for each in (first, second, third)]
    assert counts[2] == 1
    assert len(taken.results) == sum(counts)
    assert taken.set_aside == (sum(counts) - 1,)
    assert taken.num_launches == sum(counts)
    judged = {each.comparison.point: each for each in taken.judgements}
    assert set(judged) == set(MODELS)
    assert judged[MODELS[1]].num_results == sum(counts[:2])
    assert judged[MODELS[1]].set_aside == tuple(range(counts[0]))
    for each in taken.judgements:
        assert replayed(each, taken.results).is_same
    other = bed.session(part="gw3")
    other.take_over(taken)
    assert {r.provenance.context.gpu_uuids for r in other.ledger.kept} == {bed.gpus[:1]}
    assert other.ledger.of_stack[MODELS[0], "default"] == list(taken.results[: counts[0]])
    assert set(other.ledger.comparisons) == set(MODELS)


def test_who_goes_on_measures_each_server_of_a_model_on_its_own_board(bed: Bed) -> None:
    servers = [POINT, POINT.but(precision="fp8")]
    first, second = workers(bed)
    results = [first.measure(servers[0])]
    with bed.taken(bed.gpus[0]):
        results += [second.measure(servers[1])]
    other = bed.session(part="gw2")
    other.take_over(
        Taken(session="s", results=results, judgements=[], num_launches=2, spent_gpu_s=1.0)
    )

    left = [other.measure(server.but(batch_size=4)) for server in servers]

    assert [each.provenance.context.gpu_uuids for each in left] == [bed.gpus[:1], bed.gpus[1:]]


def test_the_chance_of_a_false_alarm_is_shared_by_all_workers(bed: Bed) -> None:
    alone = bed.session(record=True, launches=4)
    for point in MODELS:
        alone.record(point)
    alone = bed.session()
    for point in MODELS:
        alone.note(point, Wish.CHECK)
    for point in MODELS:
        alone.check(point)
    made = workers(bed)
    for session, point in zip(made, MODELS, strict=True):
        session.check(point)

    shared = {**made[0].ledger.alphas, **made[1].ledger.alphas}
    assert shared == alone.ledger.alphas
    assert sum(shared.values()) <= 0.01


def test_a_worker_that_left_no_cost_is_counted_by_its_launches(bed: Bed) -> None:
    first, second = workers(bed)
    first.measure(MODELS[0])
    second.measure(MODELS[1])
    folder = bed.path / "a" / "b" / "s"
    (folder / "costs-gw1.jsonl").unlink()
    with (folder / "results-gw1.jsonl").open("a") as stream:
        stream.write('{"cut off')  # it was killed while writing the next

    Recorder(folder=folder, settings={}, part="gw0").ended(Digest())
    assert not (folder / "end.json").exists()  # the session goes on

    _, ledger = gathered(folder)

    assert [result.point for result in ledger.results] == MODELS
    assert ledger.num_launches == 2
    assert ledger.spent_gpu_s == first.ledger.spent_gpu_s


def test_a_worker_counts_what_the_others_have_spent(bed: Bed) -> None:
    first, second = workers(bed, budget=3.5)
    first.measure(MODELS[0])

    with pytest.raises(Inconclusive, match=r"of 3.5 GPU minutes are spent"):
        second.measure(MODELS[1])
    assert second.ledger.num_launches == 0


def test_a_worker_counts_what_failed_launches_of_the_others_have_spent(bed: Bed) -> None:
    first, second = workers(bed)
    bed.machine.fails_to_launch = "no"
    with pytest.raises(LaunchError, match="no"):
        first.measure(MODELS[0])
    bed.machine.fails_to_launch = ""
    folder = bed.path / "a" / "b" / "s"

    assert first.ledger.spent_gpu_s > 0
    assert (
        Recorder(folder=folder, settings={}, part="gw1").spent_elsewhere_gpu_s()
        == first.ledger.spent_gpu_s
    )
    assert is_running(folder)  # though nothing is measured yet
    second.measure(MODELS[1])

    digest, ledger = gathered(folder)
    assert ledger.num_launches == digest_of(folder).num_launches == 2
    assert digest.spent_gpu_s == first.ledger.spent_gpu_s + second.ledger.spent_gpu_s
    assert [row.point for row in digest.rows] == MODELS[1:]


def test_where_nothing_was_stored_there_is_nothing(tmp_path: Path) -> None:
    digest, ledger = gathered(tmp_path / "none")

    assert (digest.rows, ledger.results, ledger.num_launches) == ((), [], 0)


def test_the_gpus_of_the_real_meter_are_leased_by_their_uuids(
    mock_nvml: MockNvml, tmp_path: Path
) -> None:
    leases = Leases(folder=tmp_path / "leases", wait_s=0.05, poll_s=0.01)
    rig = Rig(engine=VllmEngine(), meter=ZeusMeter(), leases=leases)
    source = LiveSource(rigs={"vllm": rig})
    uuids = [mock_nvml.uuid(index) for index in range(2)]
    one, both = (plan([p], stack=Stack(), gpu="h200").launches[0] for p in (POINT, WIDE))

    with source.leased(one) as first, source.leased(one) as second:
        assert (first.boards, second.boards) == (
            Boards(fixed=(uuids[0],)),
            Boards(fixed=(uuids[1],)),
        )
    with source.leased(one), pytest.raises(LeaseError, match=f"{uuids[0]} held by process"):
        source.leased(both).__enter__()
    with source.leased(both) as placed:
        assert placed.boards == Boards(fixed=tuple(uuids))
