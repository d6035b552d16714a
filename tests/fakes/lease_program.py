"""Leases GPUs as its argument says, tells what happens, and holds on until its input ends."""

import json
import sys
from pathlib import Path

from pytest_joules.errors import LeaseError
from pytest_joules.leases import Leases
from pytest_joules.leases.allocation import Request


def say(word: str, value: object) -> None:
    sys.stdout.write(json.dumps([word, value]) + "\n")
    sys.stdout.flush()


def main() -> None:
    asked = json.loads(sys.argv[1])
    leases = Leases(folder=Path(asked["folder"]), wait_s=asked["wait_s"], poll_s=0.01)
    request = Request.from_json(asked["request"])
    try:
        with leases.held(request, lambda text: say("waits", text), what=asked["what"]) as board:
            say("holds", board)
            sys.stdin.read()
    except LeaseError as error:
        say("error", str(error))


if __name__ == "__main__":
    main()
