"""The attention function and mask function that let deltas modify attention heads.

transformers calls an attention function after updating its cache. A prefix therefore never enters
the cache, and beam search and cached cross-attention need no extra code.

Shapes: B batch, H heads, G key-value heads, T queries, S keys, L prefix length, C head width.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import bidirectional_mask_function, sdpa_mask

from unipeft_run.deltas.compositions import Gated
from unipeft_run.deltas.delta import Delta, match_type
from unipeft_run.deltas.forms.memory import Memory, repeat_heads
from unipeft_run.errors import UserError

HEADS = "delta_attn"  # name of the delta that is a child of an attention module
# transformers' attention implementation -> ours
IMPLEMENTATIONS = {"sdpa": "unipeft_sdpa", "eager": "unipeft_eager"}
OWN = "unipeft_"  # how the names of all implementations that apply deltas start


def eager(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    mask: torch.Tensor | None,
    p: float,
    s: float,
    bias: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return softmax(s q k^T + bias + mask) v, [B, H, T, C], and its weights, [B, H, T, S]."""
    weights = F.softmax(_logits(q * s, k, mask, bias), dim=-1)
    weights = F.dropout(weights, p, training=p > 0)
    return weights @ v, weights


def sdpa(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    mask: torch.Tensor | None,
    p: float,
    s: float,
    bias: torch.Tensor | None = None,
) -> tuple[torch.Tensor, None]:
    """Return the same from torch's fused kernels, without weights.

    On a CPU these kernels have no dropout; torch then takes a slower path than `eager`.

    is_causal must stay False: with a prefix there are more keys than queries, and the kernels would
    align the causal triangle with the wrong corner.
    """
    if p > 0 and q.device.type == "cpu":
        return eager(q, k, v, mask, p, s, bias)[0], None
    if bias is not None:
        mask = _mask_logits(bias.to(q.dtype), mask)
    elif mask is not None and mask.dtype != torch.bool:
        mask = _clip_mask(mask, q.dtype)
    return F.scaled_dot_product_attention(
        q, k, v, mask, dropout_p=p, is_causal=False, scale=s
    ), None


def _logits(
    q: torch.Tensor, k: torch.Tensor, mask: torch.Tensor | None, bias: torch.Tensor | None = None
) -> torch.Tensor:
    logits = q @ k.transpose(-1, -2)
    if bias is not None:
        logits = logits + bias
    return _mask_logits(logits, mask)


