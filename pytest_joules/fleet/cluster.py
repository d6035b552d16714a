"""The only module that knows Ray: nodes, cells on them, and what the cells say.

What is of Ray here runs in ``driver``, a process of its own.
"""

import logging
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from typing import Any, Protocol
from uuid import uuid4

from pytest_joules.catalog import gpu_slug
from pytest_joules.errors import FleetError, MissingDependency, is_expected
from pytest_joules.fleet import carrier, knock

__tracebackhide__ = is_expected

VIRTUAL_GPUS = 8
"""GPUs that ``--joules-fleet=local`` pretends to have where nothing is measured."""

_ACCELERATOR = "accelerator_type:"
_STORE_BYTES = 128 << 20
_HEAR_S = 5.0
END_S = 60.0
"""More than the grace of a server and the patience with one that hangs in a driver."""

_JOINS = 3
_STILLBORN = "Starting Ray client server failed"
"""Of Ray Client: a head that forks while its threads are in gRPC may make a dead process."""


@dataclass(frozen=True, kw_only=True)
class NodeInfo:
    """A node as Ray knows it."""

    id: str
    host: str
    num_gpus: int
    accelerator: str = ""
    """Ray's name of its GPUs, such as ``H100``; empty where it has none."""

    @property
    def name(self) -> str:
        """Return what people read: several nodes may share a host."""
        return f"{self.host} ({self.id[:6]})"

    def may_have(self, gpu: str) -> bool:
        """Tell whether its GPUs may be of this model; NVML on the node has the last word.

        Ray has one name for a family, ``H100`` for H100 SXM, NVL and PCIe, and no name for
        GPUs that it does not know.
        """
        known = gpu_slug(self.accelerator) if self.accelerator else gpu
        return gpu == known or gpu.startswith(f"{known}-") or known.startswith(f"{gpu}-")


@dataclass(frozen=True, kw_only=True, eq=False)
class Held:
    """GPUs that are held on a node, and the process there."""

    node: NodeInfo
    num_gpus: int
    actor: Any = None


@dataclass(frozen=True, kw_only=True)
class Heard:
    """What a cell said, or that it is gone."""

    lines: tuple[str, ...] = ()
    lost: str = ""
    """Why nothing more will come; empty while something may."""


class Cluster(Protocol):
    """Nodes that hold cells."""

    def nodes(self) -> tuple[NodeInfo, ...]:
        """Return the living nodes that have GPUs."""
        ...

    def hold(self, node: NodeInfo, num_gpus: int) -> Held:
        """Reserve GPUs on a node and start a process there; with 0 GPUs, only to ask it."""
        ...

    def say(self, held: Held, line: str) -> None:
        """Send a line."""
        ...

    def hear(self, timeout_s: float) -> Mapping[Held, Heard]:
        """Return what any cell said; wait for something at most so long."""
        ...

    def free(self, cells: Iterable[Held]) -> None:
        """End these cells and everything that they started."""
        ...

    def close(self) -> None:
        """End all cells and leave the cluster."""
        ...


