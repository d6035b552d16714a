"""The contract a measurement must meet, as one table: code, when it is broken, remedy.

``docs/validity.md`` shows the same table. The checks are in ``counter`` (energy counter and
GPU) and ``assess.validity`` (load, window and engine).
"""

from collections.abc import Mapping
from typing import NamedTuple

from pytest_joules.result import Reason


class Rule(NamedTuple):
    """One row of the contract."""

    when: str
    """When it is broken, or the note made."""

    remedy: str
    """What to do about it; one or more sentences."""


COUNTER_RULES: Mapping[str, Rule] = {
    "counter-missing": Rule(
        "the counter was not read in the window",
        "Measure for longer, and see whether the meter ran.",
    ),
    "counter-backwards": Rule(
        "the counter fell",
        "Keep the driver loaded (`sudo nvidia-smi -pm 1`) and measure again.",
    ),
    "counter-reset": Rule(
        "the counter began from zero again",
        "Keep the driver loaded (`sudo nvidia-smi -pm 1`) and measure again.",
    ),
    "counter-jump": Rule(
        "the counter rose by more than the GPU can draw",
        "Measure again; if it comes back, report it to NVIDIA.",
    ),
    "counter-frozen": Rule(
        "the counter stood still",
        "Run `joules doctor`; if the counter stands still there, too, reload the driver.",
    ),
    "counter-coarse": Rule(
        "the counter ticks too slowly for the window",
        "Measure for longer (--joules-window).",
    ),
    "counter-below-idle": Rule(
        "the counter tells less than an idle GPU draws",
        "Compare the counter with the power that `nvidia-smi` shows; measure on another GPU.",
    ),
    "counter-above-limit": Rule(
        "the counter tells more than the power limit",
        "Compare the counter with the power that `nvidia-smi` shows; measure on another GPU.",
    ),
    "counter-disagrees": Rule(
        "the counter and the sampled power differ",
        "One of the two is wrong: measure for longer or on another GPU.",
    ),
    "power-unseen": Rule(
        "too little power was sampled to check the counter with",
        "See whether `nvidia-smi` shows the power; update the driver, or measure on another "
        "GPU.",
    ),
    "meter-gap": Rule(
        "readings are missing",
        "NVML or the machine stalled: look for Xid errors in `dmesg` and for a busy CPU.",
    ),
    "meter-stopped": Rule(
        "reading ended early",
        "Run `joules doctor`, then measure again.",
    ),
    "gpu-lost": Rule(
        "the GPU fell off the bus",
        "Look for Xid errors in `dmesg`, run `joules doctor`, then measure again.",
    ),
    "gpu-changed": Rule(
        "the GPU was reconfigured while it was measured",
        "Let nothing reconfigure the GPU while it is measured.",
    ),
    "gpu-twice": Rule(
        "a GPU was counted twice",
        "Name every GPU once in CUDA_VISIBLE_DEVICES.",
    ),
    "mig-on": Rule(
        "the GPU is in MIG mode",
        "Switch it off with `sudo nvidia-smi -mig 0`.",
    ),
    "foreign-process": Rule(
        "another process used the GPU",
        "End it or choose another GPU; in a container, share the host's process ids "
        "(--pid=host).",
    ),
    "clock-brake": Rule(
        "clocks were held down by heat or by the power supply",
        "Look after cooling and power supply, wait until the GPU has cooled down, then measure "
        "again.",
    ),
}

LOAD_RULES: Mapping[str, Rule] = {
    "window-short": Rule(
        "steady state shorter than the least window or too few counter ticks",
        "Offer more requests (num_requests) or measure for longer (--joules-window).",
    ),
    "window-late": Rule(
        "the ramp-up took more than half of the time with a full batch",
        "Offer more requests (num_requests) or measure for longer (--joules-window).",
    ),
    "batch-starved": Rule(
        "achieved mean batch below 85 % of the asked one",
        "The KV cache may be too small, another client may hold slots, or the CPU cannot feed "
        "the GPU: see the engine's log.",
    ),
    "foreign-requests": Rule(
        "the server ran more requests than were offered",
        "Another client uses the server: keep it away, or measure on another port or machine.",
    ),
    "batches-few": Rule(
        "the window holds fewer batches than its kind of work needs",
        "Make more (num_requests), or leave num_requests out.",
    ),
    "batches-apart": Rule(
        "the pipeline ran in less than 98 % of the window",
        "Make batches longer (batch_size, steps), or free a CPU core.",
    ),
    "request-failed": Rule(
        "a request failed",
        "See the engine's log.",
    ),
    "answers-differ": Rule(
        "an answer has not the length that its request fixed",
        "The server does not keep to `ignore_eos`, `min_tokens` and `max_tokens`, or counts "
        "wrongly: see its log and whether a proxy stands before it.",
    ),
    "tokens-disagree": Rule(
        "server and client token counts differ by more than 0.5 %",
        "Another client may be using the server: keep it away.",
    ),
    "client-lagged": Rule(
        "the load generator was held up",
        "Free a CPU core for it.",
    ),
    "client-busy": Rule(
        "the load generator used more than one core",
        "Measure on a faster CPU or with a smaller batch.",
    ),
    "scrape-slow": Rule(
        "the server's counters were not read, or left answers out, for more than 1 s at an "
        "edge of the window, or 2 s within",
        "The server may be short of CPU: free a core for it. What stands before it may keep "
        "its /metrics for a while: ask the server itself.",
    ),
}

