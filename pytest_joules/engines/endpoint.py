"""An OpenAI-compatible server that somebody else runs on this machine's GPUs.

Nothing is launched and nothing is ended. What the server was started with is believed as the
point declares it; that it is on this machine, serves the model and does so with the GPUs that
are metered is checked.
"""

import http.client
import json
import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final
from unicodedata import category
from urllib.parse import urlsplit

import psutil

from pytest_joules.engines import api
from pytest_joules.engines.folders import KEEP, LAUNCHES, new_folder
from pytest_joules.errors import (
    ConfigurationError,
    LaunchError,
    ServerDied,
    is_expected,
)
from pytest_joules.load import Counters, Limits, Target, offer
from pytest_joules.plan import Launch, Stack
from pytest_joules.point import Point
from pytest_joules.trace import LoadTrace

__tracebackhide__ = is_expected

_ANSWER_S: Final = 30.0
_LATIN_1_END: Final = 0xFF
_DIALECTS: Final[tuple[Counters, ...]] = ("vllm", "sglang")
_EVERYWHERE: Final = ("0.0.0.0", "::")  # noqa: S104  read, not bound
_START_FIELD: Final = 19
"""Of ``/proc/PID/stat``, counted from after the command's name (proc(5): starttime)."""

_VERSION_PATHS: Final = ("/version", "/server_info", "/get_server_info")


class EndpointServer:
    """A server that was there before us and stays after us."""

    def __init__(
        self, process: psutil.Process, target: Target, *, engine: str, folder: Path
    ) -> None:
        self._process, self._target, self._folder = process, target, folder
        self._engine = engine
        self._num_loads = 0

    @property
    def launch_id(self) -> str:
        """Its start: what is measured before it is restarted is one launch."""
        pid = self._process.pid
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")[:8]
        # Ticks since boot: a time of day would move with the machine's clock.
        ticks = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2]
        return f"{boot}-{pid}-{ticks.split()[_START_FIELD]}"

    @property
    def packages(self) -> dict[str, str]:
        """The version that it tells, by the name of whoever says that they own its model."""
        for path in _VERSION_PATHS:
            version = _json(self._target, path).get("version")
            if version:
                return {self._engine: str(version)}
        return {self._engine: "unknown"}

    @property
    def model_revision(self) -> None:
        """Not told by any server's API."""

    @property
    def process_ids(self) -> frozenset[int]:
        """The process that listens, its process group, and all that descend from them."""
        with suppress(psutil.NoSuchProcess, ProcessLookupError):
            group = os.getpgid(self._process.pid)
            mates = [p for p in psutil.process_iter() if _group(p.pid) == group]
            return frozenset(p.pid for mate in mates for p in (mate, *_below(mate)))
        return frozenset()

    def drive(self, point: Point, *, min_window_s: float, deadline_s: float) -> LoadTrace:
        """Offer the point's load; see ``Server``."""
        self.require_running()
        self._num_loads += 1
        folder = self._folder / f"load-{self._num_loads}"
        limits = Limits(min_window_s=min_window_s, deadline_s=deadline_s)
        return offer(self._target, point, limits, folder=folder, server=self)

    def require_running(self) -> None:
        """Notice that the listening process ended.

        Raises:
            ServerDied: It did.
        """
        if not self._process.is_running():
            raise ServerDied(
                f"the server at {_address(self._target)} (process {self._process.pid}) ended "
                "under load; see its own log."
            )

    def require_healthy(self) -> None:
        """Notice a server that no longer answers.

        Raises:
            ServerDied: It ended or does not answer.
        """
        self.require_running()
        if api.status(self._target, "/v1/models") != http.client.OK:
            raise ServerDied(
                f"the server at {_address(self._target)} no longer answers /v1/models; see its "
                "own log."
            )


