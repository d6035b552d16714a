"""Asks an address whether a Ray cluster is there, before Ray does.

Ray's own core waits minutes for one that does not answer, inside C++ that heeds no signal.
"""

import os
import socket
from typing import Any

from pytest_joules.errors import FleetError, is_expected

__tracebackhide__ = is_expected

_CONNECT_S = 10.0
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
    chosen = os.environ.get("RAY_ADDRESS", "") if address == "auto" else address
    host, _, port = chosen.removeprefix("ray://").rpartition(":")
    if not port.isdecimal():
        return  # Ray itself starts or finds the cluster
    seen = _nobody(host.strip("[]"), int(port))
    if not seen and not chosen.startswith("ray://"):
        seen = _no_head(f"{host}:{port}")
    if seen:
        named = f" (RAY_ADDRESS is {chosen})" if chosen != address else ""
        raise FleetError(
            f"--joules-fleet={address}{named}: {seen}. See whether `ray status` answers there "
            "and a firewall lets you in: nodes of the cluster join at HOST:6379, others "
            "through Ray Client at ray://HOST:10001."
        )


def _nobody(host: str, port: int) -> str:
    try:
        socket.create_connection((host, port), _CONNECT_S).close()
    except (OSError, UnicodeError) as error:
        return f"nothing answers at {host}:{port} ({error})"
    return ""


def _no_head(target: str) -> str:
    """Say why what listens there is not the head of a cluster; nothing where it is."""
    import grpc  # noqa: PLC0415  comes with Ray

    with grpc.insecure_channel(target) as channel:
        ask: Any = channel.unary_unary(_CHECK_ALIVE)
        try:
            ask(b"", timeout=_CONNECT_S)
        except grpc.RpcError as error:
            match error.code():
                case grpc.StatusCode.UNIMPLEMENTED:
                    return f"what answers at {target} is not the head of a Ray cluster"
                case grpc.StatusCode.UNAVAILABLE | grpc.StatusCode.DEADLINE_EXCEEDED:
                    return f"what answers at {target} does not speak as Ray does"
                case _:
                    return ""  # such as one that asks for a token: Ray knows what to say
    return ""
