"""A session on a fleet, against a cluster of fake machines: placing, losing, judging."""

from collections import Counter
from contextlib import contextmanager, nullcontext

import pytest

from pytest_joules.errors import (
    ConfigurationError,
    FleetError,
    Inconclusive,
    LaunchError,
    ServerDied,
)
from pytest_joules.fleet.session import FleetSession
from pytest_joules.fleet.source import PATIENCE_S, FleetSource
from pytest_joules.ledger import Listener
from pytest_joules.options.frozen import Options
from pytest_joules.plan import Stack
from pytest_joules.point import Point
from pytest_joules.progress import PointEnds
from pytest_joules.record import digest_of, results_of
from pytest_joules.record.recorder import Recorder
from pytest_joules.record.replaying import replay
from pytest_joules.report.fleet_plan import makespan_on
from pytest_joules.session import JoulesSession, Wish
from pytest_joules.testing import source_of
from pytest_joules.verdict import Verdict
from tests.fakes.fleet import MAKER, HereCluster, machine

pytestmark = pytest.mark.takes_long

QWEN = Point(model="Qwen/Qwen3-8B")
POINTS = [
    QWEN.but(batch_size=batch, precision=precision)
    for precision in ("bf16", "fp8")
    for batch in (16, 64)
]


class Clock:
    """Time that passes only when it is looked at."""

    def __init__(self):
        self.now_s = 0.0

    def __call__(self):
        self.now_s += 0.5
        return self.now_s


def session_on(cluster, tmp_path, listener=None, **options):
    asked = Options(gpu="h200", baselines=tmp_path, **{"window": 30.0, **options})
    source = FleetSource(
        cluster=cluster, options=asked, session="s", maker=MAKER, name="fake", clock=Clock()
    )
    told = []
    source.say = lambda node, key, event: told.append((node, key, event))
    session = FleetSession(asked, source, listener=listener)
    session.told = told
    return session


def noted(session, points, wish=Wish.MEASURE):
    for point in points:
        session.note(point, wish)
    return session


def measure_all(session, points):
    return [session.measure(point) for point in points]


def two(**fields):
    return HereCluster(machines={name: machine(name) for name in "ab"}, **fields)


def places(session):
    return {r.point: r.provenance.context.gpu_uuids for r in session.ledger.results}


def test_a_fleet_measures_what_one_machine_would(tmp_path):
    alone = JoulesSession(
        Options(gpu="h200", baselines=tmp_path), source_of(machine("alone"), window_s=30.0)
    )
    cluster = two()

    fleet = noted(session_on(cluster, tmp_path), POINTS)

    for point in POINTS:
        assert fleet.measure(point).energy_per_token_j == pytest.approx(
            alone.measure(point).energy_per_token_j, rel=1e-6
        )
    assert Counter(r.point for r in fleet.ledger.results) == dict.fromkeys(POINTS, 1)
    assert fleet.ledger.num_launches == 2  # one a server, both batch sizes in each
    assert fleet.ledger.spent_gpu_s == pytest.approx(alone.ledger.spent_gpu_s, rel=0.05)


def test_a_result_is_stored_before_it_is_announced(tmp_path):
    stored, announced = [], []

    class Stores(Listener):
        def finished(self, result):
            stored.append(result)

    def say(*told):
        event = told[-1]
        if isinstance(event, PointEnds):
            announced.append((event.outcome, event.outcome in stored))
        else:
            announced.append((event, True))

    session = noted(session_on(two(), tmp_path, Stores()), POINTS)
    session.fleet.say = say
    measure_all(session, POINTS)

    told = [each for each, is_stored in announced if is_stored]
    assert [each for each in told if each in stored] == stored
    assert len(told) == len(announced)


