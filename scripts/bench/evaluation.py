"""Compare the `Evaluator` with a plain loop over transformers: one process, random weights.

    python scripts/bench/evaluation.py --shape mini
    python scripts/bench/evaluation.py --shape base --examples 32 --batch-size 4 --json eval.json

Both compute the loss, generate under the rules of transformers, decode the texts and score them, on
sources and targets whose lengths follow XSum. They run alternately; the shortest time of several
repeats counts. Random weights end no sentence early, so every target has the greatest length.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from beam import clock
from datasets import Dataset
from results import close, warm_up
from shapes import SHAPES, TYPES, build_model
from stream import draw_lengths
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import PreTrainedTokenizerFast

from unipeft_run.config.schema import DecodingConfig
from unipeft_run.data.batching import Collator
from unipeft_run.data.tasks.xsum import XSum
from unipeft_run.evaluation.evaluator import Evaluator
from unipeft_run.training.losses import SequenceLoss
from unipeft_run.training.precision import choose_kernels

SPECIAL = ["<s>", "<pad>", "</s>", "<unk>"]


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--shape", choices=SHAPES, default="mini")
    parser.add_argument("--type", choices=TYPES, default="fp32")
    parser.add_argument("--examples", type=int, default=64)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--beams", type=int, default=6)
    parser.add_argument("--new-tokens", type=int, default=60)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--json", type=Path, help="write the results to this file")
    return parser.parse_args()


def build_tokenizer(vocabulary: int) -> PreTrainedTokenizerFast:
    """Build a tokenizer with one word per token."""
    words = SPECIAL + [f"w{number}" for number in range(len(SPECIAL), vocabulary)]
    model = WordLevel({word: number for number, word in enumerate(words)}, unk_token="<unk>")
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = Whitespace()
    names = ("bos_token", "pad_token", "eos_token", "unk_token")
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, **dict(zip(names, SPECIAL, strict=True))
    )


def build_data(options: argparse.Namespace, tokenizer: Any) -> tuple[Dataset, Dataset]:
    """Return the examples as text and encoded."""
    random = np.random.default_rng(1)
    rows = [
        [[0, *random.integers(4, len(tokenizer), length - 2).tolist(), 2] for length in lengths]
        for lengths in draw_lengths(options.examples)
    ]
    texts = [tokenizer.batch_decode(row, skip_special_tokens=True) for row in rows]
    ids = [str(number) for number in range(options.examples)]
    raw = Dataset.from_dict({"id": ids, "document": texts[0], "summary": texts[1]})
    return raw, Dataset.from_dict({"input_ids": rows[0], "labels": rows[1]})


class Comparison:
    """The model, the data and both loops. Each loop returns its metrics and predictions."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.model = build_model(options.shape, TYPES[options.type], options.device)
        self.tokenizer = build_tokenizer(self.model.config.vocab_size)
        self.raw, self.encoded = build_data(options, self.tokenizer)
        self.task = XSum(
            name="xsum", max_source_length=512, max_target_length=60, eval_target_length=60
        )
        self.collator = Collator(1, 2)
        self.decoding = DecodingConfig(
            num_beams=options.beams,
            max_length=options.new_tokens + 1,
            min_length=10,
            no_repeat_ngram_size=3,
            early_stopping=True,
            rules="transformers",
        )
        self.evaluator = Evaluator(
            self.task,
            {"test": self.raw},
            {"test": self.encoded},
            self.tokenizer,
            collator=self.collator,
            loss_fn=SequenceLoss(0.0),
            batch_size=options.batch_size,
            decoding=self.decoding,
        )

    def evaluate_with_unipeft(self) -> tuple[dict[str, float], list[str]]:
        choose_kernels()
        result = self.evaluator(self.model, "test")
        return result.metrics, [row["prediction"] for row in result.rows]

    @torch.no_grad()
    def evaluate_with_transformers(self) -> tuple[dict[str, float], list[str]]:
        torch.backends.cuda.enable_cudnn_sdp(True)  # torch's own choice
        loss, count, predictions = 0.0, 0, list[str]()
        for first in range(0, len(self.encoded), self.options.batch_size):
            last = min(first + self.options.batch_size, len(self.encoded))
            batch = self.collator([self.encoded[index] for index in range(first, last)])
            batch = {name: tensor.to(self.options.device) for name, tensor in batch.items()}
            targets = int((batch["labels"] != -100).sum())
            loss += self.model(**batch).loss.item() * targets
            count += targets
            predictions += self.generate_with_transformers(batch)
        scores = self.task.score(predictions, self.task.references(self.raw))
        return {"loss": loss / count, **scores.metrics}, predictions

    def generate_with_transformers(self, batch: Any) -> list[str]:
        tokens = self.model.generate(
            input_ids=batch["input_ids"],
            attention_mask=batch["attention_mask"],
            num_beams=self.options.beams,
            max_length=self.options.new_tokens + 1,
            min_length=10,
            no_repeat_ngram_size=3,
            early_stopping=True,
            forced_eos_token_id=2,
            do_sample=False,
        )
        return self.tokenizer.batch_decode(tokens, skip_special_tokens=True)


def measure(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Return a row per loop: examples per second and the ratio to transformers."""
    comparison = Comparison(options)
    loops: dict[str, Callable[[], Any]] = {
        "transformers": comparison.evaluate_with_transformers,
        "unipeft": comparison.evaluate_with_unipeft,
    }
    warm_up(options.device)
    comparison.task.score(["a"], ["a"])  # imports the metrics
    seconds: dict[str, float] = {}
    results: dict[str, Any] = {}
    for _ in range(options.repeats):  # alternately, so that both see the same machine load
        for name, loop in loops.items():
            start = clock()
            results[name] = loop()
            spent = clock() - start
            seconds[name] = min(spent, seconds.get(name, spent))
    texts = [texts for _, texts in results.values()]
    equal = sum(a == b for a, b in zip(*texts, strict=True)) / options.examples
    return [
        {
            "loop": name,
            "examples_per_second": options.examples / seconds[name],
            "ratio": seconds["transformers"] / seconds[name],
            "loss": results[name][0]["loss"],
            "same_texts": equal,
        }
        for name in loops
    ]


def main() -> None:
    options = parse_arguments()
    rows = measure(options)
    print("loop          examples/s  ratio    loss  same texts")
    for row in rows:
        print(
            f"{row['loop']:13} {row['examples_per_second']:10.2f} {row['ratio']:6.2f}"
            f" {row['loss']:7.4f} {row['same_texts']:10.0%}"
        )
    close(options, rows)


if __name__ == "__main__":
    main()
