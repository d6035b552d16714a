"""Asking for a fleet: what the option may be, and a Ray that is missing or trips."""

import socket
import sys

import pytest

from pytest_joules.errors import ConfigurationError, FleetError, MissingDependency
from pytest_joules.fleet import knock
from pytest_joules.fleet.cluster import RayCluster
from pytest_joules.options import values
from pytest_joules.options.frozen import Options
from pytest_joules.run import joining


@pytest.mark.parametrize("value", ["auto", "local", "ray://head:10001", "10.0.0.1:6379"])
def test_where_a_fleet_may_be(value):
    assert values.fleet(value) == value


@pytest.mark.parametrize(
    "value",
    [
        "",
        "head",
        "ray://head",
        "ray://head:port",
        "Local",
        ":6379",
        "ray://:1",
        "h:0",
        "h:65536",
        "http://h:1",
    ],
)
def test_what_is_no_fleet_is_refused(value):
    with pytest.raises(ValueError, match="give ray://HOST:PORT"):
        values.fleet(value)


def test_workers_of_this_machine_are_no_fleet():
    with pytest.raises(
        ConfigurationError, match=r"not go with workers.*\(-n\).*one of them out"
    ):
        joining.fleet_of(None, Options(fleet="auto"), None, is_parallel=True)


@pytest.fixture
def ray_that(tmp_path, monkeypatch):
    """Install a Ray whose import does what it is told."""

    def install(text):
        (tmp_path / "ray").mkdir()
        (tmp_path / "ray" / "__init__.py").write_text(text)
        (tmp_path / "ray-2.60.0.dist-info").mkdir()
        metadata = "Metadata-Version: 2.1\nName: ray\nVersion: 2.60.0\n"
        (tmp_path / "ray-2.60.0.dist-info" / "METADATA").write_text(metadata)
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.setitem(sys.modules, "ray", None)  # so that this one goes, too
        del sys.modules["ray"]

    return install


CONNECTED = """
class cloudpickle:
    register_pickle_by_value = print
class util:
    class client:
        class ray:
            is_connected = lambda: True
"""
"""What a joined Ray Client has, as lines of a module."""


@pytest.mark.parametrize(
    ("text", "told"),
    [
        pytest.param("raise ImportError('No module named ray')", "pip install", id="missing"),
        pytest.param(
            "{}['libamd_smi.so']",
            r"Ray 2\.60\.0 cannot be imported: from 2\.56 on .*`pip uninstall amdsmi`",
            id="amdsmi-without-rocm",
        ),
    ],
)
def test_a_ray_that_cannot_be_imported_is_told_with_the_remedy(ray_that, text, told):
    ray_that(text)

    with pytest.raises(MissingDependency, match=told):
        RayCluster.connect("local", is_virtual=True)


@pytest.mark.parametrize(("stillborn", "is_joined"), [(2, True), (3, False)])
def test_a_client_server_that_dies_as_it_starts_is_asked_for_again(
    ray_that, stillborn, is_joined
):
    ray_that(f"""
__version__ = "2.55.1"
left = [{stillborn}]
{CONNECTED}
def init(*args, **fields):
    left[0] -= 1
    if left[0] >= 0:
        raise ConnectionError("Trace...\\nRuntimeError: Starting Ray client server failed.")
""")
    if is_joined:
        RayCluster.connect("local", is_virtual=True)
    else:
        with pytest.raises(FleetError, match="joined there: RuntimeError: Starting Ray client"):
            RayCluster.connect("local", is_virtual=True)


@pytest.fixture
def deaf():
    """An address where nothing listens."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.parametrize("address", ["{}", "ray://{}", "auto"])
def test_an_address_where_nobody_answers_is_told_at_once(address, deaf, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", deaf)

    with pytest.raises(FleetError, match=f"nothing answers at {deaf}.*ray status"):
        knock.require_ray(address.format(deaf))


@pytest.mark.parametrize("address", ["ray://{}", "ray://[{}]:{}"])
def test_a_head_behind_ray_client_is_there_while_its_server_listens(address):
    with socket.create_server(("127.0.0.1", 0)) as server:
        host, port = server.getsockname()
        watched = (
            address.format(host, port) if "[" in address else address.format(f"{host}:{port}")
        )
        is_there = knock.Watch(target=watched).ask
        assert is_there(watched)

    assert not is_there(watched)


@pytest.fixture
def watch():
    """A watch with a clock that ``watch.pass_s`` moves, over a head that ``heads`` is."""
    now, head = [100.0], [True]
    made = knock.Watch(target="head:6379", clock=lambda: now[0], ask=lambda _: head[0])

    def pass_s(seconds, *, is_there):
        head[0] = is_there
        now[0] += seconds
        made.require_head()

    made.pass_s = pass_s
    return made


def test_a_head_may_be_silent_for_less_than_its_patience(watch):
    watch.pass_s(5, is_there=True)
    for _ in range(3):
        watch.pass_s(5, is_there=False)
    watch.pass_s(4.9, is_there=False)  # not asked so soon
    watch.pass_s(0.1, is_there=True)
    watch.pass_s(19.9, is_there=False)

    assert not watch.is_lost


def test_a_head_that_stays_silent_is_lost_for_good(watch):
    watch.pass_s(7, is_there=True)
    watch.pass_s(10, is_there=False)

    with pytest.raises(FleetError, match="head:6379, has not answered for 20 s"):
        watch.pass_s(10, is_there=False)
    with pytest.raises(FleetError, match="go on with --joules-resume"):
        watch.pass_s(5, is_there=True)


def test_a_watch_asks_now_and_then_only():
    now, asked = [0.0], []
    watch = knock.Watch(
        target="h:1", clock=lambda: now[0], ask=lambda t: bool(asked.append(t)) or True
    )
    for _ in range(21):
        now[0] += 1.0
        watch.require_head()

    assert asked == ["h:1"] * 4


def test_any_other_fault_of_ray_is_not_explained_away(ray_that):
    ray_that("{}['something else']")

    with pytest.raises(KeyError, match="something else"):
        RayCluster.connect("local", is_virtual=True)
