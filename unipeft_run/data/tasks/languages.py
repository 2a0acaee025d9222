"""Texts to token ids, with mBART's language codes where the tokenizer has them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from unipeft_run.errors import UserError

if TYPE_CHECKING:  # importing transformers takes seconds, and a missing file is found before it
    from transformers import PreTrainedTokenizerBase


def language_code_id(tokenizer: PreTrainedTokenizerBase, code: str) -> int | None:
    """The id of mBART's language code; None for a tokenizer that ends texts in none.

    A BART tokenizer may know the codes as words without ending its texts in them.
    """
    if tokenizer("")["input_ids"][-1:] == [tokenizer.eos_token_id]:
        return None
    vocabulary: dict[str, int] = tokenizer.get_vocab()
    return vocabulary.get(code)


def encode_texts(
    tokenizer: PreTrainedTokenizerBase, texts: list[str], max_length: int, code: str
) -> list[list[int]]:
    """Token ids of `texts`, cut to `max_length`: `tokens </s> code` where the tokenizer has `code`.

    Written out because a tokenizer's own template speaks one language at a time, and which one
    is state that a call may leave behind.
    """
    language = language_code_id(tokenizer, code)
    if language is None:
        return list(tokenizer(texts, truncation=True, max_length=max_length)["input_ids"])
    if max_length < 3:
        raise UserError(
            f"a length of {max_length} has no room beside </s> and {code}; take 3 or more"
        )
    bare = tokenizer(texts, truncation=True, max_length=max_length - 2, add_special_tokens=False)
    return [[*ids, tokenizer.eos_token_id, language] for ids in bare["input_ids"]]
