"""The training loop: accumulate, clip, update, evaluate, checkpoint, resume."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data import DataLoader

from unipeft_run.config.schema import Precision
from unipeft_run.errors import Interrupted, UserError
from unipeft_run.runs.checkpoint import Checkpoint
from unipeft_run.runs.folder import RunFolder
from unipeft_run.tracking import Tracker, Trackers
from unipeft_run.training.accumulation import GradientAccumulator, LossFn
from unipeft_run.training.cadence import Cadence, count_steps, count_steps_per_epoch
from unipeft_run.training.checkpoint_store import CheckpointStore
from unipeft_run.training.compute.plan import ComputeOptions
from unipeft_run.training.distributed.parallel import Parallel, all_reduce_sum, reshard
from unipeft_run.training.divergence import (
    Diverged,
    check_finite,
    check_loss_scale,
    find_non_finite,
)
from unipeft_run.training.interrupts import Interrupts
from unipeft_run.training.micro_batches import MicroBatches, Weighting
from unipeft_run.training.precision import autocast_dtype, build_accelerator
from unipeft_run.training.progress import (
    Clock,
    Progress,
    count_tokens_and_samples,
    peak_memory_mib,
)
from unipeft_run.training.state import (
    TrainingState,
    UpdateHook,
    isolated_rng,
    load_parameters,
    parameter_values,
)

Evaluate = Callable[[nn.Module, int | None], Mapping[str, float]]
Optim = Callable[[nn.Module, int], tuple[Optimizer, LRScheduler]]


@dataclass
class FitResult:
    """The result of a finished training.

    `best`: the validation metrics at `best_step`. `metrics`: training metrics for metrics.json.
    `compute`: how the steps were computed (see `ComputePlan`).
    """

    step: int = 0
    best_step: int | None = None
    best: dict[str, float] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    compute: dict[str, Any] = field(default_factory=dict)


class Trainer:
    """One training run of one model.

    `loss_fn(model, batch)` returns the mean loss over the batch's targets and their number.
    `loader`: see `MicroBatches`. `optim(model, total_steps)` builds the optimiser of the parameters
    that require a gradient, and its schedule; `build_hook(total_steps)` returns what acts between
    updates, or None. `evaluate` runs every `eval_every` updates (None: every epoch) and after the
    last one. `selection` names the metric that decides which state is the best; at equal metric the
    lower "loss" wins, then the earlier state.

    With several processes, each trains on its part of every batch, and rank 0 writes. `parallel`:
    whether the model is replicated or sharded.
    """

    def __init__(
        self,
        model: nn.Module,
        loader: DataLoader[Any],
        loss_fn: LossFn,
        *,
        optim: Optim,
        build_hook: Callable[[int], UpdateHook | None] = lambda total_steps: None,
        folder: RunFolder,
        trackers: Sequence[Tracker] = (),
        evaluate: Evaluate | None = None,
        selection: tuple[str, Literal["max", "min"]] = ("loss", "min"),
        max_steps: int | None = None,
        epochs: float | None = None,
        accumulation: int = 1,
        accumulation_weighting: Weighting = "equal",
        max_grad_norm: float | None = 1.0,
        eval_every: int | None = None,
        eval_limit: int | None = None,
        log_every: int = 50,
        checkpoint_every: int | None = None,
        early_stopping: int | None = None,
        precision: Precision = "auto",
        compute: ComputeOptions = ComputeOptions(),  # noqa: B008, it is immutable
        parallel: Parallel = "ddp",
        clock: Clock | None = None,
    ) -> None:
        self.accelerator = build_accelerator(precision, deterministic=compute.deterministic)
        self.device = self.accelerator.device
        self.model, self.loader = model.to(self.device), loader
        self.folder, self.store = folder, CheckpointStore(folder)
        self.evaluate, self.selection, self.eval_limit = evaluate, selection, eval_limit
        self.tracker, self.interrupts = Trackers(trackers), Interrupts()
        self.accumulation, self.compute = accumulation, compute
        self.saved_step: int | None = None
        steps_per_epoch = count_steps_per_epoch(len(loader), accumulation)
        self.cadence = Cadence(
            total=count_steps(max_steps, epochs, steps_per_epoch),
            passes=accumulation / max(1, len(loader)),
            evaluate=None if evaluate is None else eval_every or steps_per_epoch,
            log=log_every,
            checkpoint=checkpoint_every,
            early_stopping=early_stopping,
        )
        self.is_trainable = any(p.requires_grad for p in model.parameters())
        if self.is_trainable:
            self.accumulator = GradientAccumulator(
                self.accelerator,
                model,
                loss_fn,
                accumulation=accumulation,
                weighting=accumulation_weighting,
                max_grad_norm=max_grad_norm,
                parallel=parallel,
                autocast=autocast_dtype(precision),
                grid=compute.grid,
            )
            optimizer, schedule = optim(model, self.cadence.total)
            optimizer, scaler = self.accelerator.prepare(optimizer), self.accelerator.scaler
            clock = clock or Clock()
            self.state = TrainingState(model, optimizer, schedule, scaler, Progress(), clock)
            self.state.hook = build_hook(self.cadence.total)

    def fit(self) -> FitResult:
        """Train to the end, from the last checkpoint if there is one; leave the best state loaded.

        Raises `Diverged`, and `Interrupted` after SIGTERM or SIGINT with the state saved.
        """
        if not self.is_trainable:
            return FitResult(metrics={"peak_memory_mib": peak_memory_mib(self.device)})
        self._resume()
        with self.interrupts:
            try:
                self._train_or_save()
            except Diverged as problem:
                error = f"{problem}; {self._describe_saved()}"
                self.folder.mark("diverged", step=problem.step, error=error)
                raise Diverged(error, problem.step) from None
        return self._finish()

    def _train_or_save(self) -> None:
        try:
            self._train()
            self.interrupts.last_check(self.device)
        except Interrupted as stop:
            self._save()
            self.folder.mark("interrupted", step=self.state.progress.step, error=str(stop))
            # the first process to exit terminates the rest
            self.accelerator.wait_for_everyone()
            raise

    def _describe_saved(self) -> str:
        if self.saved_step is None:
            return "no checkpoint had been saved"
        return f"the checkpoint of step {self.saved_step} is kept"

    def _resume(self) -> None:
        content = self.store.load_last()
        if content is not None:
            self.state.restore(content)
            self.saved_step = self.state.progress.step
            self.store.load_best(self.state.progress.best_step)  # fail now rather than at the end
        self.state.compute = self.accumulator.choose(self.compute, self.state.compute)
        progress = self.state.progress
        self.micro_batches = MicroBatches(self.loader, progress, self.device)
        if content is not None:
            self.micro_batches.seek()
        self.accelerator.wait_for_everyone()  # until all have read what rank 0 will replace
        self.folder.mark("running", step=progress.step, total=self.cadence.total)
        self.tracker.begin(progress.step, self.cadence.total, progress.evaluated)

    def _train(self) -> None:
        self.model.train()
        while True:
            if self.cadence.is_evaluation_due(self.state.progress):
                self._evaluate()
            if self.cadence.is_done(self.state.progress):
                break
            self._log(*self._update())
            self.interrupts.check(self.device)
        if self.evaluate is None:
            self._save()

    def _update(self) -> tuple[float, float]:
        """Make one update; return its learning rate and gradient norm."""
        state, began = self.state, time.perf_counter()
        micro_batches = self.micro_batches.draw(self.accumulation)
        mean, grad_norm = self.accumulator.accumulate(micro_batches)
        sizes = count_tokens_and_samples([micro_batch.batch for micro_batch in micro_batches])
        loss, tokens, samples = all_reduce_sum([mean, *sizes], self.device)
        check_finite("loss", loss, state.progress.step + 1)
        if state.scaler is None:  # else the scaler skips the update and lowers its scale
            check_finite("gradient", grad_norm, state.progress.step + 1)
        lr = float(state.schedule.get_last_lr()[0])
        state.optimizer.step()
        if skipped := self.accelerator.optimizer_step_was_skipped:
            assert state.scaler is not None
            check_loss_scale(state.scaler, state.progress.step + 1)
        else:
            state.schedule.step()
        if state.hook is not None:
            state.hook(state.progress.step + 1, skipped=skipped)
        self.accumulator.clear()
        state.progress.add_update(loss, int(tokens), int(samples), time.perf_counter() - began)
        return lr, grad_norm

    def _log(self, lr: float, grad_norm: float) -> None:
        progress = self.state.progress
        record = {
            "epoch": self.cadence.epochs_at(progress.step),
            **progress.window.rates(),
            "train/lr": lr,
            "train/grad_norm": grad_norm,
            "train/seconds": progress.total.seconds,
        }
        self.folder.beat(progress.step, self.cadence.total)
        self.tracker.tick(record, progress.step, self.cadence.next_evaluation(progress.step))
        if self.cadence.is_log_due(progress):
            progress.close_window()
            self.tracker.log(record, progress.step)
        if self.cadence.is_checkpoint_due(progress):
            self._save()

    def _evaluate(self) -> None:
        progress, began = self.state.progress, time.perf_counter()
        self._check_state()
        metrics = self._validation_metrics()
        loss, (name, goal) = metrics.get("loss"), self.selection
        check_finite("validation loss", 0.0 if loss is None else loss, progress.step)
        if progress.add_evaluation(metrics[name], loss, goal):
            content = {"step": progress.step, "metrics": metrics}
            self.store.save_best(Checkpoint(parameter_values(self.model), content))
        record = {
            "epoch": self.cadence.epochs_at(progress.step),
            **{f"validation/{key}": value for key, value in metrics.items()},
            "validation/seconds": time.perf_counter() - began,
            "best_step": progress.best_step,
        }
        self.tracker.log(record, progress.step)
        self._save()

    def _validation_metrics(self) -> dict[str, float]:
        assert self.evaluate is not None
        self.model.eval()
        with torch.no_grad(), isolated_rng(self.device), self.interrupts.immediate():
            metrics = self.evaluate(self.model, self.eval_limit)
        reshard(self.model)
        self.model.train()
        if self.selection[0] not in metrics:
            known = ", ".join(metrics)
            raise UserError(f"task.selection={self.selection[0]}: unknown metric; have {known}")
        return {name: float(value) for name, value in metrics.items()}

    def _finish(self) -> FitResult:
        progress = self.state.progress
        self.model.eval()
        result = FitResult(progress.step, compute=self.accumulator.describe())
        self.accumulator.release()
        self.accelerator.wait_for_everyone()  # until rank 0 has written the best state
        result.metrics = {**progress.metrics(), "peak_memory_mib": peak_memory_mib(self.device)}
        best = self.store.load_best(progress.best_step)
        if best is not None:
            load_parameters(self.model, best.tensors)
            result.best_step = best.state.get("step", progress.best_step)
            result.best = best.state["metrics"]
        return result

    def _save(self) -> None:
        self._check_state()
        self.store.save_last(self.state.gather())
        self.saved_step = self.state.progress.step

    def _check_state(self) -> None:
        """Raise `Diverged` on all ranks if a parameter or the optimiser's state is not finite."""
        name, step = find_non_finite(self.state.local_tensors()), self.state.progress.step
        if all_reduce_sum([name is not None], self.device)[0]:
            problem = f"the weights are not finite at step {step}"
            raise Diverged(f"{problem} ({name})" if name else problem, step)
