"""Low-rank maps with shared random matrices, scaled by trained vectors: VeRA."""

from typing import ClassVar

import torch
from torch import nn

from unipeft_run.backbones.site import Site
from unipeft_run.config.types import Count, Fraction, Positive
from unipeft_run.deltas.forms.base import ACTIVATIONS, Form
from unipeft_run.deltas.forms.bottleneck import Bottleneck


class RandomMatrix(nn.Module):
    """A frozen matrix [D_out, D_in], Kaiming-uniform with gain sqrt 2."""

    def __init__(self, width_out: int, width_in: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(width_out, width_in), requires_grad=False)
        nn.init.kaiming_uniform_(self.weight)


class ScaledRows(nn.Module):
    """y = a (M x): a shared matrix M [D_out, D_in] and a trained vector a [D_out]."""

    def __init__(self, matrix: RandomMatrix, start: float) -> None:
        super().__init__()
        self.matrix, self.bias = matrix, None
        self.out_features = matrix.weight.size(0)
        self.factors = nn.Parameter(torch.empty(self.out_features))
        nn.init.constant_(self.factors, start)

    @property
    def weight(self) -> torch.Tensor:
        """The weight that computes y, [D_out, D_in]."""
        return self.factors[:, None] * self.matrix.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.factors * nn.functional.linear(x, self.matrix.weight)


class LowRankShared(Bottleneck):
    """dh = b (B (d (A u))) with trained vectors d [r] and b [D_out], elementwise (VeRA).

    u is [B, T, D_in], dh is [B, T, D_out]. Kopiczko et al. 2024, section 3. A [r, D_in] and
    B [D_out, r] are random and frozen. All sites of a model with the same D_in share A, those with
    the same D_out share B; both are stored once.

    Args:
        site: provides D_in, D_out and the modules shared by the model.
        rank: r.
        d_initial: initial value of d; b starts at 0.
        input_dropout: rate on u.
    """

    training_only: ClassVar[dict[str, str]] = {
        "d_initial": "it only decides where training starts",
        "input_dropout": "dropout acts only in training",
    }

    def __init__(
        self,
        site: Site,
        *,
        rank: Count,
        d_initial: Positive = 0.1,
        input_dropout: Fraction = 0.0,
    ) -> None:
        Form.__init__(self)
        down: RandomMatrix = site.share_in_model(
            f"random {rank} x {site.width_in}, down", lambda: RandomMatrix(rank, site.width_in)
        )
        up: RandomMatrix = site.share_in_model(
            f"random {site.width_out} x {rank}, up", lambda: RandomMatrix(site.width_out, rank)
        )
        self.norm = None
        self.down, self.up = ScaledRows(down, d_initial), ScaledRows(up, 0.0)
        self.activation = ACTIVATIONS["identity"]
        self.dropout, self.input_dropout = nn.Dropout(0.0), nn.Dropout(input_dropout)
