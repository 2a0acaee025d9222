"""The bottleneck: adapters (Eq. 4) and, with the identity as activation, LoRA (Eq. 6)."""

import math
from typing import Any, ClassVar, Literal

import torch
from torch import nn
from torch.nn import init as inits

from unipeft_run.backbones.site import Site
from unipeft_run.config.types import Count, Fraction
from unipeft_run.deltas.forms.base import ACTIVATIONS, Form


class Bottleneck(Form):
    """dh = act(u W_down) W_up, or dh = act(LN(u) W_down) W_up.

    u is [B, T, D_in], dh is [B, T, D_out]. He et al. 2022, Eq. 4 and Table 1; the official
    `Adapter_Layer` with its dropout after the activation, and the official LoRA layer with its
    dropout before W_down.

    Args:
        site: provides D_in, D_out and the backbone's dropout rates.
        rank: r, the width of the bottleneck.
        activation: a name in `ACTIVATIONS`; `identity` makes the form linear (LoRA).
        bias: whether both maps have a bias.
        norm: `in` puts a trained LayerNorm before W_down (official layernorm option `in`).
        init: `bert`: N(0, 0.02); `lora`: Kaiming-uniform(sqrt 5) down and zero up. Biases are 0.
        dropout: rate after the activation: a number, or the backbone's `hidden` or `attention`.
        input_dropout: rate on u, as in LoRA.
    """

    illegal_at: ClassVar[dict[str, str]] = {
        "attn.heads": "a bottleneck reads a whole hidden state, not a head; "
        "use representation@attn=context",
        "embedding": "a bottleneck changes hidden states; at the embedding, use form@input=vectors",
    }
    training_only: ClassVar[dict[str, str]] = {
        "init": "it only decides where training starts",
        "dropout": "dropout acts only in training",
        "input_dropout": "dropout acts only in training",
    }

    def __init__(
        self,
        site: Site,
        *,
        rank: Count,
        activation: Literal["relu", "gelu", "silu", "tanh", "identity"] = "relu",
        bias: bool = True,
        norm: Literal["none", "in"] = "none",
        init: Literal["bert", "lora"] = "bert",
        dropout: Fraction | Literal["hidden", "attention"] = "hidden",
        input_dropout: Fraction = 0.0,
    ) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(site.width_in) if norm == "in" else None
        self.down: Any = nn.Linear(site.width_in, rank, bias=bias)
        self.up: Any = nn.Linear(rank, site.width_out, bias=bias)
        self.activation = ACTIVATIONS[activation]
        self.dropout = nn.Dropout(site.dropout[dropout] if isinstance(dropout, str) else dropout)
        self.input_dropout = nn.Dropout(input_dropout)
        self.reset(init)

    def reset(self, init: Literal["bert", "lora"]) -> None:
        """Initialise both maps as the official initialiser `init` does."""
        for linear in (self.down, self.up):
            inits.normal_(linear.weight, std=0.02)
            if linear.bias is not None:
                inits.zeros_(linear.bias)
        if init == "lora":
            inits.kaiming_uniform_(self.down.weight, a=math.sqrt(5))
            inits.zeros_(self.up.weight)

    def forward(self, u: torch.Tensor) -> torch.Tensor:
        u = self.input_dropout(u if self.norm is None else self.norm(u))
        return self.up(self.dropout(self.activation(self.down(u))))
