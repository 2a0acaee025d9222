"""Memory: the prefix (Eqs. 5, 7-10) and the multi-head parallel adapter.

Shape legend: B batch, H heads, T queries, L prefix length, D width, C = D / H.
"""

from collections.abc import Iterator
from typing import Any, ClassVar, Literal

import torch
from torch import nn
from torch.nn import functional as F

from unipeft_run.backbones.site import Site
from unipeft_run.config.types import Count, Fraction
from unipeft_run.deltas.forms.base import Form
from unipeft_run.errors import UserError


class Trunk(nn.Module):
    """tanh(E W + b), [L, M]: the part of the prefix MLP shared by all layers of an attention type.

    Initialised by PyTorch's defaults, as in the official prefix generator.
    """

    def __init__(self, length: int, width: int, mlp_width: int) -> None:
        super().__init__()
        self.embedding = nn.Parameter(torch.randn(length, width))
        self.hidden = nn.Linear(width, mlp_width)

    def forward(self) -> torch.Tensor:
        return torch.tanh(self.hidden(self.embedding))


def repeat_heads(part: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    """Repeat the key-value heads of `part` [..., G, S, C] for the H heads of q [B, H, T, C]."""
    groups = q.size(1) // part.size(-3)
    return part if groups == 1 else part.repeat_interleave(groups, dim=-3)


def _check_site(site: Site, query: str, shifted: bool) -> None:
    """Raise UserError for an option that the backbone's family cannot have."""
    if "normed" in query and site.query is None:
        raise UserError(
            f"form.query={query}: the queries of this backbone cannot be projected again from a "
            "normalised input; use scaled or unscaled"
        )
    if shifted and site.positions is None:
        raise UserError("form.positions=shifted: this backbone takes no position_ids; use null")


class Memory(Form):
    """dh = act(q P_k^T) P_v per head; q is [B, H, T, C], P_k and P_v are [L, D], split by head.

    He et al. 2022, Eqs. 7-10: `softmax` is the prefix, `relu` the multi-head parallel adapter.
    With grouped-query attention, P_k and P_v have as many heads as the keys, G, and D = G C.

    Args:
        site: provides D, H, the attention dropout and the modules shared by all layers.
        length: L, the paper's l, the counterpart of the bottleneck r.
        activation: over the L prefix vectors: `softmax` or `relu`.
        query: the definition of q. `scaled`: the head's query times C^-0.5; `normed`: the query of
            LN(x), LN trained, W_q frozen; `unscaled` and `normed_unscaled` omit the factor;
            `reference`: the official code's choice for this family and activation.
        mlp_width: width M of the reparametrising MLP of prefix tuning; None trains P directly.
        dropout: rate on the MLP's output (official `prefix_dropout`).
        positions: null: tokens keep their positions (as in `adapters`); `shifted`: they start at L
            (as in PEFT), in the families that are told positions.
    """

    sites: ClassVar[tuple[str, ...]] = ("attn.heads",)
    elsewhere: ClassVar[str] = (
        "form memory needs the queries of each head; use representation@attn=heads"
    )
    gives: ClassVar[tuple[str, ...]] = ("change", "gate")
    acts_with: ClassVar[dict[str, str]] = {"dropout": "mlp_width"}
    training_only: ClassVar[dict[str, str]] = {
        "dropout": "dropout acts only in training",
        "mlp_width": "the MLP generates P_k and P_v in training and is not stored",
    }
    inference_keywords: ClassVar[dict[str, Any]] = {"mlp_width": None}

    def __init__(
        self,
        site: Site,
        *,
        length: Count,
        activation: Literal["softmax", "relu"] = "softmax",
        query: Literal[
            "reference", "scaled", "unscaled", "normed", "normed_unscaled"
        ] = "reference",
        mlp_width: Count | None = 800,
        dropout: Fraction = 0.0,
        positions: Literal["shifted"] | None = None,
    ) -> None:
        super().__init__()
        self.shifts_positions = positions == "shifted"
        self.query = site.reference_query[activation] if query == "reference" else query
        self.activation = activation
        self.num_heads = site.num_heads
        _check_site(site, self.query, self.shifts_positions)
        self.attention_dropout = nn.Dropout(site.dropout["attention"])
        self.dropout = nn.Dropout(dropout)
        self.norm = nn.LayerNorm(site.width_in) if "normed" in self.query else None
        width = site.width_out
        if mlp_width is None:
            self.keys = nn.Parameter(torch.empty(length, width).normal_(std=0.02))
            self.values = nn.Parameter(torch.empty(length, width).normal_(std=0.02))
        else:
            self.trunk: Trunk = site.share("trunk", lambda: Trunk(length, site.width_in, mlp_width))
            self.head = nn.Linear(mlp_width, 2 * width)  # keys, then values

    @property
    def is_attention(self) -> bool:
        """True if the prefix weights its vectors exactly as the head weights its keys.

        The gate of Eq. 7 is then the joint softmax over [P_k; K]: a plain concatenation.
        """
        return self.activation == "softmax" and self.query == "scaled"

    @property
    def length(self) -> int:
        """L, the number of vectors."""
        own = self._parameters.get("keys")
        return (self.trunk.embedding if own is None else own).size(0)

    def memory(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return P_k and P_v, each [L, D], in training after the dropout of the MLP's output."""
        return self._generate(self.dropout)

    def _generate(self, dropout: nn.Module) -> tuple[torch.Tensor, torch.Tensor]:
        if "keys" in self._parameters:
            return self.keys, self.values
        keys, values = dropout(self.head(self.trunk())).chunk(2, dim=-1)
        return keys, values

    def heads(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Split P_k and P_v by head, each [G, L, C]; head g has columns gC..(g+1)C."""
        keys, values = (
            p.view(p.size(0), self.num_heads, -1).transpose(0, 1) for p in self.memory()
        )
        return keys, values

    def logits(self, q: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        """Compute q P_k^T + bias, [B, H, T, L]; bias is a relative position bias, if any."""
        logits = q @ repeat_heads(self.heads()[0], q).transpose(-1, -2)
        return logits if bias is None else logits + bias

    def forward(self, q: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        logits, values = self.logits(q, bias), repeat_heads(self.heads()[1], q)
        weights = F.softmax(logits, dim=-1) if self.activation == "softmax" else F.relu(logits)
        return self.attention_dropout(weights) @ values

    def inference_tensors(self) -> Iterator[tuple[str, torch.Tensor]]:
        yield from zip(("keys", "values"), self._generate(nn.Identity()), strict=True)
        if self.norm is not None:
            yield from self.norm.named_parameters(prefix="norm")
