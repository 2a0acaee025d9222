"""Beam search of June 2021, restated literally: Python lists, no cache, one source at a time.

Follows `BeamSearchScorer` and the logits processors of transformers at the official code's commit.
Of a decoder-only model, every length and every n-gram includes the prompt and its padding.
It is slow, and serves as the reference for `unipeft_run.generate(..., rules="2021")`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor
from transformers.modeling_outputs import BaseModelOutput

BOS, EOS = 0, 2


@dataclass
class BeamHypotheses:
    """Finished hypotheses of one source."""

    num_beams: int
    length_penalty: float
    early_stopping: bool
    worst_score: float = 1e9
    beams: list[tuple[float, list[int]]] = field(default_factory=list)

    def add(self, hypothesis: list[int], sum_logprobs: float) -> None:
        score = sum_logprobs / len(hypothesis) ** self.length_penalty
        if len(self.beams) < self.num_beams or score > self.worst_score:
            self.beams.append((score, hypothesis))
            if len(self.beams) > self.num_beams:
                by_score = sorted((s, index) for index, (s, _) in enumerate(self.beams))
                del self.beams[by_score[0][1]]
                self.worst_score = by_score[1][0]
            else:
                self.worst_score = min(score, self.worst_score)

    def is_done(self, best_sum_logprobs: float, length: int) -> bool:
        if len(self.beams) < self.num_beams:
            return False
        if self.early_stopping:
            return True
        return self.worst_score >= best_sum_logprobs / length**self.length_penalty


def generate_2021(model: Any, input_ids: Tensor, attention_mask: Tensor, **decoding: Any) -> Any:
    """Generate unpadded token ids for each source, with `decoding` as in `generate`."""
    start = decoding.pop("decoder_start_token_id", None)
    with torch.no_grad():
        rows = []
        for ids, mask in zip(input_ids, attention_mask, strict=True):
            score = _recompute_decoder if model.config.is_encoder_decoder else _recompute
            prompt = [start] if model.config.is_encoder_decoder else ids.tolist()
            rows.append(_search(partial(score, model, ids[None], mask[None]), prompt, **decoding))
    return rows


def _recompute_decoder(model: Any, ids: Tensor, mask: Tensor, tokens: list[list[int]]) -> Tensor:
    """Return the logits after `tokens`, [K, V], of an encoder-decoder model."""
    states = model.get_encoder()(input_ids=ids, attention_mask=mask)[0]
    logits: Tensor = model(
        attention_mask=mask.expand(len(tokens), -1),
        encoder_outputs=BaseModelOutput(states.expand(len(tokens), -1, -1)),
        decoder_input_ids=torch.tensor(tokens),
        use_cache=False,
    ).logits
    return logits[:, -1]


def _recompute(model: Any, ids: Tensor, mask: Tensor, tokens: list[list[int]]) -> Tensor:
    """Return the logits after `tokens`, [K, V], which include the prompt `ids` and its padding."""
    new = mask.new_ones(len(tokens), len(tokens[0]) - ids.size(1))
    mask = torch.cat([mask.expand(len(tokens), -1), new], dim=1)
    positions = (mask.cumsum(dim=1) - 1).masked_fill(mask == 0, 1)
    logits: Tensor = model(
        input_ids=torch.tensor(tokens),
        attention_mask=mask,
        position_ids=positions,
        use_cache=False,
    ).logits
    return logits[:, -1]


def _search(
    score: Callable[[list[list[int]]], Tensor],
    prompt: list[int],
    *,
    num_beams: int,
    max_length: int,
    min_length: int,
    no_repeat_ngram_size: int,
    length_penalty: float,
    early_stopping: bool,
    forced_bos: bool,
    forced_eos: bool,
) -> list[int]:
    hypotheses = BeamHypotheses(num_beams, length_penalty, early_stopping)
    tokens = [prompt] * num_beams
    scores = torch.tensor([0.0] + [-1e9] * (num_beams - 1))
    done = False
    while len(tokens[0]) < max_length and not done:
        length = len(tokens[0])
        logits = score(tokens)
        log_probs = logits.log_softmax(dim=-1)
        _ban_ngrams(log_probs, tokens, no_repeat_ngram_size)
        if length < min_length:
            log_probs[:, EOS] = -math.inf
        for forced, token, at in ((forced_bos, BOS, 1), (forced_eos, EOS, max_length - 1)):
            if forced and length == at:
                log_probs[:] = -math.inf
                log_probs[:, token] = 0
        totals = (log_probs + scores[:, None]).view(1, -1)
        best, places = totals.topk(2 * num_beams, dim=1)
        following = _process(hypotheses, tokens, best[0], places[0], logits.size(-1))
        done = hypotheses.is_done(best.max().item(), length)
        scores = torch.stack([score for score, _ in following])
        tokens = [beam for _, beam in following]
    if not done:
        for score, beam in zip(scores, tokens, strict=True):
            hypotheses.add(beam, score.item())
    best_tokens = sorted(hypotheses.beams, key=lambda beam: beam[0]).pop()[1]
    return [*best_tokens, EOS] if len(best_tokens) < max_length else best_tokens


def _ban_ngrams(log_probs: Tensor, tokens: list[list[int]], size: int) -> None:
    for row, beam in enumerate(tokens):
        for start in range(len(beam) - size + 1) if size else ():
            *before, last = beam[start : start + size]
            if before == beam[len(beam) - size + 1 :]:
                log_probs[row, last] = -math.inf


def _process(
    hypotheses: BeamHypotheses,
    tokens: list[list[int]],
    scores: Tensor,
    places: Tensor,
    vocabulary: int,
) -> list[tuple[Tensor, list[int]]]:
    """Add the hypotheses that end; return the beams that continue (`BeamSearchScorer.process`)."""
    following: list[tuple[Tensor, list[int]]] = []
    for rank, (score, place) in enumerate(zip(scores, places.tolist(), strict=True)):
        beam, token = tokens[place // vocabulary], place % vocabulary
        if token != EOS:
            following.append((score, [*beam, token]))
        elif rank < hypotheses.num_beams:
            hypotheses.add(beam, score.item())
        if len(following) == hypotheses.num_beams:
            break
    return following
