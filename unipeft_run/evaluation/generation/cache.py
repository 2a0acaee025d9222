"""Keys and values of the decoder's attention, laid out for many beams of few sources.

Shape legend: B sources, K beams, H heads, C width of a head, P prefix length, S source positions,
L longest target.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import EncoderDecoderCache

Prefixes = Mapping[int, tuple[Tensor, Tensor]]  # layer -> keys and values, [H, P, C] each


@dataclass
class Layer:
    """The keys and values of one attention module, [B, H, positions, C] each."""

    keys: Tensor
    values: Tensor


class LayerCache:
    """The layers of one attention type, each preceded by the prefix of its module, if any."""

    def __init__(self, prefixes: Prefixes) -> None:
        self.prefixes = prefixes
        self.layers: dict[int, Layer] = {}

    def keep(self, rows: Tensor) -> None:
        """Reduce the batch to the sources at `rows`."""
        for layer in self.layers.values():
            layer.keys, layer.values = layer.keys[rows], layer.values[rows]

    def _prefix_of(self, layer: int, like: Tensor) -> tuple[Tensor, Tensor]:
        """Return the layer's prefix for each source, [B, H, P, C]; P is 0 without a prefix."""
        empty = like.new_empty(like.size(1), 0, like.size(3))
        keys, values = (p.to(like.dtype) for p in self.prefixes.get(layer, (empty, empty)))
        return keys.expand(len(like), -1, -1, -1), values.expand(len(like), -1, -1, -1)


class CrossCache(LayerCache):
    """The keys and values of the sources, [B, H, P + S, C], shared by the beams of a source."""

    def update(self, keys: Tensor, values: Tensor, layer: int) -> tuple[Tensor, Tensor]:
        """Store the keys and values projected by the first step."""
        prefix = self._prefix_of(layer, keys)
        joined = (torch.cat(pair, dim=2) for pair in zip(prefix, (keys, values), strict=True))
        self.layers[layer] = Layer(*joined)
        return self.layers[layer].keys, self.layers[layer].values


class SelfCache(LayerCache):
    """The keys and values of the targets, [B, H, P + (L - 1) K, C], position by position.

    They are allocated at the first step and never reordered. Instead, the mask selects the entries
    that a beam descends from.
    """

    def __init__(self, prefixes: Prefixes, positions: int) -> None:
        super().__init__(prefixes)
        self.positions = positions  # capacity
        self.position = 0  # the position written by the current step

    def get_seq_length(self, layer: int = 0) -> int:
        """Return the number of positions before the current step, for the decoder."""
        del layer
        return self.position

    def update(self, keys: Tensor, values: Tensor, layer: int) -> tuple[Tensor, Tensor]:
        """Write the keys and values of the K beams, [B, H, K, C]; return those to attend to."""
        if layer not in self.layers:
            self.layers[layer] = self._allocate(keys, layer)
        return self._write(self.layers[layer], keys, values)

    def _write(self, stored: Layer, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        beams = keys.size(2)
        start = stored.keys.size(2) - (self.positions - self.position) * beams
        stop = start + beams
        stored.keys[:, :, start:stop], stored.values[:, :, start:stop] = keys, values
        return stored.keys[:, :, :stop], stored.values[:, :, :stop]

    def _allocate(self, keys: Tensor, layer: int) -> Layer:
        capacity = self.positions * keys.size(2)
        prefix_keys, prefix_values = self._prefix_of(layer, keys)
        space = keys.new_zeros(*keys.shape[:2], capacity, keys.size(3))  # masked NaNs would spread
        return Layer(
            torch.cat([prefix_keys, space], dim=2), torch.cat([prefix_values, space], dim=2)
        )


class PromptCache(SelfCache):
    """The keys and values of prompts and targets, [B, H, P + S + (L - S) K, C].

    The first pass writes those of the prompts, [B, H, S, C], once for all beams of a source. It
    returns them without the prefix, which the attention function of that pass adds itself.
    """

    def __init__(self, prefixes: Prefixes, positions: int, beams: int) -> None:
        super().__init__(prefixes, positions)
        self.beams = beams
        self.prompt = 0  # S, once the prompts are written

    def get_seq_length(self, layer: int = 0) -> int:
        return self.prompt + super().get_seq_length(layer)

    def get_query_offset(self, layer: int = 0) -> int:
        """Return the position of the first query, for transformers' masks."""
        return self.get_seq_length(layer)

    def get_mask_sizes(self, queries: int, layer: int = 0) -> tuple[int, int]:
        """Return the number of keys and the position of the first, for transformers' masks."""
        return self.get_seq_length(layer) + queries, 0

    def update(self, keys: Tensor, values: Tensor, layer: int) -> tuple[Tensor, Tensor]:
        """Write keys and values; return those to attend to."""
        if layer in self.layers:
            return super().update(keys, values, layer)
        self.prompt = keys.size(2)
        stored = zip(self._prefix_of(layer, keys), (keys, values), strict=True)
        space = keys.new_zeros(*keys.shape[:2], self.positions * self.beams, keys.size(3))
        joined = (torch.cat([prefix, own, space], dim=2) for prefix, own in stored)
        self.layers[layer] = Layer(*joined)
        return keys, values


class BeamCache(EncoderDecoderCache):  # type: ignore[misc]
    """Both caches, with the interface that transformers' decoder expects."""

    def __init__(self, own: SelfCache, cross: CrossCache) -> None:
        # not super().__init__: it accepts transformers' own caches only
        self.self_attention_cache, self.cross_attention_cache = own, cross
        self.is_updated: dict[int, Any] = {}

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return self.self_attention_cache.get_seq_length(layer_idx)

    def keep(self, rows: Tensor) -> None:
        """Reduce the batch to the sources at `rows`."""
        self.self_attention_cache.keep(rows)
        self.cross_attention_cache.keep(rows)
