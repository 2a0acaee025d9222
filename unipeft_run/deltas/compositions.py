"""Composition functions: how the change is merged, h <- compose(h, dh). Table 1 of the paper."""

from typing import Any, ClassVar

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
    sites: ClassVar[tuple[str, ...]] = ()  # the only sites where it is legal; empty: all
    elsewhere: ClassVar[str] = ""  # the error message for other sites
    # keyword of the form -> the value that it must have, if the form has it; otherwise `needs`
    requires: ClassVar[dict[str, Any]] = {}
    # further arguments of `forward`: `u`, what the form read; `gate`, the softmax mass on a prefix;
    # `form`; `module`, which computes h
    reads: ClassVar[tuple[str, ...]] = ()
    # whether it adds to h, so that the changes of several deltas at one place can be summed
    adds: ClassVar[bool] = False

    def start(self, module: nn.Module) -> None:
        """Set initial values that depend on `module`, which computes h. Called by `attach`."""


class Scaled(Composition):
    """h <- h + s dh, or h + LN(s dh) with `norm` (official layernorm option `out`).

    LoRA's alpha / r and the scaled parallel adapter's s.
    """

    adds: ClassVar[bool] = True

    def __init__(self, site: Site, *, scale: Positive, norm: bool = False) -> None:
        super().__init__()
        self.scale = scale
        self.norm = nn.LayerNorm(site.width_out) if norm else nn.Identity()

    def forward(self, h: torch.Tensor, dh: torch.Tensor) -> torch.Tensor:
        return h + self.norm(self.scale * dh)


class Add(Composition):
    """h <- h + dh, or h + LN(dh) with `norm`. The composition of adapters."""

    adds: ClassVar[bool] = True

    def __init__(self, site: Site, *, norm: bool = False) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(site.width_out) if norm else nn.Identity()

    def forward(self, h: torch.Tensor, dh: torch.Tensor) -> torch.Tensor:
        return h + self.norm(dh)


class LearnedScale(Composition):
    """h <- h + s dh with a trained s that starts at 1 (Table 5, "trainable s")."""

    adds: ClassVar[bool] = True

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
    reads: ClassVar[tuple[str, ...]] = ("gate",)

    def __init__(self, site: Site) -> None:
        super().__init__()
        assert site.representation == "attn.heads", "the design space has no other gate"

    def memory_factor(self, x: torch.Tensor) -> torch.Tensor | None:
        """Return what multiplies P_k and P_v, [B, 1, 1 or T, 1]; None: nothing does.

        x is the attention's input, [B, T, D].
        """
        return None

    def forward(self, h: torch.Tensor, dh: torch.Tensor, gate: torch.Tensor) -> torch.Tensor:
        return (1 - gate) * h + gate * dh


class Rescale(Composition):
    """h <- h * dh, elementwise, with h [B, T, D] and dh [D]. (IA)3 (Liu et al. 2022)."""

    takes: ClassVar[str] = "factors"
    needs: ClassVar[str] = (
        "form factors and composition rescale need each other: h is multiplied by trained factors "
        "that start at 1"
    )

    def __init__(self, site: Site) -> None:
        super().__init__()

    def forward(self, h: torch.Tensor, dh: torch.Tensor) -> torch.Tensor:
        return h * dh


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
