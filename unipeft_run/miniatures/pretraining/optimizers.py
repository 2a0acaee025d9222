"""The optimisers of the causal and contrastive miniatures."""

from __future__ import annotations

import torch

MUON_LR, ADAM_LR = 0.02, 3e-3


class Optimizers:
    """Muon for the matrices of the layers, AdamW for embeddings, projections and vectors."""

    def __init__(self, model: torch.nn.Module, decay: float = 0.0) -> None:
        matrices: list[torch.nn.Parameter] = []
        others: list[torch.nn.Parameter] = []
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                is_matrix = ".layer" in name and parameter.ndim == 2
                (matrices if is_matrix else others).append(parameter)
        self.parts = [
            torch.optim.Muon(matrices, lr=MUON_LR, weight_decay=decay, momentum=0.95),
            torch.optim.AdamW(others, lr=ADAM_LR, betas=(0.9, 0.95), weight_decay=0.0, fused=True),
        ]

    def step(self, factor: float) -> None:
        """Update with the learning rates times `factor`, and clear the gradients."""
        for part, lr in zip(self.parts, (MUON_LR, ADAM_LR), strict=True):
            part.param_groups[0]["lr"] = lr * factor
            part.step()
            part.zero_grad()
