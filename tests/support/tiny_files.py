"""Write local data of the sentiment task, and a local model with its tokenizer."""

from __future__ import annotations

import json
from pathlib import Path

import tiny_text

GOOD, BAD = ("good", "fine", "lovely", "bright"), ("bad", "poor", "dull", "grey")


def write_sentiment(folder: Path, examples: int = 16) -> Path:
    """Write three splits of `examples` sentences each, half of them in each class."""
    folder.mkdir(parents=True)
    for number, split in enumerate(("train", "validation", "test")):
        lines = []
        for i in range(examples):
            word = (BAD, GOOD)[i % 2][(i // 2 + number) % 4]
            sentence = f"a {word} film number {examples * number + i}"
            lines.append(json.dumps({"idx": i, "sentence": sentence, "label": i % 2}) + "\n")
        (folder / f"{split}.jsonl").write_text("".join(lines))
    return folder


def write_roberta(folder: Path) -> Path:
    """Write a randomly initialised RoBERTa with two layers of width 32."""
    tokenizer = tiny_text.bart_tokenizer()
    tokenizer.save_pretrained(folder)
    tiny_text.roberta(len(tokenizer), num_labels=2).save_pretrained(folder)
    return folder
