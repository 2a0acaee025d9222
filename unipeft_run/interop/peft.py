"""LoRA to and from the folders of PEFT: adapter_config.json and adapter_model.safetensors.

Reads and writes the files themselves; PEFT need not be installed for that.
"""

import json
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from unipeft_run.backbones.sites import resolve, table_of
from unipeft_run.deltas.attach import PREFIX, find_deltas, freeze, reattach
from unipeft_run.deltas.compositions import Add, LearnedScale, Scaled
from unipeft_run.deltas.delta import Delta
from unipeft_run.deltas.forms.bottleneck import Bottleneck
from unipeft_run.deltas.forms.memory import Memory
from unipeft_run.deltas.forms.vectors import Vectors
from unipeft_run.deltas.insertions import parallel
from unipeft_run.deltas.site import Site
from unipeft_run.errors import UserError

CONFIG, TENSORS, ROOT = "adapter_config.json", "adapter_model.safetensors", "base_model.model."
LINEAR = ("attn.query", "attn.key", "attn.value", "ffn.up", "ffn.down")
# of LoraConfig: what changes the arithmetic, and has no counterpart here
FOREIGN = (
    "use_dora",
    "lora_bias",
    "fan_in_fan_out",
    "layer_replication",
    "trainable_token_indices",
    "target_parameters",
    "use_qalora",
    "use_bdlora",
    "velora_config",
    "monteclora_config",
    "arrow_config",
    "kasa_config",
    "alora_invocation_tokens",
)
PLAIN_STARTS = (True, False, "gaussian", "eva", "orthogonal")  # the others change the base weights


def objection(delta: Delta) -> str | None:
    """Why PEFT cannot express this delta; None if it can."""
    form, composition = delta.form, delta.composition
    if isinstance(form, Memory):
        if form.activation == "softmax":
            return "PEFT feeds a prefix through the cache: it reaches decoder self-attention alone"
        return "PEFT has no multi-head parallel adapter"
    if isinstance(form, Vectors):
        return "PEFT gives the vectors of a prompt position embeddings, which these do not have"
    if not isinstance(form, Bottleneck) or not isinstance(composition, Add | Scaled | LearnedScale):
        return f"PEFT has no {type(form).__name__} with {type(composition).__name__}"
    if not isinstance(form.activation, nn.Identity):
        return "PEFT has no bottleneck adapter, only linear ones"
    if form.norm is not None or isinstance(composition.norm, nn.LayerNorm):
        return "PEFT's LoRA has no LayerNorm"
    if form.down.bias is not None:
        return "PEFT's LoRA has no bias behind W_down"
    if delta.site.representation not in LINEAR or delta.insertion is not parallel:
        return "PEFT's LoRA stands beside one weight and reads what that reads"
    return None


