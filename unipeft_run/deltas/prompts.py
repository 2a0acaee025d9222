"""Hooks for vectors before the input: prompts, and prefixes that shift positions."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from unipeft_run.backbones.family import Prompt
from unipeft_run.backbones.load import count_positions
from unipeft_run.deltas.delta import Delta
from unipeft_run.deltas.hooks import add_hook, add_pre_hook
from unipeft_run.errors import UserError


@dataclass
class PromptHooks:
    """Hooks that adapt masks and outputs to a prompt of `length` vectors."""

    length: int
    keyword: str = ""

    def lengthen(self, module: nn.Module, args: Any, kwargs: dict[str, Any]) -> Any:
        """Extend the padding mask [B, T] to [B, L + T]: the prompt is visible.

        A complete mask, [B, 1, T, S], already covers the prompt.
        """
        mask = kwargs.get(self.keyword)
        if mask is None or mask.ndim == 4:
            return None
        seen = mask.new_ones(mask.size(0), self.length)
        return args, {**kwargs, self.keyword: torch.cat([seen, mask], dim=1)}

    def trim(self, module: nn.Module, args: Any, output: Any) -> Any:
        """Remove the prompt's positions, [B, L + T, D] to [B, T, D], so that <s> is first again."""
        output["last_hidden_state"] = output["last_hidden_state"][:, self.length :]
        return output


@dataclass
class CachedPromptHooks:
    """Hooks of a decoder with a cache: its first call gets the prompt before its embeddings.

    Args:
        delta: the prompt.
        embedding: the decoder's embedding, in a list that is not a module of this object.
        length: number of prompt vectors.
    """

    delta: Delta
    embedding: Sequence[nn.Module]
    length: int
    is_first: bool = True

    def prepend(self, module: nn.Module, args: Any, kwargs: dict[str, Any]) -> Any:
        """Replace `input_ids` by embeddings with the prompt, and shift the positions."""
        kwargs |= _name_arguments(args)
        cache = kwargs.get("past_key_values")
        _check_cache(cache)
        self.is_first = cache is None or cache.get_seq_length() == 0
        positions = kwargs.get("position_ids")
        if positions is not None:
            kwargs["position_ids"] = self._shift(positions + self.length)
        if self.is_first:
            states = kwargs.get("inputs_embeds")
            if states is None:
                states = self.embedding[0](kwargs["input_ids"])
            kwargs |= {"input_ids": None, "inputs_embeds": self.delta.write(states, module)}
        return (), kwargs

    def _shift(self, positions: torch.Tensor) -> torch.Tensor:
        """Return `positions` [B, T], preceded by those of the prompt in the first call."""
        if not self.is_first:
            return positions
        first = torch.arange(self.length, device=positions.device).expand(len(positions), -1)
        return torch.cat([first, positions], dim=1)

    def trim(self, module: nn.Module, args: Any, output: Any) -> Any:
        """Remove the prompt's positions from the first output, [B, L + T, D] to [B, T, D]."""
        if self.is_first:
            output["last_hidden_state"] = output["last_hidden_state"][:, self.length :]
        return output


@dataclass
class PositionShift:
    """A hook that moves the tokens of a decoder `length` positions to the right."""

    length: int

    def shift(self, module: nn.Module, args: Any, kwargs: dict[str, Any]) -> Any:
        """Add to `position_ids` [B, T], or make them. A forward pre-hook."""
        kwargs |= _name_arguments(args)
        positions = kwargs.get("position_ids")
        if positions is None:
            tokens = kwargs.get("input_ids")
            tokens = kwargs["inputs_embeds"] if tokens is None else tokens
            cache = kwargs.get("past_key_values")
            past = 0 if cache is None else cache.get_seq_length()
            positions = torch.arange(tokens.size(1), device=tokens.device)[None] + past
        return (), {**kwargs, "position_ids": positions + self.length}


def _check_cache(cache: Any) -> None:
    if getattr(cache, "is_compileable", False):
        raise UserError(
            f"past_key_values is a {type(cache).__name__}, whose size is fixed without room for "
            "the prompt; use a DynamicCache, the default of generate (cache_implementation=None)"
        )


def _name_arguments(args: tuple[Any, ...]) -> dict[str, Any]:
    """Name the positional arguments of a decoder: the token ids, if anything."""
    assert len(args) <= 1, "decoders are called with keywords"
    return {"input_ids": args[0]} if args else {}


def hook_prompt(model: Any, prompt: Prompt, delta: Delta) -> None:
    """Register the hooks of a prompt. Raises UserError if it leaves no positions for text."""
    length = next(delta.form.parameters()).size(0)
    if prompt.cached:
        _check_positions(model.config, length)
        assert prompt.trim is not None
        embedding = model.get_submodule(delta.site.write.path)
        hooks = CachedPromptHooks(delta, [embedding], length)
        decoder = model.get_submodule(prompt.trim)
        add_pre_hook(decoder, hooks.prepend, with_kwargs=True)
        add_hook(decoder, hooks.trim)
    for path, keyword in prompt.masks:
        hooked = model.get_submodule(path)
        add_pre_hook(hooked, PromptHooks(length, keyword).lengthen, with_kwargs=True)
    classes = {base.__name__ for base in type(model).__mro__}
    if prompt.trim is not None and not prompt.cached and classes.isdisjoint(prompt.untrimmed):
        add_hook(model.get_submodule(prompt.trim), PromptHooks(length).trim)


def _check_positions(config: Any, length: int) -> None:
    positions = count_positions(config)
    if length >= positions:
        raise UserError(
            f"a prompt of {length} vectors leaves no position for text: "
            f"this backbone has {positions}"
        )
