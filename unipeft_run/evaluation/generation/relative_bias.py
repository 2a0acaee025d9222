"""The relative position bias of T5's decoder, for beams that share a position.

Shape legend: H heads, K beams, n positions so far, P prefix length.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from unipeft_run.backbones.families import family_of
from unipeft_run.deltas.attach import find_deltas
from unipeft_run.deltas.forms.memory import Memory


class RelativeBias:
    """The bias of a step's queries against all keys, by the number of keys.

    Layers differ in their number of keys if only some have a prefix. A prefix is at positions 0 to
    P - 1 and shifts the keys after it, but not the queries, as in `deltas.attention`.
    """

    def __init__(self, attention: Any, lengths: frozenset[int]) -> None:
        self.attention, self.lengths = attention, lengths

    @classmethod
    def find(cls, model: Any) -> RelativeBias | None:
        """Return the bias of the decoder; None if its family has none."""
        path = family_of(model.config).relative_bias.get("decoder")
        forms = (delta.form for _, delta in find_deltas(model))
        lengths = frozenset({0, *(form.length for form in forms if isinstance(form, Memory))})
        return None if path is None else cls(model.get_submodule(path), lengths)

    def __call__(self, position: int, beams: int) -> Mapping[int, Tensor]:
        """Return {number of keys: bias [1, H, 1, P + n K]} of the step at `position`."""
        steps = position + 1
        return {
            length + steps * beams: self._compute(length, steps, beams) for length in self.lengths
        }

    def _compute(self, prefix: int, steps: int, beams: int) -> Tensor:
        bias = self.attention.compute_bias(1, prefix + steps, past_seen_tokens=steps - 1)
        own = bias[..., prefix:].repeat_interleave(beams, dim=-1)
        return torch.cat([bias[..., :prefix], own], dim=-1)
