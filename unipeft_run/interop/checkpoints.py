"""From a checkpoint of the official code to a run folder."""

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
import transformers
from omegaconf import OmegaConf
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from unipeft_run.backbones.load import load_backbone
from unipeft_run.backbones.locate import locate
from unipeft_run.backbones.sites import table_of
from unipeft_run.config import compose, resolve
from unipeft_run.config.legality import ATTENTIONS, STACKS
from unipeft_run.deltas.attach import PREFIX, Slot
from unipeft_run.deltas.delta_file import save_delta, tabulate_parameters
from unipeft_run.deltas.slots import folded
from unipeft_run.errors import UserError
from unipeft_run.interop.official import from_official, slots_of, unfreeze_of
from unipeft_run.runs.folder import RunFolder

WEIGHTS = ("model.safetensors", "pytorch_model.bin")
# family and number of labels -> the task that the paper trains with it
TASKS = {("bart", 0): "xsum", ("mbart", 0): "wmt16_en_ro"}
TASKS |= {("roberta", 3): "mnli", ("roberta", 2): "sst2"}


def import_official(
    checkpoint: Path,
    options: Mapping[str, Any],
    out: Path,
    words: Sequence[str] = (),
    *,
    config: Path | None = None,
    force: bool = False,
) -> dict[str, Any]:
    """Write the run folder `out` and return its parameter table.

    `options` are the official ones, completed; `words` overrides as for unipeft-train; `config` is
    the model's config.json where it is not beside the weights. Raises UserError.
    """
    if (out / "config.yaml").exists() and not force:
        raise UserError(f"{out} holds a run already; another --out, or --force")
    file = _weights(checkpoint)
    settings = _config(config or file.parent / "config.json")
    cfg = resolve(compose(_overrides(settings, words)))
    try:
        model = from_official(options, settings, _state(file))
    except ValueError as problem:
        raise UserError(f"{file}: {problem}") from None
    backbone = sum(p.numel() for n, p in model.named_parameters() if PREFIX not in n)
    table = tabulate_parameters(model, backbone)
    cfg = _described(cfg, options, model, words)
    _check_backbone(model, cfg["backbone"])
    _write(out, cfg, model, table)
    return table


def _weights(checkpoint: Path) -> Path:
    if checkpoint.is_file():
        return checkpoint
    for name in WEIGHTS:
        if (checkpoint / name).is_file():
            return checkpoint / name
    raise UserError(f"{checkpoint} holds neither {' nor '.join(WEIGHTS)}")


def _state(file: Path) -> dict[str, torch.Tensor]:
    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        return dict(torch.load(file, map_location="cpu", weights_only=True))
    except (UnpicklingError, SafetensorError, RuntimeError, EOFError, TypeError) as problem:
        raise UserError(f"{file} cannot be read: {str(problem).splitlines()[0]}") from None


def _config(file: Path) -> Any:
    if not file.is_file():
        raise UserError(f"there is no {file}; give --config, the model's config.json")
    try:
        return transformers.AutoConfig.from_pretrained(file)
    except (ValueError, OSError) as problem:
        raise UserError(f"{file}: {str(problem).splitlines()[0]}") from None


def _overrides(settings: Any, words: Sequence[str]) -> list[str]:
    """`words`, with the task that the model is for, and no method, where they give none."""
    given = {word.partition("=")[0] for word in words}
    labels = settings.num_labels if table_of(settings).head else 0
    task = TASKS.get((settings.model_type, labels))
    defaults = [f"task={task}"] if task and "task" not in given else []
    return [*defaults, *(["method=none"] if "method" not in given else []), *words]


def _described(
    cfg: dict[str, Any], options: Mapping[str, Any], model: nn.Module, words: Sequence[str]
) -> dict[str, Any]:
    """The configuration under which a run has these deltas.

    The classifier counts as trained: in the official code it stays at the random start of that run,
    which no seed of ours draws again, so it is stored.
    """
    slots = {name: described(slot) for name, slot in slots_of(options).items()}
    head = table_of(model.config).head
    for name, parameter in model.named_parameters():
        if any(fnmatchcase(name, pattern) for pattern in head):
            parameter.requires_grad_(True)
    return {
        **cfg,
        **slots,
        "unfreeze": unfreeze_of(options, model),
        "head": "trained" if head else "frozen",
        "method": cfg["method"] if any(w.startswith("method=") for w in words) else "official",
    }


def described(slot: Slot | None) -> dict[str, Any] | None:
    """A slot that `slots_of` made, as a configuration has it."""
    if slot is None:
        return None
    form, composition = _node(slot.form), _node(slot.composition)
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


def _node(part: Any) -> dict[str, Any]:
    cls, words = (part.func, part.keywords) if isinstance(part, partial) else (part, {})
    return {"_target_": f"{cls.__module__}.{cls.__qualname__}", "_partial_": True, **words}


def _check_backbone(model: Any, backbone: Mapping[str, Any]) -> None:
    """The frozen weights are not stored: a local backbone has to hold the same ones."""
    if backbone["hub"] is not None and backbone["path"] is None:
        return
    source = locate(**{key: backbone[key] for key in ("name", "hub", "path")})
    labels = model.config.num_labels if table_of(model.config).head else None
    ours = load_backbone(source, family=backbone["family"], num_labels=labels)
    theirs = dict(model.named_parameters())
    for name, parameter in ours.named_parameters():
        tensor = theirs[name]
        same = tensor.shape == parameter.shape and torch.allclose(
            tensor.detach().float(), parameter, rtol=1e-3, atol=1e-5
        )
        if not (same or tensor.requires_grad):
            raise UserError(f"{source} is not the checkpoint's backbone: {name} differs")


def _write(out: Path, cfg: dict[str, Any], model: nn.Module, table: Mapping[str, Any]) -> None:
    folder = RunFolder(out)
    folder.clear()
    head = table_of(model.config).head
    recipe = {
        "backbone": cfg["backbone"],
        "unfreeze": [*cfg["unfreeze"], *head],
        "slots": folded(cfg),
    }
    folder.write_text("config.yaml", OmegaConf.to_yaml(OmegaConf.create(cfg)))
    folder.write_json("parameters.json", table)
    save_delta(model, out, recipe)
    folder.mark("done", step=0)
