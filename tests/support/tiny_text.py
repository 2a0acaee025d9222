"""Tiny tokenizers, and random models with their vocabulary size."""

from __future__ import annotations

from typing import Any

import tiny
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
from tokenizers.decoders import ByteLevel
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    MBartConfig,
    MBartForConditionalGeneration,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaForSequenceClassification,
)

SPECIAL = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
CODES = ["en_XX", "ro_RO"]
TEXT = [
    "the cat sat on the mat and the dog sat on the cat",
    "a package that shows the weather in the terminal",
    "pisica a stat pe covor; fisierul este deschis pentru citire",
]
SPREAD = 0.3  # of the initial weights, so that examples differ in their predictions
SEQ2SEQ: dict[str, Any] = {**tiny.SEQ2SEQ, "max_position_embeddings": 80, "init_std": SPREAD}
ENCODER: dict[str, Any] = {
    **tiny.ENCODER,
    "max_position_embeddings": 80,
    "initializer_range": SPREAD,
}


def bart_tokenizer(codes: list[str] | None = None) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE with BART's templates: `<s> a </s>`, `<s> a </s> </s> b </s>`.

    With `codes`, its template is mBART's: `a </s> en_XX`.
    """
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=SPECIAL,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    backend.train_from_iterator(TEXT, trainer)
    if codes:
        backend.add_special_tokens(codes)
        single, pair, used = "$A </s> en_XX", "$A $B </s> en_XX", ["</s>", "en_XX"]
    else:
        single, pair, used = "<s> $A </s>", "<s> $A </s> </s> $B </s>", ["<s>", "</s>"]
    backend.post_processor = processors.TemplateProcessing(
        single=single, pair=pair, special_tokens=[(t, backend.token_to_id(t)) for t in used]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        mask_token="<mask>",
        additional_special_tokens=codes or [],
    )


def bart(vocab_size: int) -> Any:
    torch.manual_seed(0)
    config = BartConfig(**{**SEQ2SEQ, "vocab_size": vocab_size})
    return BartForConditionalGeneration(config).eval()


def mbart(vocab_size: int) -> Any:
    torch.manual_seed(0)
    config = MBartConfig(**{**SEQ2SEQ, "vocab_size": vocab_size})
    return MBartForConditionalGeneration(config).eval()


def roberta(vocab_size: int, num_labels: int) -> Any:
    torch.manual_seed(0)
    settings = {**ENCODER, "vocab_size": vocab_size, "num_labels": num_labels}
    return RobertaForSequenceClassification(RobertaConfig(**settings)).eval()
