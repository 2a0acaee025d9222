"""Functional forms: the function f that computes the change, dh = f(u).

Shape legend: B batch, T tokens, H heads, D width of a site, R rank, L prefix length.
"""

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import torch
from torch import nn

# Row-vector activations by the names the YAML uses.
ACTIVATIONS: Mapping[str, nn.Module] = {
    "identity": nn.Identity(),
    "relu": nn.ReLU(),
    "gelu": nn.GELU(),
    "silu": nn.SiLU(),
    "tanh": nn.Tanh(),
}


class Form(nn.Module):
    """f(u) -> dh. A form's constructor takes the site first; its keywords are its YAML.

    `folded` names the constructor arguments under which the form holds just what inference needs;
    `stored` yields the tensors of that form, by parameter name.
    """

    folded: ClassVar[Mapping[str, Any]] = {}

    def stored(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Name and tensor of all that inference needs (a prefix without its MLP)."""
        yield from self.named_parameters()
