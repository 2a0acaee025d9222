"""Insertion forms: select the tensor that the form reads, u = insert(x, h).

He et al. 2022, section 3.2. x is the input of the frozen sub-module, h the hidden representation it
produces.
"""

import torch


def parallel(x: torch.Tensor, h: torch.Tensor) -> torch.Tensor:
    """Return u = x: in parallel to the sub-module (prefix tuning, LoRA, parallel adapters)."""
    return x


def residual(x: torch.Tensor, h: torch.Tensor) -> torch.Tensor:
    """Return u = x: the residual stream before the sub-module and its normalisation.

    In the post-norm families this is the input of the sub-module. `adapters` and AdaptFormer read
    it for their parallel adapters.
    """
    return x


def sequential(x: torch.Tensor, h: torch.Tensor) -> torch.Tensor:
    """Return u = h: after the sub-module (Houlsby's adapters)."""
    return h


def post_norm(x: torch.Tensor, h: torch.Tensor) -> torch.Tensor:
    """Return u = the block's output, after residual and LayerNorm (Pfeiffer's adapter).

    At the site `ffn.block` the tap for x yields that output. In the post-norm families it is LN(h),
    where h is the input of the block's last LayerNorm; in mBART, whose blocks end with the sum, it
    is h itself.
    """
    return x
