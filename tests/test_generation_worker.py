"""The closed loop that runs beside the model, with a manager that is none."""

import json
from collections import deque
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pytest_joules.engines.worker.generation import Work
from pytest_joules.prompts import prompt_ids


class Manager:
    """Finishes the oldest request whenever it is asked for a result."""

    def __init__(self, *, error: str | None = None, stalls: bool = False) -> None:
        self.background_thread_status = SimpleNamespace(fatal_error=None)
        self.asked: list[dict[str, Any]] = []
        self.cancelled: list[str] = []
        self.most_in_flight = 0
        self._error, self._stalls = error, stalls
        self._waiting: deque[dict[str, Any]] = deque()

    def add_request(self, ids: list[int], **fields: Any) -> None:
        self.asked.append({"ids": ids, **fields})
        self._waiting.append(self.asked[-1])
        self.most_in_flight = max(self.most_in_flight, len(self._waiting))

    def get_result(self, timeout: float) -> Any:
        del timeout
        if self._stalls:
            return None
        request = self._waiting.popleft()
        number = 0 if self._error else request["max_new_tokens"]
        return SimpleNamespace(
            request_id=request["request_id"],
            prompt_ids=request["ids"],
            generated_tokens=[7] * number,
            timestamps=[float(i) for i in range(number)],
            lifespan=(0.5, 9.0),
            error=self._error,
            is_finished=lambda: True,
        )

    def is_running(self) -> bool:
        return True

    def cancel_request(self, key: str) -> None:
        self.cancelled.append(key)


def run(manager: Manager, folder: Path, **changes: Any) -> list[tuple[str, dict[str, Any]]]:
    path = folder / "load.json"
    path.write_text(json.dumps([(i, 4, 2 + i % 3) for i in range(40)]))
    order = {
        "name": "1",
        "requests": str(path),
        "batch_size": 4,
        "seed": 3,
        "pinned": True,
        "is_open": False,
        "min_window_s": 0.0,
        "deadline_s": 60.0,
        **changes,
    }
    return list(Work({}, manager, SimpleNamespace()).run(order))


def test_exactly_b_requests_are_in_the_engine_while_the_queue_lasts(tmp_path: Path) -> None:
    manager = Manager()

    *done, (last, ended) = run(manager, tmp_path)

    assert manager.most_in_flight == 4
    assert [event for event, _ in done] == ["request"] * 40
    assert sorted(facts["index"] for _, facts in done) == list(range(40))
    assert (last, ended["given_up"]) == ("ended", "")
    assert manager.asked[5]["ids"] == prompt_ids(3, 5, 4)
    assert {request["eos_token_id"] for request in manager.asked} == {-1}
    assert done[2][1] == {
        **done[2][1],
        "index": 2,
        "prompt_tokens": 4,
        "output_tokens": 4,
        "token_s": [0.0, 1.0, 2.0, 3.0],
        "scheduled_s": 0.5,
    }


def test_an_open_load_ends_when_it_was_long_enough_and_not_before_three_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pytest_joules.steady_state.is_long_enough", lambda *_, **__: True)

    *done, _ = run(Manager(), tmp_path, is_open=True)

    assert len(done) == 12


def test_a_natural_output_ends_where_the_model_ends_it(tmp_path: Path) -> None:
    manager = Manager()

    run(manager, tmp_path, pinned=False)

    assert {request["eos_token_id"] for request in manager.asked} == {None}


def test_a_load_whose_requests_all_fail_is_given_up(tmp_path: Path) -> None:
    *done, (_, ended) = run(Manager(error="out of blocks"), tmp_path)

    assert 8 <= len(done) < 20
    assert (
        "8 requests failed one after the other, the last with: out of blocks"
        in (ended["given_up"])
    )


def test_a_load_that_lasts_too_long_is_cancelled(tmp_path: Path) -> None:
    manager = Manager(stalls=True)

    ((_, ended),) = run(manager, tmp_path, deadline_s=0.0)

    assert "deadline of 0 s" in ended["given_up"]
    assert manager.cancelled == [f"1-{index}" for index in range(4)]


def test_batching_that_ended_is_an_error_with_its_cause(tmp_path: Path) -> None:
    manager = Manager(stalls=True)
    manager.background_thread_status.fatal_error = ValueError("no memory")

    with pytest.raises(RuntimeError, match="continuous batching ended: no memory"):
        run(manager, tmp_path)
