"""What is stored for inference: `delta.safetensors`, and `delta.json`: how to attach it."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from unipeft_run.deltas.attach import PREFIX, deltas
from unipeft_run.deltas.counting.counts import tabulate
from unipeft_run.errors import UserError
from unipeft_run.runs.checkpoint import replace_tensors, sha256
from unipeft_run.runs.reading import UnreadableFile, read_json
from unipeft_run.runs.writing import Check, no_check, replace_file

TENSORS, RECIPE = "delta.safetensors", "delta.json"


def stored_tensors(model: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Name and tensor of all that inference needs beside the frozen backbone."""
    for path, delta in deltas(model):
        for name, tensor in delta.form.stored():
            yield f"{path}.form.{name}", tensor
        for name, tensor in delta.composition.named_parameters():
            yield f"{path}.composition.{name}", tensor
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and f".{PREFIX}" not in name:
            yield name, parameter


def _copies(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """On the CPU, sharing no storage."""
    return {name: t.detach().cpu().clone().contiguous() for name, t in tensors.items()}


def save_delta(
    model: nn.Module, folder: Path, recipe: Mapping[str, Any], check: Check = no_check
) -> None:
    """Write both files to `folder`; `recipe` is the resolved slots, `unfreeze` and backbone.

    `check` is called before each write; it raises if the folder is another process's by now.
    """
    replace_tensors(_copies(dict(stored_tensors(model))), folder / TENSORS, check)
    written = {**recipe, "sha256": sha256(folder / TENSORS)}
    replace_file(folder / RECIPE, json.dumps(written, indent=2).encode() + b"\n", check)


def read_tensors(folder: Path) -> dict[str, torch.Tensor]:
    """The tensors of `folder`. Raises UserError where they are missing or not as written."""
    file, recipe = folder / TENSORS, folder / RECIPE
    for name in (file, recipe):
        if not name.is_file():
            raise UserError(f"{folder} holds no finished run: there is no {name.name} in it")
    try:
        written = read_json(recipe).get("sha256")
    except UnreadableFile:
        raise UserError(f"{recipe} is damaged: it holds no JSON object") from None
    if written not in (None, sha256(file)):
        raise UserError(f"{file} is damaged: its checksum is not the one in {RECIPE}")
    try:
        return load_file(file)
    except SafetensorError as error:
        raise UserError(f"{file} is damaged: {error}") from None


def load_delta(model: nn.Module, folder: Path) -> None:
    """Load the tensors into a model that has been attached by the folded recipe.

    Raises UserError where a file is missing or damaged, or a tensor is missing, left over or of
    another shape.
    """
    found = read_tensors(folder)
    wanted = dict(stored_tensors(model))
    if found.keys() != wanted.keys():
        name = min(found.keys() ^ wanted.keys())
        raise UserError(f"{folder / TENSORS} does not fit this model: {name} has no counterpart")
    with torch.no_grad():
        for name, tensor in wanted.items():
            if tensor.shape != found[name].shape:
                raise UserError(f"{name}: {list(found[name].shape)} in {folder / TENSORS}")
            tensor.copy_(found[name])


def parameter_table(model: nn.Module, backbone: int) -> dict[str, Any]:
    """The counts of a model with deltas, by `counts.tabulate`; `backbone` is the size of that."""
    placed = ((path.rpartition(PREFIX)[2], delta) for path, delta in deltas(model))
    named = model.named_parameters()
    free = [p.numel() for name, p in named if p.requires_grad and f".{PREFIX}" not in name]
    return tabulate(placed, free, backbone)
