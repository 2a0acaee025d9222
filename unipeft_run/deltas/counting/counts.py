"""Count trained and stored parameters, of a model or of a configuration alone.

Imports torch but not transformers, so a count takes only a second or two.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from math import prod
from types import MappingProxyType
from typing import Any, TypeVar

import torch
from torch.overrides import TorchFunctionMode

from unipeft_run.backbones.architectures import architecture
from unipeft_run.backbones.families import family_of
from unipeft_run.backbones.shapes import Shape, shapes_of, size_of
from unipeft_run.backbones.sites import find_sites
from unipeft_run.config.schema import RunConfig, TaskConfig
from unipeft_run.data.tasks.build import build_task
from unipeft_run.deltas.delta import Delta
from unipeft_run.deltas.forms.base import drop_repeated
from unipeft_run.deltas.slots import Slot, build_slots, matching_parameters


def counts(config: RunConfig) -> dict[str, Any]:
    """Count the parameters of a configuration, without weights or hub (see `count`).

    Raises UserError for an unknown backbone, and for an `unfreeze` pattern or a representation
    that matches nothing.
    """
    if config.peft is not None:
        from unipeft_run.deltas.counting.library_counts import count_library

        return count_library(config)
    shape = architecture(config.backbone, num_labels(config.task))
    head = family_of(shape).head if config.head == "trained" else ()
    return count(shape, build_slots(config), [*config.unfreeze, *head])


def num_labels(task: TaskConfig) -> int | None:
    """Count the classes of a task; None for a task that generates text."""
    return build_task(task).num_labels


def count(
    config: Any, slots: Mapping[str, Slot | None], unfreeze: Sequence[str] = ()
) -> dict[str, Any]:
    """Count the parameters for a transformers config: `tabulate`, plus two further counts.

    `receiving_gradient` equals `trained`, because every parameter we build is used in the forward
    pass. `formula` counts weight matrices only, as Appendix B of the paper does.
    """
    shapes = shapes_of(config)
    with torch.device("meta"), _ShapesOnly(), torch.no_grad():
        deltas = list(_build_deltas(shapes, config, slots))
        unfrozen = [prod(shapes[name]) for name in sorted(matching_parameters(shapes, unfreeze))]
        table = tabulate(deltas, unfrozen, size_of(shapes))
        stored = drop_repeated((d, t) for _, d in deltas for _, t in d.form.inference_tensors())
        matrices = [tensor for _, tensor in stored if tensor.ndim > 1]
    for row in (table, *table["sites"]):
        row["receiving_gradient"] = row["trained"]
    table["formula"] = sum(matrix.numel() for matrix in matrices) + sum(unfrozen)
    table["formula_percent"] = 100 * table["formula"] / table["backbone"]
    return table


KEEP_SHAPE = (  # functions whose result has the shape of their first argument
    torch.tanh,
    torch.Tensor.normal_,
    torch.Tensor.uniform_,
    torch.Tensor.zero_,
    torch.Tensor.fill_,
)


class _ShapesOnly(TorchFunctionMode):
    """Skips initialisation and matrix products on the meta device, where only shapes matter.

    Without it torch would import its compiler for them, which takes seconds.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__module__", None) == "torch.nn.init" or func in KEEP_SHAPE:
            return kwargs.get("tensor", args[0] if args else None)
        if func is torch.nn.functional.linear:
            return torch.empty(*args[0].shape[:-1], args[1].size(0))
        return (torch.empty if func is torch.randn else func)(*args, **kwargs)


class _LayerCounts:
    """A stand-in for the backbone in `find_sites`, which only asks for the number of layers."""

    def __init__(self, shapes: Mapping[str, Shape]) -> None:
        self.names = list(shapes)

    def get_submodule(self, path: str) -> set[str]:
        below = [name.removeprefix(f"{path}.") for name in self.names if name.startswith(path)]
        return {name.partition(".")[0] for name in below}


def _build_deltas(
    shapes: Mapping[str, Shape], config: Any, slots: Mapping[str, Slot | None]
) -> Iterator[tuple[str, Delta]]:
    model: Any = _LayerCounts(shapes)
    shared: dict[str, Any] = {}
    for name, slot in slots.items():
        if slot is not None:
            for site in find_sites(model, config, **dict(slot.representation)):
                yield name, slot.build(replace(site, model_shared=shared)).eval()


def backbone_shapes(config: RunConfig) -> dict[str, Shape]:
    """Return the shape of each parameter of the backbone of a configuration, by name."""
    return shapes_of(architecture(config.backbone, num_labels(config.task)))


def build_without_weights(config: RunConfig) -> list[Delta]:
    """Build the stored deltas of a configuration on the meta device, to inspect their types."""
    shape = architecture(config.backbone, num_labels(config.task))
    slots = build_slots(config, inference=True)
    with torch.device("meta"), _ShapesOnly(), torch.no_grad():
        return [delta for _, delta in _build_deltas(shapes_of(shape), shape, slots)]


Key = TypeVar("Key")


def count_by(deltas: Iterable[tuple[Key, Delta]]) -> dict[Key, dict[str, int]]:
    """Count the sites and the trained and stored parameters of deltas with the same key.

    A module shared by several sites counts once, at the first of them.
    """
    keyed, rows = list(deltas), dict[Key, dict[str, int]]()
    for key, _ in keyed:
        rows.setdefault(key, {"sites": 0, "trained": 0, "stored": 0})["sites"] += 1
    for key, parameter in drop_repeated((key, p) for key, d in keyed for p in d.parameters()):
        rows[key]["trained"] += parameter.numel() if parameter.requires_grad else 0
    for key, tensor in drop_repeated((key, t) for key, d in keyed for t in _stored(d)):
        rows[key]["stored"] += tensor.numel()
    return rows


def _stored(delta: Delta) -> Iterator[torch.Tensor]:
    yield from (tensor for _, tensor in delta.form.inference_tensors())
    yield from delta.composition.parameters()


def tabulate(
    deltas: Iterable[tuple[str, Delta]],
    unfrozen: Sequence[int],
    backbone: int,
    library: Mapping[tuple[str, str], dict[str, int]] = MappingProxyType({}),
) -> dict[str, Any]:
    """Tabulate trained and stored parameters by slot and representation, with shares in percent.

    `deltas` holds the slot and delta of each site, `unfrozen` the sizes of the trained backbone
    parameters, `backbone` the size of the backbone, `library` the rows of the PEFT library's
    modules.
    """
    rows = count_by(((slot, delta.site.representation), delta) for slot, delta in deltas)
    rows |= library
    if unfrozen:
        total = sum(unfrozen)
        rows["unfreeze", "backbone"] = {"sites": len(unfrozen), "trained": total, "stored": total}
    sites = [_row(slot, name, row, backbone) for (slot, name), row in rows.items()]
    stored = sum(row["stored"] for row in sites)
    return {
        "trained": sum(row["trained"] for row in sites),
        "stored": stored,
        "backbone": backbone,
        "stored_percent": 100 * stored / backbone,
        "sites": sites,
    }


def _row(slot: str, name: str, row: Mapping[str, int], backbone: int) -> dict[str, Any]:
    share = 100 * row["stored"] / backbone
    return {"slot": slot, "representation": name, **row, "stored_percent": share}
