"""Training losses: callables (model, batch) -> (mean loss, number of targets).

Shapes: B examples, T target tokens, N of them not padding, D width, V vocabulary, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from accelerate.utils import extract_model_from_parallel
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from unipeft_run.data.batching import IGNORED

Batch = Mapping[str, Tensor]
CHUNK = 2**25  # logits at a time: 128 MiB of float32, 134 positions of mBART's vocabulary


class Loss(Protocol):
    """Returns the mean loss over the batch's targets, and their number.

    The number is a tensor if reading it would make the host wait for a GPU.
    """

    smoothing: float

    def __call__(self, model: nn.Module, batch: Batch) -> tuple[Tensor, int | Tensor]: ...


def cross_entropy(logits: Tensor, labels: Tensor, smoothing: float = 0.0) -> Tensor:
    """Return (1 - e) * NLL + e * mean_v(-log p_v), averaged over labels other than -100.

    `logits` [..., V], `labels` [...]; e = `smoothing` is spread over all V entries, the gold one
    included, as by the LabelSmoother of the paper's code. Computed in float32 or wider; the
    LabelSmoother sums over V in float32 for float64 logits too, and differs by 1e-7 there.
    """
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return F.cross_entropy(
        wide.flatten(0, -2), labels.flatten(), ignore_index=IGNORED, label_smoothing=smoothing
    )


class SequenceLoss:
    """Label-smoothed cross-entropy of a decoder's predictions, per target token.

    Equals `cross_entropy` of the model's logits, which are never all in memory: a hook replaces the
    head's input by an empty one, and applies the head itself to `chunk` logits at a time. This
    happens inside the model's forward, where FSDP has gathered the head.

    Padding is dropped before the head on a CPU. On a GPU, where this would synchronise,
    padding passes through the head and has weight 0; `keeps_padding` overrides this choice.
    """

    def __init__(
        self, smoothing: float, chunk: int = CHUNK, *, keeps_padding: bool | None = None
    ) -> None:
        self.smoothing, self.chunk, self.keeps_padding = smoothing, chunk, keeps_padding

    def __call__(self, model: nn.Module, batch: Batch) -> tuple[Tensor, int | Tensor]:
        # without labels, the model does not compute a loss itself
        inputs = {name: tensor for name, tensor in batch.items() if name != "labels"}
        inner: Any = extract_model_from_parallel(model)
        bias = getattr(inner, "final_logits_bias", None)
        chunked = _ChunkedHead(batch["labels"], bias, self)
        hook = inner.get_output_embeddings().register_forward_pre_hook(chunked)
        try:
            empty = model(**inputs, use_cache=False).logits  # [B, 0, V]
        finally:
            hook.remove()
        assert chunked.loss is not None
        # adding zero keeps the model's output in the graph, as DDP and FSDP need
        return chunked.loss + empty.sum(), chunked.count


@dataclass
class _ChunkedHead:
    """A pre-forward hook of the head: hidden states [B, T, D] become a loss and [B, 0, D]."""

    labels: Tensor
    bias: Tensor | None
    settings: SequenceLoss
    loss: Tensor | None = None
    count: int | Tensor = 0

    def __call__(self, head: nn.Linear, args: tuple[Tensor, ...]) -> Tensor:
        (hidden,) = args
        assert head.bias is None, "no family has a biased head; BART's bias is final_logits_bias"
        states, gold = self._select(hidden)
        weight, smoothing = head.weight, self.settings.smoothing
        rows = max(1, self.settings.chunk // weight.size(0))
        wanted = tuple(torch.is_grad_enabled() and t.requires_grad for t in (states, weight))
        loss: Any = _HeadLoss.apply  # torch leaves it untyped
        self.loss = loss(states, weight, self.bias, gold, smoothing, rows, wanted, self.count)
        return hidden[:, :0]

    def _select(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Return states [N, D] and labels [N], and count the targets; see `SequenceLoss`."""
        kept = self.labels != IGNORED
        keeps_padding = self.settings.keeps_padding
        if hidden.is_cuda if keeps_padding is None else keeps_padding:
            self.count = kept.sum()
            return hidden.flatten(0, 1), self.labels.flatten()
        states, gold = hidden[kept], self.labels[kept]
        self.count = len(gold)
        return states, gold