COUNTER_NOTES: Mapping[str, Rule] = {
    "counter-unchecked": Rule(
        "the counter was not compared with the sampled power",
        "Compare the counter with another meter once.",
    ),
    "processes-unseen": Rule(
        "NVML did not show the engine's own processes",
        "In a container, share the host's process ids (--pid=host).",
    ),
    "clocks-unseen": Rule(
        "NVML did not tell why clocks were held down",
        "Update the driver (535 or newer).",
    ),
    "power-capped": Rule(
        "the power limit held the clocks down",
        "Usual under full load; compare only at the same power limit.",
    ),
    "temperature-drift": Rule(
        "the GPU's temperature drifted within the window",
        "Warm up for longer.",
    ),
    "clock-drift": Rule(
        "the SM clock drifted within the window",
        "Warm up for longer, or fix the clocks (`sudo nvidia-smi -lgc`).",
    ),
}

LOAD_NOTES: Mapping[str, Rule] = {
    "revision-unknown": Rule(
        "the stack did not tell which commit of the model it served",
        "Serve the model from Hugging Face's cache, or a folder whose config.json has "
        "_commit_hash.",
    ),
    "window-user-short": Rule(
        "window shorter than 30 s because the user asked for it",
        "Measure for longer (--joules-window).",
    ),
    "window-drift": Rule(
        "first and last quarter differ by more than 2 % in energy per work unit",
        "Measure for longer (--joules-window).",
    ),
    "client-counted": Rule(
        "the server tells no token counters: the client's were taken",
        "Compare only with results counted alike; serve with an engine that has metrics.",
    ),
    "batches-uneven": Rule(
        "the mean batch latency is uncertain by more than 1 %",
        "Measure for longer (--joules-window).",
    ),
    "preempted": Rule(
        "the engine preempted requests: the KV cache is too small for this batch",
        "Lower batch_size or max_model_len, or give the KV cache more memory.",
    ),
}

RULES: Mapping[str, Rule] = {**COUNTER_RULES, **LOAD_RULES}
"""Every rule that makes a measurement invalid, by reason code."""

SESSION_NOTES: Mapping[str, Rule] = {
    "taken-over": Rule(
        "an interrupted session measured it, and another went on with it",
        "It counts as if it had been measured here.",
    ),
}
"""Noted by --joules-resume."""

POINT_NOTES: Mapping[str, Rule] = {
    "remote-code": Rule(
        "the point sets trust_remote_code: code of the model's repository ran",
        "Leave trust_remote_code out where the engine knows the architecture itself.",
    ),
}
"""Noted by what a point asks for."""

MODEL_NOTES: Mapping[str, Rule] = {
    "planted": Rule(
        "the simulated stack was changed by --joules-plant",
        "Leave --joules-plant out to see the stack as it is.",
    ),
    "implausible": Rule(
        "energy lies outside the band in which the latent model expects 90 of 100 results",
        "Look for what the note names; the model itself may be wrong (docs/latent.md).",
    ),
}
"""Noted beside the latent model."""

NOTES: Mapping[str, Rule] = {
    **COUNTER_NOTES,
    **LOAD_NOTES,
    **SESSION_NOTES,
    **POINT_NOTES,
    **MODEL_NOTES,
}
"""Everything that is noted though it invalidates nothing, by code."""

_ALL = {**RULES, **NOTES}


def reason(code: str, seen: str) -> Reason:
    """Name a broken rule or a note: what was seen and should be, then the table's remedy."""
    return Reason(code=code, text=f"{seen} {_ALL[code].remedy}")
