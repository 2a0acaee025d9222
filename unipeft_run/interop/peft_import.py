"""Import LoRA from a PEFT folder. PEFT itself need not be installed."""

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from unipeft_run.backbones.files import read_object
from unipeft_run.backbones.site import Site
from unipeft_run.backbones.sites import find_sites
from unipeft_run.backbones.weights import check_types, read_tensors
from unipeft_run.config.messages import shorten
from unipeft_run.deltas.attach import PREFIX, freeze, has_deltas, reattach
from unipeft_run.deltas.compositions import Scaled
from unipeft_run.deltas.delta import Delta
from unipeft_run.deltas.forms.bottleneck import Bottleneck
from unipeft_run.deltas.insertions import parallel
from unipeft_run.deltas.origin import refuse_trained
from unipeft_run.errors import UserError
from unipeft_run.interop.peft_config import CONFIG, LINEAR, ROOT, TENSORS, alpha_of, check_config
from unipeft_run.library.store import find_store


def import_peft(model: nn.Module, folder: str | Path) -> None:
    """Attach the LoRA in a PEFT `folder` to a backbone without deltas; only it is trainable.

    Raises UserError, with the reason, for a damaged folder, for anything but LoRA at our sites, and
    for a model that has deltas, active or not.
    """
    if find_store(model) is not None or has_deltas(model):
        raise UserError("this model already has deltas: detach them first")
    refuse_trained(model)
    folder = Path(folder).expanduser()
    config, tensors = _read(folder)
    attach_lora(model, config, tensors, folder)


def attach_lora(
    model: nn.Module, config: dict[str, Any], tensors: Mapping[str, torch.Tensor], source: object
) -> None:
    """Attach the LoRA that `config` describes and load its `tensors`, named as in `model`.

    `source`: where they come from, for messages. Raises UserError as `import_peft` does; the model
    is then unchanged.
    """
    check_config(config, source)
    sites = {site.write.path: site for site in find_sites(model, model.config, sites=LINEAR)}
    pairs: dict[str, dict[str, torch.Tensor]] = {}
    head: dict[str, torch.Tensor] = {}
    for name, tensor in tensors.items():
        if match := re.fullmatch(r"(.*)\.lora_(A|B)\.weight", name):
            pairs.setdefault(match[1], {})[match[2]] = tensor
        else:
            head[name] = tensor
    placed = [_build_delta(path, pair, sites, config) for path, pair in pairs.items()]
    parameters = [_find_head(model, config, name, tensor) for name, tensor in head.items()]
    freeze(model, ())
    with torch.no_grad():
        for parameter, tensor in zip(parameters, head.values(), strict=True):
            parameter.copy_(tensor)
            parameter.requires_grad_(True)
    reattach(model, placed)


def _read(folder: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    for name in (CONFIG, TENSORS):
        if not (folder / name).is_file():
            raise UserError(f"{folder} holds no {name}")
    tensors = read_tensors(folder / TENSORS)
    check_types(tensors, set(tensors), folder / TENSORS)
    named = {name.removeprefix(ROOT): tensor for name, tensor in tensors.items()}
    return read_object(folder / CONFIG), named


def _build_delta(
    path: str, pair: Mapping[str, torch.Tensor], sites: Mapping[str, Site], config: dict[str, Any]
) -> tuple[str, Delta]:
    site = sites.get(path)
    if site is None or len(pair) < 2:
        known = ", ".join(LINEAR)
        raise UserError(f"LoRA at {shorten(path)} cannot be imported; supported sites: {known}")
    if site.write.part:
        raise UserError(
            f"LoRA at {shorten(path)} cannot be imported: "
            "one weight computes queries, keys and values there"
        )
    down, up = pair["A"], pair["B"]
    rank = down.size(0) if down.ndim else 0
    shapes = (rank, site.width_in), (site.width_out, rank)
    if rank < 1 or (down.shape, up.shape) != shapes:
        found = f"{list(down.shape)} and {list(up.shape)}"
        raise UserError(
            f"the LoRA at {path} has the shapes {found}; "
            f"this backbone needs [r, {site.width_in}] and [{site.width_out}, r]"
        )
    alpha = alpha_of(config, path)
    scale = alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)
    form = Bottleneck(
        site,
        rank=rank,
        activation="identity",
        bias=False,
        init="lora",
        dropout=0.0,
        input_dropout=config.get("lora_dropout", 0.0),
    )
    form.to(down.dtype).load_state_dict({"down.weight": down, "up.weight": up})
    slot = site.representation.partition(".")[0]
    return f"{path}.{PREFIX}{slot}", Delta(site, form, parallel, Scaled(site, scale=scale))


def _find_head(
    model: nn.Module, config: Mapping[str, Any], name: str, tensor: torch.Tensor
) -> nn.Parameter:
    """Return the classification-head parameter for `tensor`."""
    heads = tuple(f"{head}." for head in config.get("modules_to_save") or ())
    parameter = dict(model.named_parameters()).get(name)
    if parameter is None or not name.startswith(heads) or parameter.shape != tensor.shape:
        raise UserError(f"unexpected tensor {shorten(name)}")
    return parameter