def test_everything_open_is_launched_before_the_first_test_has_its_value(tmp_path):
    wide = [QWEN.but(num_gpus=8, batch_size=b, shared_server=False) for b in (16, 32, 64)]
    cluster = two()
    session = noted(session_on(cluster, tmp_path), wide)

    session.measure(wide[0])

    begun = [key.batch_size for _, key, event in session.told if "Begins" in str(type(event))]
    assert len(set(begun)) >= 2
    assert cluster.most_at_once == {"a": 8, "b": 8}


def test_a_lost_node_is_replaced_and_no_result_counts_twice(tmp_path):
    cluster = HereCluster(machines={"a": machine("a"), "b": machine("b")}, dies_after={"a": 1})
    session = noted(session_on(cluster, tmp_path), POINTS)

    for point in POINTS:
        session.measure(point)

    assert Counter(r.point for r in session.ledger.results) == dict.fromkeys(POINTS, 1)
    boards = {board for boards in places(session).values() for board in boards}
    assert boards == {"GPU-a-h200-0", "GPU-b-h200-0"}
    assert any(
        text.startswith("host-a (a): the node was lost; 1 point(s) are measured again")
        for text in session.ledger.incidents
    )


@pytest.mark.no_cover
def test_what_is_lost_again_and_again_is_given_up_and_said(tmp_path):
    cluster = HereCluster(
        machines={name: machine(name) for name in "abcd"},
        dies_after=dict.fromkeys("abcd", 1),
    )
    wide = [QWEN.but(num_gpus=8, batch_size=b) for b in (16, 32, 64, 128, 256)]
    session = noted(session_on(cluster, tmp_path), wide)

    with pytest.raises(FleetError, match=r"given up after 3 losses, the last on host-. \(.\)"):
        measure_all(session, sorted(wide, key=lambda p: -p.batch_size))

    assert len(session.ledger.results) == 3  # one on each node, before it was lost
    with pytest.raises(FleetError, match="given up"):
        session.measure(wide[0])


def test_with_no_node_left_the_rest_is_an_error(tmp_path):
    cluster = HereCluster(machines={"a": machine("a")}, dies_after={"a": 1})
    session = noted(session_on(cluster, tmp_path), POINTS)

    with pytest.raises(FleetError, match="no node of the fleet can measure on h200"):
        measure_all(session, POINTS)


def full_disk(*_, **__):
    """Start an engine as one does whose log the disk does not take: the kernel says ENOSPC."""
    with open("/dev/full", "wb", buffering=0) as log:  # noqa: PTH123  a device
        log.write(b"starting")
    raise AssertionError


def test_a_full_disk_is_retried_elsewhere_and_the_node_left_alone(tmp_path):
    cluster = two()
    cluster.machines["a"].started = full_disk
    session = noted(session_on(cluster, tmp_path), POINTS)

    for point in POINTS:
        session.measure(point)

    assert {board for (board,) in places(session).values()} == {"GPU-b-h200-0"}
    full = [text for text in session.ledger.incidents if "No space left on device" in text]
    assert full
    assert sum(held.node.id == "a" and held.num_gpus > 0 for held in cluster.held) <= 2


def test_an_engine_that_fails_is_a_failure_and_no_loss(tmp_path):
    cluster = HereCluster(machines={"a": machine("a", fails_to_launch="no such model")})
    session = noted(session_on(cluster, tmp_path), POINTS[:2])

    with pytest.raises(LaunchError, match=r"host-a \(a\): .*no such model"):
        session.measure(POINTS[0])

    assert session.ledger.num_launches == 1
    assert session.ledger.incidents == []


def test_a_dead_engine_is_started_again_for_the_points_that_it_left(tmp_path):
    cluster = HereCluster(machines={"a": machine("a", dies_after_requests=40)})
    session = noted(session_on(cluster, tmp_path), POINTS[:2])

    for point in POINTS[:2]:
        with pytest.raises(ServerDied, match=r"host-a \(a\)"):
            session.measure(point)
    assert session.ledger.num_launches == 2


# --- judging -----------------------------------------------------------------------------


def slower(stack, point):
    return (600.0 if stack.name == "default" else 500.0) + 0.0 * point.batch_size


