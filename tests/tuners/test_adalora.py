"""AdaLoRA in training: the library's penalty and schedule, and resuming within the schedule."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tiny_training import make_trainer
from tuners import attached, inputs_of

from unipeft_run.errors import UserError
from unipeft_run.runs.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from unipeft_run.tuners.adapter import find_adapter
from unipeft_run.tuners.training import penalised_loss, update_hook

pytest.importorskip("peft")

STEPS = 6
SIZES = {"init_r": 4, "target_r": 2, "orth_reg_weight": 0.5}


class Loss:
    """A loss that needs no labels."""

    smoothing = 0.0

    def __call__(self, model: Any, batch: Any) -> tuple[torch.Tensor, int]:
        return model(**batch).logits.logsumexp(-1).mean(), 2


def made(**changes: Any) -> Any:
    """Return a model whose singular values differ, so that some are pruned before others."""
    model = attached("roberta", "peft/adalora", **{**SIZES, **changes})
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".lora_E." in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return model


def optimizer_of(model: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.05)


def train(model: Any, hook: Any, steps: range) -> None:
    optimizer, loss_fn = optimizer_of(model), penalised_loss(model, Loss())
    for step in steps:
        loss, _ = loss_fn(model, inputs_of("roberta"))
        loss.backward()
        optimizer.step()
        hook(step)
        optimizer.zero_grad()


def values(model: Any) -> dict[str, list[float]]:
    return {name: p.tolist() for name, p in model.named_parameters() if p.requires_grad}


def kept(model: Any) -> int:
    named = model.named_parameters()
    return sum(int((p != 0).sum()) for name, p in named if ".lora_E." in name)


def test_training_equals_the_library_s_own_loop() -> None:
    ours, theirs = made(), made(total_step=STEPS)
    train(ours, update_hook(ours, STEPS), range(1, STEPS + 1))
    adapter = find_adapter(theirs)
    assert adapter is not None
    optimizer = optimizer_of(theirs)
    for step in range(1, STEPS + 1):
        labels = torch.zeros(2, dtype=torch.long)
        output = adapter.wrapper.base_model(**inputs_of("roberta"), labels=labels)
        penalty = output.loss - torch.nn.functional.cross_entropy(output.logits, labels)
        (output.logits.logsumexp(-1).mean() + penalty).backward()
        optimizer.step()
        adapter.wrapper.base_model.update_and_allocate(step)
        optimizer.zero_grad()
    expected = values(theirs)
    for name, found in values(ours).items():
        torch.testing.assert_close(torch.tensor(found), torch.tensor(expected[name]))
    assert kept(ours) == SIZES["target_r"] * 4  # two layers with queries and values


def test_resuming_continues_the_schedule(tmp_path: Path) -> None:
    model = made()
    train(model, update_hook(model, STEPS), range(1, STEPS + 1))
    stopped = made()
    hook = update_hook(stopped, STEPS)
    assert hook is not None
    train(stopped, hook, range(1, 4))
    save_checkpoint(tmp_path / "last", hook.gather(), keep_previous=False)
    resumed = made()
    with torch.no_grad():
        for mine, other in zip(resumed.parameters(), stopped.parameters(), strict=True):
            mine.copy_(other)
    hook = update_hook(resumed, STEPS)
    assert hook is not None
    hook.restore(load_checkpoint(tmp_path / "last"))
    train(resumed, hook, range(4, STEPS + 1))
    assert values(resumed) == values(model)


@pytest.mark.parametrize(
    ("last", "sizes"),
    [(3, {}), (4, {"tinit": 2, "tfinal": 2})],  # the latter: the last update that may prune
)
def test_a_skipped_update_prunes_by_the_importance_before_it(
    last: int, sizes: dict[str, int]
) -> None:
    model = made(**sizes)
    hook: Any = update_hook(model, STEPS)
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, torch.nan)
    hook(1, skipped=True)  # no importance is known yet
    assert kept(model) == SIZES["init_r"] * 4
    model.zero_grad()
    train(model, hook, range(1, last))
    before, remaining = hook.gather().tensors, kept(model)
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, torch.inf)
    hook(last, skipped=True)
    assert kept(model) < remaining
    after = hook.gather().tensors
    assert all(torch.equal(after[name], before[name]) for name in after)
    model.zero_grad()
    train(model, hook, range(last + 1, STEPS + 1))
    assert kept(model) == SIZES["target_r"] * 4
    assert all(torch.isfinite(p).all() for p in model.parameters())


@pytest.mark.parametrize("first", [4, STEPS + 1])  # the last update that may prune, or none
def test_a_training_whose_updates_were_skipped_so_far_prunes_nothing(first: int) -> None:
    model = made(tfinal=2)
    hook: Any = update_hook(model, STEPS)
    for step in range(1, STEPS + 1):
        hook(step, skipped=step < first)
        assert kept(model) == SIZES["init_r"] * 4


def test_the_training_loop_says_which_updates_were_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, bool]] = []

    class Hook:
        def __call__(self, step: int, *, skipped: bool = False) -> None:
            seen.append((step, skipped))

        def gather(self) -> Checkpoint:
            return Checkpoint({}, {})

        def restore(self, content: Checkpoint) -> None: ...

    trainer = make_trainer(tmp_path, max_steps=3, build_hook=lambda total_steps: Hook())
    trainer.state.scaler = SimpleNamespace(get_scale=lambda: 1.0, state_dict=dict)  # type: ignore[assignment]
    skips = iter([True, False, True])
    monkeypatch.setattr(
        type(trainer.accelerator), "optimizer_step_was_skipped", property(lambda self: next(skips))
    )
    trainer.fit()
    assert seen == [(1, True), (2, False), (3, True)]


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"target_r": 4}, r"peft\.config\.target_r=4: must be less than peft\.config\.init_r=4"),
        ({"tinit": 4, "tfinal": 2}, r"tinit and peft\.config\.tfinal take 6 updates"),
    ],
)
def test_a_schedule_that_cannot_prune_is_refused(sizes: dict[str, int], message: str) -> None:
    model = made(**sizes)
    with pytest.raises(UserError, match=message):
        update_hook(model, STEPS)


def test_other_methods_have_no_penalty_and_no_schedule() -> None:
    model, loss = attached("roberta", "peft/lora"), Loss()
    assert penalised_loss(model, loss) is loss and update_hook(model, STEPS) is None
