"""The help texts of unipeft train and unipeft eval, shorter than Hydra's own page."""

from __future__ import annotations

import textwrap

from unipeft_run.config.messages import options, own_options
from unipeft_run.config.schema import AXES, SLOTS

EXAMPLES = """\
  unipeft train task=sst2 method=mam scale=mini                     minutes on a laptop's CPU
  unipeft train task=xsum method=mam                                the paper's run
  unipeft train task=xsum method=mam composition@ffn=add ffn.bottleneck=200 seed=2
  unipeft train -m task=sst2 method=mam,lora_attn,bitfit seed=1,2 scale=mini
  unipeft train task=mnli method=mam --cfg job                      print the configuration"""

EVALUATION_HELP = """\
usage: unipeft eval RUN [RUN ...] [--split SPLIT] [key=value ...]
  Evaluate the stored deltas of runs, named by folder or by the start of their id.

  --split SPLIT                   test (the default) or validation
  --format FORMAT                 text (the default) or json
  --allow PREFIX                  trust the classes in a run whose names start with PREFIX
  data=FILE                       evaluate on this file instead: .jsonl, .csv, .tsv or .parquet
                                  with the columns of the run's task, references included
  task.path=DIR                   evaluate on the data in this folder instead
  backbone.path=DIR               the backbone's current folder, for a run copied from elsewhere
  run=DIR allow=[PREFIX]          RUN and --allow, written as overrides
  --config-dir DIR                add the YAML groups and classes of DIR: docs/extending.md

  unipeft eval ab12cd34
  unipeft eval outputs/sst2/mam/ab12cd34 --split validation
  unipeft eval ab12cd34 ef56ab78  several runs, with a table"""


def evaluate_help() -> str:
    """Return the help text of unipeft eval."""
    return EVALUATION_HELP


def train_help() -> str:
    """Return the help text of unipeft train: usage, groups with their choices, and examples."""
    library = len(options("method")) - len(own_options("method"))
    methods = [*own_options("method"), f"peft/NAME ({library} more: docs/peft_methods.md)"]
    keys = [(f"{group}=", group) for group in ("scale", "backbone", "optim", "debug")]
    keys += [(f"{axis}@SLOT=", axis) for axis in AXES]
    lines = [_entry("task=", options("task")), _entry("method=", methods)]
    lines += [_entry(key, options(group)) for key, group in keys]
    tables = [*options("experiment"), "and each with one of its tasks, as in table6_xsum"]
    lines.append(_entry("-m experiment=", tables))
    lines.append(_entry("-m hparams_search=", options("hparams_search")))
    return "\n".join(
        [
            "usage: unipeft train task=TASK method=METHOD [key=value ...] [-m] [--cfg job]",
            "  Train and test a point of the design space,",
            "      h <- composition(h, form(insertion(x, h))).",
            "  Every key of --cfg job can be set; -m runs the grid of comma-separated values.",
            "",
            *lines,
            f"  SLOT: {', '.join(SLOTS)}; their sizes: ffn.bottleneck=, ffn.scale=, ...",
            "",
            "often set: seed= limit.train= recipe.max_steps= optim.lr= precision= task.path=",
            "           backbone.path= output= force=true tracking.wandb.mode=offline",
            "",
            "own data (docs/own_data.md): CSV, TSV, JSON Lines, Parquet, a folder or a hub name",
            "  task=text2text data=pairs.csv source=de target=en metric=chrf",
            "  task=text_classification data=reviews.csv text=review label=stars",
            "  task=causal_lm data=faq.csv prompt=question response=answer",
            "",
            "examples:",
            EXAMPLES,
            "",
            "--help KEY: what a key or section accepts, as in unipeft train --help recipe",
            "--config-dir DIR adds your own groups: docs/extending.md; "
            "--hydra-help lists Hydra's own flags",
            "exit: 0 done, 1 a run failed, 2 the configuration is wrong",
        ]
    )


def _entry(key: str, names: list[str]) -> str:
    return textwrap.fill(
        ", ".join(names), 100, initial_indent=f"  {key:<21}", subsequent_indent=" " * 23
    )
