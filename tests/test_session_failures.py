from dataclasses import replace

import pytest

from pytest_joules.errors import ServerDied
from pytest_joules.ledger import Wish
from pytest_joules.options.frozen import Options
from pytest_joules.point import Point
from pytest_joules.session import JoulesSession
from pytest_joules.testing import FakeMachine, source_of

SMALL = Point(model="Qwen/Qwen3-8B", batch_size=4)
LARGE = SMALL.but(batch_size=64, num_requests=300)


def test_a_point_is_launched_again_where_another_one_ended_its_server() -> None:
    # The large point comes first and kills the server before the small one's turn.
    machine = FakeMachine(dies_after_requests=200)
    session = JoulesSession(replace(Options(), gpu="h200"), source_of(machine))
    session.note(SMALL, Wish.MEASURE)
    session.note(LARGE, Wish.MEASURE)

    result = session.measure(SMALL)

    assert result.point == SMALL
    assert [len(launch.points) for launch in machine.launches] == [2, 1]
    with pytest.raises(ServerDied, match="after 200 requests"):
        session.measure(LARGE)
    assert len(machine.launches) == 2
