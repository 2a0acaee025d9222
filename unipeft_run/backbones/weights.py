"""Read the weights of a model from safetensors. Pickles can execute code and are refused."""

import re
import shlex
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from unipeft_run.backbones.converted import find_converted
from unipeft_run.backbones.files import find_file, read_object
from unipeft_run.config.messages import shorten
from unipeft_run.errors import UserError

SAFETENSORS, INDEX = "model.safetensors", "model.safetensors.index.json"
SHARD = re.compile(r"[\w-][\w.-]*\.safetensors")
PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json", "model.pt", "model.pth")
FLOAT_TYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
CONVERT = (
    "import sys, torch; from safetensors.torch import save_file; "
    "save_file({k: v.clone().contiguous() for k, v in torch.load(sys.argv[1], "
    "map_location='cpu', weights_only=True).items()}, sys.argv[2], {'format': 'pt'})"
)


def read_weights(source: str) -> dict[str, torch.Tensor]:
    """Read the tensors of `source`, a folder or hub id. Raises UserError if there are none."""
    if file := find_file(source, SAFETENSORS):
        return read_tensors(file)
    if index := find_file(source, INDEX):
        return _read_shards(source, index)
    if file := find_converted(source, SAFETENSORS):
        return read_tensors(file)
    for name in PICKLES:
        if (Path(source) / name).is_file():
            raise UserError(pickle_refusal(Path(source) / name))
    raise UserError(f"{source} holds no {SAFETENSORS}")


def read_tensors(file: Path) -> dict[str, torch.Tensor]:
    """Read the tensors of one safetensors file. Raises UserError if it is damaged."""
    try:
        return load_file(file)
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise UserError(f"{file} cannot be read: {shorten(error, 120)}") from None


def _read_shards(source: str, index: Path) -> dict[str, torch.Tensor]:
    """Read the tensors of all files listed in a safetensors index, from the folder of the index."""
    files = read_object(index).get("weight_map")
    names = set(files.values()) if isinstance(files, Mapping) else {None}
    tensors: dict[str, torch.Tensor] = {}
    for name in sorted(names, key=str):
        if not (isinstance(name, str) and SHARD.fullmatch(name)):
            raise UserError(f"{index} is damaged: {shorten(name)} is not a safetensors file name")
        file = find_file(source, name)
        if file is None:
            raise UserError(f"{source} holds no {shorten(name)}, which {index.name} names")
        tensors |= read_tensors(file)
    return tensors


def pickle_refusal(file: Path) -> str:
    """Say that a pickle is refused, and give the command that converts it."""
    target = shlex.quote(str(file.with_name(SAFETENSORS)))
    return (
        f"{file} is a pickle, which can execute code; only safetensors are read. "
        "If you trust it, convert it:\n"
        f'python -c "{CONVERT}" {shlex.quote(str(file))} {target}'
    )


def check_types(tensors: Mapping[str, torch.Tensor], names: set[str], source: object) -> None:
    """Raise UserError if one of the tensors in `names` does not have a floating-point type."""
    for name in sorted(names & tensors.keys()):
        if tensors[name].dtype not in FLOAT_TYPES:
            kind = str(tensors[name].dtype).removeprefix("torch.")
            raise UserError(
                f"{source}: {shorten(name)} is {kind}; "
                "weights must be float32, float64, float16 or bfloat16"
            )
