"""Vectors of their own: prompt tuning."""

import torch
from torch import nn

from unipeft_run.deltas.forms.base import Form
from unipeft_run.deltas.site import Site


class Vectors(Form):
    """dh = P, whatever u is: L trained vectors, [B, L, D].

    Prompt tuning (Lester et al. 2021) as the official code has it: P ~ N(0, 0.02), no position
    embedding, no embedding scale.
    """

    def __init__(self, site: Site, *, length: int) -> None:
        super().__init__()
        self.vectors = nn.Parameter(torch.empty(length, site.width_out))
        nn.init.normal_(self.vectors, std=0.02)

    def forward(self, u: torch.Tensor) -> torch.Tensor:
        return self.vectors.expand(u.size(0), -1, -1)
