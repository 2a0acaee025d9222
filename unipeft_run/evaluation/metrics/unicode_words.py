"""A tokenizer for ROUGE that keeps the letters and digits of every script."""

from __future__ import annotations

import unicodedata

import regex
from rouge_score.tokenizers import DefaultTokenizer

# scripts written without spaces between words: each letter, with its marks, is a word
UNSPACED = "".join(
    rf"\p{{{script}}}"
    for script in ("Han", "Hiragana", "Katakana", "Thai", "Lao", "Khmer", "Myanmar")
)
WORD = regex.compile(
    rf"[[{UNSPACED}]&&\p{{L}}]\p{{M}}*|[[\p{{L}}\p{{M}}\p{{N}}]--[{UNSPACED}&&\p{{L}}]]+",
    regex.VERSION1,
)
INVISIBLE = regex.compile(r"\p{Cf}+")  # joiners, soft hyphens, byte-order marks


class UnicodeTokenizer:
    """Splits text into lower-case words of any script.

    On ASCII text it returns what rouge-score's own tokenizer returns, stems included.
    """

    def __init__(self) -> None:
        self._ascii = DefaultTokenizer(use_stemmer=True)

    def tokenize(self, text: str) -> list[str]:
        """Return the words of `text`, composed (NFC) so that both spellings of an accent match."""
        text = unicodedata.normalize("NFC", INVISIBLE.sub("", text.lower()))
        words = WORD.findall(text)
        return [stem for word in words for stem in self._stem(word)]

    def _stem(self, word: str) -> list[str]:
        return list(self._ascii.tokenize(word)) if word.isascii() else [word]
