"""The byte-level BPE tokenizer of both miniatures, with special tokens in BART's order."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from unipeft_run.miniatures.pretraining.corpus import Corpus
from unipeft_run.miniatures.sources.rows import write_json

FIRST = ("<s>", "<pad>", "</s>", "<unk>")
LAST = ("<mask>", "en_XX", "ro_RO", "<lead>", "<translate>")
VOCABULARY = 8192
IDS = {token: i for i, token in enumerate(FIRST)}
IDS |= {token: VOCABULARY - len(LAST) + i for i, token in enumerate(LAST)}
ROMANIAN_WEIGHT = 3  # repeats: there is little Romanian, and it needs its own merges


def train(corpus: Corpus) -> Tokenizer:
    """Train the tokenizer on both languages."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - len(LAST),
        special_tokens=list(FIRST),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_texts(corpus), trainer)
    tokenizer.add_special_tokens(list(LAST))
    return tokenizer


def _texts(corpus: Corpus) -> Iterator[str]:
    yield from itertools.chain.from_iterable(corpus.english.values())
    for _ in range(ROMANIAN_WEIGHT):
        yield from itertools.chain.from_iterable(corpus.romanian.values())


def save(tokenizer: Tokenizer, family: str, folder: Path) -> None:
    """Write files for AutoTokenizer: `<s> x </s>` for BART, `x </s> en_XX` for mBART."""
    template = {"bart": "<s> $A </s>", "mbart": "$A </s> en_XX"}[family]
    ids = {token: tokenizer.token_to_id(token) for token in LAST + FIRST}
    used = [token for token in template.split() if token != "$A"]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=template, special_tokens=[(token, ids[token]) for token in used]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    config: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": 512,
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "pad_token": "<pad>",
        "mask_token": "<mask>",
        "clean_up_tokenization_spaces": False,
        "extra_special_tokens": list(LAST[1:]),
        "model_input_names": ["input_ids", "attention_mask"],
    }
    write_json(folder / "tokenizer_config.json", config)
