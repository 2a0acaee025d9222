"""Trained factors that do not depend on the input: (IA)3."""

from typing import ClassVar

import torch
from torch import nn

from unipeft_run.backbones.site import Site
from unipeft_run.deltas.forms.base import Form


class Factors(Form):
    """dh = l: a trained vector [D_out] that ignores u and starts at 1.

    (IA)3 (Liu et al. 2022, section 3.3) rescales keys, values and the hidden units of the
    FFN by such vectors.
    """

    illegal_at: ClassVar[dict[str, str]] = {
        "attn.heads": "form factors rescales a whole hidden state, not a head; "
        "use representation@attn=context",
        "embedding": "form factors rescales hidden states; use form@input=vectors",
    }
    gives: ClassVar[tuple[str, ...]] = ("factors",)
    needs: ClassVar[str] = (
        "form factors and composition rescale need each other: h is multiplied by trained factors "
        "that start at 1"
    )
    reads: ClassVar[bool] = False

    def __init__(self, site: Site) -> None:
        super().__init__()
        self.factors = nn.Parameter(torch.empty(site.width_out))
        nn.init.ones_(self.factors)

    def forward(self, u: torch.Tensor) -> torch.Tensor:
        return self.factors
