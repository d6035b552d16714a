"""Tiny diffusion models as folders of configurations, as ``diffusers`` saves them."""

import json
from pathlib import Path
from typing import Any

_VAE = {
    "class": "AutoencoderKL",
    "block_out_channels": [8, 8, 8, 8],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "layers_per_block": 1,
    "norm_num_groups": 8,
    "sample_size": 64,
}
_FLOW = {"class": "FlowMatchEulerDiscreteScheduler"}
_VIDEO_VAE = {
    "class": "AutoencoderKLWan",
    "base_dim": 8,
    "dim_mult": [1, 1, 1, 1],
    "num_res_blocks": 1,
}
_CLIPS = {"text_encoder": None, "tokenizer": None}

MODELS: dict[str, dict[str, Any]] = {
    "StableDiffusion3Pipeline": {
        "transformer": {
            "class": "SD3Transformer2DModel",
            "num_layers": 2,
            "num_attention_heads": 4,
            "attention_head_dim": 32,
            "caption_projection_dim": 128,
            "joint_attention_dim": 64,
            "pooled_projection_dim": 64,
            "sample_size": 32,
            "pos_embed_max_size": 32,
        },
        "vae": {**_VAE, "latent_channels": 16, "shift_factor": 0.1},
        "scheduler": _FLOW,
    },
    "FluxPipeline": {
        "transformer": {
            "class": "FluxTransformer2DModel",
            "num_layers": 1,
            "num_single_layers": 1,
            "num_attention_heads": 4,
            "attention_head_dim": 32,
            "axes_dims_rope": [8, 12, 12],
            "joint_attention_dim": 64,
            "pooled_projection_dim": 64,
            "guidance_embeds": True,
        },
        "vae": {**_VAE, "latent_channels": 16, "shift_factor": 0.1},
        "scheduler": _FLOW,
    },
    "PixArtSigmaPipeline": {
        "transformer": {
            "class": "PixArtTransformer2DModel",
            "num_layers": 2,
            "num_attention_heads": 4,
            "attention_head_dim": 16,
            "cross_attention_dim": 64,
            "caption_channels": 64,
            "sample_size": 16,
            "use_additional_conditions": False,
        },
        "vae": {**_VAE, "latent_channels": 4},
        "scheduler": {"class": "DPMSolverMultistepScheduler"},
    },
    "HunyuanDiTPipeline": {
        "transformer": {
            "class": "HunyuanDiT2DModel",
            "num_layers": 2,
            "num_attention_heads": 4,
            "attention_head_dim": 16,
            "hidden_size": 64,
            "in_channels": 4,
            "patch_size": 2,
            "sample_size": 16,
            "cross_attention_dim": 64,
            "cross_attention_dim_t5": 64,
            "pooled_projection_dim": 64,
            "use_style_cond_and_image_meta_size": False,
        },
        "vae": {**_VAE, "latent_channels": 4},
        "scheduler": {"class": "DDPMScheduler"},
    },
    "SanaPipeline": {
        "transformer": {
            "class": "SanaTransformer2DModel",
            "num_layers": 2,
            "in_channels": 4,
            "out_channels": 4,
            "num_attention_heads": 4,
            "attention_head_dim": 16,
            "num_cross_attention_heads": 4,
            "cross_attention_head_dim": 16,
            "cross_attention_dim": 64,
            "caption_channels": 64,
            "sample_size": 8,
        },
        "vae": {
            "class": "AutoencoderDC",
            "latent_channels": 4,
            "attention_head_dim": 2,
            "encoder_block_types": ["ResBlock"] * 6,
            "decoder_block_types": ["ResBlock"] * 6,
            "encoder_block_out_channels": [8] * 6,
            "decoder_block_out_channels": [8] * 6,
            "encoder_layers_per_block": [1] * 6,
            "decoder_layers_per_block": [1] * 6,
            "encoder_qkv_multiscales": [[]] * 6,
            "decoder_qkv_multiscales": [[]] * 6,
            "upsample_block_type": "interpolate",
            "downsample_block_type": "conv",
        },
        "scheduler": {
            "class": "DPMSolverMultistepScheduler",
            "prediction_type": "flow_prediction",
            "use_flow_sigmas": True,
        },
    },
    "WanPipeline": {
        "transformer": {
            "class": "WanTransformer3DModel",
            "num_layers": 2,
            "num_attention_heads": 4,
            "attention_head_dim": 24,
            "ffn_dim": 128,
            "text_dim": 64,
            "freq_dim": 64,
            "rope_max_seq_len": 64,
        },
        "vae": _VIDEO_VAE,
        "scheduler": {
            "class": "UniPCMultistepScheduler",
            "prediction_type": "flow_prediction",
            "use_flow_sigmas": True,
        },
    },
    "CogVideoXPipeline": {
        "transformer": {
            "class": "CogVideoXTransformer3DModel",
            "num_layers": 2,
            "num_attention_heads": 4,
            "attention_head_dim": 16,
            "text_embed_dim": 64,
            "time_embed_dim": 32,
            "sample_width": 8,
            "sample_height": 8,
            "sample_frames": 9,
        },
        "vae": {
            "class": "AutoencoderKLCogVideoX",
            "block_out_channels": [8, 8, 8, 8],
            "layers_per_block": 1,
            "norm_num_groups": 4,
            "sample_height": 64,
            "sample_width": 64,
        },
        "scheduler": {"class": "CogVideoXDDIMScheduler", "prediction_type": "v_prediction"},
    },
    "HunyuanVideoPipeline": {
        "transformer": {
            "class": "HunyuanVideoTransformer3DModel",
            "num_layers": 1,
            "num_single_layers": 1,
            "num_refiner_layers": 1,
            "num_attention_heads": 4,
            "attention_head_dim": 24,
            "rope_axes_dim": [8, 8, 8],
            "text_embed_dim": 64,
            "pooled_projection_dim": 64,
        },
        "vae": {
            "class": "AutoencoderKLHunyuanVideo",
            "block_out_channels": [8, 8, 8, 8],
            "layers_per_block": 1,
            "norm_num_groups": 8,
        },
        "scheduler": _FLOW,
    },
}


def save(folder: Path, pipeline: str) -> Path:
    """Write the folder of one tiny model."""
    index: dict[str, Any] = {"_class_name": pipeline, "_diffusers_version": "0.42.1"}
    for part, config in MODELS[pipeline].items():
        index[part] = ["diffusers", config["class"]]
        fields = {name: value for name, value in config.items() if name != "class"}
        name = "scheduler_config.json" if part == "scheduler" else "config.json"
        (folder / part).mkdir(parents=True)
        (folder / part / name).write_text(
            json.dumps({"_class_name": config["class"], **fields})
        )
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder
