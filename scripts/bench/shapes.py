"""The model shapes that the benchmarks measure: BART and Llama with random weights."""

from __future__ import annotations

from typing import Any

import torch
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    LlamaConfig,
    LlamaForCausalLM,
)

SHAPES: dict[str, dict[str, int]] = {
    "mini": {"d_model": 256, "layers": 3, "heads": 4, "ffn": 1024, "vocab": 8192},
    "base": {"d_model": 768, "layers": 6, "heads": 12, "ffn": 3072, "vocab": 50265},
    "large": {"d_model": 1024, "layers": 12, "heads": 16, "ffn": 4096, "vocab": 50265},
}
TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def build_model(shape: str, dtype: torch.dtype, device: str) -> Any:
    """Build a BART of this shape, in evaluation mode.

    With this init_std, beam searches in float32 give the same texts as transformers'.
    """
    size = SHAPES[shape]
    torch.manual_seed(0)
    config = BartConfig(
        vocab_size=size["vocab"],
        d_model=size["d_model"],
        **{f"{stack}_layers": size["layers"] for stack in ("encoder", "decoder")},
        **{f"{stack}_attention_heads": size["heads"] for stack in ("encoder", "decoder")},
        **{f"{stack}_ffn_dim": size["ffn"] for stack in ("encoder", "decoder")},
        init_std=0.04,
    )
    with torch.device(device):
        return BartForConditionalGeneration(config).to(dtype).eval()


def build_llama(shape: str, dtype: torch.dtype, device: str) -> Any:
    """Build a Llama of this width and depth, in evaluation mode; two heads share a key."""
    size = SHAPES[shape]
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=size["vocab"],
        hidden_size=size["d_model"],
        num_hidden_layers=size["layers"],
        num_attention_heads=size["heads"],
        num_key_value_heads=size["heads"] // 2,
        intermediate_size=size["ffn"],
        pad_token_id=0,
        initializer_range=0.04,
    )
    with torch.device(device):
        return LlamaForCausalLM(config).to(dtype).eval()


FAMILIES = {"bart": build_model, "llama": build_llama}
