"""Compositions with a gate that depends on the input: UniPELT.

Shape legend: B batch, T tokens, D width of the input z, H heads, C head width.
"""

from typing import ClassVar, Literal

import torch
from torch import nn

from unipeft_run.backbones.site import Site
from unipeft_run.deltas.compositions import Composition, Gated


class Gate(nn.Linear):
    """g(z) = sigmoid(z w + b), [B, 1 or T, 1], for z [B, T, D]. Mao et al. 2022.

    Args:
        width: D.
        per: `example` averages g over all T positions, padding and future ones included, as
            published. With a cache T is 1, so a decoder's results then differ from those without a
            cache. `position` keeps one gate for each position, which is causal.
    """

    def __init__(self, width: int, per: Literal["example", "position"]) -> None:
        super().__init__(width, 1)
        self.per = per
        nn.init.normal_(self.weight, std=0.02)
        nn.init.zeros_(self.bias)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        gate = torch.sigmoid(super().forward(z))
        return gate.mean(dim=1, keepdim=True) if self.per == "example" else gate


def find_averaging(model: nn.Module) -> list[str]:
    """Return the paths of the gates that average over all positions, padding included."""
    modules = model.named_modules()
    return [path for path, part in modules if isinstance(part, Gate) and part.per == "example"]


class InputGate(Composition):
    """h <- h + g(u) dh, where the gate g reads what the form reads (see `Gate`).

    UniPELT's gate of adapters and LoRA; for LoRA it takes the place of alpha / r. At attention
    heads, u is the attention's input x.
    """

    reads: ClassVar[tuple[str, ...]] = ("u",)
    adds: ClassVar[bool] = True

    def __init__(self, site: Site, *, per: Literal["example", "position"] = "example") -> None:
        super().__init__()
        self.gate = Gate(site.width_in, per)

    def forward(self, h: torch.Tensor, dh: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
        gate = self.gate(u)
        return h + (gate.unsqueeze(1) if h.ndim == 4 else gate) * dh


class GatedMemory(Gated):
    """h <- (1 - lambda) h + lambda dh, with P_k and P_v multiplied by g(x): UniPELT's prefix.

    One gate (see `Gate`) serves keys and values; x [B, T, D] is the attention's input.
    """

    takes: ClassVar[str] = "gate"
    needs: ClassVar[str] = (
        "composition gated_memory multiplies the keys and values of form memory at the heads; "
        "use composition input_gate"
    )

    def __init__(self, site: Site, *, per: Literal["example", "position"] = "example") -> None:
        super().__init__(site)
        self.gate = Gate(site.width_in, per)

    def memory_factor(self, x: torch.Tensor) -> torch.Tensor | None:
        gate: torch.Tensor = self.gate(x)
        return gate.unsqueeze(1)
