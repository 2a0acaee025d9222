"""Make checkpoints like those of the official code, with a backbone and data."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from tiny_files import write_roberta, write_sentiment
from transformers import AutoConfig

from unipeft_run.interop.official import from_official

MAM = {
    "attn_mode": "prefix",
    "attn_option": "concat",
    "attn_bn": 3,
    "mid_dim": 8,
    "ffn_mode": "adapter",
    "ffn_option": "parallel",
    "ffn_adapter_layernorm_option": "none",
    "ffn_adapter_init_option": "lora",
    "ffn_adapter_scalar": "2",
    "ffn_bn": 4,
}
LORA = {"attn_mode": "lora", "attn_option": "none", "attn_bn": 4, "lora_alpha": 8.0}
LAYERS, WIDTH = 2, 32


def official(shapes: dict[str, tuple[int, ...]]) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(4)
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def mam_state() -> dict[str, torch.Tensor]:
    """Make the tensors that the official code stores, including those that it never reads."""
    shapes: dict[str, tuple[int, ...]] = {}
    for wte, mlp in (("wte", "control_trans"), ("wte2", "control_trans2")):
        shapes |= {
            f"prompt_model.{wte}.weight": (3, WIDTH),
            f"prompt_model.{mlp}.0.weight": (8, WIDTH),
            f"prompt_model.{mlp}.0.bias": (8,),
            f"prompt_model.{mlp}.2.weight": (LAYERS * 2 * WIDTH, 8),
            f"prompt_model.{mlp}.2.bias": (LAYERS * 2 * WIDTH,),
        }
    for i in range(LAYERS):
        for inside in ("", ".output"):
            base = f"pretrained_model.roberta.encoder.layer.{i}{inside}.ef_ffn_adapter"
            shapes |= {f"{base}.down_proj.weight": (4, WIDTH), f"{base}.down_proj.bias": (4,)}
            shapes |= {f"{base}.up_proj.weight": (WIDTH, 4), f"{base}.up_proj.bias": (WIDTH,)}
    return official(shapes)


def lora_state() -> dict[str, torch.Tensor]:
    shapes: dict[str, tuple[int, ...]] = {}
    for i in range(LAYERS):
        for name in ("query", "value"):
            base = f"pretrained_model.roberta.encoder.layer.{i}.attention.self.{name}"
            shapes |= {f"{base}.ef_lora_A": (4, WIDTH), f"{base}.ef_lora_B": (WIDTH, 4)}
    return official(shapes)


class Files:
    """A folder with a backbone, data, and a checkpoint with a different classifier."""

    def __init__(self, folder: Path, tune: dict[str, Any], state: dict[str, torch.Tensor]) -> None:
        self.folder = folder
        self.backbone, self.data = write_roberta(folder / "backbone"), write_sentiment(folder / "d")
        self.checkpoint, self.options = folder / "checkpoint", folder / "options.json"
        self.checkpoint.mkdir()
        shutil.copy(self.backbone / "config.json", self.checkpoint)
        frozen = load_file(self.backbone / "model.safetensors")
        for name in frozen:
            if name.startswith("classifier"):
                frozen[name] = torch.randn_like(frozen[name])
        self.state = state | {f"pretrained_model.{name}": t for name, t in frozen.items()}
        self.state["pretrained_model.roberta.embeddings.position_ids"] = torch.arange(80)[None]
        self.write_state(self.state)
        self.tune = tune
        self.options.write_text(json.dumps(tune))
        self.run = folder / "run"
        self.overrides = [f"task.path={self.data}", f"backbone.path={self.backbone}"]

    def write_state(self, state: dict[str, torch.Tensor]) -> None:
        whole = {name: tensor.contiguous() for name, tensor in state.items()}
        save_file(whole, self.checkpoint / "model.safetensors")

    def arguments(self) -> list[str]:
        options = ["--options", self.options, "--out", self.run]
        return [str(argument) for argument in (self.checkpoint, *options, *self.overrides)]

    def model(self) -> Any:
        config = AutoConfig.from_pretrained(self.checkpoint)
        return from_official(self.tune, config, self.state)
