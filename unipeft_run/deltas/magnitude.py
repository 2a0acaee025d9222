"""The composition that separates a weight's magnitude from its direction: DoRA."""

from typing import Any, ClassVar

import torch
from torch import nn

from unipeft_run.backbones.site import Site
from unipeft_run.config.types import Positive
from unipeft_run.deltas.compositions import Composition
from unipeft_run.deltas.forms.bottleneck import Bottleneck
from unipeft_run.deltas.weights import bias_at, weight_at


class Magnitude(Composition):
    """h <- m (W + s dW) u / |W + s dW| + b, where dW is the weight of a linear form, dh = dW u.

    |.| is the norm of each row, and m [D_out] is trained and starts at |W|. Liu et al. 2024. As
    in their section 4.3, no gradient passes through the norm. Defined where h = W u + b.
    """

    sites: ClassVar[tuple[str, ...]] = (
        "attn.query",
        "attn.key",
        "attn.value",
        "attn.projection",
        "ffn.up",
        "ffn.gate",
        "ffn.down",
    )
    elsewhere: ClassVar[str] = "composition magnitude rescales the rows of a weight matrix"
    requires: ClassVar[dict[str, Any]] = {"activation": "identity", "bias": False, "norm": "none"}
    needs: ClassVar[str] = (
        "composition magnitude needs a linear form without biases: form low_rank or low_rank_shared"
    )
    reads: ClassVar[tuple[str, ...]] = ("form", "module")

    def __init__(self, site: Site, *, scale: Positive) -> None:
        super().__init__()
        self.scale, self.tap = scale, site.write
        self.magnitude = nn.Parameter(torch.empty(site.width_out))
        nn.init.ones_(self.magnitude)

    @torch.no_grad()
    def start(self, module: nn.Module) -> None:
        self.magnitude.copy_(torch.linalg.vector_norm(weight_at(module, self.tap), dim=1))

    def factor(self, form: Bottleneck, module: nn.Module) -> torch.Tensor:
        """Return m / |W + s dW|, [D_out]."""
        with torch.no_grad():
            weight, change = weight_at(module, self.tap), form.up.weight @ form.down.weight
            norm = torch.linalg.vector_norm(weight + self.scale * change.to(weight.dtype), dim=1)
        return self.magnitude / norm

    def forward(
        self, h: torch.Tensor, dh: torch.Tensor, form: Bottleneck, module: nn.Module
    ) -> torch.Tensor:
        factor, bias = self.factor(form, module), bias_at(module, self.tap)
        if bias is None:
            return factor * (h + self.scale * dh)
        return factor * (h - bias + self.scale * dh) + bias
