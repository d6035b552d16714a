"""Other load generators on the same load: how each is started, and what it says to have read.

Each streams all of its requests, as it does by default. Only vLLM's writes down when each token
came; guidellm tells a stream's first and last, and aiperf none beside its server's stamps.
"""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tests.perf.load_clients import PROMPT, SPREAD, Load
from tests.perf.load_tokenizer import write_tokenizer

_VLLM = (
    "import argparse; from vllm.benchmarks.serve import add_cli_args, main; "
    "p = argparse.ArgumentParser(); add_cli_args(p); main(p.parse_args())"
)
Lags = Iterator[tuple[float, float]]
"""(sent, lag) of tokens, in seconds."""


def vllm(load: Load, folder: Path, python: str) -> list[str]:
    write_tokenizer(folder / "tokenizer")
    asked = {
        "backend": "openai",
        "base-url": load.url,
        "endpoint": "/v1/completions",
        "model": "served",
        "tokenizer": folder / "tokenizer",
        "dataset-name": "random",
        "random-input-len": PROMPT,
        "random-output-len": load.mean_tokens,
        "random-range-ratio": SPREAD,
        "num-prompts": load.num_requests,
        "max-concurrency": load.batch,
        "result-dir": folder,
        "result-filename": "result.json",
    }
    switches = ["--ignore-eos", "--save-result", "--save-detailed", "--disable-tqdm"]
    return [python, "-c", _VLLM, *_options(asked), *switches]


def guidellm(load: Load, folder: Path, python: str) -> list[str]:
    write_tokenizer(folder / "tokenizer")
    spread, mean = round(SPREAD * load.mean_tokens), load.mean_tokens
    data = f"prompt_tokens={PROMPT},output_tokens={mean},output_tokens_stdev={spread}"
    asked = {
        "backend": f"kind=openai_http,target={load.url},model=served,"
        "request_format=/v1/completions",
        "profile": f"kind=concurrent,streams={load.batch}",
        "constraint": f"kind=max_requests,count={load.num_requests}",
        "tokenizer": f"kind=huggingface_auto,model={folder / 'tokenizer'}",
        "data": f"kind=synthetic_text,{data},output_tokens_min=2,output_tokens_max={3 * mean}",
        "output": f"kind=json,path={folder / 'result.json'}",
    }
    return [python, "-m", "guidellm", "run", *_options(asked), "--disable-progress"]


def aiperf(load: Load, folder: Path, python: str) -> list[str]:
    # Its workers take a folder's name for one on the hub, so the hub's cache must have one.
    model = folder / "hub" / "models--perf--words"
    write_tokenizer(model / "snapshots" / "0")
    (model / "refs").mkdir()
    (model / "refs" / "main").write_text("0")
    asked = {
        "model": "served",
        "tokenizer": "perf/words",
        "url": load.url,
        "endpoint-type": "completions",
        "concurrency": load.batch,
        "request-count": load.num_requests,
        "num-prompts": load.num_requests,
        "isl": PROMPT,
        "osl": load.mean_tokens,
        "osl-stddev": round(SPREAD * load.mean_tokens),
        "extra-inputs": "ignore_eos:true",
        "artifact-dir": folder / "result",
        "ui": "none",
    }
    switches = ["--streaming", "--use-legacy-max-tokens", "--no-gpu-telemetry"]
    command = ["env", f"HF_HUB_CACHE={folder / 'hub'}", str(Path(python).with_name("aiperf"))]
    return [*command, "profile", *_options(asked), *switches]


def _options(asked: dict[str, Any]) -> list[str]:
    return [str(part) for name, value in asked.items() for part in (f"--{name}", value)]


def lags_of_vllm(folder: Path, log: dict[str, Any]) -> Lags:
    """Yield each token's: its text is the server's stamp."""
    del log
    told = json.loads((folder / "result.json").read_text())
    names = ("start_times", "ttfts", "itls", "generated_texts")
    for began_s, ttft_s, itls, text in zip(*(told[name] for name in names), strict=True):
        stamps = [float(word) for word in text.split()]
        came = np.cumsum([began_s + ttft_s, *itls])
        if len(stamps) == len(came):
            yield from ((sent, at - sent) for sent, at in zip(stamps, came, strict=True))


def lags_of_guidellm(folder: Path, log: dict[str, Any]) -> Lags:
    """Yield those of a stream's first and last token, by the clock of the day."""
    del log
    offset_s = time.clock_gettime(time.CLOCK_REALTIME) - time.monotonic()
    told = json.loads((folder / "result.json").read_text())
    for request in told["benchmarks"][0]["requests"]["successful"]:
        stamps = [float(word) for word in request["output"].split()]
        timings = request["info"]["timings"]
        ends = ("first_token_iteration", "last_token_iteration")
        for sent, end in zip((stamps[0], stamps[-1]), ends, strict=True):
            yield sent, timings[end] - offset_s - sent


def lags_of_aiperf(folder: Path, log: dict[str, Any]) -> Lags:
    """Yield none: its records hold latencies, but no text to know a stream by."""
    del folder, log
    return iter(())