STACKS = {"old": Stack(name="old")}


@pytest.mark.no_cover
def test_a_comparison_stays_on_one_board(tmp_path):
    cluster = HereCluster(machines={n: machine(n, power_w=slower) for n in "ab"})
    session = session_on(cluster, tmp_path, against="old", stacks=STACKS)
    noted(session, POINTS, Wish.CHECK)

    verdicts = {session.check(point).verdict for point in POINTS}

    assert verdicts == {Verdict.REGRESSION}
    by_key = {}
    for result in session.ledger.results:
        by_key.setdefault(result.point.precision, set()).add(
            result.provenance.context.gpu_uuids
        )
    assert all(len(boards) == 1 for boards in by_key.values())


def test_a_comparison_that_loses_its_board_begins_again_and_says_so(tmp_path):
    # The board of the first node draws 10 % more: half a comparison of each would be wrong.
    def hot(stack, point):
        return 1.1 * slower(stack, point)

    cluster = HereCluster(
        machines={"a": machine("a", power_w=hot), "b": machine("b", power_w=slower)},
        dies_after={"a": 2},
    )
    folder = tmp_path / "sessions" / "one" / "s"
    recorder = Recorder(folder=folder, settings={})
    session = session_on(cluster, tmp_path, recorder, against="old", stacks=STACKS)
    noted(session, POINTS[:1], Wish.CHECK)

    comparison = session.check(POINTS[0])

    assert comparison.verdict is Verdict.REGRESSION
    assert comparison.change == pytest.approx(0.2, abs=0.01)
    kept = session.ledger.kept
    assert {r.provenance.context.gpu_uuids for r in kept} == {("GPU-b-h200-0",)}
    assert comparison.num_launches + comparison.num_reference_launches == len(kept)
    assert len(session.ledger.set_aside) == 2
    (replayed,) = replay(folder)
    assert replayed.is_same
    assert repr(replayed.comparison) == repr(comparison)  # NaN equals NaN
    (row, old_row) = digest_of(folder).rows
    assert len(row.results) + len(old_row.results) == len(kept)
    assert results_of(folder) == kept
    for name in ("verdicts.jsonl", "end.json"):  # cut off before it had a verdict
        (folder / name).unlink(missing_ok=True)
    assert results_of(folder) == kept
    assert sum(len(each.results) for each in digest_of(folder).rows) == len(kept)
    assert any(
        "set aside; the comparison begins again on" in t for t in session.ledger.incidents
    )


@pytest.mark.no_cover
def test_the_gate_asks_for_the_next_launch_only_while_it_is_undecided(tmp_path):
    alone = JoulesSession(
        Options(gpu="h200", baselines=tmp_path, against="old", stacks=STACKS),
        source_of(machine("alone", power_w=slower), window_s=30.0),
    )
    fleet = session_on(
        HereCluster(machines={n: machine(n, power_w=slower) for n in "ab"}),
        tmp_path,
        against="old",
        stacks=STACKS,
    )
    noted(fleet, POINTS, Wish.CHECK)
    noted(alone, POINTS, Wish.CHECK)

    for point in POINTS:
        assert fleet.check(point).verdict is alone.check(point).verdict
    assert fleet.ledger.num_launches == alone.ledger.num_launches


@pytest.mark.no_cover
def test_recording_makes_as_many_launches_as_on_one_machine(tmp_path):
    session = session_on(two(), tmp_path, record=True, launches=3)
    noted(session, POINTS, Wish.CHECK)

    assert [session.record(point) for point in POINTS] == [3] * len(POINTS)
    assert session.ledger.num_launches == 6


def test_running_launches_count_towards_the_budget(tmp_path):
    # Two servers of two points and 30 s windows: 90 + 2 * (30 + 30) s, 3.5 GPU minutes each.
    session = noted(session_on(two(), tmp_path, budget=6.0), POINTS)

    with pytest.raises(Inconclusive, match="GPU minutes are spent"):
        measure_all(session, POINTS)

    assert session.ledger.num_launches == 1
    assert session.ledger.spent_gpu_s < 6.0 * 60


