"""Count the parameters of a method of the PEFT library, from a model without memory."""

from __future__ import annotations

from math import prod
from typing import Any

import torch
import transformers
from torch import nn

from unipeft_run.backbones.architectures import architecture
from unipeft_run.backbones.families import family_of
from unipeft_run.backbones.quiet import no_loading_report
from unipeft_run.config.schema import RunConfig
from unipeft_run.data.tasks.build import build_task
from unipeft_run.deltas.attach import attach, attach_library
from unipeft_run.deltas.build import unfreeze_patterns
from unipeft_run.deltas.delta_file import tabulate_parameters, unfrozen_parameters
from unipeft_run.errors import UserError
from unipeft_run.tuners.adapter import Adapter


def count_library(config: RunConfig) -> dict[str, Any]:
    """Count as `counts` does, without the memory of the backbone, unless the method reads it."""
    try:
        model, adapter = _build(config, "meta")
    except UserError:  # its modules are computed from the weights
        model, adapter = _build(config, "cpu")
    table = tabulate_parameters(model, adapter.backbone)
    for row in (table, *table["sites"]):
        row["receiving_gradient"] = row["trained"]
    matrices = [tensor.shape for tensor in adapter.tensors().values() if tensor.ndim > 1]
    unfrozen = sum(parameter.numel() for _, parameter in unfrozen_parameters(model))
    table["formula"] = sum(map(prod, matrices)) + unfrozen
    table["formula_percent"] = 100 * table["formula"] / table["backbone"]
    return table


def _build(config: RunConfig, device: str) -> tuple[nn.Module, Adapter]:
    """Build the model with random weights."""
    assert config.peft is not None
    labels = build_task(config.task).num_labels
    shape = architecture(config.backbone, labels, complete=True)
    with torch.device(device), no_loading_report():
        model = getattr(transformers, family_of(shape).model)(shape)
    attach(model, {}, unfreeze_patterns(config))
    return model, attach_library(model, config.peft)
