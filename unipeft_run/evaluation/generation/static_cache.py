"""Keys and values at fixed addresses, for decoder steps that a GPU records once and repeats.

Shape legend: R rows of the allocation, B rows in use, K beams, H heads, C width of a head, P prefix
length, S source positions, L longest target.
"""

from __future__ import annotations

import torch
from torch import Tensor

from unipeft_run.evaluation.generation.cache import CrossCache, Layer, LayerCache, SelfCache


class StaticLayers(LayerCache):
    """Layers allocated once, with R rows. `layers` holds views of the first B of them."""

    stored: dict[int, Layer]

    def use(self, rows: int) -> None:
        """Use the first `rows` rows."""
        self.layers = {
            index: Layer(layer.keys[:rows], layer.values[:rows])
            for index, layer in self.stored.items()
        }

    def keep(self, rows: Tensor) -> None:
        """Move the sources at `rows` to the front."""
        for layer in self.stored.values():
            for tensor in (layer.keys, layer.values):
                tensor[: len(rows)] = tensor[rows]


class StaticCrossCache(StaticLayers, CrossCache):
    """The keys and values of the sources, [R, H, P + S, C]; the first search allocates them."""

    def __init__(self, *args: object) -> None:
        super().__init__(*args)  # type: ignore[arg-type]
        self.stored = {}

    def update(self, keys: Tensor, values: Tensor, layer: int) -> tuple[Tensor, Tensor]:
        if layer not in self.stored:
            super().update(keys, values, layer)
            self.stored[layer] = self.layers[layer]
        else:
            current = self.layers[layer]
            current.keys[:, :, -keys.size(2) :] = keys
            current.values[:, :, -values.size(2) :] = values
        return self.layers[layer].keys, self.layers[layer].values


class StaticSelfCache(StaticLayers, SelfCache):
    """The keys and values of the targets, [R, H, P + (L - 1) K, C], always returned in full.

    `place` is the current position as a tensor on the device.
    """

    def __init__(self, *args: object, place: Tensor) -> None:
        super().__init__(*args)  # type: ignore[arg-type]
        self.stored, self.place = {}, place

    def get_seq_length(self, layer: int = 0) -> int:
        """Return 0 at every step: the decoder's own positions are replaced."""
        del layer
        return 0

    def restart(self) -> None:
        """Clear the targets; masked NaNs would spread."""
        self.position = 0
        for index, layer in self.stored.items():
            prefix = self.prefixes[index][0].size(1) if index in self.prefixes else 0
            layer.keys[:, :, prefix:] = 0
            layer.values[:, :, prefix:] = 0

    def _allocate(self, keys: Tensor, layer: int) -> Layer:
        self.stored[layer] = super()._allocate(keys, layer)
        return self.stored[layer]

    def _write(self, stored: Layer, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        beams = keys.size(2)
        prefix = stored.keys.size(2) - self.positions * beams
        columns = prefix + self.place * beams + torch.arange(beams, device=keys.device)
        stored.keys.index_copy_(2, columns, keys)
        stored.values.index_copy_(2, columns, values)
        return stored.keys, stored.values