class _HeadLoss(torch.autograd.Function):
    """Mean loss of `gold` [N] under softmax(states W^T + bias), `rows` positions at a time.

    `bias`: BART's logit bias, or None. `count`: the number of labels that are not ignored.

    Gradients are computed chunk by chunk during forward, so backward never needs the logits.
    Tensors that need no gradient, such as a frozen head, get none.
    """

    @staticmethod
    def forward(
        ctx: Any,
        states: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        gold: Tensor,
        smoothing: float,
        rows: int,
        wanted: tuple[bool, bool],
        count: int | Tensor,
    ) -> Tensor:
        dtype = _matmul_dtype(states)
        wide = torch.promote_types(dtype, torch.float32)
        matrix = weight.to(dtype)
        losses, for_states = [], []
        for_weight = torch.zeros_like(weight, dtype=wide) if wanted[1] else None
        chunks = (torch.split(tensor, rows) for tensor in (states.to(dtype), gold))
        for states_of, gold_of in zip(*chunks, strict=True):
            logits = F.linear(states_of, matrix).to(wide)
            if bias is not None:
                logits.add_(bias)
            losses.append(_to_probabilities(logits, gold_of, smoothing))
            if not any(wanted):
                continue
            change = _to_gradient(logits, gold_of, smoothing).to(dtype)
            if wanted[0]:
                for_states.append(change @ matrix)
            if for_weight is not None:
                for_weight += change.mT @ states_of
        ctx.save_for_backward(torch.cat(for_states) if for_states else None, for_weight)
        ctx.count, ctx.types = count, (states.dtype, weight.dtype)
        return torch.cat(losses).sum() / count

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        # divided and scaled only here: half precision is most accurate for the plain sums
        factor = upstream / ctx.count
        gradients = [
            None if sums is None else (sums * factor).to(dtype)
            for sums, dtype in zip(ctx.saved_tensors, ctx.types, strict=True)
        ]
        return *gradients, None, None, None, None, None, None


def _matmul_dtype(states: Tensor) -> torch.dtype:
    """Return the type of the head's matrix products: autocast's, if it is on."""
    device = states.device.type
    on = torch.is_autocast_enabled(device) and states.dtype != torch.float64
    return torch.get_autocast_dtype(device) if on else states.dtype


def _to_probabilities(logits: Tensor, gold: Tensor, smoothing: float) -> Tensor:
    """Return the loss of each row of `logits` [n, V], which become probabilities in place.

    The loss of an ignored label is 0.
    """
    mean = logits.mean(-1)
    top = logits.amax(-1, keepdim=True)
    predicted = logits.gather(1, gold.clamp(min=0)[:, None])[:, 0]
    total = logits.sub_(top).exp_().sum(-1, keepdim=True)
    logits.div_(total)
    losses = (top + total.log())[:, 0] - (1 - smoothing) * predicted - smoothing * mean
    return losses.masked_fill(gold == IGNORED, 0.0)


def _to_gradient(probabilities: Tensor, gold: Tensor, smoothing: float) -> Tensor:
    """Turn probabilities [n, V] in place into the gradients of the losses by the logits."""
    probabilities.sub_(smoothing / probabilities.size(-1))
    first = torch.arange(len(gold), device=gold.device) * probabilities.size(-1)
    at_gold = probabilities.new_full((len(gold),), smoothing - 1)
    probabilities.view(-1).scatter_add_(0, first + gold.clamp(min=0), at_gold)
    return probabilities.masked_fill_((gold == IGNORED)[:, None], 0.0)


class ClassificationLoss:
    """Label-smoothed cross-entropy of the classes, per example."""

    def __init__(self, smoothing: float = 0.0) -> None:
        self.smoothing = smoothing

    def __call__(self, model: nn.Module, batch: Batch) -> tuple[Tensor, int | Tensor]:
        labels = batch["labels"]
        return cross_entropy(class_logits(model, batch), labels, self.smoothing), len(labels)


class RegressionLoss:
    """Mean squared error of the classifier's only output, per example."""

    smoothing = 0.0

    def __call__(self, model: nn.Module, batch: Batch) -> tuple[Tensor, int | Tensor]:
        labels = batch["labels"]
        return squared_error(class_logits(model, batch)[:, 0], labels), len(labels)


def squared_error(numbers: Tensor, labels: Tensor) -> Tensor:
    """Return the mean squared error of `numbers` [B], computed in float32 or wider."""
    wide = numbers.to(torch.promote_types(numbers.dtype, torch.float32))
    return F.mse_loss(wide, labels.to(wide.dtype))


def class_logits(model: nn.Module, batch: Batch) -> Tensor:
    """Return the logits [B, C] of a classifier."""
    inputs = {name: tensor for name, tensor in batch.items() if name != "labels"}
    logits = model(**inputs).logits
    assert isinstance(logits, Tensor)
    return logits
