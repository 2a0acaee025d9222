"""Finished hypotheses, under two sets of beam-search rules: those of 2021 and transformers' own.

Shape legend: B sources, K beams, M candidates of a step (best first), L longest target.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import replace

import torch
from torch import Tensor

from unipeft_run.evaluation.generation.beams import Beams, Candidates, take_beams
from unipeft_run.evaluation.generation.constraints import is_end
from unipeft_run.evaluation.generation.settings import Settings

LOWEST_SCORE = -1e9  # used by transformers in place of minus infinity


class Hypotheses(ABC):
    """Up to K finished hypotheses of each source.

    Attributes:
        tokens: [B, K, L], including the end token, padded.
        lengths: number of tokens of each hypothesis, [B, K].
        scores: length-normalised log-probabilities, [B, K].
        done: sources to which no hypothesis can be added any more, [B].
    """

    score_type: torch.dtype
    no_score: float

    def __init__(self, first: Tensor, settings: Settings) -> None:
        self.settings, shape = settings, (len(first), settings.num_beams)
        self.tokens = first[:, None].repeat(1, settings.num_beams, 1)
        self.lengths = torch.full(shape, settings.prompt, device=first.device)
        self.scores = torch.full(shape, self.no_score, dtype=self.score_type, device=first.device)
        self.done = torch.zeros(len(first), dtype=torch.bool, device=first.device)

    @abstractmethod
    def step(self, candidates: Candidates, beams: Beams, length: int) -> Candidates:
        """Add the candidates that end after `length` tokens; return the K that continue."""

    @abstractmethod
    def close(self, beams: Beams) -> None:
        """Add the beams that are still open at `max_length`, as far as needed."""

    @abstractmethod
    def find_best(self) -> Tensor:
        """Return the index of the best hypothesis of each source, [B]."""

    def read(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return tokens, [rows, L], and lengths, [rows], of the best hypotheses at `rows`."""
        best = self.find_best()[rows]
        return self.tokens[rows, best], self.lengths[rows, best]

    def keep(self, rows: Tensor) -> None:
        """Reduce the batch to the sources at `rows`."""
        self.tokens, self.lengths = self.tokens[rows], self.lengths[rows]
        self.scores, self.done = self.scores[rows], self.done[rows]

    def _ends(self, candidates: Candidates) -> Tensor:
        return is_end(candidates.tokens, self.settings.eos)

    def _select(self, index: Tensor, scores: Tensor, tokens: Tensor, lengths: Tensor) -> None:
        """Replace the hypotheses by those at `index` [B, K] of old and new ones, concatenated."""
        self.scores = torch.cat([self.scores, scores], dim=1).gather(1, index)
        self.lengths = torch.cat([self.lengths, lengths], dim=1).gather(1, index)
        self.tokens = take_beams(torch.cat([self.tokens, tokens], dim=1), index)


class Hypotheses2021(Hypotheses):
    """The `BeamSearchScorer` of June 2021, which produced the paper's results.

    Scores are float64. A source is done when its worst hypothesis is at least as good as the best
    of all M candidates, including those that have just ended. Open beams become hypotheses at
    `max_length`. Hypotheses are stored latest first, because the latest of equal ones wins. The
    length that normalises a score includes the prompt of a decoder-only model and its padding.
    """

    score_type = torch.float64
    no_score = -torch.inf

    def __init__(self, first: Tensor, settings: Settings) -> None:
        super().__init__(first, settings)
        # a tensor, because a GPU divides by a Python number by multiplying with its reciprocal
        powers = [float(n) ** settings.length_penalty for n in range(1, settings.max_length + 1)]
        self.divisors = torch.tensor([0.0, *powers], dtype=torch.float64, device=first.device)

    def step(self, candidates: Candidates, beams: Beams, length: int) -> Candidates:
        ended, count = self._ends(candidates), self.settings.num_beams
        normalised = self._normalise(candidates.scores, length)
        tokens = take_beams(beams.tokens, candidates.parents[:, :count])
        tokens[:, :, length] = candidates.tokens[:, :count]
        self._insert(normalised[:, :count], ended[:, :count], tokens, length + 1)
        full = (self.scores > self.no_score).all(dim=1)
        unbeatable = self.scores.amin(dim=1) >= normalised[:, 0]
        self.done = self.done | (full if self.settings.early_stopping else full & unbeatable)
        return candidates.take(ended.byte().argsort(dim=1, stable=True)[:, :count])

    def close(self, beams: Beams) -> None:
        longest = self.settings.max_length
        scores = self._normalise(beams.scores, longest)
        self._insert(scores, torch.ones_like(scores, dtype=torch.bool), beams.tokens, longest)

    def find_best(self) -> Tensor:
        return self.scores.argmax(dim=1)  # the first maximum is the latest

    def _normalise(self, scores: Tensor, length: int) -> Tensor:
        """Divide by length ** length_penalty; minus infinity becomes the lowest float64."""
        lowest = torch.finfo(torch.float64).min
        return (scores.double() / self.divisors[length]).clamp(min=lowest)

    def _insert(self, scores: Tensor, wanted: Tensor, tokens: Tensor, length: int) -> None:
        """Insert candidates [B, K], best first, where `wanted`, unless the source is done.

        In sequence, each would replace the worst hypothesis (the earliest among equals) if it is
        better. A stable sort of the hypotheses, latest first, followed by the candidates, gives the
        same result.
        """
        count = self.settings.num_beams
        scores = scores.masked_fill(~wanted | self.done[:, None], self.no_score)
        joined = torch.cat([self.scores, scores], dim=1)
        kept = joined.argsort(dim=1, descending=True, stable=True)[:, :count]
        place = torch.where(kept < count, kept + count, 2 * count - 1 - kept)  # latest first
        kept = kept.gather(1, place.argsort(dim=1))
        self._select(kept, scores, tokens, torch.full_like(self.lengths, length))


