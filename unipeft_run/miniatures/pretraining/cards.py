"""Write the model cards of llama_mini, clip_mini and vit_mini."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from unipeft_run.miniatures.pretraining.llama import SHARES
from unipeft_run.miniatures.pretraining.train import Schedule
from unipeft_run.miniatures.sources.emoji import EMOJIONE, NOTO, Artist
from unipeft_run.miniatures.sources.rows import read_jsonl

TEXT_LICENCES = """\
| data | licence |
|---|---|
| WordNet | WordNet licence |
| Debian package descriptions | freely redistributable with Debian, each under its package's terms |
| SNLI sentences | CC BY-SA 4.0 |
| manual pages, English | each page's own |
| sums and word problems | generated |
"""
PURPOSE = """\
# {name}

A small {family} for comparing fine-tuning methods on a CPU. Its scores say nothing about a
full-size model's.
"""
LLAMA = """\
Trained for {step} steps in {stage} stage(s) on {tokens:,} tokens. Last stage: {steps} steps of
{batch} tokens, warm-up and cosine decay, Muon for the layers' matrices and AdamW for the rest, seed
{seed}. The tokenizer is that of bart_mini with single digits.

Shares of the tokens: {shares}.

WordNet's text is that of the training synsets: glosses, examples, topics, parts of speech, and
relations between training synsets as sentences. Nothing of a synset in the validation and test
splits of `commonsense` is in it. The token embeddings, however, start from those of bart_mini,
which was trained on all glosses.
Of the word problems, only the training split is in the text, and no plain sum that occurs in a
held-out problem. Multiple-choice questions are not.
"""
CLIP = """\
Trained with CLIP's contrastive loss on emoji pictures and their names for {step} steps of {batch}
pairs in {stage} stage(s), each with its own warm-up and cosine decay: Muon for the layers' matrices
and AdamW for the rest, seed {seed} in the last one. Pictures are moved, zoomed, turned, recoloured
and partly covered at random, and names are placed at random positions. The tokenizer is that of
bart_mini; `<end>` ends a text. The token embeddings start from the main components of bart_mini's.

The pictures are those of two artists, Noto Emoji and EmojiOne. Tasks are tested on the pictures of
a third, Twemoji. None of those was in the training data, but the names of the emoji were.
"""
VIT = """\
The vision tower of clip_mini in ViT's format. CLIP normalises the embedded patches, a ViT does not:
centring and mean scale are folded into the embeddings. Then it was trained for {step} steps of
{batch} pairs with the contrastive loss, while the text tower of clip_mini stayed as it was (seed
{seed}). Pictures and random changes are those of clip_mini: no picture by Twemoji was used.
"""


def render_llama(folder: Path, schedule: Schedule) -> str:
    """Render the card of llama_mini in Markdown."""
    corpus = json.loads((folder / "corpus.json").read_text(encoding="utf-8"))
    curve = read_jsonl(folder / "loss_curve.jsonl")
    shares = ", ".join(f"{name} {share:.0%}" for name, share in SHARES.items())
    settings = {"steps": schedule.steps, "batch": schedule.tokens, "seed": schedule.seed}
    characters = {name: f"{count:,}" for name, count in corpus["characters"].items()}
    return "\n".join(
        [
            PURPOSE.format(name="llama_mini", family="Llama"),
            LLAMA.format(**curve[-1], **settings, shares=shares),
            TEXT_LICENCES,
            *_table(("source", "characters"), characters.items()),
            *_curve(curve, ("step", "tokens", "held_out/WordNet", "held_out/sums")),
        ]
    )


def render_clip(name: str, folder: Path, schedule: Schedule) -> str:
    """Render the card of clip_mini or vit_mini in Markdown."""
    curve = read_jsonl(folder / "loss_curve.jsonl")
    family, text = {"clip_mini": ("CLIP", CLIP), "vit_mini": ("ViT", VIT)}[name]
    artists = [_describe(artist) for artist in (NOTO, EMOJIONE)]
    return "\n".join(
        [
            PURPOSE.format(name=name, family=family),
            text.format(**curve[-1], batch=schedule.tokens, seed=schedule.seed),
            *_table(("pictures", "version", "licence"), artists),
            "Held out: pictures by Twemoji whose nearest name among all 1,911 is their own (%).\n",
            *_curve(curve, ("step", "pictures", "train/loss", "held_out/recall@1")),
        ]
    )


def _describe(artist: Artist) -> tuple[str, str, str]:
    return f"{artist.name}, npm {artist.release.name}", artist.release.version, artist.licence


def _curve(curve: list[dict[str, Any]], columns: tuple[str, ...]) -> list[str]:
    return _table(columns, ([_show(entry.get(c)) for c in columns] for entry in curve))


def _table(head: tuple[str, ...], rows: Any) -> list[str]:
    lines = [head, ["---"] * len(head), *rows]
    return [*(f"| {' | '.join(map(str, cells))} |" for cells in lines), ""]


def _show(value: float | None) -> str:
    return "" if value is None else f"{value:,}"
