"""Composition functions: how the change is merged, h <- compose(h, dh). Table 1 of the paper."""

import torch
from torch import nn

from unipeft_run.deltas.site import Site


class Composition(nn.Module):
    """compose(h, dh) -> h. A composition's constructor takes the site first."""


class Scaled(Composition):
    """h <- h + s dh, or h + LN(s dh) with `norm` (official layernorm option `out`).

    LoRA's alpha / r and the scaled parallel adapter's s.
    """

    def __init__(self, site: Site, *, scale: float, norm: bool = False) -> None:
        super().__init__()
        self.scale = scale
        self.norm = nn.LayerNorm(site.width_out) if norm else nn.Identity()

    def forward(self, h: torch.Tensor, dh: torch.Tensor) -> torch.Tensor:
        return h + self.norm(self.scale * dh)


class Add(Composition):
    """h <- h + dh, or h + LN(dh) with `norm`: adapters."""

    def __init__(self, site: Site, *, norm: bool = False) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(site.width_out) if norm else nn.Identity()

    def forward(self, h: torch.Tensor, dh: torch.Tensor) -> torch.Tensor:
        return h + self.norm(dh)


class LearnedScale(Composition):
    """h <- h + s dh with s trained, from 1 (Table 5, "trainable s")."""

    def __init__(self, site: Site, *, norm: bool = False) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))
        self.norm = nn.LayerNorm(site.width_out) if norm else nn.Identity()

    def forward(self, h: torch.Tensor, dh: torch.Tensor) -> torch.Tensor:
        return h + self.norm(self.scale * dh)


class Gated(Composition):
    """h <- (1 - lambda) h + lambda dh, lambda [B, H, T, 1] the softmax mass on the prefix (7)-(9).

    Exists at attention heads alone: elsewhere there is no partition function to gate with.
    """

    def __init__(self, site: Site) -> None:
        super().__init__()
        assert site.representation == "attn.heads", "the configuration rules let no other gate pass"

    def forward(self, h: torch.Tensor, dh: torch.Tensor, gate: torch.Tensor) -> torch.Tensor:
        return (1 - gate) * h + gate * dh


class Prepend(Composition):
    """h <- [dh; h] along the tokens: prompt tuning. h is [B, T, D], dh [B, L, D]."""

    def __init__(self, site: Site) -> None:
        super().__init__()

    def forward(self, h: torch.Tensor, dh: torch.Tensor) -> torch.Tensor:
        return torch.cat([dh.to(h.dtype), h], dim=1)
