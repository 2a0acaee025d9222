"""Build the model of a configuration: its backbone with its deltas attached."""

from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import set_seed

from unipeft_run.backbones.families import FAMILIES
from unipeft_run.backbones.load import load_backbone
from unipeft_run.config import RunConfig
from unipeft_run.data.tasks.build import build_task
from unipeft_run.deltas.attach import PREFIX, attach, attach_library
from unipeft_run.deltas.counting.counts import num_labels
from unipeft_run.deltas.delta_file import load_delta
from unipeft_run.deltas.fingerprint import describe_backbone, plain_parameters
from unipeft_run.deltas.origin import set_origin
from unipeft_run.deltas.slots import build_slots, matching_parameters, stored_slots
from unipeft_run.tuners.adapter import find_adapter


def build_model(config: RunConfig, source: str, *, inference: bool = False) -> nn.Module:
    """Load the backbone from `source` and attach the configured deltas, in eval mode.

    New weights are initialised from the run's seed. With `inference`, the deltas have only the
    stored parameters, to be loaded by `load_delta`. Raises UserError.
    """
    set_seed(config.seed)
    model = _load_named(config, source)
    attach(model, build_slots(config, inference=inference), unfreeze_patterns(config))
    if config.peft is not None:
        attach_library(model, config.peft)
    return model


def load_plain(config: RunConfig, source: str) -> nn.Module:
    """Load the backbone from `source` as it was before training, in eval mode.

    A new classifier is initialised from the run's seed, without changing torch's random state.
    Raises UserError.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(config.seed)
        return _load_named(config, source)


def _load_named(config: RunConfig, source: str) -> nn.Module:
    """Load the backbone, with the names of the task's classes."""
    model = load_backbone(
        source,
        family=config.backbone.family,
        weights=config.backbone.weights,
        num_labels=num_labels(config.task),
        config=config.backbone.config,
    )
    name_classes(model, config)
    return model


def name_classes(model: Any, config: RunConfig) -> None:
    """Record the task's classes, or that it predicts numbers, in the model's config."""
    task = build_task(config.task)
    if task.kind == "regression":
        model.config.problem_type = "regression"
    if names := task.label_names:
        model.config.id2label = dict(enumerate(names))
        model.config.label2id = {name: number for number, name in enumerate(names)}


def load_trained(config: RunConfig, source: str, folder: Path) -> nn.Module:
    """Load the backbone from `source` with the delta stored in `folder`, in eval mode.

    A frozen classifier is initialised again from the run's seed. Raises UserError.
    """
    model = build_model(config, source, inference=True)
    load_delta(model, folder)
    set_origin(model, config, source)
    return model.eval()


def unfreeze_patterns(config: RunConfig) -> list[str]:
    """Return the patterns of trainable backbone parameters, including a trained classifier's."""
    head = FAMILIES[config.backbone.family].head if config.head == "trained" else ()
    return [*config.unfreeze, *head]


def backbone_size(model: nn.Module) -> int:
    """Count the parameters of the backbone, tied ones once."""
    if adapter := find_adapter(model):
        return adapter.backbone
    return sum(p.numel() for name, p in model.named_parameters() if PREFIX not in name)


def run_recipe(config: RunConfig, model: nn.Module) -> dict[str, Any]:
    """Return the content of delta.json, with the sizes and some weights of the model's backbone."""
    recipe = delta_recipe(config)
    names = [name for name, _ in plain_parameters(model)]
    described = describe_backbone(model, tuple(matching_parameters(names, recipe["unfreeze"])))
    return {**recipe, "backbone": {**described, **recipe["backbone"]}}


def delta_recipe(config: RunConfig) -> dict[str, Any]:
    """Return the content of delta.json: method, backbone, unfrozen patterns, slots, class names."""
    slots = {
        name: slot.model_dump(mode="json", by_alias=True)
        for name, slot in stored_slots(config).items()
    }
    backbone = config.backbone.model_dump(mode="json")
    recipe: dict[str, Any] = {
        "method": config.method,
        "backbone": backbone,
        "unfreeze": unfreeze_patterns(config),
        "slots": slots,
    }
    if config.peft is not None:
        recipe["peft"] = config.peft.model_dump(mode="json")
    labels = build_task(config.task).label_names
    return {**recipe, "labels": list(labels)} if labels else recipe
