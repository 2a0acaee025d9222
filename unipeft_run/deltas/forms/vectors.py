"""Trained vectors that do not depend on the input: prompt tuning."""

from typing import ClassVar

import torch
from torch import nn

from unipeft_run.backbones.site import Site
from unipeft_run.config.types import Count
from unipeft_run.deltas.forms.base import Form


class Vectors(Form):
    """dh = P: L trained vectors that ignore u, [B, L, D].

    Prompt tuning (Lester et al. 2021): P ~ N(0, 0.02) and no embedding scale, as in the official
    code. Encoders with learned positions give the prompt none; in a decoder, and in T5's encoder
    with its relative positions, it has positions 0 to L - 1.
    """

    sites: ClassVar[tuple[str, ...]] = ("embedding",)
    elsewhere: ClassVar[str] = (
        "form vectors lengthens the input; it is legal only at the embedding (slot input)"
    )
    gives: ClassVar[tuple[str, ...]] = ("vectors",)
    needs: ClassVar[str] = (
        "form vectors and composition prepend need each other: vectors go before the input"
    )
    reads: ClassVar[bool] = False

    def __init__(self, site: Site, *, length: Count) -> None:
        super().__init__()
        self.vectors = nn.Parameter(torch.empty(length, site.width_out))
        nn.init.normal_(self.vectors, std=0.02)

    def forward(self, u: torch.Tensor) -> torch.Tensor:
        return self.vectors.expand(u.size(0), -1, -1)
