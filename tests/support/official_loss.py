"""The label-smoothed loss of the official code."""

import torch
from torch import Tensor


def label_smoother(
    logits: Tensor, labels: Tensor, epsilon: float, summed_in: torch.dtype = torch.float32
) -> Tensor:
    """Compute the loss as transformers' LabelSmoother of 2021 does, line by line."""
    log_probs = -torch.nn.functional.log_softmax(logits, dim=-1)
    labels = labels.unsqueeze(-1)
    padding_mask = labels.eq(-100)
    nll_loss = log_probs.gather(dim=-1, index=labels.clamp(min=0))
    smoothed_loss = log_probs.sum(dim=-1, keepdim=True, dtype=summed_in)
    nll_loss = nll_loss.masked_fill(padding_mask, 0.0)
    smoothed_loss = smoothed_loss.masked_fill(padding_mask, 0.0)
    num_active_elements = padding_mask.numel() - padding_mask.long().sum()
    nll_loss = nll_loss.sum() / num_active_elements
    smoothed_loss = smoothed_loss.sum() / (num_active_elements * log_probs.shape[-1])
    return (1 - epsilon) * nll_loss + epsilon * smoothed_loss
