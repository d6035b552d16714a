"""Make the folder of a tiny Qwen2-VL; run by the engine's interpreter.

``python tiny_vision_model.py FOLDER`` writes configuration, tokenizer, chat template and
preprocessors, no weights.
"""

import json
import sys
from pathlib import Path

WORDS = 32_000
SPECIAL = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
PATCH, MERGE = 14, 2
WIDTH = 512
CONFIG = {
    "architectures": ["Qwen2VLForConditionalGeneration"],
    "model_type": "qwen2_vl",
    "vocab_size": WORDS + len(SPECIAL),
    # About 24 million parameters, two thirds of them for the words.
    "hidden_size": WIDTH,
    "intermediate_size": 2048,
    "num_hidden_layers": 2,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "max_position_embeddings": 4096,
    "rms_norm_eps": 1e-5,
    "hidden_act": "silu",
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
    "rope_theta": 1e6,
    "rope_scaling": {"type": "mrope", "mrope_section": [8, 12, 12]},
    "bos_token_id": 1,
    "eos_token_id": 2,
    "vision_start_token_id": WORDS,
    "vision_end_token_id": WORDS + 1,
    "image_token_id": WORDS + 2,
    "video_token_id": WORDS + 3,
    "vision_config": {
        "model_type": "qwen2_vl",
        "depth": 2,
        "embed_dim": 64,
        "hidden_size": WIDTH,
        "num_heads": 2,
        "mlp_ratio": 2,
        "in_chans": 3,
        "patch_size": PATCH,
        "spatial_merge_size": MERGE,
        "temporal_patch_size": 2,
    },
}
PREPROCESSOR = {
    "image_processor_type": "Qwen2VLImageProcessor",
    "processor_class": "Qwen2VLProcessor",
    "patch_size": PATCH,
    "merge_size": MERGE,
    "temporal_patch_size": 2,
    "min_pixels": 28 * 28,
    "max_pixels": 448 * 448,
}
TEMPLATE = """\
{%- for message in messages %}{%- for part in message.content %}
{%- if part.type == 'text' %}{{ ' ' + part.text }}
{%- elif 'image' in part.type %}{{ ' <|vision_start|><|image_pad|><|vision_end|>' }}
{%- elif 'video' in part.type %}{{ ' <|vision_start|><|video_pad|><|vision_end|>' }}
{%- endif %}{%- endfor %}{%- endfor %}"""


def make(folder: Path) -> None:
    # Only the engine's environment has these; pytest collects this file without it.
    from tokenizers import Tokenizer, models, pre_tokenizers  # noqa: PLC0415
    from transformers import PreTrainedTokenizerFast  # noqa: PLC0415

    words = {f"w{number}": number for number in range(WORDS)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="w0"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="w0",
        bos_token="w1",
        eos_token="w2",
        additional_special_tokens=list(SPECIAL),
    )
    fast.chat_template = TEMPLATE
    fast.save_pretrained(folder)
    video = {"video_processor_type": "Qwen2VLVideoProcessor", "size": SIZE}
    texts = {
        "config.json": CONFIG,
        "preprocessor_config.json": PREPROCESSOR,
        "video_preprocessor_config.json": {**PREPROCESSOR, **video},
    }
    for name, values in texts.items():
        (folder / name).write_text(json.dumps(values))


SIZE = {"shortest_edge": 28 * 28, "longest_edge": 64 * 28 * 28}

if __name__ == "__main__":
    make(Path(sys.argv[1]))
