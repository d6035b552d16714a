"""Asks an address whether a Ray cluster is there, before Ray does and while it is used.

Ray's own core waits minutes for one that does not answer, inside C++ that heeds no signal.
"""

import os
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from pytest_joules.errors import FleetError, is_expected

__tracebackhide__ = is_expected

_CLIENT = "ray://"
_CONNECT_S = 10.0
_ASK_EVERY_S = 5.0
_ASK_S = 2.0
SILENCE_S = 20.0
"""Seconds without an answer after which the head is taken for lost."""

_CHECK_ALIVE = "/ray.rpc.NodeInfoGcsService/CheckAlive"
"""What every head answers to whoever asks nothing.

Source:
    ``NodeInfoGcsService`` of Ray's gcs_service.proto.
"""


def require_ray(address: str) -> None:
    """Refuse an address where no Ray cluster answers.

    Raises:
        FleetError: With what is there instead.
    """
    target = chosen(address)
    host, port = _host_and_port(target)
    if not port.isdecimal():
        return  # Ray itself starts or finds the cluster
    seen = _nobody(host, int(port))
    if not seen and not target.startswith(_CLIENT):
        seen = _no_head(target)
    if seen:
        named = f" (RAY_ADDRESS is {target})" if target != address else ""
        raise FleetError(
            f"--joules-fleet={address}{named}: {seen}. See whether `ray status` answers there "
            "and a firewall lets you in: nodes of the cluster join at HOST:6379, others "
            "through Ray Client at ray://HOST:10001."
        )


def chosen(address: str) -> str:
    """Return the address that Ray takes for one: ``auto`` may be named by RAY_ADDRESS."""
    return os.environ.get("RAY_ADDRESS", "") if address == "auto" else address


def _host_and_port(address: str) -> tuple[str, str]:
    host, _, port = address.removeprefix(_CLIENT).rpartition(":")
    return host.strip("[]"), port


def _nobody(host: str, port: int, patience_s: float = _CONNECT_S) -> str:
    try:
        socket.create_connection((host, port), patience_s).close()
    except (OSError, UnicodeError) as error:
        return f"nothing answers at {host}:{port} ({error})"
    return ""


def _answers(target: str) -> bool:
    """Tell whether a head is there; of one behind Ray Client, whether its server is."""
    if target.startswith(_CLIENT):
        host, port = _host_and_port(target)
        return not _nobody(host, int(port), _ASK_S)
    return not _no_head(target, _ASK_S)


@dataclass(kw_only=True)
class Watch:
    """Sees whether the head of a cluster that is used still answers.

    Without it Ray hears of no loss, starts nothing and ends its nodes a minute later, while
    its calls on this machine wait for ever.
    """

    target: str
    """HOST:PORT of the head, or ``ray://HOST:PORT`` of its server for Ray Clients."""

    ask: Callable[[str], bool] = _answers
    clock: Callable[[], float] = time.monotonic
    is_lost: bool = False
    _asked_s: float = field(init=False)
    _answered_s: float = field(init=False)

    def __post_init__(self) -> None:
        self._asked_s = self._answered_s = self.clock()

    def require_head(self) -> None:
        """Ask now and then; one that was lost stays lost.

        Raises:
            FleetError: It has been silent for ``SILENCE_S``.
        """
        if not self.is_lost and self.clock() - self._asked_s >= _ASK_EVERY_S:
            is_there = self.ask(self.target)
            self._asked_s = self.clock()
            if is_there:
                self._answered_s = self._asked_s
            self.is_lost = self._asked_s - self._answered_s >= SILENCE_S
        if self.is_lost:
            raise FleetError(
                f"the head of the fleet's Ray cluster, {self.target}, has not answered for "
                f"{SILENCE_S:.0f} s. Its nodes end what they run within a minute or two. Start "
                "the cluster again and go on with --joules-resume."
            )


def _no_head(target: str, patience_s: float = _CONNECT_S) -> str:
    """Say why what listens there is not the head of a cluster; nothing where it is."""
    import grpc  # noqa: PLC0415  comes with Ray

    with grpc.insecure_channel(target) as channel:
        ask: Any = channel.unary_unary(_CHECK_ALIVE)
        try:
            ask(b"", timeout=patience_s)
        except grpc.RpcError as error:
            match error.code():
                case grpc.StatusCode.UNIMPLEMENTED:
                    return f"what answers at {target} is not the head of a Ray cluster"
                case grpc.StatusCode.UNAVAILABLE | grpc.StatusCode.DEADLINE_EXCEEDED:
                    return f"what answers at {target} does not speak as Ray does"
                case _:
                    return ""  # such as one that asks for a token: Ray knows what to say
    return ""
