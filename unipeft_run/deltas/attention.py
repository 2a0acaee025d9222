"""The one attention function and its mask function, for changes at the attention heads.

transformers calls an attention function after its cache has been updated, so a prefix never enters
the cache, and beams and cached cross-attention need no code of ours.

Shape legend: B batch, H heads, T queries, S keys, L prefix length, C width of a head.
"""

from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import bidirectional_mask_function, sdpa_mask

from unipeft_run.deltas.compositions import Gated
from unipeft_run.deltas.delta import Delta
from unipeft_run.deltas.forms.memory import Memory

HEADS = "delta_attn"  # the child of an attention module that changes its heads
NAMES = {"sdpa": "unipeft_sdpa", "eager": "unipeft_eager"}


def eager(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor | None, p: float, s: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """softmax(s q k^T + mask) v, [B, H, T, C], and its weights, [B, H, T, S]."""
    weights = F.softmax(_logits(q * s, k, mask), dim=-1)
    weights = F.dropout(weights, p, training=p > 0)
    return weights @ v, weights


def sdpa(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor | None, p: float, s: float
) -> tuple[torch.Tensor, None]:
    """The same through torch's kernels; no weights.

    is_causal stays False: with a prefix there are more keys than queries, and the kernels would
    align the triangle with the wrong corner.
    """
    return F.scaled_dot_product_attention(
        q, k, v, mask, dropout_p=p, is_causal=False, scale=s
    ), None


def _logits(q: torch.Tensor, k: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    logits = q @ k.transpose(-1, -2)
    return logits if mask is None else logits.masked_fill(~mask, torch.finfo(q.dtype).min)


def attend(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    core: Any,
    dropout: float = 0.0,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Attention with the change of the module's heads, if it has one.

    query is [B, H, T, C], key and value [B, H, S, C], attention_mask [B, 1, T or 1, S], True where
    a key is visible. Returns [B, T, H, C] and, from the eager core, the weights.
    """
    scale = query.size(-1) ** -0.5 if scaling is None else scaling
    delta = getattr(module, HEADS, None)
    if not isinstance(delta, Delta):
        h, weights = core(query, key, value, attention_mask, dropout, scale)
        return h.transpose(1, 2).contiguous(), weights
    assert isinstance(delta.form, Memory)
    if delta.form.is_attention and isinstance(delta.composition, Gated):
        delta.x = None
        prefix_key, prefix_value = (p.expand(query.size(0), -1, -1, -1) for p in delta.form.heads())
        h, weights = core(
            query,
            torch.cat([prefix_key.to(key.dtype), key], dim=2),
            torch.cat([prefix_value.to(value.dtype), value], dim=2),
            _see_prefix(attention_mask, prefix_key.size(2)),
            dropout,
            scale,
        )
    else:
        h, weights = core(query, key, value, attention_mask, dropout, scale)
        q = memory_query(module, delta, query, scale)
        gate = _gate(delta, q, _logits(query * scale, key, attention_mask))
        h = delta(q, h, **gate)
    return h.transpose(1, 2).contiguous(), weights


def memory_query(
    module: nn.Module, delta: Delta, query: torch.Tensor, scale: float
) -> torch.Tensor:
    """The query that the memory reads, by its option `query`: [B, H, T, C]."""
    x, form = delta.take(), delta.form
    assert isinstance(form, Memory)
    if form.norm is not None:
        projected = module.get_submodule(delta.site.query)(form.norm(x))
        query = projected.view(*x.shape[:2], form.num_heads, -1).transpose(1, 2)
    return query if "unscaled" in form.query else query * scale


def _gate(delta: Delta, q: torch.Tensor, logits: torch.Tensor) -> dict[str, torch.Tensor]:
    """lambda of Eq. 7, [B, H, T, 1]: the prefix's share of the joint partition function."""
    if not isinstance(delta.composition, Gated):
        return {}
    assert isinstance(delta.form, Memory)
    prefix = delta.form.logits(q).logsumexp(-1, keepdim=True)
    return {"gate": torch.sigmoid(prefix - logits.logsumexp(-1, keepdim=True))}


def _see_prefix(mask: torch.Tensor | None, length: int) -> torch.Tensor | None:
    return None if mask is None else F.pad(mask, (length, 0), value=True)


def visible(
    *, q_length: int, mask_function: Any, attention_mask: torch.Tensor | None = None, **kwargs: Any
) -> torch.Tensor | None:
    """The boolean mask [B, 1, T or 1, S]; None where every query sees every key.

    A causal mask is never left out: "causal by kernel" is wrong with a prefix. Without causality
    every query sees the same keys: one row serves, also where a prompt has lengthened the queries.
    """
    if mask_function is bidirectional_mask_function:
        if attention_mask is None:
            return None
        q_length = 1
    kwargs |= {"allow_is_causal_skip": False, "allow_is_bidirectional_skip": False}
    return sdpa_mask(
        q_length=q_length, mask_function=mask_function, attention_mask=attention_mask, **kwargs
    )


def register() -> None:
    """Make both names known to transformers, with the mask function: without it, no mask at all."""
    for name, core in ((NAMES["sdpa"], sdpa), (NAMES["eager"], eager)):
        AttentionInterface.register(name, partial(attend, core=core))
        AttentionMaskInterface.register(name, visible)


register()
