"""Insertion forms: what the function reads, u = insert(x, h). He et al. 2022, section 3.2.

x is the input of the frozen sub-module, h the hidden representation that it produces.
"""

import torch


def parallel(x: torch.Tensor, h: torch.Tensor) -> torch.Tensor:
    """u = x: beside the sub-module (prefix tuning, LoRA, parallel adapters)."""
    return x


def sequential(x: torch.Tensor, h: torch.Tensor) -> torch.Tensor:
    """u = h: behind the sub-module (Houlsby's adapters)."""
    return h


def post_norm(x: torch.Tensor, h: torch.Tensor) -> torch.Tensor:
    """u = the block's output: behind residual and LayerNorm (Pfeiffer's adapter).

    At the site `ffn.block` the tap for x gives that output: LN(h) in the post-norm families, where
    h is the sum that the LayerNorm is about to take; h itself in mBART, whose blocks end there.
    """
    return x