def lasting(name, seconds):
    """A machine whose engine starts in 1 s, and on which every point takes about so long."""
    made = machine(name, num_gpus=2)
    started = made.started

    class Lasts:
        def __init__(self, server):
            self.server = server

        def __getattr__(self, name):
            return getattr(self.server, name)

        def drive(self, *args, **kwargs):
            begun_s = made.clock.now_s
            load = self.server.drive(*args, **kwargs)
            assert made.clock.now_s <= begun_s + seconds
            made.clock.now_s = begun_s + seconds
            return load

    @contextmanager
    def slower(*args, **kwargs):
        with started(*args, **kwargs) as server:
            yield Lasts(server)

    made.started = slower
    return made


# A launch of two points and 30 s windows should take 90 + 2 * 60 = 210 s, a point more 60 s.
# Here the first ends after 201 s and a little: 261 s are 4.35 GPU minutes, of two GPUs 8.7.
@pytest.mark.parametrize(
    ("budget", "num_gpus", "num_results"),
    [
        pytest.param(4.4, 1, 2, id="enough"),
        pytest.param(4.3, 1, 1, id="short"),
        pytest.param(8.8, 2, 2, id="two-gpus-enough"),
        pytest.param(8.6, 2, 1, id="two-gpus-short"),
    ],
)
def test_the_budget_is_asked_between_points(tmp_path, *, budget, num_gpus, num_results):
    cluster = HereCluster(machines={"a": lasting("a", 200)})
    session = session_on(cluster, tmp_path, budget=budget)
    large, small = (QWEN.but(batch_size=b, num_gpus=num_gpus) for b in (64, 16))
    noted(session, [large, small])

    session.measure(large)
    with nullcontext() if num_results == 2 else pytest.raises(Inconclusive, match="are spent"):
        session.measure(small)

    assert len(session.ledger.results) == num_results
    assert session.ledger.num_launches == 1
    spent_s = (1 + 200 * num_results) * num_gpus
    assert session.ledger.spent_gpu_s == pytest.approx(spent_s, abs=3)
    assert session.ledger.is_budget_spent is (num_results == 1)


@pytest.mark.parametrize(
    ("budget", "num_results"), [(20.6, 4), (18.9, 3)], ids=["enough", "short"]
)
def test_what_is_kept_for_another_launch_is_not_spent_by_a_slow_one(
    tmp_path, budget, num_results
):
    # Two GPUs each, so that a launch should take 2 * 210 GPU seconds. After its first point
    # the slow one wants 2 * (301 + 60) beside the 420 that are kept for the other: 19.03 GPU
    # minutes. Then that wants 2 * (191 + 60) beside 2 * 301, and 120 more if the slow one may
    # go on: 18.4 or 20.4.
    cluster = HereCluster(machines={"a": lasting("a", 300), "b": lasting("b", 190)})
    session = session_on(cluster, tmp_path, budget=budget)
    wide = [point.but(num_gpus=2) for point in POINTS]
    noted(session, wide)

    undecided = 0
    for point in wide:
        try:
            session.measure(point)
        except Inconclusive:
            undecided += 1

    assert len(session.ledger.results) == num_results
    assert undecided == len(wide) - num_results
    spent_s = (1 + 300 * (num_results - 2)) + (1 + 2 * 190)
    assert session.ledger.spent_gpu_s == pytest.approx(2 * spent_s, abs=8)
    assert session.ledger.num_launches == 2


def test_without_a_budget_no_launch_waits_for_its_next_point(tmp_path):
    cluster = two()
    session = noted(session_on(cluster, tmp_path), POINTS)

    measure_all(session, POINTS)

    assert not [text for text in cluster.told if "go_on" in text]


