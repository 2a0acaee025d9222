"""Mixed precision, by name."""

from __future__ import annotations

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState

from unipeft_run.errors import UserError

PRECISIONS = ("fp32", "bf16", "fp16", "auto")


def resolve_precision(name: str) -> str:
    """fp32, bf16 or fp16; `auto` is fp32 on a CPU, and on a GPU bf16 if it can, else fp16.

    Raises UserError for another word, and for fp16 without a GPU.
    """
    on_gpu = torch.cuda.is_available()
    if name not in PRECISIONS:
        raise UserError(f"unknown precision {name!r}: choose from {', '.join(PRECISIONS)}")
    if name == "fp16" and not on_gpu:
        raise UserError("precision=fp16 needs a GPU; on a CPU use fp32 or bf16")
    if name != "auto":
        return name
    if not on_gpu:
        return "fp32"
    return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"


def evaluable(name: str) -> str:
    """What a run of precision `name` is evaluated in here: the same, but fp32 for fp16 on a CPU."""
    return "fp32" if name == "fp16" and not torch.cuda.is_available() else name


def autocast_type(name: str) -> torch.dtype | None:
    """The type that losses are evaluated in; None for fp32."""
    return {"bf16": torch.bfloat16, "fp16": torch.float16}.get(resolve_precision(name))


def make_accelerator(precision: str, accumulation: int) -> Accelerator:
    """accelerate for `precision`, dividing losses by the number of accumulated batches."""
    resolved = resolve_precision(precision)
    # accelerate keeps the precision of the first run of a process; the runs of a sweep may differ
    AcceleratorState._reset_state()
    return Accelerator(
        mixed_precision="no" if resolved == "fp32" else resolved,
        gradient_accumulation_steps=accumulation,
    )
