"""The position of a training run, its best evaluation, and its throughput and memory."""

from __future__ import annotations

import ctypes
import gc
import math
import resource
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unipeft_run.data.batching import IGNORED

TIMED_STEPS = 1000


@dataclass
class Clock:
    """Wall time of a run. `earlier`: seconds of earlier processes, from the checkpoint."""

    earlier: float = 0.0
    began: float = field(default_factory=time.monotonic)

    def seconds(self) -> float:
        """Return the seconds so far."""
        return self.earlier + time.monotonic() - self.began


@dataclass
class Meter:
    """Running sums over updates: loss, tokens, samples and seconds."""

    steps: int = 0
    loss: float = 0.0
    tokens: int = 0
    samples: int = 0
    seconds: float = 0.0

    def add(self, loss: float, tokens: int, samples: int, seconds: float) -> None:
        """Add one update."""
        self.steps += 1
        self.loss += loss
        self.tokens += tokens
        self.samples += samples
        self.seconds += seconds

    def rates(self) -> dict[str, float]:
        """Return mean loss and throughput, named as in train.jsonl and metrics.json.

        Images have no tokens.
        """
        seconds = max(self.seconds, 1e-9)
        only_images = self.samples and not self.tokens
        speed = {} if only_images else {"train/tokens_per_second": self.tokens / seconds}
        return {
            "train/loss": self.loss / max(1, self.steps),
            **speed,
            "train/samples_per_second": self.samples / seconds,
        }


@dataclass
class Progress:
    """Position in the data and in the schedule, the best evaluation so far, and the meters.

    `position`: batches consumed in this epoch. `evaluated`: the step of the last evaluation.
    `misses`: evaluations since the best one. `window`: updates since the last log record; `total`:
    all updates.
    """

    step: int = 0
    epoch: int = 0
    position: int = 0
    evaluated: int = 0
    best_step: int | None = None
    best_value: float | None = None
    best_loss: float | None = None
    misses: int = 0
    last_loss: float = 0.0
    window: Meter = field(default_factory=Meter)
    total: Meter = field(default_factory=Meter)
    step_seconds: list[float] = field(default_factory=list)

    @classmethod
    def from_dict(cls, state: Mapping[str, Any]) -> Progress:
        """Build the progress from its `dataclasses.asdict`."""
        meters = {name: Meter(**state[name]) for name in ("window", "total")}
        return cls(**{**state, **meters})

    def add_update(self, loss: float, tokens: int, samples: int, seconds: float) -> None:
        """Count one update, which took `seconds` without evaluation."""
        self.step += 1
        for meter in (self.window, self.total):
            meter.add(loss, tokens, samples, seconds)
        self.step_seconds = [*self.step_seconds[1 - TIMED_STEPS :], seconds]

    def close_window(self) -> None:
        """Start a new window, after the old one has been logged."""
        self.last_loss = self.window.rates()["train/loss"]
        self.window = Meter()

    def add_evaluation(self, value: float, loss: float | None, goal: str) -> bool:
        """Count an evaluation, and return whether it is the new best.

        At equal `value` the lower validation `loss` wins, at equal loss the earlier evaluation.
        A value that is not finite is never the best.
        """
        self.evaluated = self.step
        is_best = math.isfinite(value) and self._is_better(value, loss, goal)
        if is_best:
            self.best_step, self.best_value, self.best_loss = self.step, value, loss
            self.misses = 0
        else:
            self.misses += 1
        return is_best

    def _is_better(self, value: float, loss: float | None, goal: str) -> bool:
        if self.best_value is None:
            return True
        if value != self.best_value:
            return value > self.best_value if goal == "max" else value < self.best_value
        return loss is not None and self.best_loss is not None and loss < self.best_loss

    def metrics(self) -> dict[str, float]:
        """Return the mean loss since the last log record, and the overall throughput.

        Right after a record, it is the loss in that record.
        """
        if not self.total.steps:
            return {}
        loss = self.window.rates()["train/loss"] if self.window.steps else self.last_loss
        return {
            **self.total.rates(),
            "train/loss": loss,
            "train/step_seconds": statistics.median(self.step_seconds),
            "train/seconds": self.total.seconds,
        }


def count_tokens_and_samples(batches: Sequence[Mapping[str, Tensor]]) -> tuple[int, int]:
    """Count the tokens and the examples of `batches`."""
    return sum(map(count_tokens, batches)), sum(len(batch["labels"]) for batch in batches)


def count_tokens(batch: Mapping[str, Tensor]) -> int:
    """Count the tokens of `batch` without padding: inputs and, of an encoder-decoder, targets.

    Images have none.
    """
    mask = batch.get("attention_mask")
    tokens = 0 if mask is None else int(mask.sum())
    return tokens + count_targets(batch) if "decoder_input_ids" in batch else tokens


def count_targets(batch: Mapping[str, Tensor]) -> int:
    """Count the targets that the loss averages over: tokens of text, or examples with classes."""
    labels = batch["labels"]  # [B] for classes, [B, T] for text
    return int((labels != IGNORED).sum()) if labels.dim() > 1 else len(labels)


def reset_peak_memory() -> None:
    """Reset the peak memory, for a run that is not the first of its process."""
    gc.collect()  # frees models in reference cycles
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        for device in range(torch.cuda.device_count()):
            torch.cuda.reset_peak_memory_stats(device)
    with suppress(
        OSError, AttributeError
    ):  # glibc keeps freed memory, which counts towards the peak
        ctypes.CDLL(None).malloc_trim(0)
    with suppress(OSError):  # on Linux, if writable
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory_mib(device: torch.device) -> float:
    """Return the peak memory since the reset: torch's on a GPU, else the process's."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    unit = 1 if sys.platform == "darwin" else 1024  # bytes on macOS, KiB on Linux
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20
