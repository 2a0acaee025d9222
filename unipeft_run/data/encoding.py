"""Encoded splits, kept on disk under a name that is a hash of all that decides their content."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.compute as pc
from datasets import Dataset, Features, List, Value
from numpy.typing import NDArray

from unipeft_run.miniatures.sources import cache_root

if TYPE_CHECKING:  # importing transformers takes seconds, and a missing file is found before it
    from transformers import PreTrainedTokenizerBase

RECIPE = 2  # raise it when the same texts and tokenizer give other ids than before
BATCH = 1000
TOKENS = List(Value("int32"))


def encode(
    dataset: Dataset,
    tokenize: Callable[[Mapping[str, list[Any]]], dict[str, list[Any]]],
    tokenizer: PreTrainedTokenizerBase,
    *,
    key: Mapping[str, Any],
    description: str,
) -> Dataset:
    """`tokenize` over `dataset` in batches: columns `input_ids` and `labels`.

    The result is one Arrow file in the cache, memory-mapped and shared by all runs. `key` holds
    what `tokenize` depends on beside the tokenizer, lengths for instance. The file is written
    under another name first, so that a half-written one is never read.
    """
    recipe = json.dumps({**key, "recipe": RECIPE}, sort_keys=True)
    name = _digest(content_hash(dataset), tokenizer_hash(tokenizer), recipe)
    folder = cache_root() / "encoded"
    folder.mkdir(parents=True, exist_ok=True)
    labels = tokenize(dataset[:1])["labels"][0]
    return dataset.map(
        tokenize,
        batched=True,
        batch_size=BATCH,
        remove_columns=dataset.column_names,
        features=Features(
            input_ids=TOKENS, labels=TOKENS if isinstance(labels, list) else Value("int64")
        ),
        cache_file_name=str(folder / f"{name}.arrow"),
        load_from_cache_file=True,
        new_fingerprint=name,
        desc=description,
    )


def content_hash(dataset: Dataset) -> str:
    """A hash of the examples of `dataset`, wherever they were read from."""
    digest = hashlib.sha256(repr(dataset.features).encode())
    for table in dataset.with_format("arrow").iter(batch_size=10 * BATCH):
        compact = table.take(np.arange(len(table)))  # a slice would bring parts of its neighbours
        for batch in compact.combine_chunks().to_batches():
            digest.update(batch.serialize())
    return digest.hexdigest()


def tokenizer_hash(tokenizer: PreTrainedTokenizerBase) -> str:
    """A hash of what `tokenizer` makes of a text; calls with truncation do not change it."""
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    for of_the_last_call in ("truncation", "padding"):
        state.pop(of_the_last_call, None)
    sides = tokenizer.truncation_side, tokenizer.special_tokens_map
    return _digest(json.dumps(state, sort_keys=True), repr(sides))


def lengths(encoded: Dataset, column: str) -> NDArray[np.int64]:
    """The number of tokens of every example in `column`."""
    values = encoded.with_format("arrow")[:].column(column)
    return np.asarray(pc.list_value_length(values).to_numpy(), dtype=np.int64)


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]
