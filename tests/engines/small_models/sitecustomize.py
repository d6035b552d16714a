"""Makes a worker build a small relative of the model that it was told to build.

On PYTHONPATH of a dry run: known models keep their names and all that the plugin decides of
them, while a CPU has to compute only this. What such a run tells is that it ends.
"""

import json
import os
import sys
from pathlib import Path

SMALL_TEXT = {
    "vocab_size": 32_000,
    "hidden_size": 128,
    "intermediate_size": 256,
    "moe_intermediate_size": 64,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "num_experts": 4,
    "num_experts_per_tok": 2,
}
LAYERS_A_SMALL_ONE = 18


def shrink(folder: Path) -> None:
    path = folder / "job.json"
    job = json.loads(path.read_text())
    if job.get("components"):
        models = json.loads(os.environ["SMALL_PIPELINES"])
        job["components"] = models[job["pipeline"]["name"]]
        path.write_text(json.dumps(job))
    config = folder / "model" / "config.json"
    if config.exists():
        known = json.loads(config.read_text())
        small = {name: value for name, value in SMALL_TEXT.items() if name in known}
        layers = max(1, known["num_hidden_layers"] // LAYERS_A_SMALL_ONE)
        config.write_text(json.dumps({**known, **small, "num_hidden_layers": layers}))


words = sys.orig_argv
if len(words) > 1 and words[-2].endswith("engines/worker"):
    shrink(Path(words[-1]))
