"""Write a checkpoint of the official code as a run folder."""

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import nn

from unipeft_run.backbones.architectures import architecture
from unipeft_run.backbones.families import family_of
from unipeft_run.backbones.load import load_backbone
from unipeft_run.backbones.locate import locate
from unipeft_run.backbones.model_config import CONFIG, read_config_file
from unipeft_run.backbones.shapes import shapes_of
from unipeft_run.backbones.weights import PICKLES, SAFETENSORS, pickle_refusal, read_tensors
from unipeft_run.config import RunConfig, compose, resolve
from unipeft_run.config.legality import ATTENTIONS, STACKS
from unipeft_run.config.resolve import resolve_data
from unipeft_run.deltas.attach import Slot
from unipeft_run.deltas.build import backbone_size, delta_recipe
from unipeft_run.deltas.counting.counts import num_labels
from unipeft_run.deltas.delta_file import save_delta, tabulate_parameters
from unipeft_run.errors import UserError
from unipeft_run.interop.official import build_slots, from_official, unfreeze_patterns
from unipeft_run.interop.target import check_run_target
from unipeft_run.runs.folder import RunFolder

# family and number of labels -> the task that the paper trains with it
TASKS = {("bart", 0): "xsum", ("mbart", 0): "wmt16_en_ro"}
TASKS |= {("roberta", 3): "mnli", ("roberta", 2): "sst2"}


def import_official(
    checkpoint: Path,
    options: Mapping[str, Any],
    out: Path,
    overrides: Sequence[str] = (),
    *,
    config: Path | None = None,
    force: bool = False,
) -> dict[str, Any]:
    """Write the run folder `out`; return its parameter table.

    `options`: the official ones, completed. `overrides`: as for unipeft train. `config`: the
    model's config.json if it is not in the folder of the weights. `out` must be new or empty; with
    `force` it may be a run folder, which is replaced. Raises UserError before anything is written.
    """
    check_run_target(out, force=force)
    file = _find_weights(checkpoint)
    settings = _read_settings(config or file.parent / CONFIG)
    composed = resolve(compose(_with_defaults(settings, overrides)))
    _check_task(settings, composed, file)
    try:
        model = from_official(options, settings, read_tensors(file))
    except ValueError as problem:
        raise UserError(f"{file}: {problem}") from None
    table = tabulate_parameters(model, backbone_size(model))
    described = _describe(composed, options, model, overrides)
    _check_backbone(model, described)
    _write(out, described, model, table)
    return table


def _find_weights(checkpoint: Path) -> Path:
    """Return the safetensors file at or in `checkpoint`."""
    if checkpoint.is_file():
        if checkpoint.suffix != ".safetensors":
            raise UserError(pickle_refusal(checkpoint))
        return checkpoint
    if (checkpoint / SAFETENSORS).is_file():
        return checkpoint / SAFETENSORS
    for name in PICKLES:
        if (checkpoint / name).is_file():
            raise UserError(pickle_refusal(checkpoint / name))
    raise UserError(f"{checkpoint} holds no {SAFETENSORS}")


def _read_settings(file: Path) -> Any:
    if not file.is_file():
        raise UserError(f"there is no {file}; name the model's config.json with --config")
    return read_config_file(file)


def _with_defaults(settings: Any, overrides: Sequence[str]) -> list[str]:
    """Return `overrides`, with the model's task and `method=none` as defaults."""
    given = {override.partition("=")[0] for override in overrides}
    labels = settings.num_labels if family_of(settings).head else 0
    task = TASKS.get((settings.model_type, labels))
    defaults = [f"task={task}"] if task and "task" not in given else []
    return [*defaults, *(["method=none"] if "method" not in given else []), *overrides]


def _check_task(settings: Any, config: RunConfig, file: Path) -> None:
    """Raise UserError for a task of another family, or with another number of classes."""
    task, family = config.task.name, config.backbone.family
    if family != settings.model_type:
        raise UserError(
            f"{file} is a {settings.model_type} model, but task={task} has a {family} backbone"
        )
    labels = num_labels(config.task)
    if labels and labels != settings.num_labels:
        raise UserError(f"{file} has {settings.num_labels} classes, but task={task} has {labels}")


def _describe(
    config: RunConfig, options: Mapping[str, Any], model: nn.Module, overrides: Sequence[str]
) -> RunConfig:
    """Describe a run with these deltas as a configuration.

    The classifier counts as trained and is stored: the official code freezes it at a random
    initialisation that no seed of ours reproduces.
    """
    slots = {name: slot_config(slot) for name, slot in build_slots(options).items()}
    head = family_of(model.config).head
    for name, parameter in model.named_parameters():
        if any(fnmatchcase(name, pattern) for pattern in head):
            parameter.requires_grad_(True)
    named = any(override.startswith("method=") for override in overrides)
    return resolve_data(
        {
            **config.plain(),
            **slots,
            "unfreeze": list(unfreeze_patterns(options, model)),
            "head": "trained" if head else "frozen",
            "method": config.method if named else "official",
        }
    )


def slot_config(slot: Slot | None) -> dict[str, Any] | None:
    """Return the configuration of a slot that `build_slots` made."""
    if slot is None:
        return None
    form, composition = _target_node(slot.form), _target_node(slot.composition)
    return {
        "form": form,
        "insertion": slot.insertion,
        "representation": {
            "stacks": list(STACKS),
            "attentions": list(ATTENTIONS),
            "layers": "all",
            **slot.representation,
        },
        "composition": composition,
        "bottleneck": form.get("length", form.get("rank")),
        "scale": composition.get("scale"),
    }


def _target_node(part: Any) -> dict[str, Any]:
    cls, keywords = (part.func, part.keywords) if isinstance(part, partial) else (part, {})
    return {"_target_": f"{cls.__module__}.{cls.__qualname__}", "_partial_": True, **keywords}


def _check_backbone(model: Any, config: RunConfig) -> None:
    """Compare the checkpoint's frozen weights, which are not stored, with the run's backbone.

    Only the shapes of a backbone on the hub are compared.
    """
    backbone, labels = config.backbone, num_labels(config.task)
    stored = dict(model.named_parameters())
    if backbone.hub is not None and backbone.path is None:
        for name, shape in shapes_of(architecture(backbone, labels)).items():
            if name not in stored or stored[name].shape != shape:
                raise _other_backbone(backbone.hub, name)
        return
    source = locate(name=backbone.name, hub=backbone.hub, path=backbone.path)
    ours = load_backbone(source, family=backbone.family, num_labels=labels, config=backbone.config)
    for name, parameter in ours.named_parameters():
        tensor = stored.get(name)
        same = (
            tensor is not None
            and tensor.shape == parameter.shape
            and torch.allclose(tensor.detach().float(), parameter, rtol=1e-3, atol=1e-5)
        )
        if not (same or (tensor is not None and tensor.requires_grad)):
            raise _other_backbone(source, name)


def _other_backbone(source: str, name: str) -> UserError:
    return UserError(
        f"{source} is not the checkpoint's backbone: {name} differs; "
        "name the folder of the right one with backbone.path=DIR"
    )


def _write(out: Path, config: RunConfig, model: nn.Module, table: Mapping[str, Any]) -> None:
    folder = RunFolder(out)
    folder.clear()
    folder.write_text("config.yaml", yaml.safe_dump(config.plain(), sort_keys=False))
    folder.write_json("parameters.json", table)
    save_delta(model, out, delta_recipe(config), folder.check)
    folder.mark("done", step=0)