class HypothesesOfTransformers(Hypotheses):
    """The rules of transformers 5.23, with the same order of operations, so that ties agree.

    Scores are float32. A source is done when its worst hypothesis beats the best open beam. At
    `max_length` the K best candidates become hypotheses. Hypotheses are stored best first. The
    length that normalises a score counts generated tokens only.
    """

    score_type = torch.float32
    no_score = LOWEST_SCORE

    def __init__(self, first: Tensor, settings: Settings) -> None:
        super().__init__(first, settings)
        self.finished = torch.zeros_like(self.lengths, dtype=torch.bool)
        self.improvable = torch.ones_like(self.done)

    def step(self, candidates: Candidates, beams: Beams, length: int) -> Candidates:
        count, settings = self.settings.num_beams, self.settings
        ended = self._ends(candidates)
        if length + 1 == settings.max_length:
            ended = torch.ones_like(ended)
        open_scores = candidates.scores + ended.float() * LOWEST_SCORE
        best = open_scores.topk(count, dim=1)
        chosen = replace(candidates.take(best.indices), scores=best.values)
        self._add(candidates, ended, beams, length)
        self._update_done(chosen.scores[:, 0] / self._divisor(length))
        return chosen

    def _add(self, candidates: Candidates, ended: Tensor, beams: Beams, length: int) -> None:
        settings, count = self.settings, self.settings.num_beams
        ended = ended & (torch.arange(ended.size(1), device=ended.device) < count)
        closed = self.finished.all(dim=1, keepdim=True) & settings.early_stopping
        scores = candidates.scores / self._divisor(length)
        scores += closed.float() * LOWEST_SCORE
        scores += (~self.improvable[:, None]).float() * LOWEST_SCORE
        scores += (~ended) * LOWEST_SCORE
        index = torch.cat([self.scores, scores], dim=1).topk(count, dim=1).indices
        tokens = take_beams(beams.tokens, candidates.parents)
        tokens[:, :, length] = candidates.tokens
        self._select(index, scores, tokens, torch.full_like(candidates.tokens, length + 1))
        self.finished = torch.cat([self.finished, ended], dim=1).gather(1, index)

    def _divisor(self, length: int) -> float:
        """Return the length penalty of targets of `length` tokens and one more."""
        settings = self.settings
        return float((length + 1 - settings.prompt) ** settings.length_penalty)

    def _update_done(self, best_open: Tensor) -> None:
        worst = torch.where(self.finished, self.scores.amin(dim=1, keepdim=True), LOWEST_SCORE)
        self.improvable = self.improvable & (best_open[:, None] > worst).any(dim=1)
        full = self.finished.all(dim=1) & self.settings.early_stopping
        self.done = ~self.improvable | full

    def close(self, beams: Beams) -> None:
        """Do nothing: the last step has ended all candidates."""

    def find_best(self) -> Tensor:
        return torch.zeros(len(self.scores), dtype=torch.long, device=self.scores.device)

    def keep(self, rows: Tensor) -> None:
        super().keep(rows)
        self.finished, self.improvable = self.finished[rows], self.improvable[rows]
