"""Fifty updates of our loop against a literal restatement of the paper's training loop."""

from __future__ import annotations

import json
import math
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from attached_models import attach_method
from official_loss import label_smoother
from torch import Tensor, nn

from unipeft_run.data.batching import Collator
from unipeft_run.runs.folder import RunFolder
from unipeft_run.tracking.jsonl import Jsonl
from unipeft_run.training.compute.dropout import fast_dropout
from unipeft_run.training.losses import SequenceLoss
from unipeft_run.training.optim import build_optimizer_and_schedule
from unipeft_run.training.trainer import Trainer

STEPS, TOTAL, LR_END = 50, 60, 1e-7
XSUM = {
    "accumulation": 4,
    "max_grad_norm": 0.1,
    "smoothing": 0.1,
    "lr": 5e-3,
    "betas": (0.9, 0.999),
    "eps": 1e-8,
    "weight_decay": 0.01,
    "warmup": 0,
}
EN_RO = {**XSUM, "accumulation": 2, "max_grad_norm": 0.01, "betas": (0.9, 0.98), "eps": 1e-6}
FULL = {
    **EN_RO,
    "max_grad_norm": 1.0,
    "smoothing": 0.2,
    "lr": 3e-4,
    "weight_decay": 0.1,
    "warmup": 7,
}


class Reference:
    """The Trainer of the paper's code: get_parameter_names, AdamW, polynomial decay, clipping."""

    def __init__(self, model: nn.Module, recipe: dict[str, Any], summed_in: torch.dtype) -> None:
        self.model, self.recipe, self.summed_in = model, recipe, summed_in
        self.step = 0
        decayed = {name for name in self.outside_layer_norms(model) if "bias" not in name}
        self.parameters = [(p, name in decayed) for name, p in model.named_parameters()]
        self.moments: dict[Tensor, tuple[Tensor, Tensor]] = {}

    def outside_layer_norms(self, module: nn.Module) -> list[str]:
        names = []
        for name, child in module.named_children():
            if not isinstance(child, nn.LayerNorm):
                names += [f"{name}.{n}" for n in self.outside_layer_norms(child)]
        return names + list(module._parameters)

    def lr(self) -> float:
        """get_polynomial_decay_schedule_with_warmup, power 1."""
        lr, warmup = self.recipe["lr"], self.recipe["warmup"]
        if self.step < warmup:
            return lr * self.step / max(1, warmup)
        remaining = 1 - (self.step - warmup) / (TOTAL - warmup)
        return (lr - LR_END) * remaining + LR_END

    def update(self, batches: list[dict[str, Tensor]]) -> dict[str, float]:
        self.model.train()
        total = 0.0
        for batch in batches:
            inputs = dict(batch)
            labels = inputs.pop("labels")
            with fast_dropout():  # the same draws
                logits = self.model(**inputs).logits
            loss = label_smoother(logits, labels, self.recipe["smoothing"], self.summed_in)
            loss = loss / self.recipe["accumulation"]
            loss.backward()
            total += loss.item()
        norm = self.clip()
        lr = self.lr()
        self.adamw(lr)
        self.step += 1
        self.model.zero_grad()
        return {"train/loss": total, "train/lr": lr, "train/grad_norm": norm}

    def clip(self) -> float:
        """torch.nn.utils.clip_grad_norm_ over all of the model's parameters."""
        gradients = [p.grad for p, _ in self.parameters if p.grad is not None]
        norm = math.sqrt(sum(float((g**2).sum()) for g in gradients))
        factor = self.recipe["max_grad_norm"] / (norm + 1e-6)
        if factor < 1:
            for gradient in gradients:
                gradient.mul_(factor)
        return norm

    @torch.no_grad()
    def adamw(self, lr: float) -> None:
        """transformers.AdamW with correct_bias, as of 4.2."""
        (beta1, beta2), eps = self.recipe["betas"], self.recipe["eps"]
        t = self.step + 1
        for p, decays in self.parameters:
            if p.grad is None:
                continue
            if p not in self.moments:
                self.moments[p] = torch.zeros_like(p), torch.zeros_like(p)
            m, v = self.moments[p]
            m.mul_(beta1).add_(p.grad, alpha=1 - beta1)
            v.mul_(beta2).addcmul_(p.grad, p.grad, value=1 - beta2)
            size = lr * math.sqrt(1 - beta2**t) / (1 - beta1**t)
            p.addcdiv_(m, v.sqrt().add_(eps), value=-size)
            if decays:
                p.add_(p, alpha=-lr * self.recipe["weight_decay"])


