"""Decoding settings of an evaluation. All are stated; none come from a model's own files."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal

Rules = Literal["2021", "transformers"]
RULES: tuple[Rules, ...] = ("2021", "transformers")


@dataclass(frozen=True, kw_only=True)
class Decoding:
    """Beam search, or greedy search with one beam, of a sequence-to-sequence model.

    Args:
        num_beams: beams of each source.
        max_length, min_length: in tokens, the decoder start token included.
        no_repeat_ngram_size: n-grams of this size occur once at most; 0 allows repetitions.
        length_penalty: exponent of the length by which a hypothesis's log-probability is divided.
        early_stopping: stop a source as soon as it has `num_beams` hypotheses.
        forced_bos: make `<s>` the first generated token.
        forced_eos: make `</s>` the last token at `max_length`.
        rules: `2021`, the beam search that the paper ran, or `transformers`, today's.
    """

    num_beams: int
    max_length: int
    min_length: int = 0
    no_repeat_ngram_size: int = 0
    length_penalty: float = 1.0
    early_stopping: bool = False
    forced_bos: bool = False
    forced_eos: bool = True
    rules: Rules = "2021"

    @property
    def signature(self) -> str:
        """The settings in one line, stored beside the metrics."""
        return "|".join(f"{name}:{value}" for name, value in asdict(self).items())
