"""Measure and print how much the official AdamW differs from torch's at the paper's settings."""

from typing import Any

import pytest
import torch
from attached_models import perturbed_model
from tiny import batch

from unipeft_run.training.optim import build_optimizer_and_schedule

STEPS = 30
SETTINGS: dict[str, dict[str, Any]] = {
    "XSum": {"lr": 5e-5, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.01},
    "en-ro": {"lr": 5e-5, "betas": (0.9, 0.98), "eps": 1e-6, "weight_decay": 0.01},
    "GLUE": {"lr": 1e-4, "betas": (0.9, 0.98), "eps": 1e-6, "weight_decay": 0.1},
}
FAMILY = {"XSum": "bart", "en-ro": "mbart", "GLUE": "roberta"}


def trained(family: str, name: str, **settings: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Train MAM for 30 updates; return the change of its parameters, and the losses."""
    model = perturbed_model(family, "mam")
    parameters = [p for p in model.parameters() if p.requires_grad]
    before = torch.cat([p.detach().flatten() for p in parameters])
    optimizer, schedule = build_optimizer_and_schedule(model, 100_000, name=name, **settings)
    losses = []
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss = model(**batch(family)).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 0.1)
        optimizer.step()
        schedule.step()
        losses.append(loss.detach())
    after = torch.cat([p.detach().flatten() for p in parameters])
    return after - before, torch.stack(losses)


@pytest.mark.parametrize("task", SETTINGS)
def test_the_two_optimisers_differ_little(task: str, capsys: pytest.CaptureFixture[str]) -> None:
    (ours, losses), (theirs, others) = (
        trained(FAMILY[task], name, **SETTINGS[task]) for name in ("adamw_official", "adamw")
    )
    update = float((ours - theirs).norm() / ours.norm())
    loss = float(((losses - others) / losses).abs().max())
    with capsys.disabled():
        print(f"\n{task}: updates differ by {update:.1e}, losses by {loss:.1e}, both relative")
    assert 0 < update < 0.5
    assert loss < 1e-3
