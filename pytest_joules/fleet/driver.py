"""The process that drives Ray, so that nothing in Ray can hold up, crash or change pytest.

``python -m pytest_joules.fleet.driver`` reads one JSON order a line and answers each in kind,
with the order's ``id`` and the ``value`` or ``error`` that came of it. Orders are ``join``
and then the methods of ``cluster.Cluster``; cells go by numbers. The end of the input, however
it comes about, ends all cells and leaves the cluster.
"""

import os
import queue
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict
from typing import Any

from pytest_joules.errors import FormatError, JoulesError
from pytest_joules.fleet import lines
from pytest_joules.fleet.cluster import END_S, Cluster, Held, NodeInfo, RayCluster

_LAST_S = 2 * END_S
"""Seconds after the end of the input when this process is gone, whatever Ray waits for."""


class Driver:
    """Does what it is told with a cluster."""

    def __init__(self, connect: Callable[..., RayCluster] = RayCluster.connect) -> None:
        self._connect = connect
        self._joined: Cluster | None = None
        self._cells: dict[int, Held] = {}

    def do(self, order: Mapping[str, Any]) -> Any:
        """Do what an order says; return JSON-ready values.

        Raises:
            JoulesError: It cannot be done, for a reason that is known.
        """
        match order:
            case {"join": {"address": address, "is_virtual": is_virtual}}:
                self._joined = made = self._connect(address, is_virtual=is_virtual)
                return made.head
            case {"nodes": _}:
                return [asdict(node) for node in self._cluster.nodes()]
            case {"hold": {"cell": number, "node": node, "num_gpus": num_gpus}}:
                self._cells[number] = self._cluster.hold(NodeInfo(**node), num_gpus)
            case {"say": {"cell": number, "line": line}}:
                self._cluster.say(self._cells[number], line)
            case {"hear": timeout_s}:
                numbers = {held: number for number, held in self._cells.items()}
                heard = self._cluster.hear(timeout_s)
                return [[numbers[held], asdict(what)] for held, what in heard.items()]
            case {"free": numbers}:
                self._cluster.free([self._cells.pop(number) for number in numbers])
            case {"close": _}:
                self.close()
            case _:
                raise FormatError(f"the session said {order!r}, which is no order.")
        return None

    def close(self) -> None:
        """End all cells and leave the cluster."""
        joined, self._joined = self._joined, None
        if joined is not None:
            joined.close()

    @property
    def _cluster(self) -> Cluster:
        if self._joined is None:
            raise FormatError("the session gave an order before it named a cluster.")
        return self._joined


def main() -> int:
    """Do what is told until the input ends; return the exit status."""
    answers, driver = lines.own_stdout(), Driver()
    with suppress(BrokenPipeError):  # nobody is left who asked
        for text in iter(_orders().get, None):
            answers.write(lines.line(_answer(driver, lines.message(text))))
            answers.flush()
    driver.close()
    return 0


def _answer(driver: Driver, order: Mapping[str, Any]) -> dict[str, Any]:
    try:
        return {"id": order["id"], "value": driver.do(order)}
    except JoulesError as error:
        return {"id": order["id"], "error": lines.error_json(error)}


def _orders() -> "queue.SimpleQueue[str | None]":
    """Read orders beside the work; after their end nothing may keep this process for long."""
    orders: queue.SimpleQueue[str | None] = queue.SimpleQueue()

    def read() -> None:
        for text in sys.stdin:
            orders.put(text)
        orders.put(None)
        threading.Event().wait(_LAST_S)
        os._exit(1)

    threading.Thread(target=read, daemon=True).start()
    return orders


if __name__ == "__main__":
    sys.exit(main())
