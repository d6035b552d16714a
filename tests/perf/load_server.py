"""A mock engine for load generators: one token a step for every request, on one epoll loop.

``python tests/perf/load_server.py PORT STEP_MS`` speaks OpenAI's completions, streamed and not,
and vLLM's ``/metrics`` at its usual length (about 600 lines). The text of each streamed token
is the monotonic time at which it was sent. ``/log`` tells what happened since ``/reset``. The
standard library only: whatever measures a client must not need the client's libraries.
"""

import json
import re
import select
import socket
import sys
from contextlib import suppress
from time import monotonic
from typing import Any

NUMBER = {name: re.compile(rb'"%s":\s*(\d+)' % name.encode()) for name in ("max_tokens",)}
IDS = re.compile(rb'"prompt":\s*\[\[?([\d,\s]*)\]')
BUCKETS = "".join(
    f'vllm:other_{name}_seconds_bucket{{engine="0",le="{edge}",model_name="m"}} {edge}.0\n'
    for name in range(24)
    for edge in range(24)
)
COUNTERS = (
    "num_requests_running",
    "num_requests_waiting",
    "generation_tokens_total",
    "prompt_tokens_total",
    "time_to_first_token_seconds_count",
    "request_success_total",
    "iteration_tokens_total_count",
    "kv_cache_usage_perc",
    "num_preemptions_total",
)


class Ask:
    """One completion on its way."""

    def __init__(self, connection: "Connection", body: bytes) -> None:
        self.connection, self.streams = (
            connection,
            b'"stream": true' in body.replace(b'"stream":true', b'"stream": true'),
        )
        found = NUMBER["max_tokens"].search(body)
        self.wanted = int(found[1]) if found else 16
        ids = IDS.search(body)
        self.key = ids[1].replace(b" ", b"").decode() if ids else ""
        self.prompt = self.key.count(",") + 1 if ids else _words(json.loads(body)["prompt"])
        self.counts = b"continuous_usage_stats" in body
        self.done = 0
        self.sent_s: list[float] = []

    def usage(self) -> str:
        total = self.prompt + self.done
        return (
            f'{{"prompt_tokens":{self.prompt},"completion_tokens":{self.done},'
            f'"total_tokens":{total}}}'
        )

    def chunk(self) -> bytes:
        """Make the next token's event; its text is the time."""
        self.done += 1
        now_s = monotonic()
        self.sent_s.append(now_s)
        usage = f',"usage":{self.usage()}' if self.counts else ""
        ends = '"length"' if self.done == self.wanted else "null"
        return _event(
            f'{{"id":"cmpl-1","object":"text_completion","created":1,"model":"served",'
            f'"choices":[{{"index":0,"text":"{now_s:.6f} ","logprobs":null,'
            f'"finish_reason":{ends}}}]{usage}}}'
        )

    def last(self) -> bytes:
        """End the stream with its usage."""
        last = (
            '{"id":"cmpl-1","object":"text_completion","created":1,"model":"served",'
            f'"choices":[],"usage":{self.usage()}}}'
        )
        return _event(last) + _event("[DONE]") + b"0\r\n\r\n"

    def whole(self) -> bytes:
        """Answer all at once."""
        text = "the " * self.wanted
        return _answer(
            '{"id":"cmpl-1","object":"text_completion","created":1,"model":"served",'
            f'"choices":[{{"index":0,"text":"{text}","logprobs":null,'
            f'"finish_reason":"length"}}],"usage":{self.usage()}}}'
        )


def _words(prompt: str | list[str]) -> int:
    return len((prompt if isinstance(prompt, str) else " ".join(prompt)).split())


def _event(text: str) -> bytes:
    data = f"data: {text}\n\n".encode()
    return b"%x\r\n%s\r\n" % (len(data), data)


def _answer(text: str, kind: str = "application/json", status: str = "200 OK") -> bytes:
    data = text.encode()
    head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(data)}\r\n\r\n"
    return head.encode() + data


STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n"
)


class Connection:
    """One client's socket."""

    def __init__(self, sock: socket.socket, engine: "Engine") -> None:
        self.sock, self.engine = sock, engine
        self.received, self.unsent = b"", b""
        self.ask: Ask | None = None

    def write(self, data: bytes) -> None:
        """Send now what the kernel takes, and the rest when it takes more."""
        if self.unsent:
            self.unsent += data
            return
        try:
            sent = self.sock.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            self.close()
            return
        if sent < len(data):
            self.unsent = data[sent:]
            self.engine.watch(self, select.EPOLLIN | select.EPOLLOUT)

    def flush(self) -> None:
        data, self.unsent = self.unsent, b""
        self.engine.watch(self, select.EPOLLIN)
        self.write(data)

    def read(self) -> None:
        try:
            data = self.sock.recv(1 << 18)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.close()
            return
        self.received += data
        while (request := self._request()) is not None:
            self.engine.handle(self, *request)

    def _request(self) -> tuple[bytes, bytes] | None:
        head, found, rest = self.received.partition(b"\r\n\r\n")
        if not found:
            return None
        length = re.search(rb"(?i)content-length:\s*(\d+)", head)
        size = int(length[1]) if length else 0
        if len(rest) < size:
            return None
        self.received = rest[size:]
        return head, rest[:size]

    def close(self) -> None:
        self.engine.forget(self)
        self.sock.close()