@dataclass(frozen=True, kw_only=True)
class EndpointEngine:
    """Attaches to the server that a stack names."""

    name: str = "endpoint"
    attaches: bool = True
    folder: Path = LAUNCHES
    """Gets one sub-folder a measurement, with the traces of its loads."""

    keep: int = KEEP
    """Sub-folders that stay."""

    def versions(self, stack: Stack) -> dict[str, str]:
        """Return nothing: only the server knows, once it is attached to."""
        del stack
        return {}

    @contextmanager
    def started(
        self, launch: Launch, *, gpu_uuids: Sequence[str] = ()
    ) -> Iterator[EndpointServer]:
        """Find the server and ask it what it serves; leaving lets it run on.

        Args:
            launch: What it must serve, and the stack that names it.
            gpu_uuids: Not heeded: the server has chosen its GPUs.

        Raises:
            ConfigurationError: The URL or the key's variable is wrong, or the server is on
                another machine.
            LaunchError: It does not answer, serves something else, or cannot be told from the
                machine's other processes.
        """
        del gpu_uuids
        target = target_of(launch.stack, launch.largest.model)
        served = _served(target, launch.largest.model)
        target = replace(
            target,
            model=served["id"],
            max_model_len=served.get("max_model_len"),
            counters=_counters(target),
        )
        folder = new_folder(self.folder, launch, keep=self.keep)
        engine = str(served.get("owned_by") or "server")
        yield EndpointServer(_listener(target), target, engine=engine, folder=folder)


def target_of(stack: Stack, model: str) -> Target:
    """Read where a stack's server is; it must be on this machine.

    Raises:
        ConfigurationError: The URL is none, or names another machine, or the variable with
            the key is not set or holds what no HTTP header can.
    """
    table = f"[tool.pytest-joules.stacks.{stack.name}]"
    where = f"{table} url={stack.shown_url!r}"
    host, port = _host_and_port(stack.url, where=where)
    key = _key(stack.api_key_env, where=f"{table} api_key_env={stack.api_key_env!r}")
    address = _local_address(host, where=where)
    return Target(host=address, port=port, model=model, api_key=key)


def _host_and_port(url: str, *, where: str) -> tuple[str, int]:
    remedy = "give http://HOST:PORT of a server on this machine"
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:  # its text may hold the URL's password
        raise ConfigurationError(
            f"{where}: this is no URL with a port from 1 to 65535; {remedy} (IPv6 addresses "
            "are not supported)."
        ) from None
    if host and ":" in host:
        raise ConfigurationError(
            f"{where}: IPv6 addresses are not supported; {remedy}, with its name or its IPv4 "
            "address."
        )
    more = parts.query or parts.fragment or "@" in parts.netloc
    is_root = parts.path.rstrip("/") in ("", "/v1")
    if parts.scheme != "http" or not host or port == 0 or more or not is_root:
        raise ConfigurationError(
            f"{where}: {remedy}, with a port from 1 to 65535 and without user, query or "
            "fragment (api_key_env names the variable with its key)."
        )
    return host, port or http.client.HTTP_PORT


def _key(variable: str, *, where: str) -> str:
    """Read the key; what is said of a wrong one never holds it."""
    key = os.environ.get(variable) if variable else ""
    if key is None:
        raise ConfigurationError(
            f"{where}: there is no such environment variable; export the server's key in it."
        )
    key = key.strip()
    if any(ord(each) > _LATIN_1_END or category(each) == "Cc" for each in key):
        raise ConfigurationError(
            f"{where}: the variable's value holds control characters or others that no HTTP "
            "header can carry (outside Latin-1); export the server's key alone in it."
        )
    return key


