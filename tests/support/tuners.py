"""Methods of the PEFT library on tiny backbones: their configurations, and trained models."""

from __future__ import annotations

from typing import Any

import torch
import transformers
from tiny_config import configured
from torch import nn

from unipeft_run.backbones.families import family_of
from unipeft_run.config.messages import options
from unipeft_run.config.schema import TunerConfig
from unipeft_run.deltas.attach import attach, attach_library

METHODS = [name for name in options("method") if name.startswith("peft/")]
SMALL: dict[str, dict[str, Any]] = {  # sizes that fit a width of 32
    "peft/c3a": {"block_size": 8},
    "peft/fourierft": {"n_frequency": 20},
    "peft/oft": {"oft_block_size": 8},
    "peft/psoft": {"r": 8},
    "peft/road": {"group_size": 8},
    "peft/shira": {"r": 2},
    "peft/trainable_tokens": {"token_indices": [5, 6, 7]},
    "peft/vblora": {"vector_length": 8, "num_vectors": 16},
    "peft/waveft": {"n_frequency": 20},
}
COMMON = {"vocab_size": 96}
WIDE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
FED = {**WIDE, "intermediate_size": 64}
BACKBONES: dict[str, dict[str, Any]] = {
    "bert": {**COMMON, **FED, "num_labels": 3},
    "roberta": {**COMMON, **FED, "num_labels": 3, "max_position_embeddings": 40},
    "vit": {**FED, "image_size": 16, "patch_size": 8, "num_labels": 3},
    "llama": {**COMMON, **FED, "num_key_value_heads": 2, "pad_token_id": 0},
    "gpt2": {**COMMON, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 40},
    "t5": {**COMMON, "d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4},
    "bart": {
        **COMMON,
        "d_model": 32,
        "encoder_layers": 2,
        "decoder_layers": 2,
        "max_position_embeddings": 40,
        **{f"{stack}_attention_heads": 4 for stack in ("encoder", "decoder")},
        **{f"{stack}_ffn_dim": 64 for stack in ("encoder", "decoder")},
    },
}


def tuner_of(method: str, **changes: Any) -> TunerConfig:
    """Return the configuration of a method, with sizes that fit."""
    sizes = {**SMALL.get(method, {}), **changes}
    words = [f"++peft.config.{key}={value}" for key, value in sizes.items()]
    config = configured("task=sst2", f"method={method}", *words)
    assert config.peft is not None
    return config.peft


def backbone(family: str) -> Any:
    """Return a tiny backbone; its weights are the same each time."""
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(family, **BACKBONES[family])
    return getattr(transformers, family_of(config).model)(config).eval()


def inputs_of(family: str) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    if family == "vit":
        return {"pixel_values": torch.randn(2, 3, 16, 16, generator=generator)}
    ids = torch.randint(5, 90, (2, 9), generator=generator)
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    decodes = family in ("t5", "bart")
    return {**inputs, "decoder_input_ids": ids[:, :5]} if decodes else inputs


def attached(family: str, method: str, unfreeze: tuple[str, ...] = (), **changes: Any) -> Any:
    """Return a tiny backbone with the library's modules, at their initial values."""
    model = backbone(family)
    attach(model, {}, unfreeze)
    torch.manual_seed(3)
    attach_library(model, tuner_of(method, **changes))
    return model


def train(model: nn.Module, inputs: dict[str, torch.Tensor], steps: int = 3) -> None:
    """Change everything that trains by a few large updates."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=0.05)
    model.train()
    for _ in range(steps):
        optimizer.zero_grad()
        logits = model(**inputs).logits
        logits.logsumexp(-1).mean().sub(logits[..., 1].mean()).backward()
        optimizer.step()
    model.eval()
