"""Why the batch is what it is: asked, client, feed, memory or slots; and what follows."""

from pytest_joules.diagnose.cause import Cause, Code, Sign
from pytest_joules.diagnose.change import Change, logarithmic_mean
from pytest_joules.diagnose.facts import Facts

KV_CACHE_FULL = 0.9
"""Mean share in use from which on waiting requests wait for memory: blocks are handed out as
contexts grow, so a cache that limits the batch is rarely full to the last."""


def batch_causes(change: Change) -> list[Cause]:
    """Divide a change of the batch among what keeps requests out of it.

    ``asked - batch`` is exactly what the client does not offer, what is held up before the
    engine, and what waits in it. A smaller batch makes steps shorter and draws less power:
    as much of those as physics allows follows from it and goes with it.
    """
    if not change.has("batch"):
        return []
    mean = logarithmic_mean(change.now.batch or 0.0, change.then.batch or 0.0)
    parts = {code: -part / mean for code, part in _parts(change).items()}
    for part in parts.values():
        change.take("batch", part)
    ln_told = -sum(parts.values())
    kept = 1 - _follows(change, ln_told) / ln_told if ln_told else 1.0
    return [
        Cause(code=code, contribution=kept * part, signs=_signs(change, code))
        for code, part in parts.items()
    ]


def _follows(change: Change, ln_batch: float) -> float:
    """Take what a batch of this change explains of step time and power.

    Energy per step lies between constant (all of it is weights) and proportional to the
    batch (none is), and so does the step time; power moves with the batch.
    """
    step = change.claim("step", 0.0, ln_batch)
    return step + change.claim("power", 0.0, ln_batch - step)


def _parts(change: Change) -> dict[Code, float]:
    """Return by how many requests each known reason changed the batch."""
    then, now = change.then, change.now
    parts: dict[Code, float] = {}
    if now.asked_batch != then.asked_batch:
        parts["batch-asked"] = now.asked_batch - then.asked_batch
    for code, missing in (
        ("client-starved", _not_offered),
        ("input-feed", _held_up),
        (_waits_for(change), _waiting),
    ):
        before, after = missing(then), missing(now)
        if before is not None and after is not None and code is not None and before != after:
            parts[code] = before - after
    return parts


def _not_offered(side: Facts) -> float | None:
    return None if side.in_flight is None else side.asked_batch - side.in_flight


def _held_up(side: Facts) -> float | None:
    if side.in_flight is None or side.waiting is None or side.batch is None:
        return None
    return side.in_flight - side.waiting - side.batch


def _waiting(side: Facts) -> float | None:
    return side.waiting


def _waits_for(change: Change) -> Code | None:
    """Tell what requests wait for on the side where more of them do."""
    if not change.has("waiting"):
        return None
    side = max((change.then, change.now), key=lambda side: side.waiting or 0.0)
    if side.preemptions or (side.kv_cache_usage or 0.0) >= KV_CACHE_FULL:
        return "memory-capacity"
    return None if side.kv_cache_usage is None else "engine-slots"


def _signs(change: Change, code: Code) -> tuple[Sign, ...]:
    batch = change.sign("requests in the batch", "batch")
    match code:
        case "batch-asked":
            return change.sign("batch asked", "asked_batch")
        case "client-starved":
            return (*change.sign("requests in flight", "in_flight"), *batch)
        case "input-feed":
            flight = change.sign("requests in flight", "in_flight")
            return (*batch, *flight, *change.sign("GPU busy", "busy_share", "%"))
        case _:
            waiting = change.sign("requests waiting", "waiting")
            cache = change.sign("KV cache used", "kv_cache_usage", "%")
            return (*batch, *waiting, *cache, *_grown(change))


def _grown(change: Change) -> tuple[Sign, ...]:
    ln_context = change.ln("context_tokens")
    if not ln_context or abs(ln_context) < 0.05:  # noqa: PLR2004  5 % are worth a word
        return ()
    return change.sign("tokens in a context", "context_tokens")
