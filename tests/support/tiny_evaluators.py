"""Evaluators of tiny models on nine examples of classes or texts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import tiny_text

from unipeft_run.config.schema import DecodingConfig
from unipeft_run.data.batching import Collator
from unipeft_run.data.tasks.sst2 import SST2
from unipeft_run.data.tasks.xsum import XSum
from unipeft_run.evaluation.evaluator import Evaluator
from unipeft_run.training.losses import ClassificationLoss, SequenceLoss

SENTENCE = "the cat sat on a mat and dogs show weather in every terminal package"
WORDS = SENTENCE.split()
SOURCES = [" ".join(WORDS[i : i + 3 + i % 5]) for i in range(9)]
TARGETS = [" ".join(WORDS[i : i + 1 + i % 4]) for i in range(9)]
PAIRS = list(zip(SOURCES, TARGETS, strict=True))
BEAMS = DecodingConfig(num_beams=3, max_length=12, min_length=4, no_repeat_ngram_size=2)


def write(folder: Path, rows: list[dict[str, Any]]) -> Path:
    for split in ("train", "validation", "test"):
        (folder / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder


def classifier(folder: Path, **settings: Any) -> tuple[Evaluator, Any]:
    rows = [{"sentence": s, "label": i % 2, "idx": 100 + i} for i, s in enumerate(SOURCES)]
    task = SST2(name="sst2", path=write(folder, rows), max_source_length=32)
    return assemble(task, tiny_text.bart_tokenizer(), None, ClassificationLoss(), **settings)


def summariser(folder: Path, **settings: Any) -> tuple[Evaluator, Any]:
    rows = [{"document": s, "summary": t} for s, t in zip(SOURCES, TARGETS, strict=True)]
    lengths = {"max_source_length": 32, "max_target_length": 12, "eval_target_length": 5}
    task = XSum(name="xsum", path=write(folder, rows), **lengths)
    settings = {"decoding": BEAMS, **settings}
    return assemble(task, tiny_text.bart_tokenizer(), 2, SequenceLoss(0.1), **settings)


def assemble(
    task: Any, tokenizer: Any, start: Any, loss_fn: Any, **settings: Any
) -> tuple[Evaluator, Any]:
    splits = task.load()
    evaluator = Evaluator(
        task,
        splits,
        task.encode(splits, tokenizer),
        tokenizer,
        collator=Collator(tokenizer.pad_token_id, start),
        loss_fn=loss_fn,
        **{"batch_size": 4, **settings},
    )
    size = len(tokenizer)
    return evaluator, tiny_text.bart(size) if start else tiny_text.roberta(size, 2)
