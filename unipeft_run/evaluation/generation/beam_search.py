"""Beam search. Its state consists of the open beams and the finished hypotheses."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from unipeft_run.evaluation.generation.beams import Beams, Candidates
from unipeft_run.evaluation.generation.constraints import constrain
from unipeft_run.evaluation.generation.decoder import Decoder
from unipeft_run.evaluation.generation.hypotheses import (
    Hypotheses,
    Hypotheses2021,
    HypothesesOfTransformers,
)
from unipeft_run.evaluation.generation.search import Search
from unipeft_run.evaluation.generation.settings import Settings

RULES: dict[str, type[Hypotheses]] = {
    "2021": Hypotheses2021,
    "transformers": HypothesesOfTransformers,
}


class BeamSearch(Search):
    """Beam search over a batch: extends the K beams of each source by their best continuations.

    Log-probabilities are float32, or float64 under the rules of 2021 if the model is float64.
    """

    def __init__(self, decoder: Decoder, settings: Settings) -> None:
        super().__init__(decoder, settings)
        self.dtype = torch.float32
        if settings.rules == "2021":
            self.dtype = torch.promote_types(decoder.dtype, torch.float32)
        self.beams = Beams(self.targets, settings.num_beams, self.dtype, decoder.shared)
        self.hypotheses = RULES[settings.rules](self.targets, settings)
        # enough that K of them do not end; transformers takes at least 2 K
        self.count = settings.num_beams * max(2, 1 + len(settings.eos))

    def advance(self, length: int) -> None:
        seen = self.beams.tokens[..., :length]
        logits = self.decoder(seen, self.beams.find_visible(length))
        totals = F.log_softmax(logits.to(self.dtype), dim=-1)
        constrain(totals, seen, self.settings)
        totals += self.beams.scores[..., None]
        candidates = Candidates.find_best(totals, self.count)
        chosen = self.hypotheses.step(candidates, self.beams, length)
        self.beams.extend(chosen, length)
        self.done = self.hypotheses.done
        if length + 1 == self.settings.max_length:
            self.hypotheses.close(self.beams)

    def read(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        return self.hypotheses.read(rows)

    def keep(self, rows: Tensor) -> None:
        self.beams.keep(rows)
        self.hypotheses.keep(rows)
