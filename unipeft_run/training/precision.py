"""Mixed precision by name, and the Accelerator that applies it."""

from __future__ import annotations

import os

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import GradientAccumulationPlugin

from unipeft_run.config.schema import Precision
from unipeft_run.errors import UserError
from unipeft_run.training.distributed.environment import prepare_environment


def resolve_precision(name: Precision) -> Precision:
    """Return fp32, bf16 or fp16 for `name`.

    `auto` is fp32 on a CPU; on a GPU bf16 if it supports that, else fp16. Raises `UserError` for
    fp16 without a GPU.
    """
    has_gpu = torch.cuda.is_available()
    if name == "fp16" and not has_gpu:
        raise UserError("precision=fp16 needs a GPU; on a CPU use fp32 or bf16")
    if name != "auto":
        return name
    if not has_gpu:
        return "fp32"
    return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"


def evaluation_precision(name: Precision) -> Precision:
    """Return the precision for evaluating a run trained in `name`: fp32 for fp16 on a CPU."""
    return "fp32" if name == "fp16" and not torch.cuda.is_available() else name


def autocast_dtype(name: Precision) -> torch.dtype | None:
    """Return autocast's type for `name`; None for fp32."""
    return {"bf16": torch.bfloat16, "fp16": torch.float16}.get(resolve_precision(name))


def choose_kernels() -> None:
    """Choose kernels for this process, the same for training, evaluation and prediction."""
    # cuBLAS reads it once, at the first product of the process; deterministic kernels need it
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    # cuDNN's attention makes a plan per shape, 23-70 ms each, and is not deterministic
    torch.backends.cuda.enable_cudnn_sdp(False)
    # float32 in float32, not in TF32
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False


def build_accelerator(precision: Precision, *, deterministic: bool = False) -> Accelerator:
    """Build accelerate's Accelerator for `precision`, whatever the environment says.

    It does not divide losses: the trainer does gradient accumulation. `deterministic`: raise an
    error for an operation without a deterministic kernel.
    """
    prepare_environment()
    choose_kernels()
    torch.use_deterministic_algorithms(deterministic)
    resolved = resolve_precision(precision)
    # accelerate keeps the precision of a process's first run, but a sweep's runs may differ
    AcceleratorState._reset_state()
    return Accelerator(
        mixed_precision="no" if resolved == "fp32" else resolved,
        # as a plugin, since the environment overrides `gradient_accumulation_steps`
        gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=1),
    )