def batches(count: int) -> list[dict[str, Tensor]]:
    """Return batches of three examples, all of different lengths."""
    generator = torch.Generator().manual_seed(4)

    def ids(most: int) -> list[int]:
        length = int(torch.randint(2, most, (1,), generator=generator))
        return [*torch.randint(5, 90, (length,), generator=generator).tolist(), 2]

    collate = Collator(pad_token_id=1, decoder_start=2)
    return [
        collate([{"input_ids": ids(10), "labels": ids(8)} for _ in range(3)]) for _ in range(count)
    ]


def train_ours(
    model: nn.Module, recipe: dict[str, Any], folder: Path, data: list[Any]
) -> list[Any]:
    """Train with our loop; return its log records."""
    optim = partial(
        build_optimizer_and_schedule,
        name="adamw_official",
        warmup_steps=recipe["warmup"],
        lr_end=LR_END,
        **{key: recipe[key] for key in ("lr", "betas", "eps", "weight_decay")},
    )
    trainer = Trainer(
        model,
        data,  # type: ignore[arg-type]
        SequenceLoss(recipe["smoothing"], chunk=500),
        optim=lambda model, _: optim(model, TOTAL),
        folder=RunFolder(folder),
        trackers=[Jsonl(folder / "train.jsonl")],
        max_steps=STEPS,
        accumulation=recipe["accumulation"],
        max_grad_norm=recipe["max_grad_norm"],
        log_every=1,
        precision="fp32",
    )
    torch.manual_seed(9)  # dropout
    trainer.fit()
    return [json.loads(line) for line in (folder / "train.jsonl").read_text().splitlines()]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "family", "recipe", "summed_in", "tolerance"),
    [
        ("mam", "bart", XSUM, torch.float64, 1e-10),
        ("mam", "mbart", EN_RO, torch.float32, 1e-5),  # as the reference does for any type
        ("full", "bart", FULL, torch.float64, 1e-10),
    ],
    ids=["xsum", "en_ro", "full"],
)
def test_fifty_updates(
    method: str,
    family: str,
    recipe: dict[str, Any],
    summed_in: torch.dtype,
    tolerance: float,
    tmp_path: Path,
) -> None:
    data = batches(7)
    ours, theirs = (attach_method(method, family)[0].double() for _ in range(2))
    before = {name: p.detach().clone() for name, p in theirs.named_parameters()}
    records = train_ours(ours, recipe, tmp_path, data)
    reference = Reference(theirs, recipe, summed_in)
    torch.manual_seed(9)
    micro = recipe["accumulation"]
    stream = (data * (STEPS * micro))[: STEPS * micro]
    clipped = 0
    for step, record in enumerate(records):
        expected = reference.update(stream[step * micro : (step + 1) * micro])
        clipped += expected["train/grad_norm"] > recipe["max_grad_norm"]
        for name, value in expected.items():
            assert record[name] == pytest.approx(value, rel=tolerance), (step, name)
    assert len(records) == STEPS
    assert clipped > 0
    assert records[-1]["train/loss"] < records[0]["train/loss"]
    trained = dict(ours.named_parameters())
    for name, parameter in theirs.named_parameters():
        torch.testing.assert_close(
            trained[name], parameter, rtol=1e3 * tolerance, atol=10 * tolerance
        )
        assert torch.equal(parameter, before[name]) != parameter.requires_grad, name
