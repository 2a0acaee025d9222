"""Run the model's own decoder, one position of all beams at a time.

Shape legend: B sources, K beams, n tokens so far, P longest prefix, V vocabulary.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, Self

import torch
from torch import Tensor, nn

from unipeft_run.backbones.families import family_of
from unipeft_run.deltas.attach import find_deltas
from unipeft_run.deltas.forms.memory import Memory
from unipeft_run.evaluation.generation.attention import IMPLEMENTATIONS, find_prefix
from unipeft_run.evaluation.generation.cache import Prefixes, SelfCache
from unipeft_run.evaluation.generation.onednn import onednn_linears
from unipeft_run.evaluation.generation.settings import Settings


class Decoder(ABC):
    """The model's decoder with a cache; a context manager, because it switches the attention.

    The K beams of a source are passed as K tokens of one sequence that share a position. Every
    module, hook and delta thus works as in training, and one attention call serves all beams.

    Attributes:
        prompts: the tokens that every target starts with, [B, S].
        shared: how many of them are cached once for all beams of a source.
    """

    shared: int = 0
    own: SelfCache

    def __init__(self, model: Any, prompts: Tensor, settings: Settings, dtype: torch.dtype) -> None:
        self.model, self.prompts, self.dtype = model, prompts, dtype
        self.sources, self.device = len(prompts), prompts.device
        self.steps = settings.max_length - 1 - self.shared  # positions of the cache
        self.contexts = ExitStack()

    def __enter__(self) -> Self:
        self.contexts.enter_context(constant_memories(self.model))
        self.contexts.enter_context(onednn_linears(self.model, products=self.steps))
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.contexts.close()

    def __call__(self, seen: Tensor, visible: Tensor) -> Tensor:
        """Return logits [B, K, V] after the tokens `seen` [B, K, n].

        `visible` [B, 1, K or 1, (n - shared) K] masks the cached positions that are not shared.
        """
        logits = self.step(seen[..., -1], visible)
        self.own.position += 1
        return logits

    def start(self) -> None:
        """Prepare the first step: switch to the attention function for generation."""
        self.contexts.enter_context(use_attention(self.model, IMPLEMENTATIONS))

    @abstractmethod
    def step(self, tokens: Tensor, visible: Tensor) -> Tensor:
        """Return logits [B, K, V] after the last `tokens` [B, K]."""

    @abstractmethod
    def keep(self, rows: Tensor) -> None:
        """Reduce the batch to the sources at `rows`."""


def find_prefixes(model: Any, kind: str) -> Prefixes:
    """Find the prefixes of the decoder's attention of one type (self or cross), by layer."""
    stack = family_of(model.config).stacks["decoder"]
    layers = enumerate(model.get_submodule(stack.path))
    prefixes = {i: find_prefix(layer.get_submodule(stack.attentions[kind])) for i, layer in layers}
    return {i: prefix[1].heads() for i, prefix in prefixes.items() if prefix is not None}


def count_longest(prefixes: Prefixes) -> int:
    """Return the length of the longest prefix; 0 if there is none."""
    return max((keys.size(1) for keys, _ in prefixes.values()), default=0)


@contextmanager
def use_attention(model: Any, names: Mapping[str, str]) -> Iterator[None]:
    """Switch the decoder to the attention function that `names` gives for its own."""
    config = model.get_decoder().config
    implementation = config._attn_implementation
    config._attn_implementation = names.get(implementation, implementation)
    try:
        yield
    finally:
        config._attn_implementation = implementation


@contextmanager
def constant_memories(model: nn.Module) -> Iterator[None]:
    """Compute the keys and values of every memory once instead of at every step."""
    forms = [delta.form for _, delta in find_deltas(model) if isinstance(delta.form, Memory)]
    forms = [form for form in forms if "memory" not in form.__dict__]  # not already constant
    for form in forms:
        memory = form.memory()
        form.__dict__["memory"] = lambda memory=memory: memory
    try:
        yield
    finally:
        for form in forms:
            del form.__dict__["memory"]
