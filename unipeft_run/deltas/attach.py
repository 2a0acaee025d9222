"""Freeze a backbone, put deltas at their sites, say what trains; and take them out again."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from unipeft_run.backbones.families import family_of
from unipeft_run.backbones.family import Family, Prompt
from unipeft_run.backbones.sites import find_sites
from unipeft_run.deltas.attention import NAMES
from unipeft_run.deltas.delta import Delta
from unipeft_run.deltas.slots import Slot as Slot
from unipeft_run.deltas.slots import matching_parameters

PREFIX = "delta_"


class ResidualDropout(nn.Dropout):
    """The layer's functional dropout, as a module: what comes after it can then be a hook."""

    def apply(self, module: nn.Module, args: Any, output: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        return self(output)


@dataclass
class Lengthening:
    """What a prompt of `length` vectors does to masks and results around it."""

    length: int
    keyword: str = ""

    def lengthen(self, module: nn.Module, args: Any, kwargs: dict[str, Any]) -> Any:
        """Let the padding mask [B, T] see the prompt: [B, L + T]; None sees everything."""
        mask = kwargs.get(self.keyword)
        if mask is None:
            return None
        seen = mask.new_ones(mask.size(0), self.length)
        return args, {**kwargs, self.keyword: torch.cat([seen, mask], dim=1)}

    def trim(self, module: nn.Module, args: Any, output: Any) -> Any:
        """Give back the positions of the prompt, [B, L + T, D] to [B, T, D]: <s> is first again."""
        output["last_hidden_state"] = output["last_hidden_state"][:, self.length :]
        return output


def attach(
    model: nn.Module, slots: Mapping[str, Slot | None], unfreeze: Sequence[str] = ()
) -> list[tuple[str, Delta]]:
    """Freeze `model` but for `unfreeze`, and attach each slot's deltas.

    `unfreeze` holds patterns over the backbone's parameter names. Attach before torch.compile, DDP
    or FSDP. Returns each delta with its path.

    Raises UserError for a pattern or a representation that matches nothing, ValueError if the
    model already has deltas.
    """
    if next(deltas(model), None) is not None:
        raise ValueError("this model has deltas already: detach them first")
    config: Any = model.config
    table = family_of(config)
    freeze(model, unfreeze)
    for slot, parts in slots.items():
        if parts is not None:
            for site in list(find_sites(model, config, **dict(parts.representation))):
                _place(model, f"{PREFIX}{slot}", parts.build(site))
    _connect(model, table)
    return list(deltas(model))


def place(model: Any, placed: Iterable[tuple[str, Delta]]) -> None:
    """Put deltas at their paths, as `deltas` gives them, into a model that has none."""
    for path, delta in placed:
        _place(model, path.rpartition(".")[2], delta)
    _connect(model, family_of(model.config))


def freeze(model: nn.Module, unfreeze: Sequence[str]) -> None:
    """Freeze every parameter but those whose name matches one of the patterns."""
    free = matching_parameters((name for name, _ in model.named_parameters()), unfreeze)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in free)


def deltas(model: nn.Module) -> Iterator[tuple[str, Delta]]:
    """Path and delta of each site, in the model's order."""
    for name, module in model.named_modules():
        if isinstance(module, Delta):
            yield name, module


def detach(model: nn.Module) -> None:
    """Take every delta and hook of ours out; the backbone is left as it was, frozen still."""
    table = family_of(model.config)
    for module in list(model.modules()):
        for hooks in (module._forward_hooks, module._forward_pre_hooks):
            for key in [key for key, hook in hooks.items() if _is_ours(hook)]:
                del hooks[key]
        for hosted in _hosted_dropouts(module, table):
            module.dropout = hosted.p  # type: ignore[assignment]
    for module in list(model.modules()):
        for name in [name for name in module._modules if name.startswith(PREFIX)]:
            delattr(module, name)
    _use_attention(model, {ours: stock for stock, ours in NAMES.items()})


def _is_ours(hook: Callable[..., Any]) -> bool:
    return isinstance(getattr(hook, "__self__", None), Delta | ResidualDropout | Lengthening)


def _hosted_dropouts(layer: nn.Module, table: Family) -> Iterator[ResidualDropout]:
    """Those that `_host_dropout` made out of the layer's own; none where `layer` is no layer."""
    for path in table.residual_dropout:
        with suppress(AttributeError):
            hosted = layer.get_submodule(f"{path}.{PREFIX}dropout")
            assert isinstance(hosted, ResidualDropout)
            yield hosted


def _place(model: nn.Module, name: str, delta: Delta) -> None:
    host = model.get_submodule(delta.site.write.path)
    assert not hasattr(host, name), "two sites of one slot write at the same place"
    reference = next(host.parameters(), next(model.parameters()))
    host.add_module(name, delta.to(reference.device, reference.dtype))
    delta.train(model.training)


def _connect(model: nn.Module, table: Family) -> None:
    """Hook every delta: changes before the residual dropout, the dropout, changes after it."""
    placed = [delta for _, delta in deltas(model)]
    for delta in placed:
        if delta.site.read.side == "in" and delta.reads_x:
            module = model.get_submodule(delta.site.read.path)
            module.register_forward_pre_hook(delta.read, with_kwargs=True)
        if delta.site.write.side != "dropped":
            _write(model, delta)
    dropped = [delta for delta in placed if delta.site.write.side == "dropped"]
    for layer in {delta.site.write.path.rpartition(".")[0] for delta in dropped}:
        _host_dropout(model.get_submodule(layer), table)
    for delta in dropped:
        _write(model, delta)
    if any(delta.site.write.side == "heads" for delta in placed):
        _use_attention(model, NAMES)
    for delta in placed:
        if delta.site.representation == "embedding":
            _lengthen(model, table.prompt, delta)


def _write(model: nn.Module, delta: Delta) -> None:
    module = model.get_submodule(delta.site.write.path)
    match delta.site.write.side:
        case "in":
            module.register_forward_pre_hook(delta.write_in)
        case "out" | "dropped":
            module.register_forward_hook(delta.write_out)
        case side:
            assert side == "heads", "the attention function writes there"


def _host_dropout(layer: Any, table: Family) -> None:
    """Move the layer's residual dropout into modules; the order of its draws stays the same."""
    for path in table.residual_dropout:
        try:
            module = layer.get_submodule(path)
        except AttributeError:  # an encoder layer has no cross-attention
            continue
        dropout = ResidualDropout(layer.dropout)
        dropout.train(layer.training)
        module.add_module(f"{PREFIX}dropout", dropout)
        module.register_forward_hook(dropout.apply)
    layer.dropout = 0.0


def _lengthen(model: nn.Module, prompt: Prompt, delta: Delta) -> None:
    length = next(delta.form.parameters()).size(0)
    for path, keyword in prompt.masks:
        hook = Lengthening(length, keyword).lengthen
        model.get_submodule(path).register_forward_pre_hook(hook, with_kwargs=True)
    if prompt.trim is not None:
        model.get_submodule(prompt.trim).register_forward_hook(Lengthening(length).trim)
    if len(prompt.masks) > 1:
        _use_attention(model, NAMES)


def _use_attention(model: Any, names: Mapping[str, str]) -> None:
    current = model.config._attn_implementation
    if current in names:
        model.set_attn_implementation(names[current])


def trained(parameters: Iterable[nn.Parameter]) -> int:
    """How many of these numbers train."""
    return sum(p.numel() for p in parameters if p.requires_grad)
