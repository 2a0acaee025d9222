"""What several processes do: the runs of `CASES`, one after the other, under torchrun."""

from __future__ import annotations

import sys
from pathlib import Path

from tiny_recipe import words

from unipeft_run import cli

DDP = {
    "mam": ("xsum", "method=mam"),
    "prefix": ("wmt16_en_ro", "method=prefix"),
    "lora": ("mnli", "method=lora_attn", "attn.form.input_dropout=0.0"),
    "bitfit": ("sst2", "method=bitfit", "head=trained"),
}
FSDP = {
    "shards": ("xsum", "method=mam", "parallel=fsdp"),
    "full": ("xsum", "method=full", "recipe.warmup_steps=0", "parallel=fsdp"),
    "encoder": ("sst2", "method=houlsby", "parallel=fsdp"),
}
CASES = {**DDP, **FSDP}


def run(case: str, inputs: Path, output: Path) -> int:
    """The exit code of one run; a large epsilon keeps Adam from blowing up rounding."""
    task, *more = CASES[case]
    still = "optim.eps=1e-3", "optim.lr=1e-2", "precision=fp32", f"output={output / case}"
    command = cli.Command("train", cli.train_job, cli.check_train, str, str)
    return cli.main(command, words(task, inputs, *more, *still))


if __name__ == "__main__":
    inputs, output = map(Path, sys.argv[1:])
    sys.exit(max(run(case, inputs, output) for case in CASES))
