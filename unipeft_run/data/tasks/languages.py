"""mBART's language codes: list those of a tokenizer, and encode texts that end in one."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING

from unipeft_run.errors import UserError

if TYPE_CHECKING:  # transformers takes seconds to import; missing files are reported before that
    from transformers import PreTrainedTokenizerBase

    from unipeft_run.data.text_encoder import TextEncoder

CODE = re.compile(r"[a-z]{2,3}_[A-Z][A-Za-z]{1,3}")  # ro_RO, and NLLB's ron_Latn


def uses_language_codes(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Return whether encoded texts end in `</s> code`.

    A BART tokenizer may have the codes in its vocabulary without using them.
    """
    ending = tokenizer("")["input_ids"][-2:]
    eos = tokenizer.eos_token_id
    return len(ending) == 2 and ending[0] == eos and ending[1] != eos


def language_codes(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Return the language codes of `tokenizer`, in alphabetical order."""
    tokens = {*tokenizer.get_added_vocab(), *tokenizer.all_special_tokens}
    return sorted(token for token in tokens if CODE.fullmatch(token))


def language_code_id(
    tokenizer: PreTrainedTokenizerBase, code: str, key: str = "language code"
) -> int | None:
    """Return the id of `code`, or None if this tokenizer does not use language codes.

    Raises `UserError`, naming `key`, if the tokenizer lacks the code.
    """
    if not uses_language_codes(tokenizer):
        return None
    codes = language_codes(tokenizer)
    if code not in codes:
        near = _nearest(code, codes)
        hint = f" (did you mean {near}?)" if near else ""
        known = ", ".join(codes) or "none"
        raise UserError(f"{key}={code}: the tokenizer has no such code{hint}; it has {known}")
    return int(tokenizer.convert_tokens_to_ids(code))


def _nearest(code: str, codes: Iterable[str]) -> str | None:
    language = re.split(r"[_-]", str(code).lower())[0]
    same_language = [other for other in codes if other.partition("_")[0] == language]
    return next(iter(same_language or get_close_matches(str(code), codes, n=1)), None)


def encode_texts(
    encoder: TextEncoder, texts: Sequence[str], max_length: int, code: str
) -> list[list[int]]:
    """Return the ids of `texts`, at most `max_length` each; for mBART they end in `</s> code`.

    The code is appended here because a tokenizer's own template holds one language at a time, and
    a call may leave it set to another language.
    """
    language = language_code_id(encoder.tokenizer, code)
    if language is None:
        return encoder.encode(texts, max_length=max_length)
    eos = int(encoder.tokenizer.eos_token_id)
    rows = encoder.encode(texts, max_length=max_length - 2, special=False)
    return [[*ids, eos, language] for ids in rows]
