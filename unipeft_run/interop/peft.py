"""Convert to and from PEFT: LoRA and the library's own methods, as folders or as tensors.

PEFT itself need not be installed for the folders of LoRA.
"""

import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import nn
from torch.nn import functional as F

from unipeft_run.backbones.wrapped import refuse_wrapper
from unipeft_run.deltas.attach import PREFIX, find_deltas
from unipeft_run.deltas.compositions import Add, LearnedScale, Scaled
from unipeft_run.deltas.delta import Delta
from unipeft_run.deltas.forms.bottleneck import Bottleneck
from unipeft_run.deltas.forms.memory import Memory
from unipeft_run.deltas.forms.vectors import Vectors
from unipeft_run.deltas.insertions import parallel
from unipeft_run.errors import UserError
from unipeft_run.interop.peft_checkpoint import from_peft as from_peft
from unipeft_run.interop.peft_config import CONFIG as CONFIG
from unipeft_run.interop.peft_config import LINEAR, ROOT, head_modules, task_type_of
from unipeft_run.interop.peft_config import TENSORS as TENSORS
from unipeft_run.interop.peft_import import import_peft as import_peft
from unipeft_run.interop.peft_library import export_library
from unipeft_run.interop.target import check_export_target
from unipeft_run.runs.writing import replace_file
from unipeft_run.tuners.adapter import find_adapter


def find_objection(delta: Delta) -> str | None:
    """Return why PEFT cannot express this delta; None if it can."""
    form, composition = delta.form, delta.composition
    if isinstance(form, Memory):
        if form.activation == "softmax":
            return (
                "PEFT passes prefixes through the cache, which reaches decoder self-attention only"
            )
        return "PEFT has no multi-head parallel adapter"
    if isinstance(form, Vectors):
        return "PEFT adds position embeddings to prompt vectors, ours have none"
    if not isinstance(form, Bottleneck) or not isinstance(composition, Add | Scaled | LearnedScale):
        pair = f"{type(form).__name__} with {type(composition).__name__}"
        return f"there is no export of {pair} to PEFT"
    if not isinstance(form.activation, nn.Identity):
        return "PEFT has no bottleneck adapter, only linear ones"
    if form.norm is not None or isinstance(composition.norm, nn.LayerNorm):
        return "PEFT's LoRA has no LayerNorm"
    if form.down.bias is not None:
        return "PEFT's LoRA has no bias after W_down"
    if delta.site.representation not in LINEAR or delta.insertion is not parallel:
        return "PEFT's LoRA is parallel to one weight and reads the same input"
    return None


def export_peft(model: nn.Module, folder: str | Path, base: str | None = None) -> None:
    """Write the LoRA of `model` to `folder`, for `peft.PeftModel.from_pretrained`.

    `base`: the backbone's id or path, recorded for information. A classification head is included,
    trained or not. `folder` must be new or empty. Raises UserError, with the reason, for a delta
    that PEFT cannot express.
    """
    refuse_wrapper(model)
    folder = Path(folder).expanduser()
    check_export_target(folder, force=False)
    if adapter := find_adapter(model):
        export_library(adapter, folder, base)
        return
    deltas = [delta for _, delta in find_deltas(model)]
    if not deltas:
        raise UserError("there is no LoRA in this model: no slot is filled")
    for delta in deltas:
        if reason := find_objection(delta):
            raise UserError(f"cannot export {delta.site.representation}: {reason}")
    loras = list(_join_loras(deltas))
    heads = head_modules(model)
    tensors = dict(_lora_tensors(loras)) | dict(_head_tensors(model, heads))
    config = json.dumps(_config(model, loras, heads, base), indent=2) + "\n"
    content = save({f"{ROOT}{name}": t.detach().cpu().contiguous() for name, t in tensors.items()},
                   metadata={"format": "pt"})  # fmt: skip
    try:
        folder.mkdir(parents=True, exist_ok=True)
        replace_file(folder / TENSORS, content)
        replace_file(folder / CONFIG, config.encode())
    except OSError as error:
        raise UserError(f"--out={folder} cannot be written: {error.strerror}") from None