def _mask_logits(logits: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """Apply a mask: boolean, True where a key is visible, or added to the logits."""
    if mask is None:
        return logits
    if mask.dtype == torch.bool:
        return logits.masked_fill(~mask, torch.finfo(logits.dtype).min)
    return logits + _clip_mask(mask, logits.dtype)


def _clip_mask(mask: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Return an additive mask in `dtype`, without infinities. Raises UserError for integers."""
    if not mask.is_floating_point():
        raise UserError(
            f"attention_mask has 4 dimensions and dtype {mask.dtype}: must be bool, True where a "
            "key is visible, or floating point, added to the logits"
        )
    return mask.clamp(min=torch.finfo(dtype).min).to(dtype)


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
    position_bias: torch.Tensor | None = None,
    biases: Mapping[int, torch.Tensor] | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Compute attention, modified by the module's delta if it has one.

    query is [B, H, T, C], key and value are [B, G, S, C], where G key-value heads serve H / G heads
    each. attention_mask is [B, 1, T or 1, S]: True where a key is visible, or added to the logits.
    position_bias is [1, H, T, S]; `biases` gives it by the number of keys, prefix included, where
    the queries are not consecutive positions. Returns [B, T, H, C] and, with the eager core, the
    weights.
    """
    scale = query.size(-1) ** -0.5 if scaling is None else scaling
    delta = getattr(module, HEADS, None)
    if not isinstance(delta, Delta):
        key, value = (repeat_heads(states, query) for states in (key, value))
        h, weights = core(query, key, value, attention_mask, dropout, scale, position_bias)
        return h.transpose(1, 2).contiguous(), weights
    form = delta.form
    assert isinstance(form, Memory)
    first = next(form.parameters())
    x = match_type(delta.pop_x(), first)
    gated = delta.composition if isinstance(delta.composition, Gated) else None
    factor = None if gated is None else gated.memory_factor(x)
    bias: Any = position_bias
    prefix_bias = None
    is_prefix = gated is not None and form.is_attention
    if is_prefix and bias is not None:
        keys = form.length + key.size(2)
        shifted = _shift_bias(delta, bias, form.length) if biases is None else biases[keys]
        prefix_bias, bias = shifted[..., : form.length], shifted[..., form.length :]
    if is_prefix and (factor is None or factor.size(2) == 1):
        prefix = (p if factor is None else factor * p for p in form.heads())
        joined = [
            repeat_heads(_prepend(memory.to(own.dtype), own), query)
            for memory, own in zip(prefix, (key, value), strict=True)
        ]
        mask = _see_prefix(attention_mask, joined[0].size(2) - key.size(2))
        joint = torch.cat([prefix_bias, bias], dim=-1) if prefix_bias is not None else None
        h, weights = core(query, *joined, mask, dropout, scale, joint)
    else:
        key, value = (repeat_heads(states, query) for states in (key, value))
        h, weights = core(query, key, value, attention_mask, dropout, scale, bias)
        q = match_type(_memory_query(module, delta, x, query, scale), first)
        q = q if factor is None else factor * q  # the same as factor * P_k
        dh = form(q, prefix_bias) if factor is None else factor * form(q, prefix_bias)
        given = {"u": x}
        if gated is not None:
            own = _logits(query * scale, key, attention_mask, bias)
            given["gate"] = _gate(form.logits(q, prefix_bias), own)
        h = match_type(delta.compose(h, dh, **given), h)
    return h.transpose(1, 2).contiguous(), weights


def _prepend(memory: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
    """Join [H, L, C] or [B, H, L, C] and [B, H, S, C] to [B, H, L + S, C]."""
    return torch.cat([memory.expand(own.size(0), -1, -1, -1), own], dim=2)


def _shift_bias(delta: Delta, bias: torch.Tensor, length: int) -> torch.Tensor:
    """Return the relative position bias [1, H, T, L + S] of a prefix of L and S keys.

    The prefix counts as keys 0 to L - 1, and key j as L + j; queries keep their positions. Without
    a relative bias (cross-attention), the prefix has none either.
    """
    if not delta.bias_source:
        return F.pad(bias, (length, 0))
    queries, keys = bias.shape[-2:]
    source: Any = delta.bias_source[0]
    shifted: torch.Tensor = source.compute_bias(
        queries, length + keys, device=bias.device, past_seen_tokens=delta.past
    )
    return shifted


def _memory_query(
    module: nn.Module, delta: Delta, x: torch.Tensor, query: torch.Tensor, scale: float
) -> torch.Tensor:
    """Return the query that the memory reads, by its `query` option, [B, H, T, C]."""
    form = delta.form
    assert isinstance(form, Memory)
    if form.norm is not None:
        assert delta.site.query is not None, "checked by the form"
        projected = module.get_submodule(delta.site.query)(match_type(form.norm(x), query))
        query = projected.view(*x.shape[:2], form.num_heads, -1).transpose(1, 2)
    return query if "unscaled" in form.query else query * scale


def _gate(prefix: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
    """Return lambda of Eq. 7, [B, H, T, 1]: the softmax mass on the prefix, from all logits."""
    return torch.sigmoid(prefix.logsumexp(-1, keepdim=True) - own.logsumexp(-1, keepdim=True))


def _see_prefix(mask: torch.Tensor | None, length: int) -> torch.Tensor | None:
    """Extend a mask [..., S] to [..., L + S]: visible is True, or 0 in an additive mask."""
    return None if mask is None else F.pad(mask, (length, 0), value=mask.dtype == torch.bool)


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
