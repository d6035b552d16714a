"""A fleet's session that died goes on: on the same nodes, on some of them, on others."""

from collections import Counter
from contextlib import contextmanager

import pytest

from pytest_joules.errors import ConfigurationError, FleetError
from pytest_joules.fleet.session import FleetSession
from pytest_joules.fleet.source import PATIENCE_S, FleetSource
from pytest_joules.options.frozen import Options
from pytest_joules.plan import Stack
from pytest_joules.point import Point
from pytest_joules.record import resume
from pytest_joules.record.recorder import Recorder
from pytest_joules.session import Wish
from pytest_joules.verdict import Verdict
from tests.fakes.fleet import MAKER, HereCluster, NodeDies, machine

pytestmark = [pytest.mark.takes_long, pytest.mark.no_cover]

QWEN = Point(model="Qwen/Qwen3-8B", num_gpus=2)  # one server fills a node
POINTS = [
    QWEN.but(batch_size=batch, precision=precision)
    for precision in ("bf16", "fp8")
    for batch in (64, 16)
]


class Clock:
    """Time that passes only when it is looked at."""

    now_s = 0.0

    def __call__(self):
        self.now_s += 0.5
        return self.now_s


class Killed(BaseException):
    """What SIGKILL does to the driver: nothing of it runs any further."""


class Mortal(Recorder):
    """Writes a session down until it has so many results; then its process is killed."""

    lives = 10**6

    def finished(self, result):
        super().finished(result)
        self.lives -= 1
        if not self.lives:
            raise Killed


def joined(machines, tmp_path, *, lives=10**6, wish=Wish.MEASURE, points=POINTS, **options):
    """Begin a session on a cluster of these machines; return it and its cluster."""
    cluster = HereCluster(machines=machines, silent=options.pop("silent", set()))
    fields = {"gpu": "h200", "baselines": tmp_path, "window": 10.0, "fleet": "auto"}
    asked = Options(**fields | options)
    source = FleetSource(
        cluster=cluster, options=asked, session="s", maker=MAKER, name="fake", clock=Clock()
    )
    name = f"went-on-from-{asked.resume}" if asked.resume else "died"
    recorder = Mortal(folder=tmp_path / "sessions" / name, settings={})
    recorder.lives = lives
    session = FleetSession(asked, source, listener=recorder)
    session.recorder = recorder
    for point in points:
        session.note(point, wish)
    resume.begin(session, recorder)
    return session, cluster


def dies(machines, tmp_path, *, lives, act=FleetSession.measure, **fields):
    """Let a session die when it has so many results; its lock is free then."""
    session, _ = joined(machines, tmp_path, lives=lives, **fields)
    with pytest.raises(Killed):
        all_of(session, act, fields.get("points", POINTS))
    session.recorder._lock.release()  # noqa: SLF001  as the death of its process does
    return session


def all_of(session, act=FleetSession.measure, points=POINTS):
    return [act(session, point) for point in points]


def fleet(*names, **fields):
    return {name: machine(name, **{"num_gpus": 2, **fields}) for name in names}


def launch_ids(session):
    return [result.evidence.launch_id for result in session.ledger.results]


def places(results):
    return {
        r.point: {uuid.split("-")[1] for uuid in r.provenance.context.gpu_uuids}
        for r in results
    }


@pytest.mark.parametrize("lives", [1, 3])
def test_what_was_measured_is_taken_over_and_the_rest_measured_once(tmp_path, lives):
    died = dies(fleet("a", "b"), tmp_path, lives=lives)

    session, cluster = joined(fleet("a", "b"), tmp_path, resume="died")
    all_of(session)

    assert Counter(r.point for r in session.ledger.results) == dict.fromkeys(POINTS, 1)
    assert launch_ids(session)[:lives] == launch_ids(died)
    taken = [any(n.code == "taken-over" for n in r.notes) for r in session.ledger.results]
    assert taken == [True] * lives + [False] * (len(POINTS) - lives)
    measured = sum(len(each.points) for m in cluster.machines.values() for each in m.launches)
    assert measured == len(POINTS) - lives
    assert session.ledger.incidents == []
    assert session.ledger.num_launches >= 2
    assert session.ledger.spent_gpu_s > session.ledger.taken.spent_gpu_s > 0


