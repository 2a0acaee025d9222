"""Train a small classifier with a frozen part, dropout and a LayerNorm, in about a second."""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Sampler, TensorDataset

from unipeft_run.config.schema import ComputeConfig
from unipeft_run.runs.folder import RunFolder
from unipeft_run.tracking.jsonl import Jsonl
from unipeft_run.training.compute.plan import ComputeOptions
from unipeft_run.training.optim import build_optimizer_and_schedule
from unipeft_run.training.trainer import Trainer

EXAMPLES, LENGTH, WORDS, WIDTH, CLASSES = 22, 6, 17, 8, 3
OPTIM = partial(
    build_optimizer_and_schedule,
    name="adamw_official",
    lr=3e-2,
    betas=(0.9, 0.98),
    eps=1e-6,
    weight_decay=0.1,
    warmup_ratio=0.1,
)


class Classifier(nn.Module):
    """Mean of frozen embeddings, dropout, LayerNorm, a layer: [B, LENGTH] to [B, CLASSES]."""

    def __init__(self, dropout: float = 0.2) -> None:
        super().__init__()
        self.embedding = nn.Embedding(WORDS, WIDTH)
        self.embedding.requires_grad_(False)
        self.dropout, self.norm = nn.Dropout(dropout), nn.LayerNorm(WIDTH)
        self.layer = nn.Linear(WIDTH, CLASSES)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        words = self.embedding(input_ids) * attention_mask[..., None]
        return self.layer(self.norm(self.dropout(words.mean(dim=1))))


class EpochSampler(Sampler[list[int]]):
    """Yields batches of `size`, in a different order every epoch."""

    def __init__(self, size: int) -> None:
        self.size, self.epoch, self.position = size, 0, 0

    def __iter__(self) -> Iterator[list[int]]:
        generator = torch.Generator().manual_seed(self.epoch)
        batches = torch.randperm(EXAMPLES, generator=generator).split(self.size)
        for batch in batches[self.position :]:
            yield batch.tolist()
        self.epoch, self.position = self.epoch + 1, 0

    def __len__(self) -> int:
        return -(-EXAMPLES // self.size)

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        self.epoch, self.position = state["epoch"], state["position"]

    def is_replicated(self, epoch: int, position: int) -> bool:
        """Every process gets all of every batch."""
        return True


def make_model(dropout: float = 0.2) -> Classifier:
    """Return the same model every time, and set the same random state."""
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    return Classifier(dropout)


def make_loader(size: int = 4) -> DataLoader[Any]:
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(WORDS, (EXAMPLES, LENGTH), generator=generator)
    lengths = torch.randint(2, LENGTH + 1, (EXAMPLES, 1), generator=generator)
    mask = (torch.arange(LENGTH) < lengths).long()
    data = TensorDataset(ids, mask, ids[:, 0] % CLASSES)
    return DataLoader(data, batch_sampler=EpochSampler(size), collate_fn=collate)


def collate(rows: list[tuple[Tensor, ...]]) -> dict[str, Tensor]:
    columns = [torch.stack(column) for column in zip(*rows, strict=True)]
    return dict(zip(("input_ids", "attention_mask", "labels"), columns, strict=True))


def loss_fn(model: nn.Module, batch: Mapping[str, Tensor]) -> tuple[Tensor, int]:
    logits = model(batch["input_ids"], batch["attention_mask"])
    return nn.functional.cross_entropy(logits, batch["labels"]), len(batch["labels"])


def noisy_loss_fn(model: nn.Module, batch: Mapping[str, Tensor]) -> tuple[Tensor, int]:
    """Compute a loss that uses the random states of Python, NumPy and torch (dropout)."""
    loss, count = loss_fn(model, batch)
    return loss * (1 + random.random() + np.random.rand()), count


def evaluate(model: nn.Module, limit: int | None) -> dict[str, float]:
    """Return loss and accuracy on the training data; its random draw must not affect training."""
    torch.rand(3)
    batch = collate([make_loader().dataset[i] for i in range(limit or EXAMPLES)])
    right = model(batch["input_ids"], batch["attention_mask"]).argmax(-1) == batch["labels"]
    return {"loss": loss_fn(model, batch)[0].item(), "accuracy": right.float().mean().item()}


def make_trainer(folder: Path, /, **changed: Any) -> Trainer:
    """Return a trainer of 20 updates of 2 batches, evaluated every 6; `changed` overrides.

    Products are torch's on every machine, as those of a literal loop are.
    """
    given: dict[str, Any] = {
        "optim": OPTIM,
        "folder": RunFolder(folder),
        "trackers": [Jsonl(folder / "train.jsonl")],
        "evaluate": evaluate,
        "max_steps": 20,
        "accumulation": 2,
        "eval_every": 6,
        "log_every": 4,
        "precision": "fp32",
        "compute": ComputeOptions(ComputeConfig(products="torch")),
    }
    model = changed.pop("model", None) or make_model()
    loader = changed.pop("loader") if "loader" in changed else make_loader()
    loss = changed.pop("loss_fn", loss_fn)
    return Trainer(model, loader, loss, **{**given, **changed})


def main() -> None:
    """Train slowly in the given folder, for tests that send signals."""

    def slow_loss_fn(model: nn.Module, batch: Mapping[str, Tensor]) -> tuple[Tensor, int]:
        print("batch", flush=True)
        time.sleep(0.02)
        return noisy_loss_fn(model, batch)

    make_trainer(Path(sys.argv[1]), loss_fn=slow_loss_fn).fit()


if __name__ == "__main__":
    main()
