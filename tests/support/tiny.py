"""Tiny random backbones: two layers, width 32."""

from typing import Any

import torch
import transformers

from unipeft_run.backbones.families import family_of

SEQ2SEQ: dict[str, Any] = {
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64,
    "vocab_size": 96,
    "max_position_embeddings": 40,
    "dropout": 0.1,
    "attention_dropout": 0.05,  # three different rates, so that mixing them up is noticed
    "activation_dropout": 0.2,
}
ENCODER: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "vocab_size": 96,
    "max_position_embeddings": 40,
    "num_labels": 3,
}
FAMILIES = {
    "bart": (transformers.BartConfig, SEQ2SEQ),
    "mbart": (transformers.MBartConfig, {**SEQ2SEQ, "decoder_start_token_id": 90}),
    "roberta": (transformers.RobertaConfig, ENCODER),
}


def backbone(family: str, seed: int = 0) -> Any:
    torch.manual_seed(seed)
    cls, settings = FAMILIES[family]
    config = cls(**settings)
    return getattr(transformers, family_of(config).model)(config).eval()


def batch(family: str) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(5, 90, (3, 9), generator=generator)
    mask = torch.ones_like(ids)
    mask[1, 6:] = 0
    ids[1, 6:] = 1
    if family == "roberta":
        return {"input_ids": ids, "attention_mask": mask, "labels": torch.tensor([0, 2, 1])}
    labels = torch.randint(5, 90, (3, 7), generator=generator)
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}