def test_a_server_goes_on_where_it_was_though_another_node_comes_first(tmp_path):
    died = dies(fleet("a", "b"), tmp_path, lives=1)
    ((done, home),) = places(died.ledger.results).items()
    left = next(p for p in POINTS if p.precision == done.precision and p != done)

    session, _ = joined(fleet("b", "a"), tmp_path, resume="died")
    session.measure(left)

    assert places(session.ledger.results)[left] == home


def test_a_node_that_others_keep_busy_is_not_waited_for_all_the_same(tmp_path):
    died = dies(fleet("a", "b"), tmp_path, lives=1)
    ((done, home),) = places(died.ledger.results).items()
    left = next(p for p in POINTS if p.precision == done.precision and p != done)

    session, _ = joined(fleet("a", "b"), tmp_path, resume="died", silent=home)
    session.measure(left)

    assert places(session.ledger.results)[left] == {"a", "b"} - home
    assert session.source.clock() > PATIENCE_S


def lower_limit(made):
    made.gpus.power_limit_factor = 0.5


def other_torch(made):
    made.packages = {"torch": "2.99"}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        pytest.param(lower_limit, r"power_limit_w=700\.0, now it is 350\.0", id="hardware"),
        pytest.param(other_torch, r"torch='absent', now it is '2\.99'", id="software"),
    ],
)
def test_a_node_that_is_not_what_it_was_is_told_with_both_values(tmp_path, change, told):
    dies(fleet("a", "b"), tmp_path, lives=1)
    machines = fleet("a", "b")
    for made in machines.values():
        change(made)

    with pytest.raises(ConfigurationError, match=f"session died was measured with .*{told}"):
        joined(machines, tmp_path, resume="died")


def test_another_revision_of_the_model_is_told_at_the_first_launch(tmp_path):
    dies(fleet("a"), tmp_path, lives=1)
    machines = fleet("a")
    started = machines["a"].started

    @contextmanager
    def newer(*args, **fields):
        with started(*args, **fields) as server:
            server.model_revision = "another"
            yield server

    machines["a"].started = newer
    session, _ = joined(machines, tmp_path, resume="died")

    with pytest.raises(ConfigurationError, match="model_revision='fake', now it is 'another'"):
        all_of(session)


def test_a_new_node_may_have_other_software_than_those_that_were_there(tmp_path):
    """As in a fleet that did not die: each of its results names its own."""
    dies(fleet("a"), tmp_path, lives=2)
    machines = fleet("a") | fleet("b", packages={"torch": "2.99"})

    session, _ = joined(machines, tmp_path, resume="died")
    all_of(session)

    assert len(session.ledger.results) == len(POINTS)


@pytest.fixture
def same_driver(monkeypatch):
    """Let nodes differ in their boards only: fakes otherwise have a driver of their own."""

    def alike(*names, **fields):
        machines = fleet(*names, **fields)
        for made in machines.values():
            identify = made.gpus.identify
            told = [gpu.__class__(**{**vars(gpu), "driver": "570"}) for gpu in identify()]
            monkeypatch.setattr(made.gpus, "identify", lambda told=tuple(told): told)
        return machines

    return alike


def test_what_a_lost_node_measured_counts_where_the_others_are_what_it_was(
    tmp_path, same_driver
):
    died = dies(same_driver("a", "b"), tmp_path, lives=3)
    boards = {r.provenance.context.gpu_uuids for r in died.ledger.results}

    session, _ = joined(same_driver("c", "d"), tmp_path, resume="died")
    all_of(session)

    assert launch_ids(session)[:3] == launch_ids(died)
    assert len(session.ledger.results) == len(POINTS)
    told = [
        t for t in session.ledger.incidents if "from a node that is not there any more" in t
    ]
    assert len(told) == len(boards)


