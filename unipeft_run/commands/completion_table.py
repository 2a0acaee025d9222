"""The options of every command with their values, and its other words, for completion.

A copy of what the parsers accept, because importing them is too slow for a completion; the tests
compare the two. A key such as "report plan" is a command with its first word.
"""

from __future__ import annotations

from collections.abc import Mapping

Values = tuple[str, ...]
Options = Mapping[str, Values]  # flag -> its values; () if it has none, or any text
FREE: Values = ()
EXPERIMENTS: Values = ("<experiments>",)  # markers of values that are looked up
FAMILIES: Values = ("<families>",)
TASKS: Values = ("<tasks>",)

SLOTS = ("attn", "ffn", "input", "matrix")
AXES = ("form", "insertion", "representation", "composition")
EVERYWHERE: Options = dict.fromkeys(("--config-dir", "--help", "--version"), FREE)

_PLAIN = ("text", "json")
_TABLES = ("text", "markdown", "latex", "csv")
_HYDRA: Options = {
    "--multirun": FREE,
    "--cfg": ("job", "hydra", "all"),
    "--resolve": FREE,
    "--info": ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath"),
    "--hydra-help": FREE,
}
_EXPORT: Options = {
    "--out": FREE,
    "--format": ("auto", "merged", "delta", "peft"),
    "--force": FREE,
    "--allow": FREE,
}
OPTIONS: Mapping[str, Options] = {
    "train": _HYDRA,
    "eval": {**_HYDRA, "--split": ("validation", "test"), "--format": _PLAIN, "--allow": FREE},
    "predict": {
        "--out": FREE,
        "--format": ("csv", "jsonl"),
        "--column": FREE,
        "--force": FREE,
        "--allow": FREE,
    },
    "export": _EXPORT,
    "export-peft": _EXPORT,
    "runs": {
        "--stale": FREE,
        "--retry-failed": FREE,
        "--format": _PLAIN,
        "--json": FREE,
        "--to": ("wandb", "tensorboard"),
        "--mode": ("online", "offline"),
        "--again": FREE,
        "--allow": FREE,
    },
    "report": {
        "--experiment": EXPERIMENTS,
        "--html": FREE,
        "--predictions": FREE,
        "--columns": FREE,
        "--format": _TABLES,
    },
    "report compare": {"--in": FREE, "--metric": FREE, "--format": _TABLES},
    "report plan": {"--format": _TABLES},
    "report curves": {"--out": FREE},
    "report shares": {"--out": FREE},
    "params": {"--format": _PLAIN, "--allow": FREE},
    "space": {},
    "score": {"--task": TASKS, "--predictions": FREE, "--references": FREE, "--format": _PLAIN},
    "import-official": {"--options": FREE, "--out": FREE, "--config": FREE, "--force": FREE},
    "new": {
        "--dir": FREE,
        "--type": ("classification", "seq2seq", "causal"),
        "--path": FREE,
        "--hub": FREE,
        "--family": FAMILIES,
    },
    "completion": {"--install": FREE},
}
WORDS: Mapping[str, Values] = {  # the words that may follow
    "space": ("list", "count", "explain", "solve"),
    "space list": SLOTS,
    "runs": ("push",),
    "report": ("compare", "plan", "curves", "shares"),
    "report plan": EXPERIMENTS,
    "new": ("form", "composition", "method", "task", "backbone"),
    "completion": ("bash", "zsh", "fish"),
}
RUNS = (  # commands that take runs
    *("eval", "predict", "export", "export-peft", "runs", "runs push"),
    *("report", "report compare", "report curves", "report shares", "params"),
)
CONFIGURED = (  # commands that take the keys of a configuration
    *("train", "params", "space explain", "space solve", "report plan", "import-official"),
)
_FILTERS: Values = ("task", "method", "seed", "scale")
KEYS: Mapping[str, Values] = {  # further keys
    "train": ("hydra/launcher", "hydra/sweeper", "hydra/sweeper/sampler"),
    "space solve": ("budget",),
    "runs": (*_FILTERS, "state"),
    **dict.fromkeys(("report", "report curves", "report shares"), _FILTERS),
    "score": ("task", "predictions", "references", "format"),
}
CHOICES: Mapping[str, Values] = {  # values of keys that are neither groups nor in the schema
    "hydra/launcher": ("basic", "joblib", "ray", "submitit_slurm"),
    "hydra/sweeper": ("basic", "optuna"),
    "hydra/sweeper/sampler": ("tpe", "random", "cmaes", "nsgaii"),
    "split": ("validation", "test"),
    "state": ("running", "interrupted", "stale", "done", "failed", "diverged", "damaged"),
}
