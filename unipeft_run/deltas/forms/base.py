"""Functional forms: the function f that computes the change, dh = f(u).

Shape legend: B batch, T tokens, H heads, D width of a site, R rank, L prefix length.
"""

from collections.abc import Iterator
from typing import Any, ClassVar

import torch
from torch import nn

ACTIVATIONS: dict[str, nn.Module] = {
    "identity": nn.Identity(),
    "relu": nn.ReLU(),
    "gelu": nn.GELU(),
    "silu": nn.SiLU(),
    "tanh": nn.Tanh(),
}


class Form(nn.Module):
    """f(u) -> dh. The constructor takes the site first; its keywords are the form's YAML.

    Class attributes declare where the form is legal. They are literals, read from the source by
    `config.declarations` before torch is imported.
    """

    sites: ClassVar[tuple[str, ...]] = ()  # the only sites where it is legal; empty: all
    elsewhere: ClassVar[str] = ""  # the reason why it is illegal at other sites
    illegal_at: ClassVar[dict[str, str]] = {}  # single sites where it is illegal, with the reason
    gives: ClassVar[tuple[str, ...]] = ("change",)  # what a composition may take from it
    needs: ClassVar[str] = ""  # the reason why a composition that takes a change is illegal
    # keywords that act only together with another one
    acts_with: ClassVar[dict[str, str]] = {}
    # keywords that leave the function of the stored tensors unchanged, with the reason
    training_only: ClassVar[dict[str, str]] = {}
    # keywords under which the form has just the parameters that inference needs
    inference_keywords: ClassVar[dict[str, Any]] = {}

    def inference_tensors(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Yield name and tensor of everything inference needs (a prefix without its MLP)."""
        yield from self.named_parameters()
