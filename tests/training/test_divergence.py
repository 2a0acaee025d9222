"""Divergence: a state that is not finite is never saved, never the best, and ends the run."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tiny_training import OPTIM, Classifier, loss_fn, make_trainer
from torch import Tensor, nn

from unipeft_run.runs.checkpoint import load_checkpoint, save_checkpoint
from unipeft_run.runs.folder import RunFolder
from unipeft_run.training.checkpoint_store import BEST, LAST
from unipeft_run.training.divergence import Diverged, check_loss_scale, find_non_finite
from unipeft_run.training.trainer import Trainer

KEPT = "the checkpoint of step 6 is kept"
NONE_SAVED = "no checkpoint had been saved"


def spoil(after_step: int, change: Callable[[Trainer], object]) -> Callable[..., Trainer]:
    """Make trainers that call `change` right after the update `after_step`."""

    def make(folder: Path, **changed: Any) -> Trainer:
        trainer = make_trainer(folder, **changed)
        log = trainer._log

        def log_and_spoil(lr: float, grad_norm: float) -> None:
            if trainer.state.progress.step == after_step:
                with torch.no_grad():
                    change(trainer)
            log(lr, grad_norm)

        trainer._log = log_and_spoil  # type: ignore[method-assign]
        return trainer

    return make


def assert_diverged(folder: Path, step: int, error: str) -> None:
    status = RunFolder(folder).status()
    assert (status["state"], status["step"], status["error"]) == ("diverged", step, error)


def assert_saved_is_finite(folder: Path, step: int) -> None:
    """Assert that every saved state is finite, and that the last one is of `step`."""
    last, best = (load_checkpoint(folder / name) for name in (LAST, BEST))
    assert last.state["training"]["progress"]["step"] == step
    assert find_non_finite({**last.tensors, **best.tensors}) is None


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_stops_before_the_update(tmp_path: Path, bad: float) -> None:
    calls = 0

    def loss_that_breaks(model: nn.Module, batch: Mapping[str, Tensor]) -> tuple[Tensor, int]:
        nonlocal calls
        calls += 1
        loss, count = loss_fn(model, batch)
        return loss * (bad if calls == 16 else 1.0), count

    trainer = make_trainer(tmp_path, loss_fn=loss_that_breaks)
    with pytest.raises(Diverged, match=f"the loss is {bad} at step 8"):
        trainer.fit()
    assert_diverged(tmp_path, 8, f"the loss is {bad} at step 8; {KEPT}")
    assert all(p.isfinite().all() for p in trainer.model.parameters())
    assert_saved_is_finite(tmp_path, 6)


def test_a_gradient_that_is_not_finite_is_divergence(tmp_path: Path) -> None:
    def loss_with_bad_gradient(model: Classifier, batch: Any) -> tuple[Tensor, int]:
        return (model.layer.weight * 0).sum().sqrt(), 1  # 0, with gradient 0 * inf

    with pytest.raises(Diverged, match=f"the gradient is nan at step 1; {NONE_SAVED}"):
        make_trainer(tmp_path, loss_fn=loss_with_bad_gradient).fit()


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("step", [6, 20], ids=["evaluation", "end"])
def test_one_weight_that_is_not_finite_is_never_saved(
    tmp_path: Path, step: int, bad: float
) -> None:
    def one_weight(trainer: Trainer) -> None:
        trainer.model.layer.bias[1] = bad

    with pytest.raises(Diverged, match=rf"the weights are not finite at step {step} \(layer.bias"):
        spoil(step, one_weight)(tmp_path).fit()
    if step == 6:
        assert_diverged(
            tmp_path, 6, f"the weights are not finite at step 6 (layer.bias); {NONE_SAVED}"
        )
        assert not (tmp_path / LAST).exists() and not (tmp_path / BEST).exists()
    else:
        assert_saved_is_finite(tmp_path, 18)


def test_the_optimisers_state_is_checked_too(tmp_path: Path) -> None:
    def one_moment(trainer: Trainer) -> None:
        moments = trainer.state.optimizer.state
        moments[trainer.model.layer.weight]["exp_avg_sq"][0, 0] = math.inf

    trainer = spoil(8, one_moment)(tmp_path, checkpoint_every=2)
    with pytest.raises(Diverged, match=r"at step 8 \(layer.weight/exp_avg_sq\); .* step 6 is kept"):
        trainer.fit()
    assert_saved_is_finite(tmp_path, 6)


def test_a_run_without_evaluation_is_checked_at_its_end(tmp_path: Path) -> None:
    def one_weight(trainer: Trainer) -> None:
        trainer.model.layer.bias[0] = math.nan

    with pytest.raises(Diverged, match="not finite at step 20"):
        spoil(20, one_weight)(tmp_path, evaluate=None).fit()
    assert not (tmp_path / LAST).exists()


def test_a_signal_does_not_save_a_state_that_is_not_finite(tmp_path: Path) -> None:
    def one_weight(trainer: Trainer) -> None:
        trainer.model.layer.bias[0] = math.nan
        trainer.interrupts._received = 15

    with pytest.raises(Diverged):
        spoil(9, one_weight)(tmp_path).fit()
    assert_diverged(tmp_path, 9, f"the weights are not finite at step 9 (layer.bias); {KEPT}")
    assert_saved_is_finite(tmp_path, 6)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_validation_loss_that_is_not_finite_is_divergence(tmp_path: Path, bad: float) -> None:
    losses = iter([1.0, bad])
    trainer = make_trainer(
        tmp_path,
        evaluate=lambda *_: {"accuracy": 0.5, "loss": next(losses)},
        selection=("accuracy", "max"),
    )
    with pytest.raises(Diverged):
        trainer.fit()
    assert_diverged(tmp_path, 12, f"the validation loss is {bad} at step 12; {KEPT}")
    assert_saved_is_finite(tmp_path, 6)


def test_a_far_too_large_learning_rate_diverges_again_and_again(tmp_path: Path) -> None:
    """Two updates at lr=1e30: no such state is done, and a retry ends in the same way."""
    optim = lambda model, total: OPTIM(model, total, lr=1e30, warmup_ratio=0.0)  # noqa: E731
    ends = []
    for _ in range(2):
        trainer = make_trainer(tmp_path, optim=optim, max_steps=2, eval_every=1)
        with pytest.raises(Diverged) as end:
            trainer.fit()
        ends.append((str(end.value), RunFolder(tmp_path).status()["state"]))
    assert ends[0] == ends[1]
    assert ends[0][1] == "diverged"


def test_a_retry_after_divergence_continues_from_the_last_checkpoint(tmp_path: Path) -> None:
    def one_weight(trainer: Trainer) -> None:
        trainer.model.layer.bias[0] = math.nan

    undisturbed = make_trainer(tmp_path / "undisturbed")
    expected = undisturbed.fit()
    with pytest.raises(Diverged):
        spoil(14, one_weight)(tmp_path / "run").fit()
    assert_saved_is_finite(tmp_path / "run", 12)
    again = make_trainer(tmp_path / "run")
    assert again.fit().best == expected.best
    for ours, theirs in zip(again.model.parameters(), undisturbed.model.parameters(), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("previous_is_finite", [True, False])
def test_a_state_that_is_not_finite_on_disk_is_not_resumed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, previous_is_finite: bool
) -> None:
    """Older versions saved such states."""
    expected = make_trainer(tmp_path / "undisturbed").fit()
    make_trainer(tmp_path / "run", max_steps=12).fit()
    path = tmp_path / "run" / LAST
    good = load_checkpoint(path)
    tensors = {**good.tensors, "parameters/layer.bias": torch.full((3,), torch.nan)}
    bad = replace(good, tensors=tensors)
    for content in (good if previous_is_finite else bad, bad):
        save_checkpoint(path, content, keep_previous=True)
    trainer = make_trainer(tmp_path / "run")
    trainer._resume()
    assert trainer.state.progress.step == (12 if previous_is_finite else 0)
    assert "last is not finite (parameters/layer.bias), and is not used" in caplog.text
    if not previous_is_finite:
        assert make_trainer(tmp_path / "run").fit().best == expected.best


def test_a_gradient_that_overflows_at_every_loss_scale_is_divergence() -> None:
    for scale, diverges in ((2.0**16, False), (2.0**-14, False), (2.0**-15, True)):
        scaler: Any = SimpleNamespace(get_scale=lambda scale=scale: scale)  # type: ignore[misc]
        if diverges:
            with pytest.raises(Diverged, match="the gradient overflows fp16 at every loss scale"):
                check_loss_scale(scaler, 1)
        else:
            check_loss_scale(scaler, 1)


def test_find_non_finite() -> None:
    fine = {"a": torch.ones(3), "n": torch.tensor([2**40]), "empty": torch.ones(0)}
    assert find_non_finite(fine) is None
    assert find_non_finite({}) is None
    assert find_non_finite({**fine, "b": torch.tensor([1.0, -math.inf])}) == "b"
    assert find_non_finite({**fine, "c": torch.tensor([[math.nan]], dtype=torch.bfloat16)}) == "c"
