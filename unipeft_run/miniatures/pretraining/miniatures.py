"""The two pretrained miniatures: configuration, special tokens, mixture of examples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from unipeft_run.miniatures.pretraining.examples import Example, Kind
from unipeft_run.miniatures.pretraining.tokenizer import IDS, VOCABULARY

if TYPE_CHECKING:
    from transformers import PreTrainedModel

SHAPE: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "d_model": 256,
    "encoder_layers": 3,
    "decoder_layers": 3,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 1024,
    "decoder_ffn_dim": 1024,
    "max_position_embeddings": 512,
    "activation_function": "gelu",
    "init_std": 0.04,
    "bos_token_id": IDS["<s>"],
    "pad_token_id": IDS["<pad>"],
    "eos_token_id": IDS["</s>"],
    "decoder_start_token_id": IDS["</s>"],
    "forced_eos_token_id": None,
}


@dataclass(frozen=True)
class Miniature:
    """One miniature; `shares` maps each kind of example to its share."""

    name: str
    family: str
    shares: dict[Kind, float]

    def build_model(self, dropout: float) -> PreTrainedModel:
        """Build a randomly initialised model."""
        from transformers import (
            BartConfig,
            BartForConditionalGeneration,
            MBartConfig,
            MBartForConditionalGeneration,
        )

        settings = {**SHAPE, "dropout": dropout, "attention_dropout": 0.0}
        if self.family == "mbart":
            start = {"decoder_start_token_id": IDS["ro_RO"], "scale_embedding": True}
            return MBartForConditionalGeneration(MBartConfig(**settings | start))
        return BartForConditionalGeneration(BartConfig(**settings))

    def frame(self, example: Example) -> tuple[list[int], list[int]]:
        """Add the family's special tokens: (source, labels)."""
        if self.family == "mbart":
            languages = IDS[example.source_language], IDS[example.target_language]
            source, target = ([IDS["</s>"], language] for language in languages)
            return example.source + source, example.target + target
        start, end = IDS["<s>"], IDS["</s>"]
        return [start, *example.source, end], [start, *example.target, end]


MINIATURES = {
    "bart_mini": Miniature("bart_mini", "bart", {"infill": 0.65, "lead": 0.35}),
    "mbart_mini": Miniature(
        "mbart_mini", "mbart", {"infill": 0.2, "infill_ro": 0.2, "translate": 0.6}
    ),
}
