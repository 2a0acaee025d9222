"""Tiny random backbones of every family: two layers, width 32; and a batch for each."""

from typing import Any

import torch
import transformers

from unipeft_run.backbones.families import FAMILIES

LLAMA: dict[str, Any] = {
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
SEQ2SEQ: dict[str, Any] = {
    "vocab_size": 96,
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64,
    "max_position_embeddings": 40,
}
T5: dict[str, Any] = {
    "vocab_size": 96,
    "d_model": 32,
    "d_kv": 8,
    "d_ff": 64,
    "num_layers": 2,
    "num_heads": 4,
    "relative_attention_num_buckets": 8,
    "relative_attention_max_distance": 12,
    "decoder_start_token_id": 0,
}
ENCODER: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
}
TEXT = {**ENCODER, "vocab_size": 96, "max_position_embeddings": 40, "num_labels": 3}
PICTURES = {**ENCODER, "image_size": 16, "patch_size": 8}
CONFIGS: dict[str, dict[str, Any]] = {
    "bart": SEQ2SEQ,
    "mbart": {**SEQ2SEQ, "decoder_start_token_id": 90},
    "t5": {**T5, "feed_forward_proj": "relu"},
    "t5_gated": {**T5, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False},
    "roberta": TEXT,
    "bert": TEXT,
    **dict.fromkeys(("llama", "qwen3", "gemma"), LLAMA),
    "mistral": {**LLAMA, "sliding_window": None},
    "qwen2": {name: size for name, size in LLAMA.items() if name != "head_dim"},
    "gpt2": {
        "vocab_size": 96,
        "n_positions": 64,
        "n_embd": 32,
        "n_layer": 2,
        "n_head": 4,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
    },
    "vit": {**PICTURES, "num_labels": 5},
    "clip": {
        "text_config": {
            **ENCODER,
            "vocab_size": 96,
            "max_position_embeddings": 16,
            "eos_token_id": 95,
            "bos_token_id": 1,
            "pad_token_id": 0,
        },
        "vision_config": PICTURES,
        "projection_dim": 16,
    },
}
GENERATING = tuple(n for n, f in FAMILIES.items() if f.task_type in ("seq2seq", "causal"))


def backbone(family: str, seed: int = 0) -> Any:
    """Build a random model in eval mode, with weights that are large enough to matter."""
    table = FAMILIES[family]
    settings = dict(CONFIGS[family])
    torch.manual_seed(seed)
    config = getattr(transformers, table.config_class)(**settings)
    model = getattr(transformers, table.model)(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=0.15)
    return model.eval()


def batch(family: str) -> dict[str, torch.Tensor]:
    """Return a padded batch of three examples, as keyword arguments."""
    generator = torch.Generator().manual_seed(1)
    kind = FAMILIES[family].task_type
    ids = torch.randint(5, 90, (3, 9), generator=generator)
    mask = torch.ones_like(ids)
    mask[1, 6:] = 0
    pixels = torch.randn(3, 3, 16, 16, generator=generator)
    if kind == "image_classification":
        return {"pixel_values": pixels, "labels": torch.tensor([0, 2, 1])}
    pad = 1 if family in ("bart", "mbart", "roberta") else 0
    ids[1, 6:] = pad
    text = {"input_ids": ids, "attention_mask": mask}
    if kind == "retrieval":
        ids[0, 8] = ids[1, 5] = ids[2, 8] = 95
        return {**text, "pixel_values": pixels, "return_loss": torch.tensor(True)}
    if kind == "causal":
        return {**text, "labels": ids.masked_fill(mask == 0, -100)}
    if kind == "classification":
        return {**text, "labels": torch.tensor([0, 2, 1])}
    return {**text, "labels": torch.randint(5, 90, (3, 7), generator=generator)}