def export_peft(model: nn.Module, folder: Path, base: str | None = None) -> None:
    """Write the LoRA of `model` to `folder`, for `peft.PeftModel.from_pretrained`.

    `base` is the backbone's id or path, for the reader. A classification head goes along, trained
    or at its random start. Raises UserError for what PEFT cannot express, with the reason.
    """
    placed = [(path.rpartition(".")[0], delta) for path, delta in find_deltas(model)]
    if not placed:
        raise UserError("there is no LoRA in this model: no slot is filled")
    for _, delta in placed:
        if reason := objection(delta):
            raise UserError(f"cannot export {delta.site.representation}: {reason}")
    heads = [pattern.removesuffix(".*") for pattern in table_of(model.config).head]
    tensors = dict(_lora_tensors(placed)) | dict(_head_tensors(model, heads))
    folder.mkdir(parents=True, exist_ok=True)
    save_file({f"{ROOT}{name}": t.detach().cpu().contiguous() for name, t in tensors.items()},
              folder / TENSORS, metadata={"format": "pt"})  # fmt: skip
    config = _config(model, placed, heads, base)
    (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def _lora_tensors(placed: list[tuple[str, Delta]]) -> Iterator[tuple[str, torch.Tensor]]:
    for path, delta in placed:
        form: Any = delta.form
        yield f"{path}.lora_A.weight", form.down.weight
        yield f"{path}.lora_B.weight", form.up.weight


def _head_tensors(model: nn.Module, heads: list[str]) -> Iterator[tuple[str, torch.Tensor]]:
    for name, parameter in model.named_parameters():
        if name.startswith(tuple(f"{head}." for head in heads)):
            yield name, parameter
        elif parameter.requires_grad and f".{PREFIX}" not in name:
            raise UserError(f"cannot export {name}: PEFT stores no single weight of a backbone")


def _config(
    model: nn.Module, placed: list[tuple[str, Delta]], heads: list[str], base: str | None
) -> dict[str, Any]:
    forms: dict[str, Any] = {path: delta.form for path, delta in placed}
    ranks: dict[str, int] = {path: form.down.out_features for path, form in forms.items()}
    alphas = {path: _number(_scale(delta) * ranks[path]) for path, delta in placed}
    rank, alpha = (Counter(found.values()).most_common(1)[0][0] for found in (ranks, alphas))
    return {
        "peft_type": "LORA",
        "task_type": "SEQ_CLS" if heads else "SEQ_2_SEQ_LM",
        "base_model_name_or_path": base,
        "inference_mode": True,
        "r": rank,
        "lora_alpha": alpha,
        "lora_dropout": max(form.input_dropout.p for form in forms.values()),
        "rank_pattern": {path: r for path, r in ranks.items() if r != rank},
        "alpha_pattern": {path: a for path, a in alphas.items() if a != alpha},
        "target_modules": _targets(model, set(ranks)),
        "modules_to_save": heads or None,
        "bias": "none",
    }


def _scale(delta: Delta) -> float:
    return float(torch.as_tensor(getattr(delta.composition, "scale", 1.0)).detach())


def _number(value: float) -> float:
    """A whole number as such: PEFT's alpha is one, usually."""
    nearest = round(value)
    return nearest if math.isclose(value, nearest, rel_tol=1e-12) else value


def _targets(model: nn.Module, paths: set[str]) -> list[str]:
    """The last words of the paths, where they name no other module; else the paths."""
    words = {path.rpartition(".")[2] for path in paths}
    named = {name for name, _ in model.named_modules() if name.rpartition(".")[2] in words}
    return sorted(words if named == paths else paths)


def import_peft(model: nn.Module, folder: Path) -> None:
    """Attach the LoRA in a PEFT `folder` to a backbone without deltas; only it trains.

    Raises UserError for anything that is not LoRA beside one of our weights, with the reason.
    """
    if next(find_deltas(model), None) is not None:
        raise ValueError("this model has deltas already: detach them first")
    config, tensors = _read(folder)
    _check(config, folder)
    freeze(model, ())
    sites = {site.write.path: site for site in resolve(model, model.config, sites=LINEAR)}
    found: dict[str, dict[str, torch.Tensor]] = {}
    for name, tensor in tensors.items():
        if match := re.fullmatch(r"(.*)\.lora_(A|B)\.weight", name):
            found.setdefault(match[1], {})[match[2]] = tensor
        else:
            _load_head(model, config, name, tensor)
    reattach(model, [_delta(path, pair, sites, config) for path, pair in found.items()])


def _read(folder: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        tensors = load_file(folder / TENSORS)
    except FileNotFoundError:
        raise UserError(f"{folder} holds no {CONFIG} with its {TENSORS}") from None
    return config, {name.removeprefix(ROOT): tensor for name, tensor in tensors.items()}


def _check(config: Mapping[str, Any], folder: Path) -> None:
    if config["peft_type"] != "LORA":
        raise UserError(f"{folder} holds {config['peft_type']}; only LORA can be imported")
    if foreign := [name for name in FOREIGN if config.get(name)]:
        raise UserError(f"{folder}: there is no counterpart of {foreign[0]} here")
    if config.get("bias", "none") != "none":
        raise UserError(f"{folder}: bias={config['bias']} has no counterpart here")
    if (start := config.get("init_lora_weights", True)) not in PLAIN_STARTS:
        raise UserError(f"{folder}: init_lora_weights={start} changes the backbone's own weights")


def _delta(
    path: str, pair: Mapping[str, torch.Tensor], sites: Mapping[str, Site], config: dict[str, Any]
) -> tuple[str, Delta]:
    site = sites.get(path)
    if site is None or len(pair) < 2:
        raise UserError(f"no place for a LoRA at {path}: it can stand at {', '.join(LINEAR)}")
    down, up = pair["A"], pair["B"]
    rank = down.size(0)
    alpha = _of_pattern(config.get("alpha_pattern") or {}, path, config["lora_alpha"])
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


def _of_pattern(patterns: Mapping[str, float], path: str, default: float) -> float:
    """PEFT's rule: the first pattern that is the end of the path."""
    return next((v for p, v in patterns.items() if re.match(rf"(.*\.)?({p})$", path)), default)


def _load_head(
    model: nn.Module, config: Mapping[str, Any], name: str, tensor: torch.Tensor
) -> None:
    heads = tuple(f"{head}." for head in config.get("modules_to_save") or ())
    parameter = dict(model.named_parameters()).get(name)
    if parameter is None or not name.startswith(heads) or parameter.shape != tensor.shape:
        raise UserError(f"no place for the tensor {name}")
    with torch.no_grad():
        parameter.copy_(tensor)
    parameter.requires_grad_(True)
