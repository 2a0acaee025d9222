"""The hypercomplex bottleneck: Compacter.

Shape legend: n summands, D_in and D_out widths of a map, P rank of its factors.
"""

from typing import Any, ClassVar, Literal

import torch
from torch import nn

from unipeft_run.backbones.site import Site
from unipeft_run.config.types import Count, Fraction, Positive
from unipeft_run.deltas.forms.base import ACTIVATIONS, Form
from unipeft_run.deltas.forms.bottleneck import Bottleneck
from unipeft_run.errors import UserError


class Rules(nn.Module):
    """The matrices A_1 to A_n of parametrised hypercomplex maps, one tensor [n, n, n].

    Initialised from N(0, std); with `learn` false they keep these values.
    """

    def __init__(self, n: int, std: float, learn: bool) -> None:
        super().__init__()
        self.std = std
        self.weight = nn.Parameter(torch.empty(n, n, n), requires_grad=learn)
        nn.init.normal_(self.weight, std=std)


class HypercomplexLinear(nn.Module):
    """y = x H + b, H = sum_i A_i (x) (S_i T_i), with the Kronecker product (x).

    Karimi Mahabadi et al. 2021. A_i is [n, n], S_i is [D_in / n, P] and T_i is [P, D_out / n]. S
    and T are Glorot-uniform with gain sqrt 2 and b is 0 at first, as in the published code.
    """

    def __init__(self, width_in: int, width_out: int, rules: Rules, rank: int, bias: bool) -> None:
        super().__init__()
        n = rules.weight.size(0)
        self.out_features = width_out
        self.rules = rules
        self.left = nn.Parameter(torch.empty(n, width_in // n, rank))
        self.right = nn.Parameter(torch.empty(n, rank, width_out // n))
        self.bias = nn.Parameter(torch.empty(width_out)) if bias else None
        for factor in (*self.left, *self.right):
            nn.init.xavier_uniform_(factor, gain=2**0.5)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    @property
    def weight(self) -> torch.Tensor:
        """H transposed, [D_out, D_in], as the weight of an nn.Linear."""
        blocks = torch.einsum("iab,icp,ipd->bdac", self.rules.weight, self.left, self.right)
        return blocks.reshape(self.out_features, -1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Compute y without building H."""
        n, rank = self.left.size(0), self.left.size(2)
        parts = x.reshape(*x.shape[:-1], n, -1)  # [..., n, D_in / n]
        inner = torch.einsum("...ac,icp->...aip", parts, self.left)
        mixed = torch.einsum("...aip,iab->...bip", inner, self.rules.weight).flatten(-2)
        y = (mixed @ self.right.reshape(n * rank, -1)).flatten(-2)
        return y if self.bias is None else y + self.bias


class Hypercomplex(Bottleneck):
    """dh = act(u H_down + b_down) H_up + b_up with parametrised hypercomplex H (Compacter).

    u is [B, T, D_in], dh is [B, T, D_out]. Karimi Mahabadi et al. 2021.

    Args:
        site: provides D_in, D_out, the dropout rates and the modules shared by the model.
        rank: r, the width of the bottleneck; n divides r, D_in and D_out.
        n: number of summands, and size of the matrices A_i.
        factor_rank: rank P of the factors S_i T_i.
        shared_rules: whether all maps of the model share A_1 to A_n; otherwise each form has its
            own.
        learn_rules: whether A_1 to A_n are trained.
        rule_std: A_i ~ N(0, rule_std). The published code uses 1e-4, which makes the first
            gradients tiny.
        activation: a name in `ACTIVATIONS`.
        bias: whether both maps have a bias.
        dropout: rate after the activation: a number, or the backbone's `hidden` or `attention`.
    """

    training_only: ClassVar[dict[str, str]] = {
        "dropout": "dropout acts only in training",
        "learn_rules": "it only decides what is trained",
        "rule_std": "it only decides where training starts",
    }
    inference_keywords: ClassVar[dict[str, Any]] = {"rule_std": 0.01}

    def __init__(
        self,
        site: Site,
        *,
        rank: Count,
        n: Count = 4,
        factor_rank: Count = 1,
        shared_rules: bool = True,
        learn_rules: bool = True,
        rule_std: Positive = 0.01,
        activation: Literal["relu", "gelu", "silu", "tanh", "identity"] = "gelu",
        bias: bool = True,
        dropout: Fraction | Literal["hidden", "attention"] = 0.0,
    ) -> None:
        Form.__init__(self)
        for name, width in (("rank", rank), ("x", site.width_in), ("h", site.width_out)):
            if width % n:
                what = f"rank={rank}" if name == "rank" else f"the width {width} of {name}"
                raise UserError(f"form hypercomplex: n={n} must divide {what}")

        def build() -> Rules:
            return Rules(n, rule_std, learn_rules)

        key = f"hypercomplex rules {n} {learn_rules}"
        rules: Rules = site.share_in_model(key, build) if shared_rules else build()
        if rules.std != rule_std:
            raise UserError(
                f"form hypercomplex: rule_std={rule_std:g}, but the rules shared with another slot "
                f"have rule_std={rules.std:g}; use the same value, or form.shared_rules=false"
            )
        self.norm = None
        self.down = HypercomplexLinear(site.width_in, rank, rules, factor_rank, bias)
        self.up = HypercomplexLinear(rank, site.width_out, rules, factor_rank, bias)
        self.activation = ACTIVATIONS[activation]
        self.dropout = nn.Dropout(site.dropout[dropout] if isinstance(dropout, str) else dropout)
        self.input_dropout = nn.Dropout(0.0)
