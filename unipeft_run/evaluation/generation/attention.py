"""The decoder's attention function during generation, with prefixes in the cache.

Shape legend: B sources, K beams, H heads, G key-value heads, C width of a head, P prefix length,
S key positions.
"""

from __future__ import annotations

from collections.abc import Mapping
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
    window_mask: Tensor | None = None,
    biases: Mapping[int, Tensor] | None = None,
    sliding_window: int | None = None,
    position_bias: Tensor | None = None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, Tensor | None]:
    """Compute the attention of K beams, query [B, H, K, C], to keys and values [B, G, P + S, C].

    A mask may have more leading columns than the module has prefix vectors. transformers passes a
    mask for self-attention only; `cross_mask` is used for cross-attention, and `window_mask` by
    layers with a sliding window. `biases` holds the relative bias of self-attention by the number
    of keys; transformers' `position_bias` takes beams for positions.
    """
    del position_bias
    is_own = attention_mask is not None
    mask = attention_mask if is_own else cross_mask
    if is_own and sliding_window is not None:
        mask = window_mask
    if mask is not None:
        mask = mask[..., -key.size(2) :]
    bias = biases[key.size(2)] if is_own and biases else None
    scale = query.size(-1) ** -0.5 if scaling is None else scaling
    if isinstance(delta := getattr(module, HEADS, None), Delta):
        if find_prefix(module) is None:
            return attend(
                *(module, query, key, value, mask),
                core=core,
                dropout=dropout,
                scaling=scale,
                position_bias=bias,
                biases=biases,
                **kwargs,
            )
        delta.x = None
    h, weights = _attend_grouped(core, query, key, value, mask, dropout, scale, bias)
    return h.transpose(1, 2).contiguous(), weights


def _attend_grouped(
    core: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    dropout: float,
    scale: float,
    bias: Tensor | None,
) -> tuple[Tensor, Tensor | None]:
    """Return the output of `core`, [B, H, K, C], and its weights, without copies of the keys.

    The H / G heads that share keys become further queries of these keys.
    """
    groups = query.size(1) // key.size(1)
    if groups == 1:
        return core(query, key, value, mask, dropout, scale, bias)  # type: ignore[no-any-return]
    assert bias is None, "no family has a relative bias and grouped heads"
    if mask is not None and mask.size(2) > 1:
        mask = mask.repeat(1, 1, groups, 1)
    batch, heads, beams, width = query.shape
    folded = query.reshape(batch, -1, groups * beams, width)
    h, weights = core(folded, key, value, mask, dropout, scale)
    if weights is not None:
        weights = weights.reshape(batch, heads, beams, -1)
    return h.reshape(batch, heads, beams, width), weights


def register() -> None:
    """Register both implementations, without mask functions because masks are passed in full."""
    for name, core in (("sdpa", sdpa), ("eager", eager)):
        AttentionInterface.register(GENERATION[name], partial(attend_beams, core=core))


register()
