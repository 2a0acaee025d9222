"""Count trained and stored parameters, of a model or of a configuration alone.

Imports torch, not transformers: a count takes a second or two.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import prod
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from unipeft_run.backbones.architectures import architecture
from unipeft_run.backbones.families import family_of
from unipeft_run.backbones.shapes import Shape, shapes_of, size_of
from unipeft_run.backbones.sites import find_sites
from unipeft_run.config.schema import RunConfig, TaskConfig
from unipeft_run.deltas.delta import Delta
from unipeft_run.deltas.slots import Slot, build_slots, import_class, matching_parameters


def counts(config: RunConfig) -> dict[str, Any]:
    """Count the parameters of a configuration, without weights or hub (see `count`).

    Raises UserError for an unknown backbone, and for an `unfreeze` pattern or a representation
    that matches nothing.
    """
    shape = architecture(config.backbone, num_labels(config.task))
    head = family_of(shape).head if config.head == "trained" else ()
    return count(shape, build_slots(config), [*config.unfreeze, *head])


def num_labels(task: TaskConfig) -> int | None:
    """Count the classes of a task; None for a task that generates text."""
    return len(import_class("task", task.target).label_names) or None


def count(
    config: Any, slots: Mapping[str, Slot | None], unfreeze: Sequence[str] = ()
) -> dict[str, Any]:
    """Count for a transformers config: `tabulate`, with `receiving_gradient` and `formula`.

    Every parameter we build is read by some forward pass, so all trained ones get a gradient.
    `formula` counts weight matrices only, as Appendix B of the paper does.
    """
    shapes = shapes_of(config)
    with torch.device("meta"), _ShapesOnly(), torch.no_grad():
        placed = list(_deltas(shapes, config, slots))
        free = [prod(shapes[name]) for name in sorted(matching_parameters(shapes, unfreeze))]
        table = tabulate(placed, free, size_of(shapes))
        matrices = [t for _, d in placed for _, t in d.form.inference_tensors() if t.ndim > 1]
    for row in (table, *table["sites"]):
        row["receiving_gradient"] = row["trained"]
    table["formula"] = sum(matrix.numel() for matrix in matrices) + sum(free)
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
    """Skip random draws and products on the meta device: only their shapes are needed.

    Otherwise torch imports its compiler for them, which takes seconds.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = kwargs or {}
        if getattr(func, "__module__", None) == "torch.nn.init" or func in KEEP_SHAPE:
            return given.get("tensor", args[0] if args else None)
        if func is torch.nn.functional.linear:
            return torch.empty(*args[0].shape[:-1], args[1].size(0))
        return (torch.empty if func is torch.randn else func)(*args, **given)


class _Layers:
    """A stand-in for the backbone that only knows how many layers it has."""

    def __init__(self, shapes: Mapping[str, Shape]) -> None:
        self.names = list(shapes)

    def get_submodule(self, path: str) -> set[str]:
        below = [name.removeprefix(f"{path}.") for name in self.names if name.startswith(path)]
        return {name.partition(".")[0] for name in below}


def _deltas(
    shapes: Mapping[str, Shape], config: Any, slots: Mapping[str, Slot | None]
) -> Iterator[tuple[str, Delta]]:
    model: Any = _Layers(shapes)
    for slot, parts in slots.items():
        if parts is not None:
            for site in find_sites(model, config, **dict(parts.representation)):
                yield slot, parts.build(site).eval()


def tabulate(
    placed: Iterable[tuple[str, Delta]], free: Sequence[int], backbone: int
) -> dict[str, Any]:
    """Tabulate trained and stored parameters by slot and representation, with shares in percent.

    `placed` holds slot and delta of each site, `free` the sizes of the backbone parameters that
    train, `backbone` the size of the backbone. A shared trunk counts once, at its first site.
    """
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    counted: set[int] = set()
    for slot, delta in placed:
        key = (slot, delta.site.representation)
        row = rows.setdefault(key, {"sites": 0, "trained": 0, "stored": 0})
        fresh = [p for p in delta.parameters() if id(p) not in counted]
        counted |= {id(p) for p in fresh}
        row["sites"] += 1
        row["trained"] += sum(p.numel() for p in fresh if p.requires_grad)
        row["stored"] += sum(t.numel() for _, t in delta.form.inference_tensors())
        row["stored"] += sum(p.numel() for p in delta.composition.parameters())
    if free:
        total = sum(free)
        rows["unfreeze", "backbone"] = {"sites": len(free), "trained": total, "stored": total}
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