def test_what_runs_when_the_session_ends_is_counted(tmp_path):
    cluster = HereCluster(machines={"a": lasting("a", 200)})
    session = noted(session_on(cluster, tmp_path, budget=60.0), POINTS[:2])
    clock = session.source.clock
    session.measure(QWEN.but(batch_size=64, precision="bf16"))  # its launch goes on

    clock.now_s += 500.0
    session.settle()

    assert session.ledger.spent_gpu_s == pytest.approx(500.0, abs=60.0)


def test_the_plan_tells_the_makespan(tmp_path):
    # Two servers of two points and 30 s windows: 90 + 2 * 60 s each, side by side.
    session = noted(session_on(two(), tmp_path), [p.but(num_gpus=8) for p in POINTS])

    told = makespan_on(session.plan(), session.source)

    assert told == "fleet of 2 nodes with 16 x h200: about 3:30, at the least 3:30"
    assert session.ledger.num_launches == 0


# --- nodes that cannot ---------------------------------------------------------------------


def test_a_node_with_another_version_is_an_error_with_the_remedy(tmp_path):
    session = noted(session_on(two(version={"b": "0.0.1"}), tmp_path), POINTS)

    with pytest.raises(
        FleetError, match=r"host-b \(b\) has pytest-joules 0\.0\.1.*pip install"
    ):
        session.measure(POINTS[0])


def test_nodes_that_differ_are_an_error_that_names_both(tmp_path):
    cluster = two()
    cluster.machines["b"].gpus.power_limit_factor = 0.5
    wide = [QWEN.but(num_gpus=8, batch_size=b, shared_server=False) for b in (16, 32, 64)]
    session = noted(session_on(cluster, tmp_path), wide)

    with pytest.raises(
        FleetError, match=r"power_limit_w=350\.0.*power_limit_w=700\.0|700.*350"
    ):
        measure_all(session, wide)


@pytest.mark.parametrize(
    ("cluster", "reason"),
    [
        pytest.param(HereCluster(machines={}), "none has a GPU", id="no-node"),
        pytest.param(
            HereCluster(machines={"a": machine("a", gpu="b200")}),
            r"host-a \(a\).*asks for another machine",
            id="nvml-says-otherwise",
        ),
        pytest.param(
            HereCluster(machines={"a": machine("a")}, accelerator={"a": "B200"}),
            "Ray says that its GPUs are B200",
            id="ray-says-otherwise",
        ),
    ],
)
def test_without_the_gpu_the_error_names_what_is_there(cluster, reason, tmp_path):
    session = session_on(cluster, tmp_path)

    with pytest.raises(FleetError, match=f"(?s){reason}.*ray start"):
        session.source.require_gpu("h200")


def test_a_point_that_is_wider_than_any_node_is_an_error(tmp_path):
    cluster = HereCluster(machines={"a": machine("a", num_gpus=4)})
    session = noted(session_on(cluster, tmp_path), [QWEN.but(num_gpus=8, batch_size=64)])

    with pytest.raises(FleetError, match=r"-8gpu-b64 needs 8 x h200 .* has 4.*Start a node"):
        session.measure(QWEN.but(num_gpus=8, batch_size=64))


def test_gpus_that_other_work_holds_are_not_waited_for_where_others_are_free(tmp_path):
    cluster = two(silent={"a"})
    session = noted(session_on(cluster, tmp_path), POINTS[:1])

    session.measure(POINTS[0])

    assert places(session) == {POINTS[0]: ("GPU-b-h200-0",)}
    assert session.source.clock() > PATIENCE_S


def test_a_server_of_this_machine_cannot_be_placed(tmp_path):
    with pytest.raises(ConfigurationError, match="without --joules-fleet"):
        session_on(two(), tmp_path).note(QWEN.but(engine="endpoint"), Wish.MEASURE)


def test_releasing_gives_everything_back(tmp_path):
    cluster = two()
    session = noted(session_on(cluster, tmp_path), POINTS)

    measure_all(session, POINTS)
    session.source.close()

    assert cluster.closed
    assert cluster.num_held == 0
