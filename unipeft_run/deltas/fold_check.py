"""Check that a folded model has the logits of the original, up to rounding."""

import torch

from unipeft_run.errors import UserError

# Largest allowed difference of the logits, relative to the largest logit or to 1.
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-4, torch.bfloat16: 0.1, torch.float16: 0.02}
LOST = 0.5  # largest share of the deltas' effect that may be missing or in excess


def check_logits(logits: torch.Tensor, expected: torch.Tensor, plain: torch.Tensor) -> None:
    """Raise UserError unless a folded model's `logits` are the `expected` ones.

    `plain`: the logits without the deltas. In half precision, a fold that does nothing can be
    within the tolerance. Beyond half of it, relative to the largest logit, the folded model must
    therefore have the effect of the deltas, `expected - plain`, over all logits.
    """
    dtype = expected.dtype
    logits, expected, plain = (
        t.to(torch.promote_types(dtype, torch.float32)) for t in (logits, expected, plain)
    )
    error, largest = float((logits - expected).abs().max()), float(expected.abs().max())
    allowed = TOLERANCE[dtype]
    if not error <= allowed * max(1.0, largest):
        share = error / max(1.0, largest)
        raise UserError(
            f"folding in {dtype} changes the logits by up to {share:.1e}, relative to the largest; "
            f"at most {allowed:g} is allowed{_advice(dtype)}"
        )
    effect = expected - plain
    if error <= allowed / 2 * largest or not effect.any():
        return
    kept = float(((logits - plain) * effect).sum() / effect.square().sum())
    if abs(kept - 1) > LOST:
        raise UserError(
            f"folding in {dtype} keeps {kept:.0%} of the deltas' effect on the logits, "
            f"which rounding alone cannot explain{_advice(dtype)}"
        )


def _advice(dtype: torch.dtype) -> str:
    is_half = dtype in (torch.bfloat16, torch.float16)
    return ". Fold in float32 and cast the result." if is_half else ""
