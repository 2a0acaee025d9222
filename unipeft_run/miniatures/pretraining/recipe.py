"""Pretrain a miniature: from the fetched corpus to a model folder."""

from __future__ import annotations

import random
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer

from unipeft_run.miniatures.pretraining import corpus as corpora
from unipeft_run.miniatures.pretraining import tokenizer as bpe
from unipeft_run.miniatures.pretraining.card import render_card
from unipeft_run.miniatures.pretraining.corpus import Corpus
from unipeft_run.miniatures.pretraining.examples import Mixture
from unipeft_run.miniatures.pretraining.miniatures import MINIATURES
from unipeft_run.miniatures.pretraining.tokenizer import IDS
from unipeft_run.miniatures.pretraining.train import Pretraining, Schedule, held_out_batches
from unipeft_run.miniatures.sources import fetch
from unipeft_run.miniatures.sources.rows import read_jsonl, write_json

if TYPE_CHECKING:
    from transformers import PreTrainedModel

DROPOUT = 0.1  # in the saved configuration; pretraining itself uses none
HELD_OUT_EXAMPLES = 96


def validation_corpus() -> Corpus:
    """Return the validation documents of the tasks, for the held-out loss."""
    documents = [row["document"] for row in read_jsonl(fetch("xsum") / "validation.jsonl")]
    rows = read_jsonl(fetch("wmt16_en_ro") / "validation.jsonl")
    pairs = [(row["translation"]["en"], row["translation"]["ro"]) for row in rows]
    english = {"Debian descriptions": documents, "manual pages": [en for en, _ in pairs]}
    return Corpus(english, {"manual pages": [ro for _, ro in pairs]}, pairs, documents)


def pretrain(name: str, folder: Path, schedule: Schedule, start: Path | None = None) -> None:
    """Train the miniature `name` and write a model folder for `from_pretrained`.

    `start` is a folder of the same miniature. This stage continues from its tokenizer, weights and
    loss curve, with a new optimiser and schedule.
    """
    random.seed(schedule.seed)
    np.random.seed(schedule.seed)
    torch.manual_seed(schedule.seed)
    miniature = MINIATURES[name]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "loss_curve.jsonl").unlink(missing_ok=True)
    corpus = corpora.load_corpus()
    write_json(folder / "corpus.json", {"characters": corpus.sizes(), "pairs": len(corpus.pairs)})
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = miniature.build_model(dropout=0.0).to(device)
    if start is None:
        bpe.save(bpe.train(corpus), miniature.family, folder)
    else:
        load_stage(model, start, folder)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    check_ids(tokenizer)
    save_configs(name, folder)
    held_out = Mixture(validation_corpus(), tokenizer, miniature.shares, seed=0)
    batches = held_out_batches(held_out, miniature, HELD_OUT_EXAMPLES)
    mixture = Mixture(corpus, tokenizer, miniature.shares, schedule.seed)
    Pretraining(model, miniature, schedule, folder).fit(mixture, batches)
    (folder / "README.md").write_text(render_card(miniature, schedule, folder), encoding="utf-8")


def load_stage(model: PreTrainedModel, start: Path, folder: Path) -> None:
    """Load the weights in `start`, and copy its tokenizer and loss curve to `folder`."""
    for name in ("tokenizer.json", "tokenizer_config.json", "loss_curve.jsonl"):
        shutil.copy(start / name, folder)
    missing, unexpected = model.load_state_dict(load_file(start / "model.safetensors"), False)
    tied = {name for name in missing if name.endswith(("embed_tokens.weight", "lm_head.weight"))}
    assert not unexpected and tied == set(missing), (missing, unexpected)


def check_ids(tokenizer: Tokenizer) -> None:
    """Assert that the special tokens have their fixed ids."""
    for token, number in IDS.items():
        assert tokenizer.token_to_id(token) == number, token


def save_configs(name: str, folder: Path) -> None:
    """Write config.json and generation_config.json."""
    finished = MINIATURES[name].build_model(DROPOUT)
    finished.config.save_pretrained(folder)
    assert finished.generation_config is not None
    finished.generation_config.save_pretrained(folder)
