"""Attach deltas to a backbone, choose which parameters train, and detach the deltas again."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from unipeft_run.backbones.families import family_of
from unipeft_run.backbones.family import Family
from unipeft_run.backbones.site import Site, Tap
from unipeft_run.backbones.sites import find_sites
from unipeft_run.config.schema import TunerConfig
from unipeft_run.deltas.delta import Delta, SummedDeltas
from unipeft_run.deltas.hooks import add_hook, add_pre_hook, remove_hooks
from unipeft_run.deltas.implementation import check_ours, use_ours, use_theirs
from unipeft_run.deltas.positions import PositionShift, find_shifts, limit_positions
from unipeft_run.deltas.prompts import hook_prompt
from unipeft_run.deltas.slots import Slot as Slot
from unipeft_run.deltas.slots import matching_parameters
from unipeft_run.errors import UserError
from unipeft_run.tuners.adapter import Adapter, attach_tuner, detach_tuner, find_adapter

PREFIX = "delta_"


class ResidualDropout(nn.Dropout):
    """The layer's functional residual dropout as a module, so that hooks can run after it."""

    def drop_output(self, module: nn.Module, args: Any, output: torch.Tensor) -> Any:
        """Replace the output of `module`. A forward hook."""
        return self(output)


def attach(
    model: nn.Module, slots: Mapping[str, Slot | None], unfreeze: str | Sequence[str] = ()
) -> list[tuple[str, Delta]]:
    """Freeze `model` except the parameters that match `unfreeze`, and attach each slot's deltas.

    `unfreeze` is a pattern, or several, for the backbone's parameter names. Attach before
    torch.compile, DDP or FSDP. Returns the path and module of each delta.

    Raises UserError if a pattern or a representation matches nothing, and ValueError if the model
    already has deltas. The model is then unchanged.
    """
    if has_deltas(model):
        raise ValueError("this model already has deltas; call detach(model) first")
    family_of(model.config)
    shared: dict[str, Any] = {}
    with _undone_on_error(model):
        freeze(model, unfreeze)
        for name, slot in slots.items():
            if slot is not None:
                _add_slot(model, name, slot, shared)
        register_hooks(model)
    return list(find_deltas(model))


@contextmanager
def _undone_on_error(model: nn.Module) -> Iterator[None]:
    """Remove the deltas and restore what trains if an error is raised inside this context."""
    trains = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    try:
        yield
    except BaseException:
        detach(model)
        for parameter, trained in trains:
            parameter.requires_grad_(trained)
        raise


def _add_slot(model: Any, name: str, slot: Slot, shared: dict[str, Any]) -> None:
    """Add a slot's deltas, without hooks. `shared`: the modules that all slots share so far."""
    for site in list(find_sites(model, model.config, **dict(slot.representation))):
        delta = slot.build(replace(site, model_shared=shared))
        _add_module(model, child_name(name, site), delta)
        delta.composition.start(model.get_submodule(site.write.path))


def attach_library(model: nn.Module, tuner: TunerConfig) -> Adapter:
    """Put the modules of a method of the PEFT library into a model that `attach` has frozen.

    New weights are drawn from torch's random state. Raises UserError if the library rejects it.
    """
    adapter = attach_tuner(model, tuner)
    model.save_pretrained = refuse_save_pretrained  # type: ignore[assignment]
    return adapter


def reattach(model: Any, deltas: Iterable[tuple[str, Delta]]) -> None:
    """Attach existing deltas at their paths (see `find_deltas`) to a model without deltas."""
    for path, delta in deltas:
        _add_module(model, path.rpartition(".")[2], delta)
    register_hooks(model)


def child_name(slot: str, site: Site) -> str:
    """Return the name of a slot's delta in its module; it names the part of a merged matrix."""
    part = f"_{site.representation.rpartition('.')[2]}" if site.write.part else ""
    return f"{PREFIX}{slot}{part}"


def slot_of(path: str) -> str:
    """Return the slot of the delta at `path`."""
    return path.rpartition(PREFIX)[2].partition("_")[0]


def freeze(model: nn.Module, unfreeze: str | Sequence[str]) -> None:
    """Freeze every parameter whose name matches none of the patterns."""
    trainable = matching_parameters((name for name, _ in model.named_parameters()), unfreeze)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in trainable)


def find_deltas(model: nn.Module) -> Iterator[tuple[str, Delta]]:
    """Yield the path and module of each delta, in the model's order.

    Paths start with the module of the site, even if the model has another name for it as well.
    """
    for name, module in model.named_modules():
        if isinstance(module, Delta):
            yield f"{module.site.write.path}.{name.rpartition('.')[2]}", module


def has_deltas(model: nn.Module) -> bool:
    """Return whether deltas, or modules of the PEFT library, are attached to the model."""
    return next(find_deltas(model), None) is not None or find_adapter(model) is not None


def detach(model: nn.Module) -> None:
    """Remove all deltas and their hooks.

    This undoes `attach`, but the backbone's parameters stay frozen.
    """
    table = family_of(model.config)
    if adapter := find_adapter(model):
        detach_tuner(adapter)
    for module in list(model.modules()):
        remove_hooks(module)
        for hosted in _hosted_dropouts(module, table):
            module.dropout = hosted.p  # type: ignore[assignment]
    for module in list(model.modules()):
        for name in [name for name in module._modules if name.startswith(PREFIX)]:
            delattr(module, name)
    if vars(model).get("save_pretrained") is refuse_save_pretrained:
        del model.save_pretrained
    use_theirs(model)


