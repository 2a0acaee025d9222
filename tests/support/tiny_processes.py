"""Train the runs of `CASES` in turn, on several processes under torchrun."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import torch
from tiny_recipe import make_overrides

from unipeft_run import cli
from unipeft_run.training.distributed import processes
from unipeft_run.training.interrupts import Interrupts

DDP = {
    "mam": ("xsum", "method=mam"),
    "prefix": ("wmt16_en_ro", "method=prefix"),
    "lora": ("mnli", "method=lora_attn", "attn.form.input_dropout=0.0"),
    "bitfit": ("sst2", "method=bitfit", "head=trained"),
    "targets": ("xsum", "method=mam", "recipe.accumulation_weighting=targets"),
}
FSDP = {
    "shards": ("xsum", "method=mam", "parallel=fsdp"),
    "full": ("xsum", "method=full", "recipe.warmup_steps=0", "parallel=fsdp"),
    "encoder": ("sst2", "method=houlsby", "parallel=fsdp"),
}
CASES = {**DDP, **FSDP}


def overrides_of(case: str, inputs: Path, output: Path) -> list[str]:
    """Return the command line of `case`; a large epsilon keeps Adam from amplifying rounding."""
    task, *more = CASES[case]
    still = "optim.eps=1e-3", "optim.lr=1e-2", "precision=fp32", f"output={output / case}"
    return make_overrides(task, inputs, *more, *still)


def run(case: str, inputs: Path, output: Path) -> int:
    """Train one case; return the exit code."""
    return call(overrides_of(case, inputs, output))


def call(arguments: list[str]) -> int:
    """Call unipeft-train; return the exit code."""
    return cli.main(cli.TRAIN, arguments)


def with_dropout(inputs: Path, output: Path) -> int:
    """Train with dropout, which each process draws for itself."""
    drawn = "++backbone.config.hidden_dropout_prob=0.3", "recipe.checkpoint_every=1"
    return call(make_overrides("sst2", inputs, "method=lora_attn", f"output={output}", *drawn))


def stopped_and_resumed(inputs: Path, output: Path) -> int:
    """Train with dropout, but stop after the second update and resume."""
    calls, check = [], Interrupts.check

    def stop_at_the_second(self: Interrupts, device: torch.device) -> None:
        calls.append(device)
        if len(calls) == 2 and processes.rank() == 1:  # one process gets a signal, all stop
            self._received = signal.SIGTERM
        check(self, device)

    Interrupts.check = stop_at_the_second  # type: ignore[method-assign]
    assert with_dropout(inputs, output) == 128 + signal.SIGTERM
    Interrupts.check = check  # type: ignore[method-assign]
    assert len(calls) == 2
    return with_dropout(inputs, output)


if __name__ == "__main__":
    inputs, output = map(Path, sys.argv[1:])
    codes = [run(case, inputs, output) for case in CASES]
    codes.append(with_dropout(inputs, output / "uninterrupted"))
    codes.append(stopped_and_resumed(inputs, output / "resumed"))
    sys.exit(max(codes))
