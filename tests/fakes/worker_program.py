"""A worker without an engine: says what an order tells it to, by the real channel.

Run as ``python worker_program.py WORKER_FOLDER LAUNCH_FOLDER``; rank 0 unless ``RANK`` says so.
"""

import os
import signal
import sys
from pathlib import Path

sys.path.insert(0, sys.argv[1])
from channel import Channel

folder, rank = Path(sys.argv[2]), int(os.environ.get("RANK", "0"))


def obey(channel, order):
    if order.get("rank", rank) == rank:
        sys.stderr.write(f"rank {rank} heard {order}\n")
        match order.get("do"):
            case "fail":
                raise ValueError(order["text"])
            case "exit":
                raise SystemExit(order["code"])
            case "die":
                os.kill(os.getpid(), signal.SIGKILL)
            case "hang":
                signal.pause()
            case _:
                for number in range(order.get("count", 0)):
                    channel.say("number", number=number, text=order.get("text", ""))
    channel.say("done")


with Channel(folder, rank=rank) as channel:
    channel.say("ready", argument=sys.argv[2], rank_said=rank)
    for order in channel.orders():
        obey(channel, order)
    sys.stderr.write(f"rank {rank} ended by itself\n")