def refuse_save_pretrained(*args: Any, **kwargs: Any) -> None:
    """Refuse in place of `model.save_pretrained`, which would silently lose attached deltas."""
    raise UserError(
        "save_pretrained would lose the deltas of this model: from_pretrained ignores them\n"
        "unipeft.save(model, folder) stores the delta; "
        "unipeft.fold(model).save_pretrained(folder) stores a merged model, where that is exact"
    )


def _hosted_dropouts(layer: nn.Module, table: Family) -> Iterator[ResidualDropout]:
    """Yield the dropout modules that `_host_dropout` added; none if `layer` is not a layer."""
    for path in table.residual_dropout:
        with suppress(AttributeError):
            hosted = layer.get_submodule(f"{path}.{PREFIX}dropout")
            assert isinstance(hosted, ResidualDropout)
            yield hosted


def _add_module(model: nn.Module, name: str, delta: Delta) -> None:
    host = model.get_submodule(delta.site.write.path)
    assert not hasattr(host, name), "two sites of one slot write to the same module"
    reference = next(host.parameters(), next(model.parameters()))
    host.add_module(name, delta.to(reference.device, reference.dtype))
    delta.train(model.training)


def register_hooks(model: Any) -> None:
    """Register all hooks in order: deltas before the residual dropout, the dropout, the rest.

    Until `detach`, `model.save_pretrained` is refused. Raises UserError for an attention
    implementation that deltas at the heads cannot use.
    """
    table, deltas = family_of(model.config), [delta for _, delta in find_deltas(model)]
    if any(_needs_our_attention(delta, table) for delta in deltas):
        use_ours(model)
    # a module's input is modified before other deltas read it
    groups = sorted(_group_by_place(deltas), key=lambda group: group[0].site.write.side != "in")
    dropped = [group for group in groups if group[0].site.write.side == "dropped"]
    for group in groups:
        _hook_read(model, group)
        if group not in dropped:
            _hook_write(model, group)
    for layer in dict.fromkeys(group[0].site.write.path.rpartition(".")[0] for group in dropped):
        _host_dropout(model.get_submodule(layer), table)
    for group in dropped:
        _hook_write(model, group)
    limit_positions(model)
    _connect_attention(model, deltas)
    for delta in deltas:
        if delta.site.representation == "embedding":
            assert table.prompt is not None, "there is no such site without a prompt"
            hook_prompt(model, table.prompt, delta)
    if deltas:
        model.save_pretrained = refuse_save_pretrained


def _group_by_place(deltas: Iterable[Delta]) -> list[list[Delta]]:
    """Group deltas that write to the same place: more than one only if several named ones act."""
    groups: dict[Tap, list[Delta]] = {}
    for delta in deltas:
        groups.setdefault(delta.site.write, []).append(delta)
    return list(groups.values())


def _hook_read(model: nn.Module, deltas: Sequence[Delta]) -> None:
    for delta in deltas:
        if delta.read_tap.side == "in" and delta.reads_x:
            module = model.get_submodule(delta.read_tap.path)
            add_pre_hook(module, delta.read, with_kwargs=True)


def _hook_write(model: nn.Module, deltas: Sequence[Delta]) -> None:
    """Register the hook that writes the change, or the sum of the changes, at one place."""
    place = deltas[0].site.write
    module = model.get_submodule(place.path)
    writer = deltas[0] if len(deltas) == 1 else SummedDeltas(deltas)
    match place.side:
        case "in":
            add_pre_hook(module, writer.write_in)
        case "out" if deltas[0].site.representation == "embedding" and _is_embedded(model):
            pass  # written by EmbeddedPrompt
        case "out" | "dropped":
            add_hook(module, writer.write_out)
        case side:
            assert side == "heads" and len(deltas) == 1, "written by the attention function"


def _host_dropout(layer: Any, table: Family) -> None:
    """Move the layer's residual dropout into modules that draw random numbers in the same order."""
    for path in table.residual_dropout:
        try:
            module = layer.get_submodule(path)
        except AttributeError:  # an encoder layer has no cross-attention
            continue
        dropout = ResidualDropout(layer.dropout)
        dropout.train(layer.training)
        module.add_module(f"{PREFIX}dropout", dropout)
        add_hook(module, dropout.drop_output)
    layer.dropout = 0.0


def _needs_our_attention(delta: Delta, table: Family) -> bool:
    """Return whether a delta needs our attention function, or the masks that it is given."""
    if delta.site.representation == "embedding" and table.prompt is not None:
        return len(table.prompt.masks) > 1
    return delta.site.write.side == "heads"


def _is_embedded(model: Any) -> bool:
    prompt = family_of(model.config).prompt
    return prompt is not None and prompt.stack is not None


def _connect_attention(model: Any, deltas: Sequence[Delta]) -> None:
    """Connect deltas at the heads to relative position biases, and shift positions if asked to."""
    for delta in deltas:
        site = delta.site
        if site.write.side != "heads":
            continue
        add_pre_hook(model.get_submodule(site.write.path), check_ours)
        if site.relative_bias is not None:
            delta.bias_source = (model.get_submodule(site.relative_bias),)
    for path, length in find_shifts(deltas).items():
        add_pre_hook(model.get_submodule(path), PositionShift(length).shift, with_kwargs=True)
