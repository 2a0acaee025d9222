"""The training loop against a literal one, best states, early stopping, events, user errors."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_training import (
    EXAMPLES,
    OPTIM,
    Classifier,
    EpochSampler,
    collate,
    evaluate,
    loss_fn,
    make_loader,
    make_model,
    make_trainer,
)
from torch import Tensor, nn

from unipeft_run.tracking import Tracker
from unipeft_run.training.compute.dropout import fast_dropout
from unipeft_run.training.progress import Progress


def records(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "train.jsonl").read_text().splitlines()]


def endless_batches(size: int) -> Iterator[dict[str, Tensor]]:
    sampler, data = EpochSampler(size), make_loader().dataset
    while True:
        for rows in sampler:
            yield collate([data[row] for row in rows])


def test_fifty_steps_of_a_literal_loop(tmp_path: Path) -> None:
    model, total, norm = make_model(), 50, 0.5
    optimizer, schedule = OPTIM(model, total)
    batches, expected = endless_batches(4), []
    torch.manual_seed(7)
    for step in range(1, total + 1):
        loss_sum = 0.0
        for _ in range(3):
            with fast_dropout():
                loss, _ = loss_fn(model, next(batches))
            (loss / 3).backward()
            loss_sum += loss.item()
        trained = [p for p in model.parameters() if p.requires_grad]
        grad_norm = torch.nn.utils.clip_grad_norm_(trained, norm).item()
        expected.append((step, loss_sum / 3, schedule.get_last_lr()[0], grad_norm))
        optimizer.step(), schedule.step(), optimizer.zero_grad()

    trainer = make_trainer(
        tmp_path, max_steps=total, accumulation=3, max_grad_norm=norm, log_every=1, evaluate=None
    )
    torch.manual_seed(7)
    trainer.fit()

    keys = ("step", "train/loss", "train/lr", "train/grad_norm")
    seen = [tuple(map(record.get, keys)) for record in records(tmp_path)]
    for ours, literal in zip(seen, expected, strict=True):
        assert ours == pytest.approx(literal, rel=1e-6)
    assert max(norm for *_, norm in seen) > norm  # recorded before clipping
    assert all(map(torch.equal, trainer.model.parameters(), model.parameters()))


def test_the_best_state_is_loaded_at_the_end(tmp_path: Path) -> None:
    seen: list[dict[str, Tensor]] = []
    values = iter([0.3, 0.5, 0.5, 0.4])  # of equal values the first is the best

    def scripted(model: nn.Module, limit: int | None) -> dict[str, float]:
        assert not model.training and not torch.is_grad_enabled() and limit == 9
        seen.append({name: p.clone() for name, p in model.state_dict().items()})
        return {"accuracy": next(values), "loss": 1.0}

    trainer = make_trainer(tmp_path, evaluate=scripted, selection=("accuracy", "max"), eval_limit=9)
    result = trainer.fit()
    assert (result.step, result.best_step) == (20, 12)
    assert result.best == {"accuracy": 0.5, "loss": 1.0}
    found = trainer.model.state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in seen[1].items())
    assert any(not torch.equal(found[name], tensor) for name, tensor in seen[3].items())
    assert [r["step"] for r in records(tmp_path) if "validation/loss" in r] == [6, 12, 18, 20]


def test_a_metric_that_is_not_finite_is_never_the_best(tmp_path: Path) -> None:
    values = iter([math.nan, 0.2, math.inf, 0.1])
    trainer = make_trainer(
        tmp_path,
        evaluate=lambda model, limit: {"accuracy": next(values), "loss": 1.0},
        selection=("accuracy", "max"),
    )
    assert trainer.fit().best_step == 12
    assert records(tmp_path)[1]["validation/accuracy"] is None


@pytest.mark.parametrize(
    ("losses", "best"),
    [
        ([2.0, 1.0, 1.5, 1.0], 12),  # the lowest loss, and the first of equal losses
        ([1.0, 2.0, 1.0, 1.5], 6),
        ([3.0, 2.0, 1.0, 0.5], 20),
    ],
)
def test_at_equal_metric_the_lower_validation_loss_is_best(
    tmp_path: Path, losses: list[float], best: int
) -> None:
    script = iter(losses)
    trainer = make_trainer(
        tmp_path,
        evaluate=lambda model, limit: {"rouge2": 0.0, "loss": next(script)},
        selection=("rouge2", "max"),
    )
    assert trainer.fit().best_step == best


def test_a_better_metric_wins_over_a_lower_loss(tmp_path: Path) -> None:
    script = iter([(0.5, 9.0), (0.4, 1.0), (0.5, 9.0), (0.4, 0.5)])
    trainer = make_trainer(
        tmp_path,
        evaluate=lambda *_: dict(zip(("accuracy", "loss"), next(script), strict=True)),
        selection=("accuracy", "max"),
    )
    assert trainer.fit().best_step == 6


def test_a_tie_won_by_its_loss_resets_early_stopping(tmp_path: Path) -> None:
    losses = iter([3.0, 2.0, 2.0])
    trainer = make_trainer(
        tmp_path,
        evaluate=lambda *_: {"rouge2": 0.0, "loss": next(losses)},
        selection=("rouge2", "max"),
        early_stopping=1,
    )
    assert (trainer.fit().best_step, trainer.state.progress.step) == (12, 18)


def test_ties_are_broken_the_same_after_a_resume(tmp_path: Path) -> None:
    def evaluate_until(stop: int) -> Any:
        def scripted(model: nn.Module, limit: int | None) -> dict[str, float]:
            step = trainer.state.progress.step
            if step == stop:
                raise KeyboardInterrupt
            return {"rouge2": 0.0, "loss": {6: 1.0, 12: 2.0, 18: 3.0, 20: 4.0}[step]}

        return scripted

    trainer = make_trainer(tmp_path, evaluate=evaluate_until(12), selection=("rouge2", "max"))
    with pytest.raises(KeyboardInterrupt):
        trainer.fit()
    trainer = make_trainer(tmp_path, evaluate=evaluate_until(0), selection=("rouge2", "max"))
    assert trainer.fit().best_step == 6


def test_a_checkpoint_without_the_loss_of_its_best_state_keeps_it_at_a_tie() -> None:
    """Version 0.1 did not store it."""
    stored = asdict(Progress(step=12, best_step=6, best_value=0.0))
    del stored["best_loss"]
    progress = Progress.from_dict(stored)
    assert not progress.add_evaluation(0.0, 1e-9, "max")
    assert (progress.best_step, progress.misses, progress.evaluated) == (6, 1, 12)


@pytest.mark.parametrize(("patience", "last"), [(1, 12), (2, 18), (None, 20)])
def test_early_stopping(tmp_path: Path, patience: int | None, last: int) -> None:
    trainer = make_trainer(
        tmp_path, evaluate=lambda model, limit: {"loss": 1.0}, early_stopping=patience
    )
    result = trainer.fit()
    assert (result.step, result.best_step) == (last, 6)


def test_epochs(tmp_path: Path) -> None:
    """22 examples in batches of 4 are 6 batches: 3 updates of 2, then an evaluation."""
    trainer = make_trainer(tmp_path, max_steps=None, epochs=2.5, eval_every=None)
    assert trainer.fit().step == 8
    assert [r["step"] for r in records(tmp_path) if "validation/loss" in r] == [3, 6, 8]
    assert records(tmp_path)[-1]["epoch"] == pytest.approx(8 / 3, abs=1e-4)


def test_evaluation_does_not_change_training(tmp_path: Path) -> None:
    often = make_trainer(tmp_path / "often", eval_every=1)
    never = make_trainer(tmp_path / "never", evaluate=None)
    ends = []
    for trainer in (often, never):
        torch.manual_seed(3)
        trainer.fit()
        ends.append(records(trainer.folder.path)[-2 if trainer is often else -1]["train/loss"])
    assert ends[0] == ends[1]


def test_nothing_to_train_returns_at_once(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, model=make_model().requires_grad_(False))
    assert trainer.fit().step == 0
    assert not (tmp_path / "train.jsonl").exists()


def test_frozen_parts_keep_their_dropout_and_their_weights(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, max_steps=2, evaluate=None)
    before = trainer.model.embedding.weight.clone()
    modes: list[bool] = []
    trainer.model.dropout.register_forward_hook(lambda m, *_: modes.append(m.training))
    trainer.fit()
    assert modes == [True] * 4
    assert torch.equal(trainer.model.embedding.weight, before)


def test_throughput(tmp_path: Path) -> None:
    metrics = make_trainer(tmp_path, max_steps=11, evaluate=None).fit().metrics
    tokens = 2 * sum(int(mask.sum()) for _, mask, _ in make_loader().dataset)  # in two epochs
    seconds = metrics["train/seconds"]
    # 11 updates of 2 batches of 4 or, at the end of an epoch, 2 examples
    samples = metrics["train/samples_per_second"] * seconds
    assert 3 * EXAMPLES < samples < 4 * EXAMPLES
    assert metrics["train/tokens_per_second"] * seconds > tokens
    assert 0 < metrics["train/step_seconds"] < seconds
    assert metrics["train/loss"] == records(tmp_path)[-1]["train/loss"]
    assert metrics["peak_memory_mib"] > 10


def test_after_early_stopping_the_loss_is_of_the_last_updates(tmp_path: Path) -> None:
    shown: list[float] = []

    class Listener(Tracker):
        def tick(self, record: Any, step: int, next_evaluation: int | None) -> None:
            shown.append(record["train/loss"])

    for number, log_every in enumerate((100, 5)):  # no record before the end; an older one
        trainer = make_trainer(
            tmp_path / str(number),
            trackers=[Listener()],
            evaluate=lambda model, limit: {"loss": 1.0},
            eval_every=3,
            early_stopping=1,
            log_every=log_every,
        )
        result = trainer.fit()
        assert (result.step, result.metrics["train/loss"]) == (6, shown[-1])


def test_tracker_events(tmp_path: Path) -> None:
    heard: list[Any] = []

    class Listener(Tracker):
        def begin(self, step: int, total: int, evaluated: int | None = None) -> None:
            heard.append((step, total, evaluated))

        def tick(self, record: Any, step: int, next_evaluation: int | None) -> None:
            heard.append(next_evaluation)

    make_trainer(tmp_path, trackers=[Listener()], max_steps=8).fit()
    assert heard == [(0, 8, 0), 6, 6, 6, 6, 6, 8, 8, None]


def test_bf16_trains_in_autocast_and_keeps_float32_parameters(tmp_path: Path) -> None:
    kinds = set()

    def loss_watched(model: Classifier, batch: Mapping[str, Tensor]) -> tuple[Tensor, int]:
        kinds.add(model(batch["input_ids"], batch["attention_mask"]).dtype)
        return loss_fn(model, batch)

    trainer = make_trainer(tmp_path, precision="bf16", loss_fn=loss_watched)
    result = trainer.fit()
    assert kinds == {torch.bfloat16}
    assert {p.dtype for p in trainer.model.parameters()} == {torch.float32}
    assert math.isfinite(result.metrics["train/loss"])


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"precision": "fp16"}, "needs a GPU"),
        ({"max_steps": None}, "give recipe.max_steps or recipe.epochs"),
        ({"selection": ("f1", "max")}, "task.selection=f1: unknown metric; have loss, accuracy"),
        ({"max_steps": None, "epochs": 1e308}, r"recipe.epochs=1e\+308: at most 1,000,000,000 upd"),
        ({"loader": [], "evaluate": None}, "the training split is empty"),
    ],
)
def test_user_errors_are_one_sentence(
    tmp_path: Path, changed: dict[str, Any], sentence: str
) -> None:
    if changed.get("precision") == "fp16" and torch.cuda.is_available():
        pytest.skip("fp16 is fine on a GPU")
    with pytest.raises(ValueError, match=sentence):
        make_trainer(tmp_path, **changed).fit()


def test_training_learns(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, max_steps=150, log_every=150, eval_every=150)
    before = evaluate(trainer.model.eval(), None)["loss"]
    assert trainer.fit().best["loss"] < 0.7 * before