def test_a_node_that_is_lost_while_it_is_asked_is_one_that_is_not_there(tmp_path, same_driver):
    died = dies(same_driver("a"), tmp_path, lives=1)
    machines = same_driver("a", "b")

    def dies_too(stack):
        raise NodeDies(stack)

    machines["a"].versions = dies_too
    session, _ = joined(machines, tmp_path, resume="died")
    all_of(session)

    assert launch_ids(session)[:1] == launch_ids(died)
    assert set().union(*places(session.ledger.results[1:]).values()) == {"b"}
    assert any("not there any more" in text for text in session.ledger.incidents)


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        pytest.param({"packages": {"torch": "3"}}, "torch='absent', now it is '3'", id="other"),
        pytest.param({"num_gpus": 1}, "no node has as many GPUs", id="narrow"),
    ],
)
def test_a_lost_node_with_no_like_is_an_error(tmp_path, same_driver, *, fields, told):
    dies(same_driver("a", "b"), tmp_path, lives=1)

    with pytest.raises((ConfigurationError, FleetError), match=told):
        joined(same_driver("c", **fields), tmp_path, resume="died")


def test_a_lost_node_is_an_error_where_those_that_are_there_differ(tmp_path):
    dies(fleet("a", "b"), tmp_path, lives=1)  # each node here has its own driver

    with pytest.raises(FleetError, match=r"host-c \(c\) and host-d \(d\) differ.*resume"):
        joined(fleet("c", "d"), tmp_path, resume="died")


# --- comparisons ---------------------------------------------------------------------------


def slower(stack, point):
    return (600.0 if stack.name == "default" else 500.0) + 0.0 * point.batch_size


COMPARED = {
    "against": "old",
    "stacks": {"old": Stack(name="old")},
    "wish": Wish.CHECK,
    "points": POINTS[:1],
}


def test_an_open_comparison_goes_on_on_its_boards(tmp_path):
    died = dies(
        fleet("a", "b", power_w=slower), tmp_path, lives=2, act=FleetSession.check, **COMPARED
    )
    (home,) = {frozenset(each) for each in places(died.ledger.results).values()}

    session, _ = joined(fleet("b", "a", power_w=slower), tmp_path, resume="died", **COMPARED)
    comparison = session.check(POINTS[0])

    assert comparison.verdict is Verdict.REGRESSION
    assert set(places(session.ledger.results)[POINTS[0]]) == home
    assert launch_ids(session)[:2] == launch_ids(died)
    assert session.ledger.set_aside == []


def test_an_open_comparison_whose_node_is_gone_begins_again_and_says_so(tmp_path, same_driver):
    dies(
        same_driver("a", power_w=slower), tmp_path, lives=2, act=FleetSession.check, **COMPARED
    )

    session, _ = joined(same_driver("c", power_w=slower), tmp_path, resume="died", **COMPARED)
    comparison = session.check(POINTS[0])

    assert comparison.verdict is Verdict.REGRESSION
    assert sorted(session.ledger.set_aside) == [0, 1]
    assert any("the comparison begins again on" in t for t in session.ledger.incidents)


# --- what may go on ------------------------------------------------------------------------


def test_a_session_whose_fleet_failed_may_go_on(tmp_path):
    session, cluster = joined(fleet("a"), tmp_path)
    assert resume.unfinished(session, 1) == ""
    cluster.dies_after["a"] = 1

    with pytest.raises(FleetError, match="no node of the fleet"):
        all_of(session)

    assert resume.unfinished(session, 1) == "fleet failed"
    assert resume.unfinished(session, 2) == "interrupted"


def test_a_fleet_does_not_go_on_with_what_one_machine_was_asked(tmp_path):
    dies(fleet("a"), tmp_path, lives=1)

    with pytest.raises(ConfigurationError, match="fleet was True and is False"):
        joined(fleet("a"), tmp_path, resume="died", fleet="")
