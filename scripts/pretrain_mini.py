"""Pretrain a miniature backbone: `pretrain_mini.py bart_mini` (or another of the names).

bart_mini and mbart_mini train on about 16 million tokens: at least an hour and a half on one CPU
core without bf16 (at most 2,700 tokens/s). The others take minutes to three quarters of an hour on
one core. On two cores, train two at once with OMP_NUM_THREADS=1. vit_mini starts from clip_mini.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from unipeft_run.miniatures.pretraining.train import Schedule
from unipeft_run.miniatures.sources import PACKAGED

SCHEDULES = {
    "bart_mini": Schedule(),
    "mbart_mini": Schedule(),
    "llama_mini": Schedule(steps=1500, tokens=2048, warmup=50, evaluate_every=50),
    "clip_mini": Schedule(steps=1000, tokens=128, warmup=30, evaluate_every=50),
    "vit_mini": Schedule(steps=100, tokens=128, warmup=10, evaluate_every=25),
}

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("name", choices=SCHEDULES)
parser.add_argument("--folder", type=Path, help="output folder; default: the packaged one")
parser.add_argument("--steps", type=int, help="default: depends on the miniature")
parser.add_argument("--seed", type=int, default=Schedule.seed)
parser.add_argument("--start", type=Path, help="continue from the weights in this folder")
arguments = parser.parse_args()
name, start = arguments.name, arguments.start
folder = arguments.folder or PACKAGED / name
if start is not None and start.resolve() == folder.resolve():
    parser.error("--start is the output folder, where this stage replaces files: give --folder")
schedule = replace(SCHEDULES[name], seed=arguments.seed)
schedule = replace(schedule, steps=arguments.steps or schedule.steps)
if name == "llama_mini":
    from unipeft_run.miniatures.pretraining import language_model

    language_model.pretrain(folder, schedule, start)
elif name == "clip_mini":
    from unipeft_run.miniatures.pretraining import contrastive

    contrastive.pretrain_clip(folder, schedule, start)
elif name == "vit_mini":
    from unipeft_run.miniatures.pretraining import contrastive

    contrastive.pretrain_vit(start or PACKAGED / "clip_mini", folder, schedule)
else:
    from unipeft_run.miniatures.pretraining.recipe import pretrain

    pretrain(name, folder, schedule, start)
