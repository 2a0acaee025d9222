"""Functional forms: the function f that computes the change, dh = f(u).

Shape legend: B batch, T tokens, H heads, D width of a site, R rank, L prefix length.
"""

from collections.abc import Iterable, Iterator
from typing import Any, ClassVar, TypeVar

import torch
from torch import nn

ACTIVATIONS: dict[str, nn.Module] = {
    "identity": nn.Identity(),
    "relu": nn.ReLU(),
    "gelu": nn.GELU(),
    "silu": nn.SiLU(),
    "tanh": nn.Tanh(),
}
Key = TypeVar("Key")


class Form(nn.Module):
    """f(u) -> dh. The constructor takes the site first; its keywords are the keys of the YAML.

    Class attributes declare where the form is legal. They are literals, read from the source by
    `config.declarations` before torch is imported.
    """

    sites: ClassVar[tuple[str, ...]] = ()  # the only sites where it is legal; empty: all
    elsewhere: ClassVar[str] = ""  # the error message for other sites
    illegal_at: ClassVar[dict[str, str]] = {}  # site where it is illegal -> error message
    gives: ClassVar[tuple[str, ...]] = ("change",)  # a composition's `takes` must be among these
    needs: ClassVar[str] = ""  # the error message for a composition that takes a change
    reads: ClassVar[bool] = True  # false: dh does not depend on u, so that insertions are equal
    # keyword -> another keyword; the first has no effect if the second is null
    acts_with: ClassVar[dict[str, str]] = {}
    # keyword that does not change what the stored tensors compute -> reason
    training_only: ClassVar[dict[str, str]] = {}
    # keywords that build the form with only the parameters that inference needs
    inference_keywords: ClassVar[dict[str, Any]] = {}

    def inference_tensors(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Yield name and tensor of everything that inference needs (a prefix without its MLP)."""
        yield from self.named_parameters()


def drop_repeated(
    tensors: Iterable[tuple[Key, torch.Tensor]],
) -> Iterator[tuple[Key, torch.Tensor]]:
    """Yield each parameter once, at the first of the sites that share it; keep other tensors."""
    seen: set[int] = set()
    for key, tensor in tensors:
        if id(tensor) not in seen:
            yield key, tensor
        if isinstance(tensor, nn.Parameter):  # others are temporary, and their ids are reused
            seen.add(id(tensor))
