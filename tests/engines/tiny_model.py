"""Make the folder of a tiny Llama; run by the engine's interpreter.

``python tiny_model.py FOLDER`` writes a configuration and a tokenizer, no weights.
"""

import json
import sys
from pathlib import Path

WORDS = 32_000
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": WORDS,
    # About 24 million parameters: what is measured gets more layers (``project.slowed``).
    "hidden_size": 512,
    "intermediate_size": 2048,
    "num_hidden_layers": 2,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-5,
    "hidden_act": "silu",
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
    "bos_token_id": 1,
    "eos_token_id": 2,
}


def make(folder: Path) -> None:
    # Only the engine's environment has these; pytest collects this file without it.
    from tokenizers import Tokenizer, models, pre_tokenizers  # noqa: PLC0415
    from transformers import PreTrainedTokenizerFast  # noqa: PLC0415

    words = {f"w{number}": number for number in range(WORDS)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="w0"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="w0", bos_token="w1", eos_token="w2"
    )
    fast.save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps(CONFIG))


if __name__ == "__main__":
    make(Path(sys.argv[1]))
