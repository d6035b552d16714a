"""Single questions to a server: is it there, what does it serve, which version is it."""

import http.client
import json
from typing import Any, Final

from pytest_joules.load import Target

_ANSWER_S: Final = 5.0


def status(target: Target, path: str = "/health") -> int | None:
    """Return the status of an answer; ``None`` without one."""
    try:
        return ask(target, path, timeout_s=_ANSWER_S)[0]
    except (OSError, http.client.HTTPException):
        return None


def ask(target: Target, path: str, body: Any = None, *, timeout_s: float) -> tuple[int, str]:
    """Ask once; return the status and the text.

    Raises:
        OSError: No connection, or no answer in time.
        http.client.HTTPException: The answer is no HTTP.
    """
    # Not urllib: it would send requests for 127.0.0.1 to a configured proxy.
    connection = http.client.HTTPConnection(target.host, target.port, timeout=timeout_s)
    headers = {
        "Authorization": f"Bearer {target.api_key}",
        "Content-Type": "application/json",
    }
    try:
        text = None if body is None else json.dumps(body)
        connection.request("POST" if text else "GET", path, text, headers)
        answer = connection.getresponse()
        return answer.status, answer.read().decode(errors="replace")
    finally:
        connection.close()