@dataclass(kw_only=True)
class RayCluster:
    """A Ray cluster."""

    ray: Any
    head: str
    """What ``knock.Watch`` is to watch."""

    session: str = field(default_factory=lambda: uuid4().hex[:12])
    _waiting: dict[Any, Held] = field(default_factory=dict)
    """What each pending answer belongs to."""

    _up: set[Held] = field(default_factory=set)
    """Cells that have answered, and so can be asked to end by themselves."""

    @classmethod
    def connect(cls, address: str, *, is_virtual: bool) -> "RayCluster":
        """Join the cluster at an address, or start one here (``local``).

        Args:
            address: ``ray://HOST:PORT``, ``HOST:PORT``, ``auto`` or ``local``.
            is_virtual: Whether nothing is measured, so that GPUs may be made up.

        Raises:
            MissingDependency: Ray is not installed, or cannot be imported.
            FleetError: There is no such cluster.
        """
        ray = _ray()
        knock.require_ray(address)
        extra: dict[str, Any] = {}
        if address == "local":
            # No worker ahead for each core, and room for lines of JSON only.
            extra = {"num_cpus": 0, "object_store_memory": _STORE_BYTES}
            extra |= {"include_dashboard": False}
            extra |= {"num_gpus": VIRTUAL_GPUS} if is_virtual else {}
            os.environ.setdefault("RAY_worker_niceness", "0")  # engines inherit it
            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # tell nobody, and start less
        try:
            _join(ray, address, extra)
        except (ConnectionError, RuntimeError, ValueError, ImportError) as error:
            raise FleetError(
                f"--joules-fleet={address}: no Ray cluster can be joined there: "
                f"{_told(error)} See whether `ray status` "
                f"answers there, and whether it runs Ray {ray.__version__} and this Python."
            ) from None
        return cls(ray=ray, head=_head(ray, address))

    def nodes(self) -> tuple[NodeInfo, ...]:
        return tuple(
            _info(each)
            for each in self.ray.nodes()
            if each["Alive"] and each["Resources"].get("GPU", 0) >= 1
        )

    def hold(self, node: NodeInfo, num_gpus: int) -> Held:
        from ray.util.scheduling_strategies import (  # noqa: PLC0415  see _ray
            NodeAffinitySchedulingStrategy,
        )

        kind = self.ray.remote(carrier.Carrier).options(
            num_cpus=0,
            num_gpus=num_gpus,
            max_restarts=0,
            max_concurrency=3,
            scheduling_strategy=NodeAffinitySchedulingStrategy(node_id=node.id, soft=False),
        )
        actor = kind.remote(self.session, sees_all=num_gpus == 0)
        held = Held(node=node, num_gpus=num_gpus, actor=actor)
        self._listen(held)
        return held

    def say(self, held: Held, line: str) -> None:
        held.actor.say.remote(line)

    def hear(self, timeout_s: float) -> Mapping[Held, Heard]:
        if not self._waiting:
            return {}
        answered, _ = self.ray.wait(list(self._waiting), timeout=timeout_s)
        # All that have come by now, not the first alone.
        more, _ = self.ray.wait(list(self._waiting), timeout=0, num_returns=len(self._waiting))
        heard = {}
        for answer in {*answered, *more}:
            held = self._waiting.pop(answer)
            heard[held] = self._heard(held, answer)
        return heard

    def _heard(self, held: Held, answer: Any) -> Heard:
        try:
            lines = self.ray.get(answer)
        except self.ray.exceptions.RayError as error:
            self._up.discard(held)
            return Heard(lost=self._reason(held, error))
        self._up.add(held)
        self._listen(held)
        return Heard(lines=tuple(lines))

    def _reason(self, held: Held, error: Exception) -> str:
        if all(node.id != held.node.id for node in self.nodes()):
            return "the node was lost"
        return f"the node or its task was lost ({type(error).__name__})"

    def free(self, cells: Iterable[Held]) -> None:
        listed = list(cells)
        self._waiting = {ref: held for ref, held in self._waiting.items() if held not in listed}
        # First they end what they started, all at once; then Ray ends them.
        ended = [held.actor.end.remote(END_S) for held in listed if held in self._up]
        if ended:
            self.ray.wait(ended, num_returns=len(ended), timeout=END_S)
        for held in listed:
            self._up.discard(held)
            self.ray.kill(held.actor)

    def close(self) -> None:
        self.free({*self._waiting.values()})
        self.ray.shutdown()

    def _listen(self, held: Held) -> None:
        self._waiting[held.actor.hear.remote(_HEAR_S)] = held


def _join(ray: Any, address: str, extra: Mapping[str, Any]) -> None:
    for left in reversed(range(_JOINS)):
        try:
            ray.init(address, log_to_driver=False, logging_level=logging.ERROR, **extra)
        except (ConnectionError, RuntimeError) as error:
            if _STILLBORN not in str(error) or not left:
                raise
        else:
            return


def _head(ray: Any, address: str) -> str:
    if ray.util.client.ray.is_connected():
        return knock.chosen(address)
    return str(ray.get_runtime_context().gcs_address)


def _told(error: Exception) -> str:
    """Return the last line of what Ray says, or all of it where versions differ."""
    text = str(error).strip()
    if "Version mismatch" in text:
        return " ".join(text.split())
    return text.splitlines()[-1] if text else type(error).__name__


def _info(node: Mapping[str, Any]) -> NodeInfo:
    resources = node["Resources"]
    named = [key for key in resources if key.startswith(_ACCELERATOR)]
    return NodeInfo(
        id=node["NodeID"],
        host=node["NodeManagerHostname"],
        num_gpus=int(resources["GPU"]),
        accelerator=named[0].removeprefix(_ACCELERATOR) if named else "",
    )


def _ray() -> Any:
    """Import Ray, which nothing else does.

    Raises:
        MissingDependency: It is not installed, or trips over ``amdsmi``.
    """
    try:
        import ray  # noqa: PLC0415  250 MB, and only for a fleet
    except ImportError as error:
        raise MissingDependency(
            f"--joules-fleet needs Ray ({error}); install it with "
            "`pip install 'pytest-joules[fleet]'`, here and on every node."
        ) from None
    except KeyError as error:
        if "amd_smi" not in str(error):
            raise
        raise MissingDependency(
            f"Ray {metadata.version('ray')} cannot be imported: from 2.56 on it loads amdsmi, "
            "which Zeus requires and which fails where ROCm is not installed. Install Ray as "
            "`pip install 'pytest-joules[fleet]'` does, or `pip uninstall amdsmi` here and on "
            "every node: Zeus needs it for AMD GPUs only."
        ) from None
    # Its text goes to the nodes, which then need nothing of this package to load it.
    cloudpickle: Any = ray.cloudpickle
    cloudpickle.register_pickle_by_value(carrier)
    return ray
