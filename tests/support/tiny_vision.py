"""Tiny coloured pictures, data sets of them, and random ViT and CLIP backbones for them."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import tiny_text
import torch
from PIL import Image
from transformers import CLIPConfig, CLIPModel, ViTConfig, ViTForImageClassification

from unipeft_run.data.tasks.cifar100 import CIFAR100
from unipeft_run.data.tasks.didemo import DiDeMo

COLOURS = {"red": (220, 30, 30), "green": (30, 200, 40), "blue": (40, 50, 220)}
SIZE = 16
NORMAL: dict[str, Any] = {"image_mean": (0.5, 0.5, 0.5), "image_std": (0.5, 0.5, 0.5)}
SPLITS = ("train", "validation", "test")
TOWER = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
}
VISION = {**TOWER, "image_size": SIZE, "patch_size": 8}
TEXT = {**TOWER, "max_position_embeddings": 24, "bos_token_id": 0, "pad_token_id": 1}


def picture(colour: Sequence[int], seed: int, size: tuple[int, int] = (SIZE, SIZE)) -> bytes:
    """Return a PNG of noise around `colour`, of `size` (width, height)."""
    noise = np.random.default_rng(seed).integers(-30, 31, (size[1], size[0], 3))
    pixels = np.clip(np.asarray(colour) + noise, 0, 255).astype(np.uint8)
    return encode(Image.fromarray(pixels))


def encode(image: Image.Image, kind: str = "PNG") -> bytes:
    content = io.BytesIO()
    image.save(content, format=kind)
    return content.getvalue()


def class_rows(count: int, first: int) -> list[dict[str, Any]]:
    """Return pictures of the three colours in turn."""
    colours = list(COLOURS.values())
    return [
        {"image": picture(colours[i % 3], first + i), "label": i % 3, "id": f"p{first + i}"}
        for i in range(count)
    ]


def pair_rows(count: int, first: int) -> list[dict[str, Any]]:
    """Return sequences of one to three colours with a text that names them."""
    random, names = np.random.default_rng(first), list(COLOURS)
    rows = []
    for i in range(count):
        chosen = [names[k] for k in random.integers(0, 3, 1 + i % 3)]
        images = [picture(COLOURS[name], 100 * (first + i) + k) for k, name in enumerate(chosen)]
        rows.append({"images": images, "text": " and ".join(chosen), "id": f"v{first + i}"})
    return rows


def write(folder: Path, rows: Any = class_rows, count: int = 12) -> Path:
    """Write the three splits as Parquet, and the names of the classes."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, split in enumerate(SPLITS):
        table = pa.Table.from_pylist(rows(count, count * number))
        pq.write_table(table, folder / f"{split}.parquet")
    (folder / "labels.json").write_text(json.dumps(list(COLOURS)))
    return folder


def vit(labels: int = 3) -> Any:
    torch.manual_seed(0)
    return ViTForImageClassification(ViTConfig(**VISION, num_labels=labels)).eval()


def clip(vocabulary: int) -> Any:
    torch.manual_seed(0)
    text = {**TEXT, "vocab_size": vocabulary, "eos_token_id": vocabulary - 1}
    return CLIPModel(CLIPConfig(text_config=text, vision_config=VISION, projection_dim=16)).eval()


def write_vit(folder: Path) -> Path:
    vit().save_pretrained(folder)
    return folder


def write_clip(folder: Path) -> Path:
    tokenizer = tiny_text.bart_tokenizer()
    tokenizer.save_pretrained(folder)
    model = clip(len(tokenizer))
    model.config.text_config.eos_token_id = tokenizer.eos_token_id
    model.save_pretrained(folder)
    return folder


def classes(**settings: Any) -> CIFAR100:
    size = {"image_size": 16, "resize": 16}
    return CIFAR100(name="cifar100", labels=tuple(COLOURS), **{**size, **NORMAL, **settings})


def pairs(**settings: Any) -> DiDeMo:
    size = {"image_size": 16, "resize": 16, "max_source_length": 24}
    return DiDeMo(name="didemo", **{**size, **NORMAL, **settings})
