"""The pretraining loop: a fixed number of seeded steps on a CPU or one GPU."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from unipeft_run.miniatures.pretraining.batches import Batch, make_batches, make_evaluation_batches
from unipeft_run.miniatures.pretraining.miniatures import Miniature
from unipeft_run.miniatures.pretraining.tokenizer import IDS
from unipeft_run.miniatures.sources.rows import read_jsonl

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from unipeft_run.miniatures.pretraining.examples import Mixture


@dataclass(frozen=True)
class Schedule:
    """Training length and rates; `tokens` counts the source and target positions of a batch."""

    steps: int = 5400
    tokens: int = 3072
    lr: float = 1e-3
    warmup: int = 200
    evaluate_every: int = 200
    seed: int = 42

    def factor(self, step: int) -> float:
        """Return the learning-rate factor: linear warm-up, then cosine decay to zero."""
        if step < self.warmup:
            return (step + 1) / self.warmup
        done = (step - self.warmup) / max(1, self.steps - self.warmup)
        return 0.5 * (1 + math.cos(math.pi * done))


def build_optimizer(model: PreTrainedModel, schedule: Schedule) -> torch.optim.Optimizer:
    """Build AdamW, without weight decay for biases and LayerNorms."""
    matrices = [p for p in model.parameters() if p.ndim > 1]
    vectors = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": 0.01}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=schedule.lr, betas=(0.9, 0.98), fused=True)


def compute_loss(model: PreTrainedModel, batch: Batch) -> torch.Tensor:
    """Return the mean cross-entropy, in bf16 on a GPU; a CPU without AMX emulates bf16 slowly."""
    device = model.device
    moved = {name: tensor.to(device) for name, tensor in batch.items()}
    with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
        loss: torch.Tensor = model(**moved).loss
    return loss


@torch.no_grad()
def held_out_loss(model: PreTrainedModel, held_out: list[Batch]) -> float:
    """Return the mean cross-entropy in nats per target token."""
    model.eval()
    total, count = 0.0, 0
    for batch in held_out:
        tokens = int((batch["labels"] != -100).sum())
        total += float(compute_loss(model, batch)) * tokens
        count += tokens
    model.train()
    return total / count


class Pretraining:
    """One pretraining stage. Every evaluation saves the weights; it cannot be resumed."""

    def __init__(
        self, model: PreTrainedModel, miniature: Miniature, schedule: Schedule, folder: Path
    ) -> None:
        self.model, self.miniature, self.schedule = model, miniature, schedule
        self.folder = folder
        self.optimizer = build_optimizer(model, schedule)
        self.started = time.perf_counter()
        self.tokens = 0
        self.before = last_entry(folder)

    def fit(self, mixture: Mixture, held_out: list[Batch]) -> None:
        """Train for all steps of the schedule."""
        framed = map(self.miniature.frame, mixture)
        stream = make_batches(framed, self.schedule.tokens, IDS["<pad>"])
        recent: list[float] = []
        for step in range(self.schedule.steps):
            recent.append(self.step(step, stream))
            if (step + 1) % 50 == 0:
                self.print_progress(step + 1, recent)
            if (step + 1) % self.schedule.evaluate_every == 0 or step + 1 == self.schedule.steps:
                self.save(step + 1, recent, held_out)
                recent = []

    def step(self, step: int, stream: Iterator[Batch]) -> float:
        """Make one update and return its loss."""
        batch = next(stream)
        for group in self.optimizer.param_groups:
            group["lr"] = self.schedule.lr * self.schedule.factor(step)
        loss = compute_loss(self.model, batch)
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.tokens += batch["input_ids"].numel() + batch["labels"].numel()
        return float(loss.detach())

    def print_progress(self, step: int, recent: list[float]) -> None:
        seconds = time.perf_counter() - self.started
        left = seconds / step * (self.schedule.steps - step)
        mean = sum(recent[-50:]) / len(recent[-50:])
        speed = self.tokens / seconds
        print(
            f"{self.miniature.name} {step}/{self.schedule.steps} loss {mean:.3f} "
            f"{speed:,.0f} tokens/s {left / 60:.1f} min left",
            flush=True,
        )

    def save(self, step: int, recent: list[float], held_out: list[Batch]) -> None:
        """Append a line to `loss_curve.jsonl` and save the weights."""
        entry = {
            "stage": self.before["stage"] + 1,
            "step": self.before["step"] + step,
            "tokens": self.before["tokens"] + self.tokens,
            "seconds": round(time.perf_counter() - self.started),
            "train/loss": round(sum(recent) / len(recent), 4),
            "held_out/infilling_loss": round(held_out_loss(self.model, held_out), 4),
        }
        print(json.dumps(entry), flush=True)
        with (self.folder / "loss_curve.jsonl").open("a", encoding="utf-8") as curve:
            curve.write(json.dumps(entry) + "\n")
        save_weights(self.model, self.folder)


def last_entry(folder: Path) -> dict[str, int]:
    """Return the last entry of the loss curve in `folder`: totals of the earlier stages."""
    curve = folder / "loss_curve.jsonl"
    entries = read_jsonl(curve) if curve.exists() else []
    return {"stage": 0, "step": 0, "tokens": 0} | (entries[-1] if entries else {})


def save_weights(model: PreTrainedModel, folder: Path) -> None:
    """Write the weights as bf16 safetensors, atomically, tied matrices once."""
    from safetensors.torch import save_file

    seen = {name: p.detach().bfloat16().cpu().contiguous() for name, p in model.named_parameters()}
    buffers = {n: b.bfloat16().cpu() for n, b in model.named_buffers() if n == "final_logits_bias"}
    half = folder / "model.safetensors.part"
    save_file(seen | buffers, half, {"format": "pt"})
    half.rename(folder / "model.safetensors")


def held_out_batches(mixture: Mixture, miniature: Miniature, examples: int) -> list[Batch]:
    """Draw a fixed set of infilling examples from held-out texts."""
    kinds = [kind for kind in miniature.shares if kind.startswith("infill")]
    drawn = [mixture.draw(kinds[i % len(kinds)]) for i in range(examples)]
    return make_evaluation_batches(
        [miniature.frame(example) for example in drawn], 8192, IDS["<pad>"]
    )
