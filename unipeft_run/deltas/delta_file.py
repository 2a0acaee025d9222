"""Save and load a stored delta: its tensors (`delta.safetensors`) and its recipe (`delta.json`)."""

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from unipeft_run.deltas.attach import PREFIX, find_deltas, slot_of
from unipeft_run.deltas.counting.counts import tabulate
from unipeft_run.deltas.delta import Delta
from unipeft_run.deltas.forms.base import drop_repeated
from unipeft_run.errors import UserError
from unipeft_run.runs.checkpoint import replace_tensors, sha256
from unipeft_run.runs.folder import DELTA_FILES, check_has_delta
from unipeft_run.runs.reading import UnreadableFile, read_json
from unipeft_run.runs.writing import Check, no_check, replace_file
from unipeft_run.tuners.adapter import find_adapter

TENSORS, RECIPE = DELTA_FILES


def inference_tensors(model: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield name and tensor of everything that inference needs besides the frozen backbone."""
    yield from stored_tensors(find_deltas(model))
    if adapter := find_adapter(model):
        yield from adapter.tensors().items()
    yield from unfrozen_parameters(model)


def unfrozen_parameters(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Yield name and parameter of everything in the backbone that trains."""
    if adapter := find_adapter(model):
        yield from adapter.unfrozen_parameters()
        return
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and f".{PREFIX}" not in name:
            yield name, parameter


def stored_tensors(deltas: Iterable[tuple[str, Delta]]) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield name and tensor of everything that inference needs of these paths and deltas.

    A parameter shared by several sites has the name of the first.
    """
    yield from drop_repeated(_all_tensors(deltas))


def _all_tensors(deltas: Iterable[tuple[str, Delta]]) -> Iterator[tuple[str, torch.Tensor]]:
    for path, delta in deltas:
        for name, tensor in delta.form.inference_tensors():
            yield f"{path}.form.{name}", tensor
        for name, tensor in delta.composition.named_parameters():
            yield f"{path}.composition.{name}", tensor


def _copy_to_cpu(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: t.detach().cpu().clone().contiguous() for name, t in tensors.items()}


def save_delta(
    model: nn.Module, folder: Path, recipe: Mapping[str, Any], check: Check = no_check
) -> None:
    """Write both files to `folder`. `recipe` holds the resolved slots, `unfreeze` and backbone.

    `check` is called before each write; it raises if another process has taken over the folder.
    """
    write_delta(dict(inference_tensors(model)), folder, recipe, check)


def write_delta(
    tensors: Mapping[str, torch.Tensor],
    folder: Path,
    recipe: Mapping[str, Any],
    check: Check = no_check,
) -> None:
    """Write the tensors and the recipe of a delta, as `save_delta` does."""
    replace_tensors(_copy_to_cpu(tensors), folder / TENSORS, check)
    written = {**recipe, "sha256": sha256(folder / TENSORS)}
    replace_file(folder / RECIPE, json.dumps(written, indent=2).encode() + b"\n", check)


def read_tensors(folder: Path) -> dict[str, torch.Tensor]:
    """Read the tensors in `folder`. Raises UserError if a file is missing or damaged."""
    check_has_delta(folder)
    file = folder / TENSORS
    written = read_recipe(folder).get("sha256")
    if written not in (None, sha256(file)):
        raise UserError(f"{file} is damaged: its checksum differs from the one in {RECIPE}")
    try:
        return load_file(file)
    except SafetensorError as error:
        raise UserError(f"{file} is damaged: {error}") from None


def read_recipe(folder: Path) -> dict[str, Any]:
    """Read the recipe in `folder`. Raises UserError if it is damaged."""
    try:
        return read_json(folder / RECIPE)
    except UnreadableFile:
        raise UserError(f"{folder / RECIPE} is damaged: it is not a JSON object") from None


def load_delta(model: nn.Module, folder: Path) -> None:
    """Load the tensors into a model that was built with `inference=True`.

    Raises UserError if a file is missing or damaged, or if a tensor is missing, unexpected or of
    another shape.
    """
    stored = copy_tensors(folder, dict(inference_tensors(model)))
    if adapter := find_adapter(model):
        adapter.load({name: stored[name] for name in adapter.tensors()})


def copy_tensors(folder: Path, expected: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Copy the tensors in `folder` into those of the same names, as `load_delta` does.

    Returns the tensors in `folder`.
    """
    stored = read_tensors(folder)
    if stored.keys() != expected.keys():
        name = min(stored.keys() ^ expected.keys())
        reason = f"the model has no {name}" if name in stored else f"{name} is missing"
        raise UserError(f"{folder / TENSORS} does not fit this model: {reason}")
    with torch.no_grad():
        for name, tensor in expected.items():
            if tensor.shape != stored[name].shape:
                shapes = f"shape {list(stored[name].shape)}, but the model has {list(tensor.shape)}"
                raise UserError(f"{folder / TENSORS}: {name} has {shapes}")
            tensor.copy_(stored[name])
    return stored


def tabulate_parameters(model: nn.Module, backbone: int) -> dict[str, Any]:
    """Count the parameters of a model with deltas, by site; `backbone` is the backbone's count."""
    deltas = ((slot_of(path), delta) for path, delta in find_deltas(model))
    unfrozen = [parameter.numel() for _, parameter in unfrozen_parameters(model)]
    adapter = find_adapter(model)
    return tabulate(deltas, unfrozen, backbone, adapter.rows() if adapter else {})
