"""Models with named deltas that are far from their initialisation."""

from typing import Any

import torch
from tiny import backbone, batch
from torch import Tensor, nn

import unipeft
from unipeft_run.deltas.attach import find_deltas


def perturb(model: nn.Module, seed: int = 0, strength: float = 0.2) -> None:
    """Move every parameter that trains away from where it is."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
                parameter.add_(strength * noise.to(parameter.dtype))


def attach_perturbed(
    model: nn.Module, method: str, seed: int = 0, *, strength: float = 0.2, **settings: Any
) -> Any:
    """Attach a method and perturb what trains; return what `attach` returned."""
    attached = unipeft.attach(model, method, **settings)
    perturb(model, seed, strength)
    return attached


def logits(model: Any, family: str) -> Tensor:
    """Return the logits for the family's batch, without a gradient."""
    with torch.no_grad():
        return model(**batch(family)).logits  # type: ignore[no-any-return]


def double(family: str) -> Any:
    """Return a tiny backbone in float64, where sums are exact to 1e-12."""
    return backbone(family).double()


def delta_names(model: nn.Module) -> list[str]:
    """Return the paths of the deltas that act on the model."""
    return [path for path, _ in find_deltas(model)]
