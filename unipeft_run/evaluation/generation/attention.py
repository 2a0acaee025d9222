"""The decoder's attention function during generation, with prefixes in the cache.

Shape legend: B sources, K beams, H heads, C width of a head, P prefix length, S key positions.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import Tensor, nn
from transformers import AttentionInterface

from unipeft_run.deltas.attention import HEADS, attend, eager, sdpa
from unipeft_run.deltas.attention import IMPLEMENTATIONS as ATTACHED
from unipeft_run.deltas.compositions import Gated
from unipeft_run.deltas.delta import Delta
from unipeft_run.deltas.forms.memory import Memory

GENERATION = {"sdpa": "unipeft_generation_sdpa", "eager": "unipeft_generation_eager"}
# the model's attention implementation -> the one used while it generates
IMPLEMENTATIONS = GENERATION | {ATTACHED[name]: GENERATION[name] for name in GENERATION}


def find_prefix(module: nn.Module) -> tuple[Delta, Memory] | None:
    """Return the module's delta and form if it is a prefix, that is, precedes its own keys.

    The keys and values of a prefix with a gate change at every step, and `attend` adds them.
    """
    delta = getattr(module, HEADS, None)
    if not isinstance(delta, Delta) or not isinstance(delta.form, Memory):
        return None
    is_constant = type(delta.composition) is Gated  # GatedMemory depends on the input
    return (delta, delta.form) if delta.form.is_attention and is_constant else None


def attend_beams(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    core: Any,
    cross_mask: Tensor | None = None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, Tensor | None]:
    """Compute the attention of K beams, query [B, H, K, C], to keys and values [B, H, P + S, C].

    A mask may have more leading columns than the module has prefix vectors. transformers passes a
    mask for self-attention only; `cross_mask` is used for cross-attention.
    """
    mask = cross_mask if attention_mask is None else attention_mask
    if mask is not None:
        mask = mask[..., -key.size(2) :]
    prefix = find_prefix(module)
    if prefix is None:
        return attend(
            module, query, key, value, mask, core=core, dropout=dropout, scaling=scaling, **kwargs
        )
    prefix[0].x = None
    scale = query.size(-1) ** -0.5 if scaling is None else scaling
    h, weights = core(query, key, value, mask, dropout, scale)
    return h.transpose(1, 2).contiguous(), weights


def register() -> None:
    """Register both implementations, without mask functions because masks are passed in full."""
    for name, core in (("sdpa", sdpa), ("eager", eager)):
        AttentionInterface.register(GENERATION[name], partial(attend_beams, core=core))


register()
