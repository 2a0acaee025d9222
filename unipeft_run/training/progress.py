"""How far a training is: what a checkpoint keeps beside tensors, and what is measured."""

from __future__ import annotations

import ctypes
import gc
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

TIMED_STEPS = 1000


@dataclass
class Clock:
    """Wall time of a run over all its parts. `earlier`: up to the checkpoint taken up here."""

    earlier: float = 0.0
    began: float = field(default_factory=time.monotonic)

    def seconds(self) -> float:
        """The seconds so far."""
        return self.earlier + time.monotonic() - self.began


@dataclass
class Meter:
    """Sums over some updates."""

    steps: int = 0
    loss: float = 0.0
    tokens: int = 0
    samples: int = 0
    seconds: float = 0.0

    def add(self, loss: float, tokens: int, samples: int, seconds: float) -> None:
        """Count one update."""
        self.steps += 1
        self.loss += loss
        self.tokens += tokens
        self.samples += samples
        self.seconds += seconds

    def rates(self) -> dict[str, float]:
        """Mean loss and throughput, named as in train.jsonl and metrics.json."""
        seconds = max(self.seconds, 1e-9)
        return {
            "train/loss": self.loss / max(1, self.steps),
            "train/tokens_per_second": self.tokens / seconds,
            "train/samples_per_second": self.samples / seconds,
        }


@dataclass
class Progress:
    """Position in the data and in the schedule, the best evaluation so far, and the meters.

    `position`: batches taken in this epoch. `evaluated`: the step evaluated last. `misses`:
    evaluations since the best one. `window`: since the last record; `total`: since the start.
    """

    step: int = 0
    epoch: int = 0
    position: int = 0
    evaluated: int = 0
    best_step: int | None = None
    best_value: float | None = None
    misses: int = 0
    last_loss: float = 0.0
    window: Meter = field(default_factory=Meter)
    total: Meter = field(default_factory=Meter)
    step_seconds: list[float] = field(default_factory=list)

    @classmethod
    def of(cls, state: Mapping[str, Any]) -> Progress:
        """Undo `dataclasses.asdict`."""
        meters = {name: Meter(**state[name]) for name in ("window", "total")}
        return cls(**{**state, **meters})

    def count(self, loss: float, tokens: int, samples: int, seconds: float) -> None:
        """Count one update, which took `seconds` without evaluation."""
        self.step += 1
        for meter in (self.window, self.total):
            meter.add(loss, tokens, samples, seconds)
        self.step_seconds = [*self.step_seconds[1 - TIMED_STEPS :], seconds]

    def close_window(self) -> None:
        """Begin a new window; a record of the old one is being written."""
        self.last_loss = self.window.rates()["train/loss"]
        self.window = Meter()

    def judge(self, value: float, goal: str) -> bool:
        """Count an evaluation; whether it is the new best.

        A tie keeps the earlier one, and nan is never best.
        """
        self.evaluated = self.step
        best = self.best_value
        sign = 1 if goal == "max" else -1
        better = value == value if best is None else sign * value > sign * best
        if better:
            self.best_step, self.best_value, self.misses = self.step, value, 0
        else:
            self.misses += 1
        return better

    def metrics(self) -> dict[str, float]:
        """Loss since the last record, or of it where nothing came after; throughput of it all."""
        if not self.total.steps:
            return {}
        loss = self.window.rates()["train/loss"] if self.window.steps else self.last_loss
        return {
            **self.total.rates(),
            "train/loss": loss,
            "train/step_seconds": statistics.median(self.step_seconds),
            "train/seconds": self.total.seconds,
        }


def size(batches: Sequence[Mapping[str, Tensor]]) -> tuple[int, int]:
    """Tokens and samples of `batches`."""
    return sum(map(count_tokens, batches)), sum(len(batch["labels"]) for batch in batches)


def count_tokens(batch: Mapping[str, Tensor]) -> int:
    """Tokens in `batch` that are no padding: source and, where there is one, target."""
    tokens = int(batch["attention_mask"].sum())
    labels = batch["labels"]  # [B] for classes, [B, T] for text
    return tokens + int((labels != -100).sum()) if labels.dim() > 1 else tokens


def reset_peak_memory() -> None:
    """Forget what was held before, for a run that is not the first of its process."""
    gc.collect()  # a model in a cycle of references is held until then
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        for device in range(torch.cuda.device_count()):
            torch.cuda.reset_peak_memory_stats(device)
    with suppress(OSError, AttributeError):  # what glibc has freed and kept counts as held
        ctypes.CDLL(None).malloc_trim(0)
    with suppress(OSError):  # Linux, where it may be written
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory_mib(device: torch.device) -> float:
    """The most memory held since the reset: of torch on a GPU, else of the whole process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, KiB on Linux
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20
