"""The decoder step with static shapes, captured as a CUDA graph on a GPU.

A step attends to all positions of the target under a mask, and the current position is a tensor on
the device. The kernels are thus the same in every step, so a GPU can replay them as one graph. On a
CPU the same step runs without a graph.

Shape legend: B sources, K beams, H heads, C width of a head, P prefix length, L longest target,
V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unipeft_run.evaluation.generation.cache import Layer, Prefixes, SelfCache
from unipeft_run.evaluation.generation.encoder_decoder import EncoderDecoder
from unipeft_run.evaluation.generation.settings import Settings

Forward = Callable[[Tensor, Tensor], Tensor]


class StaticSelfCache(SelfCache):
    """Keys and values of the targets, [B, H, P + (L - 1) K, C], always returned in full.

    `place` is the current position as a tensor on the device.
    """

    def __init__(self, prefixes: Prefixes, positions: int, place: Tensor) -> None:
        super().__init__(prefixes, positions)
        self.place = place

    def get_seq_length(self, layer: int = 0) -> int:
        """Return 0 at every step: the decoder's own positions are replaced."""
        del layer
        return 0

    def _write(self, stored: Layer, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        beams = keys.size(2)
        prefix = stored.keys.size(2) - self.positions * beams
        columns = prefix + self.place * beams + torch.arange(beams, device=keys.device)
        stored.keys.index_copy_(2, columns, keys)
        stored.values.index_copy_(2, columns, values)
        return stored.keys, stored.values


class StaticDecoder(EncoderDecoder):
    """The decoder with static shapes; a new graph is captured when sources leave the batch."""

    def __init__(
        self, model: Any, states: Tensor, attention_mask: Tensor, settings: Settings
    ) -> None:
        self.place = torch.zeros((), dtype=torch.long, device=states.device)
        super().__init__(model, states, attention_mask, settings)
        self.graph: CapturedStep | None = None

    def keep(self, rows: Tensor) -> None:
        super().keep(rows)
        self.graph = None

    def _build_cache(self, prefixes: Prefixes, positions: int) -> SelfCache:
        return StaticSelfCache(prefixes, positions, self.place)

    def _run(self, tokens: Tensor, mask: Tensor) -> Tensor:
        missing = self.prefix_length + self.own.positions * tokens.size(1) - mask.size(-1)
        mask = F.pad(mask, (0, missing), value=False)
        self.place.fill_(self.own.position)
        # the first step projects the sources
        if self.device.type != "cuda" or self.own.position == 0:
            return super()._run(tokens, mask)
        if self.graph is None:
            self.graph = CapturedStep(super()._run, tokens, mask)
        return self.graph(tokens, mask)

    def _share_position(
        self, module: nn.Module, args: Any, kwargs: dict[str, Any]
    ) -> tuple[Any, dict[str, Any]]:
        del module
        return args, {**kwargs, "position_ids": self.place.expand_as(kwargs["position_ids"])}


class CapturedStep:
    """One decoder step as a CUDA graph. A call overwrites the logits of the previous one."""

    def __init__(self, forward: Forward, tokens: Tensor, mask: Tensor) -> None:
        self.tokens, self.mask = tokens.clone(), mask.clone()
        cuda: Any = torch.cuda  # torch leaves streams untyped
        stream, current = cuda.Stream(), cuda.current_stream()
        stream.wait_stream(current)
        with torch.cuda.stream(stream):  # warm up; the replay writes the same keys and values
            forward(self.tokens, self.mask)
        current.wait_stream(stream)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.logits = forward(self.tokens, self.mask)

    def __call__(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """Return logits [B, K, V] after `tokens` [B, K]."""
        self.tokens.copy_(tokens)
        self.mask.copy_(mask)
        self.graph.replay()
        return self.logits