def _local_address(host: str, *, where: str) -> str:
    try:
        found = [str(row[4][0]) for row in socket.getaddrinfo(host, None, socket.AF_INET)]
    except (OSError, ValueError) as error:  # ValueError: it can be no name at all
        raise ConfigurationError(
            f"{where}: {host} has no address ({error}); give the name or the IPv4 address of "
            "this machine."
        ) from None
    ours = {a.address for known in psutil.net_if_addrs().values() for a in known}
    for address in found:
        if not (address in ours or address.startswith("127.")):
            raise ConfigurationError(
                f"{where}: {host} is {address}, which is another machine, but only the energy "
                "of this machine's GPUs can be read. Run pytest where the server runs."
            )
    return found[0]


def _served(target: Target, model: str) -> dict[str, Any]:
    """Find the model among those that the server lists, by its name or by its root."""
    answer = _json(target, "/v1/models", is_needed=True)
    listed = answer.get("data")
    if not isinstance(listed, list) or not all(map(_is_model, listed)):
        raise LaunchError(
            f"the server at {_address(target)} lists no models at /v1/models but "
            f"{_without_key(json.dumps(answer), target)[:200]}. Is it a server with OpenAI's "
            "API?"
        )
    for entry in listed:
        if model in (entry["id"], entry.get("root")):
            return dict(entry)
    names = ", ".join(entry["id"] for entry in listed)
    raise LaunchError(
        f"the server at {_address(target)} serves {names or 'nothing'} instead of {model}."
    )


def _is_model(entry: object) -> bool:
    """Tell whether it has a name and, if any, a length that can be compared with."""
    if not isinstance(entry, dict) or not isinstance(entry.get("id"), str):
        return False
    # Not isinstance: True is an int too.
    return type(entry.get("max_model_len")) in (int, type(None))


def _json(target: Target, path: str, *, is_needed: bool = False) -> dict[str, Any]:
    try:
        status, text = api.ask(target, path, timeout_s=_ANSWER_S)
        values = json.loads(text) if status == http.client.OK else None
        problem = f"status {status}: {_without_key(text, target)[:200]}"
    except (OSError, http.client.HTTPException, ValueError) as error:
        values, problem = None, _without_key(str(error), target)
    if isinstance(values, dict):
        return values
    if is_needed:
        raise LaunchError(
            f"the server at {_address(target)} gave no good answer to {path} ({problem}). Is "
            "it running, and does api_key_env name its key?"
        )
    return {}


def _without_key(text: str, target: Target) -> str:
    return text.replace(target.api_key, "***") if target.api_key else text


def _counters(target: Target) -> Counters:
    """Recognise whose counters ``/metrics`` offers; nothing without any that are known."""
    try:
        status, text = api.ask(target, "/metrics", timeout_s=_ANSWER_S)
    except (OSError, http.client.HTTPException):
        return ""
    if status != http.client.OK:
        return ""
    marks = {"vllm": "\nvllm:num_requests_running", "sglang": "\nsglang:num_running_reqs"}
    return next((name for name in _DIALECTS if marks[name] in f"\n{text}"), "")


def _listener(target: Target) -> psutil.Process:
    own = {target.host, *_EVERYWHERE}
    pids = {
        each.pid
        for each in psutil.net_connections(kind="tcp")
        if each.status == psutil.CONN_LISTEN
        and each.laddr.port == target.port
        and (each.laddr.ip in own or each.laddr.ip == f"::ffff:{target.host}")
    }
    seen = min((pid for pid in pids if pid), default=None)
    if seen is None:
        raise LaunchError(
            f"the process that listens at {_address(target)} cannot be seen, so nobody can "
            "tell its GPU processes from foreign ones. Run pytest as the server's user or as "
            "root, in the same container (or with the host's process ids and network)."
        )
    return psutil.Process(seen)


def _group(pid: int) -> int | None:
    try:
        return os.getpgid(pid)
    except (ProcessLookupError, PermissionError):
        return None


def _below(process: psutil.Process) -> list[psutil.Process]:
    try:
        return list(process.children(recursive=True))
    except psutil.NoSuchProcess:
        return []


def _address(target: Target) -> str:
    return f"http://{target.host}:{target.port}"
