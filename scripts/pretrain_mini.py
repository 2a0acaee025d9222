"""Pretrain a miniature backbone: `pretrain_mini.py bart_mini` (or mbart_mini).

It trains on about 16 million tokens: at least an hour and a half on one CPU core without bf16 (at
most 2,700 tokens/s). On two cores, train both miniatures at once with OMP_NUM_THREADS=1.
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
parser.add_argument("--folder", type=Path, help="output folder; default: the packaged one")
parser.add_argument("--steps", type=int, default=Schedule.steps)
parser.add_argument("--seed", type=int, default=Schedule.seed)
parser.add_argument("--start", type=Path, help="continue from the weights in this folder")
arguments = parser.parse_args()
folder = arguments.folder or PACKAGED / arguments.name
schedule = Schedule(steps=arguments.steps, seed=arguments.seed)
pretrain(arguments.name, folder, schedule, arguments.start)
