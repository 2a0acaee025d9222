"""Encode text as token ids, without ever turning `</s>` or `ro_RO` in it into control tokens."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from unipeft_run.errors import UserError

if TYPE_CHECKING:  # transformers takes seconds to import; missing files are reported before that
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerBase


class TextEncoder:
    """Encodes texts with a copy of `tokenizer` in which no text matches a control token.

    Control tokens are the tokenizer's special tokens and `codes`. Texts without them get the same
    ids as from `tokenizer`, which is not modified. Where a control token is meant, as in a
    template, `mark` writes it so that it is one. Raises `UserError` for a slow tokenizer.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, codes: Iterable[str] = ()) -> None:
        if not tokenizer.is_fast:
            name = type(tokenizer).__name__
            raise UserError(
                f"the backbone's tokenizer ({name}) has no fast version: tokenizer.json"
            )
        self.tokenizer, self.codes = tokenizer, tuple(codes)
        self._prefix = f"{secrets.token_hex(8)} "  # occurs in no text

    def encode(
        self,
        texts: Sequence[str],
        second: Sequence[str] | None = None,
        *,
        max_length: int,
        special: bool = True,
    ) -> list[list[int]]:
        """Return the ids of each text, or pair of texts, truncated to `max_length` tokens.

        `special`: add the tokenizer's special tokens. Pairs are truncated at their longer text.
        """
        backend = self._backend
        side = self.tokenizer.truncation_side
        backend.enable_truncation(max_length, strategy="longest_first", direction=side)
        inputs = list(texts) if second is None else list(zip(texts, second, strict=True))
        return [e.ids for e in backend.encode_batch_fast(inputs, add_special_tokens=special)]

    def mark(self, text: str) -> str:
        """Return `text` with its control tokens written so that `encode` gives their ids."""
        return self._pattern.sub(lambda found: self._prefix + found[0], text)

    def find(self, text: str) -> str | None:
        """Return the first control token in `text`, or None."""
        found = self._pattern.search(text)
        return found[0] if found else None

    @property
    def _backend(self) -> Tokenizer:
        return self._built[0]

    @property
    def _pattern(self) -> re.Pattern[str]:
        """Matches the added tokens that are control tokens, the longest where several match."""
        return self._built[1]

    @cached_property
    def _built(self) -> tuple[Tokenizer, re.Pattern[str]]:
        from tokenizers import Tokenizer

        original: Any = self.tokenizer.backend_tokenizer  # type: ignore[attr-defined]
        state = json.loads(original.to_str())
        control = self._control_tokens(state)
        names = {token: self._prefix + token for token in control}
        backend: Tokenizer = Tokenizer.from_str(json.dumps(_rename_tokens(state, names)))
        backend.encode_special_tokens = True
        backend.no_padding()
        added = {token["content"] for token in state["added_tokens"]} & control
        longest_first = sorted(added, key=lambda token: (-len(token), token))
        return backend, re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")

    def _control_tokens(self, state: Mapping[str, Any]) -> set[str]:
        """Return the control tokens, except words that the tokenizer also forms by merging."""
        control = {*self.tokenizer.all_special_tokens, *self.codes}
        control |= {token["content"] for token in state["added_tokens"] if token["special"]}
        merges = state["model"].get("merges") or []
        return control - {"".join(m if isinstance(m, list) else m.split(" ")) for m in merges}


def _rename_tokens(state: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """Rename tokens in a tokenizer's `state`, old -> new, so that no text matches them."""
    added = [_rename_added(token, names) for token in state["added_tokens"]]
    return {**state, "added_tokens": added, "model": _rename(state["model"], names)}


def _rename_added(token: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """Rename an added token, old -> new, and let it match the new name as it is written."""
    if token["content"] not in names:
        return dict(token)
    return {**token, "content": names[token["content"]], "special": False, "normalized": False}


def _rename(model: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """Rename the tokens of the vocabulary `model`, old -> new; ids stay the same."""
    vocab: Any = model["vocab"]
    if isinstance(vocab, list):  # Unigram: [piece, score] in the order of the ids
        vocab = [[names.get(piece, piece), score] for piece, score in vocab]
    else:
        vocab = {names.get(piece, piece): number for piece, number in vocab.items()}
    unknown = {key: names.get(model[key], model[key]) for key in ("unk_token",) if key in model}
    return {**model, **unknown, "vocab": vocab}


def shortest_length(tokenizer: PreTrainedTokenizerBase, *, pair: bool = False) -> int:
    """Return the shortest length that has room for one token of the text, or of each text."""
    return int(tokenizer.num_special_tokens_to_add(pair=pair)) + (2 if pair else 1)


def check_length(key: str, length: int, shortest: int) -> None:
    """Raise `UserError` naming `key` if `length` leaves no room for text."""
    if length < shortest:
        raise UserError(
            f"{key}={length} leaves no room for text besides this tokenizer's special tokens: "
            f"it must be at least {shortest}"
        )
