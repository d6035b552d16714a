"""A tokenizer of 32,000 words in plain JSON, for clients that insist on having one."""

import json
from pathlib import Path

WORDS = 32_000


def write_tokenizer(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    words = {f"w{number}": number for number in range(WORDS)}
    model = {"type": "WordLevel", "vocab": words, "unk_token": "w0"}
    values = {"version": "1.0", "pre_tokenizer": {"type": "Whitespace"}, "model": model}
    (folder / "tokenizer.json").write_text(json.dumps({**values, "added_tokens": []}))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast"}
    ends = {"bos_token": "w1", "eos_token": "w2"}
    (folder / "tokenizer_config.json").write_text(json.dumps({**settings, **ends}))
