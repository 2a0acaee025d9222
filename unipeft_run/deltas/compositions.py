"""Composition functions: how the change is merged, h <- compose(h, dh). Table 1 of the paper."""

from typing import ClassVar

import torch
from torch import nn

from unipeft_run.backbones.site import Site
from unipeft_run.config.types import Positive


class Composition(nn.Module):
    """compose(h, dh) -> h. The constructor takes the site first; its keywords are the YAML.

    Class attributes declare which forms fit. They are literals, read from the source by
    `config.declarations` before torch is imported.
    """

    takes: ClassVar[str] = "change"  # must be among the `gives` of the form
    needs: ClassVar[str] = ""  # the error message for a form that does not give it


class Scaled(Composition):
    """h <- h + s dh, or h + LN(s dh) with `norm` (official layernorm option `out`).

    LoRA's alpha / r and the scaled parallel adapter's s.
    """

    def __init__(self, site: Site, *, scale: Positive, norm: bool = False) -> None:
        super().__init__()
        self.scale = scale
        self.norm = nn.LayerNorm(site.width_out) if norm else nn.Identity()

    def forward(self, h: torch.Tensor, dh: torch.Tensor) -> torch.Tensor:
        return h + self.norm(self.scale * dh)


class Add(Composition):
    """h <- h + dh, or h + LN(dh) with `norm`. The composition of adapters."""

    def __init__(self, site: Site, *, norm: bool = False) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(site.width_out) if norm else nn.Identity()

    def forward(self, h: torch.Tensor, dh: torch.Tensor) -> torch.Tensor:
        return h + self.norm(dh)


class LearnedScale(Composition):
    """h <- h + s dh with a trained s that starts at 1 (Table 5, "trainable s")."""

    def __init__(self, site: Site, *, norm: bool = False) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))
        self.norm = nn.LayerNorm(site.width_out) if norm else nn.Identity()

    def forward(self, h: torch.Tensor, dh: torch.Tensor) -> torch.Tensor:
        return h + self.norm(self.scale * dh)


class Gated(Composition):
    """h <- (1 - lambda) h + lambda dh, where lambda [B, H, T, 1] is the softmax mass on the prefix.

    Eqs. 7 to 9. Defined at attention heads only: elsewhere there is no softmax to gate with.
    """

    takes: ClassVar[str] = "gate"
    needs: ClassVar[str] = (
        "composition gated needs the attention logits of form memory at the heads; "
        "use composition add, scaled or learned_scale"
    )

    def __init__(self, site: Site) -> None:
        super().__init__()
        assert site.representation == "attn.heads", "the design space has no other gate"

    def forward(self, h: torch.Tensor, dh: torch.Tensor, gate: torch.Tensor) -> torch.Tensor:
        return (1 - gate) * h + gate * dh


class Prepend(Composition):
    """h <- [dh; h] along the tokens, with h [B, T, D] and dh [B, L, D]. Prompt tuning."""

    takes: ClassVar[str] = "vectors"
    needs: ClassVar[str] = (
        "form vectors and composition prepend need each other: vectors go before the input"
    )

    def __init__(self, site: Site) -> None:
        super().__init__()

    def forward(self, h: torch.Tensor, dh: torch.Tensor) -> torch.Tensor:
        return torch.cat([dh.to(h.dtype), h], dim=1)
