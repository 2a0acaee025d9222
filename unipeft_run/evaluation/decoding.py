"""The decoding settings of an evaluation. None of them come from a model's own files."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal

Rules = Literal["2021", "transformers"]
RULES: tuple[Rules, ...] = ("2021", "transformers")


@dataclass(frozen=True, kw_only=True)
class Decoding:
    """Settings of beam search, or of greedy search if there is one beam.

    Args:
        num_beams: number of beams per source.
        max_length, min_length: in tokens, including the decoder start token.
        no_repeat_ngram_size: n-grams of this size occur at most once; 0 allows repetitions.
        length_penalty: a hypothesis's log-probability is divided by length ** length_penalty.
        early_stopping: stop a source as soon as it has `num_beams` finished hypotheses.
        forced_bos: force `<s>` as the first generated token.
        forced_eos: force `</s>` as the last token at `max_length`.
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
        """The settings on one line, stored with the metrics."""
        return "|".join(f"{name}:{value}" for name, value in asdict(self).items())
