"""Prepare the environment: validate torchrun's variables, remove those that change results.

A run's results depend on its configuration alone. Libraries also read settings from environment
variables; these are removed before the libraries are imported. Imports nothing heavy.
"""

from __future__ import annotations

import os
import sys
from collections.abc import MutableMapping

from unipeft_run.errors import UserError

Environment = MutableMapping[str, str]

DISTRIBUTED = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
# Started by MPI without WORLD_SIZE, each process would run the whole training.
MPI_WORLD_SIZES = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE")
# Mixed precision, accumulation, device, DeepSpeed, FSDP, Megatron, dynamo: all of accelerate's
# settings, which its launcher passes through the environment (transformers reads some of them).
LIBRARY_PREFIXES = ("ACCELERATE_", "FSDP_", "MEGATRON_LM_", "PARALLELISM_CONFIG_")
# Each of these lowers the precision of float32 matrix products.
LOWER_PRECISION = (
    "NVIDIA_TF32_OVERRIDE",
    "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE",
    "ONEDNN_DEFAULT_FPMATH_MODE",
    "DNNL_DEFAULT_FPMATH_MODE",
    "XLA_USE_BF16",
    "XLA_DOWNCAST_BF16",
)
# Switches of the hub's, datasets' and tqdm's progress bars
PROGRESS_BARS = (
    "HF_HUB_DISABLE_PROGRESS_BARS",
    "HF_DATASETS_DISABLE_PROGRESS_BARS",
    "TQDM_DISABLE",
)
NEUTRAL = ("", "0", "no", "none", "false")


def prepare_environment(environ: Environment = os.environ) -> None:
    """Validate the distributed variables, and remove library settings that change results.

    Prints one line that names the removed ones. Call it before torch is imported; it may be called
    again. Raises `UserError`.
    """
    validate_distributed(environ)
    removed = [name for name in environ if _changes_results(name)]
    named = [f"{name}={environ[name]}" for name in sorted(removed) if _is_set(environ[name])]
    for name in removed:
        del environ[name]
    if named and environ.get("RANK", "0") == "0":
        print(
            "ignored environment variables, which would change the results: " + ", ".join(named),
            file=sys.stderr,
        )


def silence_progress_bars(environ: Environment = os.environ) -> None:
    """Turn off the progress bars of other libraries in logs; call it before they are imported."""
    if not sys.stderr.isatty():
        for name in PROGRESS_BARS:
            environ.setdefault(name, "1")


def validate_distributed(environ: Environment) -> None:
    """Raise `UserError` unless the variables describe a single process or one rank of several."""
    given = {name: _whole_number(environ, name) for name in DISTRIBUTED if name != "MASTER_ADDR"}
    size, rank, local_rank = (given[name] for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK"))
    _check_mpi(environ)
    if size is not None and size < 1:
        raise UserError(f"WORLD_SIZE={size}: must be at least 1. Unset it to run one process.")
    for name, value in (("RANK", rank), ("LOCAL_RANK", local_rank)):
        if value is not None and not 0 <= value < (size or 1):
            why = f"must be from 0 to {size - 1}" if size else "given without WORLD_SIZE"
            raise UserError(f"{name}={value}: {why}. {_how_to_start()}")
    missing = [name for name in DISTRIBUTED if not environ.get(name)]
    if missing and ((size or 1) > 1 or local_rank is not None):
        first = f"WORLD_SIZE={size}" if size else f"LOCAL_RANK={local_rank}"
        raise UserError(f"{first} is set, but not {', '.join(missing)}. {_how_to_start()}")


def _whole_number(environ: Environment, name: str) -> int | None:
    text = environ.get(name)
    if text is None:
        return None
    if not text.strip().lstrip("-").isascii() or not text.strip().lstrip("-").isdigit():
        raise UserError(f"{name}={text!r}: must be a whole number. {_how_to_start()}")
    return int(text)


def _check_mpi(environ: Environment) -> None:
    for name in MPI_WORLD_SIZES if "WORLD_SIZE" not in environ else ():
        if (environ.get(name) or "1") != "1":
            raise UserError(f"{name}={environ[name]}: MPI is not supported. {_how_to_start()}")


def _how_to_start() -> str:
    return (
        "Start several processes with processes=N or torchrun, which sets "
        f"{', '.join(DISTRIBUTED)}; unset them to run one process."
    )


def _changes_results(name: str) -> bool:
    return name.startswith(LIBRARY_PREFIXES) or name in LOWER_PRECISION


def _is_set(value: str) -> bool:
    return value.strip().lower() not in NEUTRAL
