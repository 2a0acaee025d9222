"""The model card of a pretrained miniature."""

from __future__ import annotations

import json
from pathlib import Path

from unipeft_run.miniatures.pretraining.miniatures import Miniature
from unipeft_run.miniatures.pretraining.train import Schedule
from unipeft_run.miniatures.sources.cache import read_jsonl

LICENCES = """\
| data | licence |
|---|---|
| Debian package descriptions | freely redistributable with Debian, each under its package's terms |
| WordNet glosses | WordNet licence |
| SNLI sentences | CC BY-SA 4.0 |
| manual pages, English and Romanian | each page's own; translations GPL-3+ |
| program messages, Romanian | each program's own (GPL, LGPL, MPL) |
"""


def card(miniature: Miniature, schedule: Schedule, folder: Path) -> str:
    """What it is, what it saw, what it did not, and how well it restores unseen text."""
    corpus = json.loads((folder / "corpus.json").read_text(encoding="utf-8"))
    curve = read_jsonl(folder / "loss_curve.jsonl")
    shares = ", ".join(f"{kind} {share:.0%}" for kind, share in miniature.shares.items())
    characters = [f"| {name} | {n:,} |" for name, n in corpus["characters"].items()]
    losses = [f"| {e['step']} | {e['tokens']:,} | {e['held_out/infilling_loss']} |" for e in curve]
    return "\n".join(
        [
            f"# {miniature.name}\n",
            f"A miniature {miniature.family} for trials on a CPU: only for comparing methods.\n",
            f"{curve[-1]['step']} steps in {curve[-1]['stage']} stage(s), each with its warm-up "
            f"and cosine; the last: {schedule.steps} steps of at most about {schedule.tokens} "
            f"positions, seed {schedule.seed}, AdamW, learning rate {schedule.lr:g}; examples: "
            f"{shares}.\n",
            "Never seen in any form: the validation and test splits of the miniature tasks, and "
            "the synopses of Debian descriptions as targets.\n",
            LICENCES,
            *("| source | characters |", "|---|---|", *characters, ""),
            *("| step | positions | held-out infilling loss |", "|---|---|---|", *losses, ""),
        ]
    )
