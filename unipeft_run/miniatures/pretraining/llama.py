"""llama_mini: configuration, tokenizer, text and training steps of the miniature Llama."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer

from unipeft_run.miniatures.pretraining.batches import Batch
from unipeft_run.miniatures.pretraining.examples import Tokens, encode, shuffle_forever
from unipeft_run.miniatures.pretraining.tokenizer import IDS, VOCABULARY
from unipeft_run.miniatures.sources import PACKAGED
from unipeft_run.miniatures.sources.rows import write_json

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM

SHAPE: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 256,
    "intermediate_size": 704,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "tie_word_embeddings": True,
    "bos_token_id": IDS["<s>"],
    "pad_token_id": IDS["<pad>"],
    "eos_token_id": IDS["</s>"],
}
SHARES = {
    "WordNet, common synsets": 0.5,
    "WordNet, rare synsets": 0.15,
    "Debian": 0.05,
    "SNLI": 0.08,
    "manual pages": 0.02,
    "sums": 0.2,
}
LENGTH = 256  # positions of a training sequence


def build_model() -> LlamaForCausalLM:
    """Build a randomly initialised model with the token embeddings of bart_mini."""
    from transformers import LlamaConfig, LlamaForCausalLM

    model = LlamaForCausalLM(LlamaConfig(**SHAPE))
    trained = load_file(PACKAGED / "bart_mini" / "model.safetensors")["model.shared.weight"]
    with torch.no_grad():
        model.model.embed_tokens.weight.copy_(trained)
    return model


def save_tokenizer(folder: Path) -> Tokenizer:
    """Write the tokenizer of bart_mini with single digits, and `<s>` before every text."""
    parsed = json.loads((PACKAGED / "bart_mini" / "tokenizer.json").read_text(encoding="utf-8"))
    bytes_ = parsed["pre_tokenizer"]
    digits = {"type": "Digits", "individual_digits": True}
    parsed["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [digits, bytes_]}
    start = {"SpecialToken": {"id": "<s>", "type_id": 0}}
    text = {"Sequence": {"id": "A", "type_id": 0}}
    parsed["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [start, text],
        "pair": [start, text, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"<s>": {"id": "<s>", "ids": [IDS["<s>"]], "tokens": ["<s>"]}},
    }
    write_json(folder / "tokenizer.json", parsed)
    config = json.loads((PACKAGED / "bart_mini" / "tokenizer_config.json").read_bytes())
    write_json(folder / "tokenizer_config.json", config)
    return Tokenizer.from_file(str(folder / "tokenizer.json"))


class Packing:
    """Draws training sequences: documents of one source, `<s> text </s>`, cut to `LENGTH`."""

    def __init__(self, sources: dict[str, list[str]], tokenizer: Tokenizer, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.names = list(sources)
        shares = np.array([SHARES[name] for name in self.names])
        self.shares = shares / shares.sum()
        self.streams = [
            shuffle_forever(encode(tokenizer, texts), self.rng) for texts in sources.values()
        ]
        self.rest: list[Tokens] = [[] for _ in self.names]

    def draw(self) -> Tokens:
        """Return `LENGTH` tokens of one source; what is left of a document comes next time."""
        source = self.rng.choice(len(self.names), p=self.shares)
        passage = self.rest[source]
        while len(passage) < LENGTH:
            passage = [*passage, IDS["<s>"], *next(self.streams[source]), IDS["</s>"]]
        self.rest[source] = passage[LENGTH:]
        return passage[:LENGTH]

    def batches(self, tokens: int) -> Iterator[Batch]:
        """Yield batches of `tokens` positions without end."""
        while True:
            rows = torch.tensor([self.draw() for _ in range(tokens // LENGTH)])
            yield {"input_ids": rows, "labels": rows}