@dataclass(frozen=True)
class _Lora:
    """The LoRA at one module: scale * x A^T B^T, with A [r, D_in] and B [D_out, r]."""

    path: str
    a: torch.Tensor
    b: torch.Tensor
    scale: float
    dropout: float

    @property
    def rank(self) -> int:
        return self.a.size(0)

    @property
    def alpha(self) -> float:
        return _number(self.scale * self.rank)


def _join_loras(deltas: Iterable[Delta]) -> Iterator[_Lora]:
    """Yield one LoRA per module: PEFT has no more, so those of one module are concatenated.

    Their ranks add up. A delta of one part of the output, as at GPT-2's fused projection, has
    zeros in B for the other parts.
    """
    places: dict[str, list[Delta]] = {}
    for delta in deltas:
        places.setdefault(delta.site.write.path, []).append(delta)
    for path, joined in places.items():
        forms: list[Any] = [delta.form for delta in joined]
        scales, ups = [_scale(delta) for delta in joined], [*map(_whole_up, joined)]
        scale = scales[0]
        if len(set(scales)) > 1:
            scale, ups = 1.0, [own * up for own, up in zip(scales, ups, strict=True)]
        yield _Lora(
            path,
            torch.cat([form.down.weight for form in forms]),
            torch.cat(ups, dim=1),
            scale,
            max(form.input_dropout.p for form in forms),
        )


def _whole_up(delta: Delta) -> torch.Tensor:
    """Return W_up [D_out, r] for the whole output of its module, if it writes a part of it."""
    form: Any = delta.form
    index, count = delta.site.write.part or (0, 1)
    height = form.up.out_features
    return F.pad(form.up.weight, (0, 0, index * height, (count - 1 - index) * height))


def _lora_tensors(loras: Iterable[_Lora]) -> Iterator[tuple[str, torch.Tensor]]:
    for lora in loras:
        yield f"{lora.path}.lora_A.weight", lora.a
        yield f"{lora.path}.lora_B.weight", lora.b


def _head_tensors(model: nn.Module, heads: list[str]) -> Iterator[tuple[str, torch.Tensor]]:
    for name, parameter in model.named_parameters():
        if name.startswith(tuple(f"{head}." for head in heads)):
            yield name, parameter
        elif parameter.requires_grad and f".{PREFIX}" not in name:
            raise UserError(f"cannot export {name}: PEFT cannot store individual backbone weights")


def _config(
    model: nn.Module, loras: Sequence[_Lora], heads: list[str], base: str | None
) -> dict[str, Any]:
    ranks = {lora.path: lora.rank for lora in loras}
    alphas = {lora.path: lora.alpha for lora in loras}
    rank, alpha = (Counter(found.values()).most_common(1)[0][0] for found in (ranks, alphas))
    return {
        "peft_type": "LORA",
        "task_type": task_type_of(model),
        "base_model_name_or_path": base,
        "inference_mode": True,
        "r": rank,
        "lora_alpha": alpha,
        "lora_dropout": max(lora.dropout for lora in loras),
        "rank_pattern": {path: r for path, r in ranks.items() if r != rank},
        "alpha_pattern": {path: a for path, a in alphas.items() if a != alpha},
        "target_modules": _targets(model, set(ranks)),
        "modules_to_save": heads or None,
        "bias": "none",
    }


def _scale(delta: Delta) -> float:
    return float(torch.as_tensor(getattr(delta.composition, "scale", 1.0)).detach())


def _number(value: float) -> float:
    """Return `value` as an int if it is whole, as PEFT's alpha usually is."""
    nearest = round(value)
    return nearest if math.isclose(value, nearest, rel_tol=1e-12) else value


def _targets(model: nn.Module, paths: set[str]) -> list[str]:
    """Return the last components of the paths if no other module shares them, else the paths."""
    names = {path.rpartition(".")[2] for path in paths}
    named = {name for name, _ in model.named_modules() if name.rpartition(".")[2] in names}
    return sorted(names if named == paths else paths)
