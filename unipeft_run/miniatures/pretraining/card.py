"""Write the model card of a pretrained miniature."""

from __future__ import annotations

import json
from pathlib import Path

from unipeft_run.miniatures.pretraining.miniatures import Miniature
from unipeft_run.miniatures.pretraining.train import Schedule
from unipeft_run.miniatures.sources.rows import read_jsonl

LICENCES = """\
| data | licence |
|---|---|
| Debian package descriptions | freely redistributable with Debian, each under its package's terms |
| WordNet glosses | WordNet licence |
| SNLI sentences | CC BY-SA 4.0 |
| manual pages, English and Romanian | each page's own; translations GPL-3+ |
| program messages, Romanian | each program's own (GPL, LGPL, MPL) |
"""


def render_card(miniature: Miniature, schedule: Schedule, folder: Path) -> str:
    """Render the card in Markdown: purpose, training, data and licences, held-out loss."""
    corpus = json.loads((folder / "corpus.json").read_text(encoding="utf-8"))
    curve = read_jsonl(folder / "loss_curve.jsonl")
    shares = ", ".join(f"{kind} {share:.0%}" for kind, share in miniature.shares.items())
    characters = [f"| {name} | {n:,} |" for name, n in corpus["characters"].items()]
    losses = [f"| {e['step']} | {e['tokens']:,} | {e['held_out/infilling_loss']} |" for e in curve]
    return "\n".join(
        [
            f"# {miniature.name}\n",
            f"A small {miniature.family} for comparing fine-tuning methods on a CPU. Its scores "
            "say nothing about the full-size model's.\n",
            f"Trained for {curve[-1]['step']} steps in {curve[-1]['stage']} stage(s), each with "
            f"its own warm-up and cosine decay. Last stage: {schedule.steps} steps of about "
            f"{schedule.tokens} positions at most, AdamW, learning rate {schedule.lr:g}, seed "
            f"{schedule.seed}. Training examples: {shares}.\n",
            "The validation and test splits of the miniature tasks were not in the training data, "
            "nor were the synopses of Debian descriptions as targets.\n",
            LICENCES,
            *("| source | characters |", "|---|---|", *characters, ""),
            *("| step | positions | held-out infilling loss |", "|---|---|---|", *losses, ""),
        ]
    )
