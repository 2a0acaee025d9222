"""Hooks of prompts: vectors before the input."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from unipeft_run.backbones.family import Prompt
from unipeft_run.backbones.load import count_positions
from unipeft_run.deltas.delta import Delta
from unipeft_run.deltas.hooks import add_hook, add_pre_hook
from unipeft_run.deltas.positions import name_arguments, prompt_length
from unipeft_run.errors import UserError


@dataclass
class PromptHooks:
    """Hooks that adapt masks and outputs to a prompt of `length` vectors."""

    length: int
    keyword: str = ""

    def lengthen(self, module: nn.Module, args: Any, kwargs: dict[str, Any]) -> Any:
        """Extend the padding mask [B, T] to [B, L + T]: the prompt is visible.

        A complete mask, [B, 1, T, S], must already cover the prompt.
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
class EmbeddedPrompt:
    """A hook that puts the prompt before the embeddings of a stack of layers.

    The stack gets `inputs_embeds`, and its embedding has no hook: T5's decoder may share it.
    """

    delta: Delta

    def prepend(self, module: nn.Module, args: Any, kwargs: dict[str, Any]) -> Any:
        """Replace `input_ids` by embeddings with the prompt. A forward pre-hook of the stack."""
        return (), self._embed(module, kwargs | name_arguments(args))

    def _embed(self, module: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
        embedding = module.get_input_embeddings()
        if self.delta not in embedding._modules.values():
            raise UserError(
                "the prompt was lost with the embeddings, which were replaced after attach: "
                "call resize_token_embeddings before it"
            )
        states = kwargs.get("inputs_embeds")
        if states is None:
            states = embedding(kwargs["input_ids"])
        return {**kwargs, "input_ids": None, "inputs_embeds": self.delta.write(states, module)}


@dataclass
class CachedPrompt(EmbeddedPrompt):
    """The hooks of a decoder with a cache: only its first call gets the prompt.

    Args:
        length: number of prompt vectors.
    """

    length: int
    is_first: bool = True

    def prepend(self, module: nn.Module, args: Any, kwargs: dict[str, Any]) -> Any:
        """Replace `input_ids` by embeddings with the prompt, and shift the positions."""
        kwargs |= name_arguments(args)
        cache = kwargs.get("past_key_values")
        _check_cache(cache)
        self.is_first = cache is None or cache.get_seq_length() == 0
        positions = kwargs.get("position_ids")
        if positions is not None:
            kwargs["position_ids"] = self._shift(positions + self.length)
        return (), self._embed(module, kwargs) if self.is_first else kwargs

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


def _check_cache(cache: Any) -> None:
    if getattr(cache, "is_compileable", False):
        raise UserError(
            f"past_key_values is a {type(cache).__name__}, whose size is fixed without room for "
            "the prompt; use a DynamicCache, the default of generate (cache_implementation=None)"
        )


def hook_prompt(model: Any, prompt: Prompt, delta: Delta) -> None:
    """Register the hooks of a prompt. Raises UserError if it leaves no positions for text."""
    length = prompt_length(delta)
    if prompt.stack is not None:
        _hook_stack(model, prompt, delta, length)
    for path, keyword in prompt.masks:
        hooked = model.get_submodule(path)
        add_pre_hook(hooked, PromptHooks(length, keyword).lengthen, with_kwargs=True)
    classes = {base.__name__ for base in type(model).__mro__}
    if prompt.trim is not None and classes.isdisjoint(prompt.untrimmed):
        add_hook(model.get_submodule(prompt.trim), PromptHooks(length).trim)


def _hook_stack(model: Any, prompt: Prompt, delta: Delta, length: int) -> None:
    assert prompt.stack is not None
    stack = model.get_submodule(prompt.stack)
    if not prompt.cached:
        add_pre_hook(stack, EmbeddedPrompt(delta).prepend, with_kwargs=True)
        return
    _check_positions(model.config, length)
    hooks = CachedPrompt(delta, length)
    add_pre_hook(stack, hooks.prepend, with_kwargs=True)
    add_hook(stack, hooks.trim)


def _check_positions(config: Any, length: int) -> None:
    positions = count_positions(config)
    if length >= positions:
        raise UserError(
            f"a prompt of {length} vectors leaves no position for text: "
            f"this backbone has {positions}"
        )
