"""An OpenAI-compatible server with vLLM's counters, that can misbehave in named ways."""

import asyncio
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

FAULTS = (
    "500",
    "drop",
    "drop-midway",
    "no-json",
    "no-usage",
    "short-usage",
    "wrong-prompt",
    "malformed-sse",
    "list-sse",
    "error-sse",
    "no-done",
    "falling-usage",
)


def well(body: dict[str, Any], number: int) -> str:
    del body, number
    return ""


def at(number: int, fault: str) -> Callable[[dict[str, Any], int], str]:
    """Show a fault to the request that arrives as ``number``, counted from 0."""
    return lambda _, arrived: fault if arrived == number else ""


@dataclass
class Server:
    """What it is told and what it saw; every field may be read from another thread."""

    fault: Callable[[dict[str, Any], int], str] = well
    """Given a request's body and its number of arrival, which fault to show."""

    hold_for: int = 0
    """Answer nothing until so many requests are in flight, or none are still to come."""

    total: int = 0
    tokens_per_chunk: int = 1
    api_key: str = "secret"
    missing: tuple[str, ...] = ()
    """Counters that ``/metrics`` leaves out."""

    metrics_status: int = 200
    speaks: str = "vllm"
    """Whose counters ``/metrics`` has; ``sglang`` tells the batch only."""

    usage_at_end: bool = False
    """Tell a stream's tokens in its last chunk only, as the OpenAI API does."""

    model: str = "served"
    version: str = ""
    """What ``/version`` says; empty for a server without it."""

    port: int = 0
    bodies: list[dict[str, Any]] = field(default_factory=list)
    in_flight: int = 0
    most_in_flight: int = 0
    in_flight_at_answer: list[int] = field(default_factory=list)
    refused: int = 0
    output_tokens: int = 0
    prompt_tokens: int = 0
    finished: int = 0
    _moved: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def complete(self, request: web.Request) -> web.StreamResponse:
        if request.headers.get("Authorization") != f"Bearer {self.api_key}":
            self.refused += 1
            return web.json_response({"error": "unauthorized"}, status=401)
        body = await request.json()
        number = len(self.bodies)
        self.bodies.append(body)
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            await self._hold()
            return await self._answer(request, body, self.fault(body, number))
        finally:
            self.in_flight -= 1
            self.finished += 1

    async def _hold(self) -> None:
        async with self._moved:
            self._moved.notify_all()
            await self._moved.wait_for(
                lambda: self.in_flight >= self.hold_for or len(self.bodies) == self.total
            )
            self.in_flight_at_answer.append(self.in_flight)

    async def _answer(
        self, request: web.Request, body: dict[str, Any], fault: str
    ) -> web.StreamResponse:
        assert fault in ("", *FAULTS, "hang")
        if fault == "hang":
            await asyncio.Event().wait()
        if fault == "500":
            return web.Response(status=500, text="EngineDeadError")
        if fault == "drop":
            assert request.transport
            request.transport.close()
            return web.Response()
        prompt, output = prompt_tokens(body), body["max_tokens"]
        self.prompt_tokens += prompt
        self.output_tokens += output
        if body.get("stream"):
            return await self._stream(request, body, fault)
        if fault == "no-json":
            return web.Response(text="<html>", content_type="application/json")
        usage = _usage(prompt + (fault == "wrong-prompt"), output - (fault == "short-usage"))
        return web.json_response({"choices": [], **({} if fault == "no-usage" else usage)})

    async def _stream(
        self, request: web.Request, body: dict[str, Any], fault: str
    ) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for event in self._events(prompt_tokens(body), body["max_tokens"], fault):
            if event == "drop":
                assert request.transport
                request.transport.close()
                return response
            await response.write(f"data: {event}\n\n".encode())
            await asyncio.sleep(0)
        return response

    def _events(self, prompt: int, output: int, fault: str) -> Iterator[str]:
        for done in range(self.tokens_per_chunk, output, self.tokens_per_chunk):
            usage = {} if self.usage_at_end else _usage(prompt, done)
            yield json.dumps({"choices": [{"text": " the"}], **usage})
        ends = {
            "malformed-sse": '{"choices": [',
            "list-sse": "[]",
            "error-sse": '{"error": {"message": "engine died"}}',
            "falling-usage": json.dumps(_usage(prompt, 0)),
            "no-usage": "{}",
            "drop-midway": "drop",
        }
        if fault in ends:
            yield ends[fault]
        usage = _usage(prompt + (fault == "wrong-prompt"), output - (fault == "short-usage"))
        yield json.dumps({"choices": [], **usage})
        if fault != "no-done":
            yield "[DONE]"

    async def metrics(self, request: web.Request) -> web.Response:
        del request
        if self.speaks == "sglang":
            gauges = {
                "num_running_reqs": self.in_flight,
                "num_queue_reqs": 0,
                "token_usage": 0.5,
            }
            text = "".join(
                f'sglang:{name}{{model_name="m"}} {v}\n' for name, v in gauges.items()
            )
            return web.Response(text=text, status=self.metrics_status)
        counters = {
            "num_requests_running": self.in_flight,
            "num_requests_waiting": 0,
            "generation_tokens_total": self.output_tokens,
            "prompt_tokens_total": self.prompt_tokens,
            "time_to_first_token_seconds_count": len(self.bodies),
            "request_success_total": self.finished,
        }
        lines = [
            f'vllm:{name}{{engine="0"}} {float(value)}'
            for name, value in counters.items()
            if name not in self.missing
        ]
        return web.Response(text="\n".join(lines) + "\n", status=self.metrics_status)

    async def models(self, request: web.Request) -> web.Response:
        if request.headers.get("Authorization") != f"Bearer {self.api_key}":
            return web.json_response({"error": "unauthorized"}, status=401)
        entry = {"id": self.model, "root": f"org/{self.model}", "owned_by": "fake-llm"}
        return web.json_response({"data": [{**entry, "max_model_len": 4096}]})

    async def tell_version(self, request: web.Request) -> web.Response:
        del request
        return web.json_response({"version": self.version}, status=200 if self.version else 404)


def prompt_tokens(body: dict[str, Any]) -> int:
    """Count a completion's ids, or a chat's words and nine tokens of what it shows."""
    if "prompt" in body:
        return len(body["prompt"])
    (message,) = body["messages"]
    shown = [part for part in message["content"] if part["type"] != "text"]
    words = [part["text"].split() for part in message["content"] if part["type"] == "text"]
    return 9 * len(shown) + sum(map(len, words))


def _usage(prompt: int, output: int) -> Mapping[str, Any]:
    return {"usage": {"prompt_tokens": prompt, "completion_tokens": output}}


@contextmanager
def running(**options: Any) -> Iterator[Server]:
    """Serve in a thread of its own, so that tests may block."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    server = Server(**options)
    runner = asyncio.run_coroutine_threadsafe(_start(server), loop).result()
    try:
        yield server
    finally:
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _start(server: Server) -> web.AppRunner:
    app = web.Application(client_max_size=1 << 26)
    app.router.add_post("/v1/completions", server.complete)
    app.router.add_post("/v1/chat/completions", server.complete)
    app.router.add_get("/v1/models", server.models)
    app.router.add_get("/version", server.tell_version)
    app.router.add_get("/metrics", server.metrics)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, backlog=4096)
    await site.start()
    server.port = runner.addresses[0][1]
    return runner
