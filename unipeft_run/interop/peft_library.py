"""Export a method of the PEFT library, for `peft.PeftModel.from_pretrained`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from copy import deepcopy
from pathlib import Path

import torch
from safetensors.torch import save

from unipeft_run.errors import UserError
from unipeft_run.interop.peft_config import ROOT, TENSORS, head_modules, task_type_of
from unipeft_run.runs.writing import replace_file
from unipeft_run.tuners.adapter import Adapter
from unipeft_run.tuners.originals import draws_decomposition


def export_library(adapter: Adapter, folder: Path, base: str | None) -> None:
    """Write adapter_config.json and the tensors to `folder`, with a classification head.

    `base`: the backbone's id or path, recorded for information. Raises UserError for individual
    trained weights of the backbone, and for an initialisation that PEFT cannot repeat.
    """
    if draws_decomposition(adapter.config):
        raise UserError(
            f"cannot export init_lora_weights={adapter.config.init_lora_weights}: PEFT would draw "
            "another decomposition of the weights when it loads them; "
            "use --format delta or --format merged"
        )
    heads = head_modules(adapter.model)
    tensors = {**adapter.tensors(), **dict(_head_tensors(adapter, heads))}
    config = deepcopy(adapter.config)
    config.task_type = task_type_of(adapter.model)
    config.base_model_name_or_path, config.inference_mode = base, True
    if adapter.tuner.type == "ADALORA":
        config.rank_pattern = None  # pruned singular values are stored as zeros
    if heads:
        config.modules_to_save = heads
    content = save({name: t.detach().cpu().clone().contiguous() for name, t in tensors.items()},
                   metadata={"format": "pt"})  # fmt: skip
    try:
        folder.mkdir(parents=True, exist_ok=True)
        replace_file(folder / TENSORS, content)
        config.save_pretrained(folder)
    except OSError as error:
        raise UserError(f"--out={folder} cannot be written: {error.strerror}") from None


def _head_tensors(adapter: Adapter, heads: Iterable[str]) -> Iterator[tuple[str, torch.Tensor]]:
    below = tuple(f"{head}." for head in heads)
    for name, _ in adapter.unfrozen_parameters():
        if not name.startswith(below):
            raise UserError(f"cannot export {name}: PEFT cannot store individual backbone weights")
    for name, parameter in adapter.model.named_parameters():
        if name.startswith(below):
            yield f"{ROOT}{name}", parameter
