"""Save a tiny PixArt-Sigma with weights and text encoder; run by the engine's interpreter.

``python tiny_weights.py FOLDER COMPONENTS`` where COMPONENTS is JSON, by component.
"""

import json
import sys
from pathlib import Path

WIDTH = 64


def make(folder: Path, components: dict) -> None:
    # Only the engine's environment has these; pytest collects this file without it.
    import diffusers  # noqa: PLC0415
    from tokenizers import Tokenizer, models, pre_tokenizers  # noqa: PLC0415
    from transformers import (  # noqa: PLC0415
        PreTrainedTokenizerFast,
        T5Config,
        T5EncoderModel,
    )

    words = {"<pad>": 0, "<unk>": 1, **{f"w{number}": number for number in range(2, 64)}}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    parts = {
        part: getattr(diffusers, config.pop("class")).from_config(config)
        for part, config in components.items()
    }
    config = T5Config(vocab_size=64, d_model=WIDTH, d_kv=16, d_ff=64, num_layers=1, num_heads=4)
    diffusers.PixArtSigmaPipeline(
        **parts,
        text_encoder=T5EncoderModel(config),
        tokenizer=PreTrainedTokenizerFast(
            tokenizer_object=tokenizer, pad_token="<pad>", unk_token="<unk>"
        ),
    ).save_pretrained(folder)


if __name__ == "__main__":
    make(Path(sys.argv[1]), json.loads(sys.argv[2]))
