"""Positions that deltas take from the text: prompts of a decoder, and prefixes that shift it."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from unipeft_run.backbones.families import family_of
from unipeft_run.backbones.load import count_positions
from unipeft_run.deltas.delta import Delta
from unipeft_run.deltas.forms.memory import Memory
from unipeft_run.deltas.hooks import add_pre_hook
from unipeft_run.errors import UserError


@dataclass
class PositionShift:
    """A hook that moves the tokens of a decoder `length` positions to the right."""

    length: int

    def shift(self, module: nn.Module, args: Any, kwargs: dict[str, Any]) -> Any:
        """Add to `position_ids` [B, T], or make them. A forward pre-hook."""
        kwargs |= name_arguments(args)
        positions = kwargs.get("position_ids")
        if positions is None:
            tokens = _tokens(kwargs)
            positions = torch.arange(tokens.size(1), device=tokens.device)[None] + _past(kwargs)
        return (), {**kwargs, "position_ids": positions + self.length}


@dataclass
class PositionLimit:
    """A hook that refuses texts that no longer fit in a decoder's table of positions.

    Args:
        positions: number of positions that the deltas leave for text.
        prompt: number of prompt vectors, which are in the cache.
    """

    positions: int
    prompt: int

    def check(self, module: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        """Raise UserError if the cache and the new tokens are too long. A forward pre-hook."""
        kwargs = {**kwargs, **name_arguments(args)}
        past = _past(kwargs)
        if not isinstance(past, int):  # a static cache counts on its device
            return
        length = _tokens(kwargs).size(1) + max(past - self.prompt, 0)
        if length > self.positions:
            raise UserError(
                f"{length} tokens, but the deltas leave {self.positions} positions for text"
            )


def limit_positions(model: Any) -> None:
    """Register the hook that checks the length of the text, if deltas take learned positions."""
    if count_occupied(model):
        table, prompt = family_of(model.config), sum(_prompt_lengths(model))
        assert table.positions is not None
        limit = PositionLimit(count_free(model), prompt)
        add_pre_hook(model.get_submodule(table.positions), limit.check, with_kwargs=True)


def count_occupied(model: Any) -> int:
    """Return how many rows of the backbone's table of positions the deltas take from the text."""
    table = family_of(model.config)
    if not table.learned_positions:
        return 0
    return sum(_prompt_lengths(model)) + sum(find_shifts(_deltas(model)).values())


def count_free(model: Any) -> int:
    """Return the longest text, in tokens, that the backbone takes in addition to the deltas."""
    return count_positions(model.config) - count_occupied(model)


def find_shifts(deltas: Iterable[Delta]) -> dict[str, int]:
    """Return how far prefixes shift the tokens, by the path of the module that takes positions."""
    shifts: dict[str, int] = {}
    for delta in deltas:
        site, form = delta.site, delta.form
        if isinstance(form, Memory) and form.shifts_positions:
            assert site.positions is not None, "checked by the form"
            shifts[site.positions] = form.length
    return shifts


def prompt_length(delta: Delta) -> int:
    """Return the number of vectors of a prompt."""
    return next(delta.form.parameters()).size(0)


def _prompt_lengths(model: Any) -> list[int]:
    """Return the lengths of the prompts that have positions of their own."""
    prompt = family_of(model.config).prompt
    if prompt is None or not prompt.cached:
        return []
    prompts = (delta for delta in _deltas(model) if delta.site.representation == "embedding")
    return [prompt_length(delta) for delta in prompts]


def _deltas(model: nn.Module) -> list[Delta]:
    return [module for module in model.modules() if isinstance(module, Delta)]


def name_arguments(args: tuple[Any, ...]) -> dict[str, Any]:
    """Name the positional arguments of a stack of layers: the token ids, if anything."""
    assert len(args) <= 1, "stacks of layers are called with keywords"
    return {"input_ids": args[0]} if args else {}


def _tokens(kwargs: dict[str, Any]) -> Any:
    """Return the token ids [B, T], or their embeddings [B, T, D]."""
    tokens = kwargs.get("input_ids")
    return kwargs["inputs_embeds"] if tokens is None else tokens


def _past(kwargs: dict[str, Any]) -> Any:
    """Return the number of tokens in the cache."""
    cache = kwargs.get("past_key_values")
    return 0 if cache is None else cache.get_seq_length()
