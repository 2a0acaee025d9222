"""The attention function and mask function that let deltas modify attention heads.

transformers calls an attention function after updating its cache. A prefix therefore never enters
the cache, and beam search and cached cross-attention need no extra code.

Shapes: B batch, H heads, T queries, S keys, L prefix length, C head width.
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

HEADS = "delta_attn"  # name of the delta that is a child of an attention module
# transformers' attention implementation -> ours
IMPLEMENTATIONS = {"sdpa": "unipeft_sdpa", "eager": "unipeft_eager"}


def eager(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor | None, p: float, s: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return softmax(s q k^T + mask) v, [B, H, T, C], and its weights, [B, H, T, S]."""
    weights = F.softmax(_logits(q * s, k, mask), dim=-1)
    weights = F.dropout(weights, p, training=p > 0)
    return weights @ v, weights


def sdpa(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor | None, p: float, s: float
) -> tuple[torch.Tensor, None]:
    """Return the same from torch's fused kernels, without weights.

    On a CPU they have no dropout, and torch computes it less efficiently than `eager`.

    is_causal must stay False: with a prefix there are more keys than queries, and the kernels would
    align the causal triangle with the wrong corner.
    """
    if p > 0 and q.device.type == "cpu":
        return eager(q, k, v, mask, p, s)[0], None
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
    """Compute attention, modified by the module's delta if it has one.

    query is [B, H, T, C], key and value are [B, H, S, C], attention_mask is [B, 1, T or 1, S], True
    where a key is visible. Returns [B, T, H, C] and, with the eager core, the weights.
    """
    scale = query.size(-1) ** -0.5 if scaling is None else scaling
    delta = getattr(module, HEADS, None)
    if not isinstance(delta, Delta):
        h, weights = core(query, key, value, attention_mask, dropout, scale)
        return h.transpose(1, 2).contiguous(), weights
    form, x = delta.form, delta.pop_x()
    assert isinstance(form, Memory)
    gated = delta.composition if isinstance(delta.composition, Gated) else None
    factor = None if gated is None else gated.memory_factor(x)
    if gated is not None and form.is_attention and (factor is None or factor.size(2) == 1):
        prefix_key, prefix_value = (
            (p if factor is None else factor * p).expand(query.size(0), -1, -1, -1)
            for p in form.heads()
        )
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
        q = _memory_query(module, delta, x, query, scale)
        q = q if factor is None else factor * q  # the same as factor * P_k
        dh = form(q) if factor is None else factor * form(q)
        given = {"u": x}
        if gated is not None:
            given["gate"] = _gate(form, q, _logits(query * scale, key, attention_mask))
        h = delta.compose(h, dh, **given)
    return h.transpose(1, 2).contiguous(), weights


def _memory_query(
    module: nn.Module, delta: Delta, x: torch.Tensor, query: torch.Tensor, scale: float
) -> torch.Tensor:
    """Return the query that the memory reads, by its `query` option, [B, H, T, C]."""
    form = delta.form
    assert isinstance(form, Memory)
    if form.norm is not None:
        projected = module.get_submodule(delta.site.query)(form.norm(x))
        query = projected.view(*x.shape[:2], form.num_heads, -1).transpose(1, 2)
    return query if "unscaled" in form.query else query * scale


def _gate(form: Memory, q: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
    """Return lambda of Eq. 7, [B, H, T, 1]: the softmax mass on the prefix."""
    prefix = form.logits(q).logsumexp(-1, keepdim=True)
    return torch.sigmoid(prefix - logits.logsumexp(-1, keepdim=True))


def _see_prefix(mask: torch.Tensor | None, length: int) -> torch.Tensor | None:
    return None if mask is None else F.pad(mask, (length, 0), value=True)


def make_mask(
    *, q_length: int, mask_function: Any, attention_mask: torch.Tensor | None = None, **kwargs: Any
) -> torch.Tensor | None:
    """Return the boolean mask [B, 1, T or 1, S]; None if every query sees every key.

    A causal mask is always returned, because the kernels' own `is_causal` is wrong with a prefix.
    Without causality all queries see the same keys, so one row is enough, whatever the number of
    queries after a prompt was added.
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
    """Register both implementations with their mask function.

    Without a registered mask function transformers would pass no mask.
    """
    for name, core in ((IMPLEMENTATIONS["sdpa"], sdpa), (IMPLEMENTATIONS["eager"], eager)):
        AttentionInterface.register(name, partial(attend, core=core))
        AttentionMaskInterface.register(name, make_mask)


register()
