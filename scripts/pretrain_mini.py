"""Pretrain a miniature backbone: `pretrain_mini.py bart_mini` (or mbart_mini).

About 16 million tokens: one and a half hours or more on one CPU core without bf16 (2,700 tokens/s
at best). On two cores run both miniatures side by side with OMP_NUM_THREADS=1.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from unipeft_run.miniatures.pretraining.miniatures import MINIATURES
from unipeft_run.miniatures.pretraining.recipe import pretrain
from unipeft_run.miniatures.pretraining.train import Schedule
from unipeft_run.miniatures.sources import PACKAGED

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("name", choices=MINIATURES)
parser.add_argument("--folder", type=Path, help="default: the packaged folder")
parser.add_argument("--steps", type=int, default=Schedule.steps)
parser.add_argument("--seed", type=int, default=Schedule.seed)
parser.add_argument("--start", type=Path, help="go on from the weights in this folder")
arguments = parser.parse_args()
folder = arguments.folder or PACKAGED / arguments.name
schedule = Schedule(steps=arguments.steps, seed=arguments.seed)
pretrain(arguments.name, folder, schedule, arguments.start)
