"""The training loop: accumulate, clip, update, evaluate, checkpoint, resume."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data import DataLoader

from unipeft_run.errors import UserError
from unipeft_run.runs.checkpoint import Checkpoint
from unipeft_run.runs.folder import RunFolder
from unipeft_run.tracking import Tracker, Trackers
from unipeft_run.training.cadence import Cadence, count_steps
from unipeft_run.training.checkpoint_store import StoredStates
from unipeft_run.training.distributed import processes
from unipeft_run.training.distributed.parallel import (
    Parallel,
    average,
    share,
    spread,
    totals,
    whole,
    without_averaging,
)
from unipeft_run.training.interrupts import Interrupted, Interrupts
from unipeft_run.training.precision import make_accelerator
from unipeft_run.training.progress import Clock, Progress, peak_memory_mib, size
from unipeft_run.training.state import TrainingState, load_parameters, parameter_values

Batch = Mapping[str, Tensor]
LossFn = Callable[[nn.Module, Batch], tuple[Tensor, int]]
Evaluate = Callable[[nn.Module, int | None], Mapping[str, float]]
Optim = Callable[[nn.Module, int], tuple[Optimizer, LRScheduler]]


class Diverged(RuntimeError):
    """Loss or gradient is no longer a number; the last checkpoint is from before."""


@dataclass
class FitResult:
    """`best`: the validation metrics at `best_step`. `metrics`: of training, for metrics.json."""

    step: int = 0
    best_step: int | None = None
    best: dict[str, float] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)


class Trainer:
    """One training of one model.

    loss_fn(model, batch) gives the mean loss over the batch's targets and their number. The
    loader's `batch_sampler` takes `load_state_dict({"epoch": e, "position": p})`, with p the
    batches already handed out in epoch e, and each iteration over the loader is one epoch.
    `optim(model, total_steps)` builds the optimiser over the parameters that require a gradient
    and its schedule. Evaluation is every `eval_every` updates (None: every epoch) and at the end;
    `selection` names the metric that decides which state is the best.

    With several processes each trains on its share of every batch, and the leading one writes;
    `parallel` says how they hold the model.
    """

    def __init__(
        self,
        model: nn.Module,
        loader: DataLoader[Any],
        loss_fn: LossFn,
        *,
        optim: Optim,
        folder: RunFolder,
        trackers: Sequence[Tracker] = (),
        evaluate: Evaluate | None = None,
        selection: tuple[str, Literal["max", "min"]] = ("loss", "min"),
        max_steps: int | None = None,
        epochs: float | None = None,
        accumulation: int = 1,
        max_grad_norm: float | None = 1.0,
        eval_every: int | None = None,
        eval_limit: int | None = None,
        log_every: int = 50,
        checkpoint_every: int | None = None,
        early_stopping: int | None = None,
        precision: str = "auto",
        parallel: Parallel = "ddp",
        clock: Clock | None = None,
    ) -> None:
        self.accelerator = make_accelerator(precision, accumulation)
        self.device = self.accelerator.device
        self.model = self.replica = model.to(self.device)
        if any(p.requires_grad for p in model.parameters()):
            self.replica = spread(model, parallel, self.device)
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.loader, self.loss_fn = loader, loss_fn
        self.folder, self.stored = folder, StoredStates(folder)
        self.evaluate, self.selection, self.eval_limit = evaluate, selection, eval_limit
        self.tracker, self.interrupts = Trackers(trackers), Interrupts()
        self.accumulation, self.max_grad_norm = accumulation, max_grad_norm or math.inf
        steps_per_epoch = max(1, len(loader) // accumulation)
        self.cadence = Cadence(
            total=count_steps(max_steps, epochs, steps_per_epoch),
            epoch=steps_per_epoch,
            evaluate=None if evaluate is None else eval_every or steps_per_epoch,
            record=log_every,
            checkpoint=checkpoint_every,
            early_stopping=early_stopping,
        )
        self.batches = self._batches()
        if self.parameters:
            optimizer, schedule = optim(model, self.cadence.total)
            optimizer, scaler = self.accelerator.prepare(optimizer), self.accelerator.scaler
            clock = clock or Clock()
            self.state = TrainingState(model, optimizer, schedule, scaler, Progress(), clock)

    def fit(self) -> FitResult:
        """Train to the end, from the last checkpoint if there is one; leaves the best state.

        Raises `Diverged`, and `Interrupted` after SIGTERM or SIGINT with all state saved.
        """
        if not self.parameters:
            return FitResult(metrics={"peak_memory_mib": peak_memory_mib(self.device)})
        self._resume()
        with self.interrupts:
            try:
                self._train()
                self.interrupts.last_check(self.device)
            except Interrupted as stop:
                self._save()
                self.folder.mark("running", step=self.state.progress.step, error=str(stop))
                self.accelerator.wait_for_everyone()  # the first to go ends the others
                raise
            except Diverged as error:
                self.folder.mark("diverged", step=self.state.progress.step + 1, error=str(error))
                raise
        return self._finish()

    def _resume(self) -> None:
        content = self.stored.last()
        if content is not None:
            self.state.restore(content)
            progress = self.state.progress
            position = {"epoch": progress.epoch, "position": progress.position}
            self.loader.batch_sampler.load_state_dict(position)  # type: ignore[union-attr]
            self.stored.best(progress.best_step)  # better now than at the end
        step, evaluated = self.state.progress.step, self.state.progress.evaluated
        self.accelerator.wait_for_everyone()  # to have read what the leading one will replace
        self.folder.mark("running", step=step, total=self.cadence.total)
        self.tracker.begin(step, self.cadence.total, evaluated)

    def _train(self) -> None:
        self.model.train()
        while True:
            if self.cadence.evaluation_due(self.state.progress):
                self._evaluate()
            if self.cadence.done(self.state.progress):
                return
            self._report(*self._update())
            self.interrupts.check(self.device)

    def _update(self) -> tuple[float, float]:
        state, began = self.state, time.perf_counter()
        batches = [self._next_batch() for _ in range(self.accumulation)]
        with without_averaging(self.replica):
            losses = [self._backward(batch) for batch in batches[:-1]]
        losses.append(self._backward(batches[-1]))
        average(self.replica, self.parameters)
        norm = self.accelerator.clip_grad_norm_(self.parameters, self.max_grad_norm)
        mean, grad_norm = float(torch.stack(losses).mean()), float(whole(norm))
        loss, tokens, samples = totals([mean, *size(batches)], self.device)
        self._check_finite(loss, grad_norm)
        lr = float(state.schedule.get_last_lr()[0])
        state.optimizer.step()
        if not self.accelerator.optimizer_step_was_skipped:  # the fp16 loss scale was too large
            state.schedule.step()
        state.optimizer.zero_grad()
        state.progress.count(loss, int(tokens), int(samples), time.perf_counter() - began)
        return lr, grad_norm

    def _backward(self, batch: Batch) -> Tensor:
        """Add to the gradients; gives this process's part of the mean loss."""
        on_device = {name: tensor.to(self.device) for name, tensor in batch.items()}
        with self.accelerator.autocast():
            loss, targets = self.loss_fn(self.replica, on_device)
        loss = loss * share(targets, self.device)  # the mean over the processes is taken later
        self.accelerator.backward(loss)  # divides by the number of accumulated batches
        return loss.detach() / processes.count()

    def _check_finite(self, loss: float, grad_norm: float) -> None:
        # with fp16 a gradient too large is the business of the loss scaler, which skips the update
        scaled = self.accelerator.scaler is not None
        for what, value in (("loss", loss), ("gradient", 0.0 if scaled else grad_norm)):
            if not math.isfinite(value):
                raise Diverged(f"the {what} is {value} at step {self.state.progress.step + 1}")

    def _next_batch(self) -> Batch:
        # Making an iterator draws from torch's random state, and a resumed run makes one where an
        # uninterrupted run does not: what the model draws must not depend on it.
        with self._random_state_aside():
            return next(self.batches)

    def _batches(self) -> Iterator[Batch]:
        progress = self.state.progress
        while True:
            for batch in self.loader:
                progress.position += 1
                yield batch
            if progress.position == 0:
                raise UserError("the training split is empty: there is nothing to train on")
            progress.epoch, progress.position = progress.epoch + 1, 0

    def _report(self, lr: float, grad_norm: float) -> None:
        progress = self.state.progress
        record = {
            "epoch": self.cadence.epochs(progress.step),
            **progress.window.rates(),
            "train/lr": lr,
            "train/grad_norm": grad_norm,
            "train/seconds": progress.total.seconds,
        }
        self.folder.beat(progress.step, self.cadence.total)
        self.tracker.tick(record, progress.step, self.cadence.next_evaluation(progress.step))
        if self.cadence.record_due(progress):
            progress.close_window()
            self.tracker.log(record, progress.step)
        if self.cadence.checkpoint_due(progress):
            self._save()

    def _evaluate(self) -> None:
        progress, began = self.state.progress, time.perf_counter()
        metrics = self._validation_metrics()
        if progress.judge(metrics[self.selection[0]], self.selection[1]):
            content = {"step": progress.step, "metrics": metrics}
            self.stored.keep_best(Checkpoint(parameter_values(self.model), content))
        record = {
            "epoch": self.cadence.epochs(progress.step),
            **{f"validation/{key}": value for key, value in metrics.items()},
            "validation/seconds": time.perf_counter() - began,
            "best_step": progress.best_step,
        }
        self.tracker.log(record, progress.step)
        self._save()

    def _validation_metrics(self) -> dict[str, float]:
        assert self.evaluate is not None
        self.model.eval()
        with torch.no_grad(), self._random_state_aside(), self.interrupts.at_once():
            metrics = self.evaluate(self.model, self.eval_limit)
        self.model.train()
        if self.selection[0] not in metrics:
            known = ", ".join(metrics)
            raise UserError(f"no metric {self.selection[0]!r} to select by: there is {known}")
        return {name: float(value) for name, value in metrics.items()}

    def _finish(self) -> FitResult:
        progress = self.state.progress
        self.model.eval()
        if self.evaluate is None:
            self._save()
        self.accelerator.wait_for_everyone()  # for what the leading one is writing
        result = FitResult(step=progress.step, metrics=progress.metrics())
        result.metrics["peak_memory_mib"] = peak_memory_mib(self.device)
        best = self.stored.best(progress.best_step)
        if best is not None:
            load_parameters(self.model, best.tensors)
            result.best_step = best.state.get("step", progress.best_step)
            result.best = best.state["metrics"]
        return result

    def _save(self) -> None:
        self.stored.keep_last(self.state.gather())

    def _random_state_aside(self) -> AbstractContextManager[None]:
        devices = [self.device] if self.device.type == "cuda" else []
        return torch.random.fork_rng(devices=devices)
