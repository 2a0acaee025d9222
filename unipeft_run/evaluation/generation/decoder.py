"""Run the model's own decoder, one position of all beams at a time.

Shape legend: B sources, K beams, n tokens so far, S source positions, P longest prefix, D width,
V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unipeft_run.backbones.families import family_of
from unipeft_run.deltas.attach import find_deltas
from unipeft_run.deltas.forms.memory import Memory
from unipeft_run.evaluation.generation.attention import IMPLEMENTATIONS, find_prefix
from unipeft_run.evaluation.generation.cache import BeamCache, CrossCache, Prefixes, SelfCache
from unipeft_run.evaluation.generation.onednn import onednn_linears
from unipeft_run.evaluation.generation.settings import Settings


@torch.no_grad()
def encode(model: Any, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
    """Run the encoder; return its states, [B, S, D]. A prompt makes S longer than the input."""
    with onednn_linears(model, products=1):
        output = model.get_encoder()(input_ids=input_ids, attention_mask=attention_mask)
    states = output.last_hidden_state
    assert isinstance(states, Tensor)
    return states


class Decoder:
    """The model's decoder with caches; a context manager, because it switches the attention.

    The K beams of a source are passed as K tokens of one sequence that share a position. Every
    module, hook and delta thus works as in training, and one attention call serves all beams.
    """

    def __init__(
        self, model: Any, states: Tensor, attention_mask: Tensor, settings: Settings
    ) -> None:
        self.model, self.states = model, states
        self.sources, self.device, self.dtype = len(states), states.device, states.dtype
        self.contexts = ExitStack()
        own, cross = (find_prefixes(model, kind) for kind in ("self", "cross"))
        self.prefix_length = max((k.size(1) for k, _ in own.values()), default=0)
        cross_length = max((k.size(1) for k, _ in cross.values()), default=0)
        self.cross_mask = _build_cross_mask(attention_mask, states.size(1) + cross_length)
        self.own = self._build_cache(own, settings.max_length - 1)
        self.cache = BeamCache(self.own, CrossCache(cross))

    def __enter__(self) -> Self:
        self.contexts.enter_context(_generation_attention(self.model.config))
        self.contexts.enter_context(_constant_memories(self.model))
        positions = self.model.get_decoder().embed_positions
        handle = positions.register_forward_pre_hook(self._share_position, with_kwargs=True)
        self.contexts.callback(handle.remove)
        self.contexts.enter_context(onednn_linears(self.model, products=self.own.positions))
        return self

    def __exit__(self, *error: object) -> None:
        self.contexts.close()

    def __call__(self, tokens: Tensor, visible: Tensor) -> Tensor:
        """Return logits [B, K, V] after the last `tokens` [B, K].

        `visible` [B, 1, K or 1, n K] masks the cached positions.
        """
        logits = self._step(tokens, F.pad(visible, (self.prefix_length, 0), value=True))
        self.own.position += 1
        return logits

    def keep(self, rows: Tensor) -> None:
        """Reduce the batch to the sources at `rows`."""
        self.states = self.states[rows]
        self.cross_mask = None if self.cross_mask is None else self.cross_mask[rows]
        self.cache.keep(rows)

    def _build_cache(self, prefixes: Prefixes, positions: int) -> SelfCache:
        return SelfCache(prefixes, positions)

    def _step(self, tokens: Tensor, mask: Tensor) -> Tensor:
        logits = self.model(
            encoder_outputs=(self.states,),
            decoder_input_ids=tokens,
            decoder_attention_mask=mask,
            cross_mask=self.cross_mask,
            past_key_values=self.cache,
            use_cache=True,
        ).logits
        assert isinstance(logits, Tensor)
        return logits

    def _share_position(
        self, module: nn.Module, args: Any, kwargs: dict[str, Any]
    ) -> tuple[Any, dict[str, Any]]:
        """Set the position of all beams to that of the current step. A forward pre-hook."""
        del module
        positions = torch.full_like(kwargs["position_ids"], self.own.position)
        return args, {**kwargs, "position_ids": positions}


def find_prefixes(model: Any, kind: str) -> Prefixes:
    """Find the prefixes of the decoder's attention of one type (self or cross), by layer."""
    stack = family_of(model.config).stacks["decoder"]
    layers = enumerate(model.get_submodule(stack.path))
    prefixes = {i: find_prefix(layer.get_submodule(stack.attentions[kind])) for i, layer in layers}
    return {i: prefix[1].heads() for i, prefix in prefixes.items() if prefix is not None}


def _build_cross_mask(attention_mask: Tensor, length: int) -> Tensor | None:
    """Build the mask of visible source positions, with prompts and prefixes; None: all visible.

    The mask is [B, 1, 1, P + S].
    """
    visible = attention_mask.bool()
    if bool(visible.all()):
        return None
    leading = length - visible.size(1)
    return F.pad(visible, (leading, 0), value=True)[:, None, None]


@contextmanager
def _generation_attention(config: Any) -> Iterator[None]:
    """Switch to the attention function for generation inside this context."""
    implementation = config._attn_implementation
    config._attn_implementation = IMPLEMENTATIONS[implementation]
    try:
        yield
    finally:
        config._attn_implementation = implementation


@contextmanager
def _constant_memories(model: nn.Module) -> Iterator[None]:
    """Compute the keys and values of every memory once instead of at every step."""
    forms = [delta.form for _, delta in find_deltas(model) if isinstance(delta.form, Memory)]
    for form in forms:
        memory = form.memory()
        form.__dict__["memory"] = lambda memory=memory: memory
    try:
        yield
    finally:
        for form in forms:
            del form.__dict__["memory"]
