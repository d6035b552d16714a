"""A worker without an engine: says what an order tells it to, by the real channel.

Run as ``python worker_program.py WORKER_FOLDER LAUNCH_FOLDER``; rank 0 unless ``RANK`` says so.
"""

import os
import signal
import sys
from pathlib import Path


def main(worker_folder, launch_folder):
    sys.path.insert(0, worker_folder)
    from channel import Channel  # noqa: PLC0415  found only now

    rank = int(os.environ.get("RANK", "0"))
    with Channel(Path(launch_folder), rank=rank) as channel:
        channel.say("ready", argument=launch_folder, rank_said=rank)
        for order in channel.orders():
            obey(channel, order, rank)
        sys.stderr.write(f"rank {rank} ended by itself\n")


def obey(channel, order, rank):
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


if __name__ == "__main__":
    main(*sys.argv[1:])
