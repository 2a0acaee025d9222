"""Run each task's recipe end to end in seconds: local data, a small backbone, few updates."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import tiny_text
from transformers import BartConfig, MBartConfig, RobertaConfig

from unipeft_run.backbones.families import FAMILIES

BACKBONES = {"sst2": "roberta", "mnli": "roberta", "xsum": "bart", "wmt16_en_ro": "mbart"}
CONFIGS: dict[str, Any] = {"roberta": RobertaConfig, "bart": BartConfig, "mbart": MBartConfig}
UPDATES = 4
LONGEST = 600  # positions, enough for the lengths of the recipes
EXAMPLES = 13  # not a multiple of the batch size or of two processes
SHORT = (
    *(f"recipe.max_steps={UPDATES}", "recipe.eval_every=2", "recipe.log_every=1"),
    *("recipe.accumulation=2", "evaluation.batch_size=2", "tracking.wandb.mode=disabled"),
)
NO_DROPOUT = {
    "roberta": ("hidden_dropout_prob", "attention_probs_dropout_prob"),
    "bart": ("dropout", "attention_dropout", "activation_dropout"),
    "mbart": ("dropout", "attention_dropout", "activation_dropout"),
}
WORDS = "the cat sat on a mat and dogs show weather in every terminal package".split()  # noqa: SIM905


def make_overrides(task: str, folder: Path, *more: str) -> list[str]:
    """Return the command line of a run of `task` on the files that `write` wrote to `folder`."""
    family = BACKBONES[task]
    batch = "recipe.max_tokens=60" if task == "wmt16_en_ro" else "recipe.batch_size=3"
    short = () if family == "roberta" else ("evaluation.decoding.max_length=12",)
    still = [f"++backbone.config.{name}=0.0" for name in NO_DROPOUT[family]]
    paths = f"task.path={folder / task}", f"backbone.path={folder / family}"
    return [f"task={task}", *paths, "backbone.weights=random", batch, *SHORT, *short, *still, *more]


def write(folder: Path) -> None:
    """Write data of every task, and a small backbone of every family, without weights."""
    for task in BACKBONES:
        (folder / task).mkdir()
        for offset, split in enumerate(("train", "validation", "test")):
            rows = (json.dumps(row(task, 5 * offset + i)) for i in range(EXAMPLES))
            (folder / task / f"{split}.jsonl").write_text("\n".join(rows) + "\n")
    for family, config in (
        ("roberta", RobertaConfig),
        ("bart", BartConfig),
        ("mbart", MBartConfig),
    ):
        codes = tiny_text.CODES if family == "mbart" else None
        tokenizer = tiny_text.bart_tokenizer(codes)
        tokenizer.save_pretrained(folder / family)
        settings = tiny_text.ENCODER if family == "roberta" else tiny_text.SEQ2SEQ
        size: dict[str, Any] = {"vocab_size": len(tokenizer), "max_position_embeddings": LONGEST}
        config(**{**settings, **size, "architectures": [FAMILIES[family].model]}).save_pretrained(
            folder / family
        )


def row(task: str, number: int) -> dict[str, Any]:
    long = " ".join(WORDS[number % 5 : number % 5 + 4 + number % 7])
    short = " ".join(WORDS[number % 7 : number % 7 + 3 + number % 3])
    return {
        "sst2": {"sentence": long, "label": number % 2, "idx": number},
        "mnli": {"premise": long, "hypothesis": short, "label": number % 3, "idx": number},
        "xsum": {"document": long, "summary": short, "id": str(number)},
        "wmt16_en_ro": {"translation": {"en": long, "ro": short}},
    }[task]