class Engine:
    """Takes requests at once, and makes a token for each of them at every step."""

    def __init__(self, port: int, step_s: float) -> None:
        self.step_s = step_s
        self.listener = socket.create_server(("127.0.0.1", port), backlog=8192)
        self.listener.setblocking(False)  # noqa: FBT003
        self.poll = select.epoll()
        self.poll.register(self.listener, select.EPOLLIN)
        self.connections: dict[int, Connection] = {}
        self.reset()

    def reset(self) -> None:
        self.waiting: list[Ask] = []
        self.streams: dict[Ask, None] = {}
        self.ending: dict[int, list[Ask]] = {}
        self.number = self.active = self.tokens = self.received = self.finished = 0
        self.prompts = self.begun = 0
        self.steps: list[tuple[float, int, int, int]] = []
        self.told: list[Ask] = []

    def watch(self, connection: Connection, events: int) -> None:
        self.poll.modify(connection.sock, events)

    def forget(self, connection: Connection) -> None:
        self.connections.pop(connection.sock.fileno(), None)
        with suppress(OSError, ValueError):
            self.poll.unregister(connection.sock)
        ask = connection.ask
        if ask is not None and ask.done < ask.wanted:
            self._drop(ask)

    def _drop(self, ask: Ask) -> None:
        """A client hung up: its request leaves the batch."""
        ask.connection.ask = None
        if ask in self.waiting:
            self.waiting.remove(ask)
            return
        self.streams.pop(ask, None)
        for asks in self.ending.values():
            if ask in asks:
                asks.remove(ask)
                self.active -= 1

    def handle(self, connection: Connection, head: bytes, body: bytes) -> None:
        path = head.split(b" ", 2)[1].split(b"?")[0]
        if path == b"/v1/completions":
            connection.ask = Ask(connection, body)
            self.waiting.append(connection.ask)
            self.received += 1
            self.prompts += connection.ask.prompt
        elif path == b"/metrics":
            connection.write(_answer(self.metrics(), "text/plain; version=0.0.4"))
        elif path == b"/v1/models":
            connection.write(
                _answer(
                    '{"object":"list","data":[{"id":"served",'
                    '"object":"model","created":1,"owned_by":"mock"}]}'
                )
            )
        elif path == b"/reset":
            self.reset()
            connection.write(_answer("{}"))
        elif path == b"/log":
            connection.write(_answer(json.dumps(self.log())))
        elif path in (b"/health", b"/ping", b"/"):
            connection.write(_answer("{}"))
        else:
            connection.write(_answer('{"error":"unknown"}', status="404 Not Found"))

    def log(self) -> dict[str, Any]:
        """Tell steps as (time, batch, tokens so far, requests received so far), and streams."""
        streams = [{"key": ask.key, "sent_s": ask.sent_s} for ask in self.told]
        return {"steps": self.steps, "streams": streams, "finished": self.finished}

    def metrics(self) -> str:
        values = dict.fromkeys(COUNTERS, 0) | {
            "num_requests_running": self.active,
            "num_requests_waiting": len(self.waiting),
            "generation_tokens_total": self.tokens,
            "prompt_tokens_total": self.prompts,
            "time_to_first_token_seconds_count": self.begun,
            "request_success_total": self.finished,
            "iteration_tokens_total_count": self.number,
        }
        lines = [
            f'# TYPE vllm:{name} untyped\nvllm:{name}{{engine="0",model_name="m"}} {value}.0\n'
            for name, value in values.items()
        ]
        return BUCKETS + "".join(lines)

    def step(self) -> None:
        """Make one token for every request; those that came since the last step begin."""
        for ask in self.waiting:
            self._begin(ask)
        self.waiting = []
        self.number += 1
        self.tokens += self.active
        self.steps.append((monotonic(), self.active, self.tokens, self.received))
        for ask in tuple(self.streams):
            ask.connection.write(ask.chunk())
        for ask in self.ending.pop(self.number, ()):
            self._end(ask)

    def _begin(self, ask: Ask) -> None:
        self.active += 1
        self.begun += 1
        self.ending.setdefault(self.number + ask.wanted, []).append(ask)
        if ask.streams:
            self.streams[ask] = None
            ask.connection.write(STREAM_HEAD)

    def _end(self, ask: Ask) -> None:
        self.active -= 1
        self.finished += 1
        ask.done = ask.wanted
        if ask.streams:
            self.streams.pop(ask, None)
            self.told.append(ask)
        ask.connection.ask = None
        ask.connection.write(ask.last() if ask.streams else ask.whole())

    def serve(self) -> None:
        """Serve until the process is told to end."""
        due_s = monotonic() + self.step_s
        while True:
            for descriptor, events in self.poll.poll(max(0.0, due_s - monotonic())):
                self._react(descriptor, events)
            if monotonic() >= due_s:
                self.step()
                due_s += self.step_s

    def _react(self, descriptor: int, events: int) -> None:
        connection = self.connections.get(descriptor)
        if descriptor == self.listener.fileno():
            self._accept()
        elif connection and events & select.EPOLLOUT:
            connection.flush()
        elif connection:
            connection.read()

    def _accept(self) -> None:
        with suppress(BlockingIOError):
            while True:
                sock, _ = self.listener.accept()
                sock.setblocking(False)  # noqa: FBT003
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self.connections[sock.fileno()] = Connection(sock, self)
                self.poll.register(sock, select.EPOLLIN)


if __name__ == "__main__":
    Engine(int(sys.argv[1]), float(sys.argv[2]) / 1000).serve()
