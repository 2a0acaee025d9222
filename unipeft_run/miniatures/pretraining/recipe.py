"""From registry to model folder: the whole of one pretraining."""

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
from unipeft_run.miniatures.pretraining.card import card
from unipeft_run.miniatures.pretraining.corpus import Corpus
from unipeft_run.miniatures.pretraining.examples import Mixture
from unipeft_run.miniatures.pretraining.miniatures import MINIATURES
from unipeft_run.miniatures.pretraining.tokenizer import IDS
from unipeft_run.miniatures.pretraining.train import Pretraining, Schedule, held_out_batches
from unipeft_run.miniatures.sources import fetch
from unipeft_run.miniatures.sources.cache import read_jsonl, write_json

if TYPE_CHECKING:
    from transformers import PreTrainedModel

DROPOUT = 0.1  # of the finished model; pretraining sees most text once and uses none
HELD_OUT_EXAMPLES = 96


def validation_corpus() -> Corpus:
    """The tasks' validation documents, for the held-out loss."""
    documents = [row["document"] for row in read_jsonl(fetch("xsum") / "validation.jsonl")]
    rows = read_jsonl(fetch("wmt16_en_ro") / "validation.jsonl")
    pairs = [(row["translation"]["en"], row["translation"]["ro"]) for row in rows]
    english = {"Debian descriptions": documents, "manual pages": [en for en, _ in pairs]}
    return Corpus(english, {"manual pages": [ro for _, ro in pairs]}, pairs, documents)


def pretrain(name: str, folder: Path, schedule: Schedule, start: Path | None = None) -> None:
    """Train the miniature `name` into `folder`, a model folder for `from_pretrained`.

    `start`: a folder of the same miniature, whose tokenizer, weights and loss curve this stage
    goes on from, with a new optimiser and schedule.
    """
    random.seed(schedule.seed)
    np.random.seed(schedule.seed)
    torch.manual_seed(schedule.seed)
    miniature = MINIATURES[name]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "loss_curve.jsonl").unlink(missing_ok=True)
    corpus = corpora.cached()
    write_json(folder / "corpus.json", {"characters": corpus.sizes(), "pairs": len(corpus.pairs)})
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = miniature.model(dropout=0.0).to(device)
    if start is None:
        bpe.save(bpe.train(corpus), miniature.family, folder)
    else:
        take_up(model, start, folder)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    check_ids(tokenizer)
    save_configs(name, folder)
    held_out = Mixture(validation_corpus(), tokenizer, miniature.shares, seed=0)
    batches = held_out_batches(held_out, miniature, HELD_OUT_EXAMPLES)
    mixture = Mixture(corpus, tokenizer, miniature.shares, schedule.seed)
    Pretraining(model, miniature, schedule, folder).fit(mixture, batches)
    (folder / "README.md").write_text(card(miniature, schedule, folder), encoding="utf-8")


def take_up(model: PreTrainedModel, start: Path, folder: Path) -> None:
    """Give `model` the weights in `start`, and `folder` its tokenizer and loss curve."""
    for name in ("tokenizer.json", "tokenizer_config.json", "loss_curve.jsonl"):
        shutil.copy(start / name, folder)
    missing, unexpected = model.load_state_dict(load_file(start / "model.safetensors"), False)
    tied = {name for name in missing if name.endswith(("embed_tokens.weight", "lm_head.weight"))}
    assert not unexpected and tied == set(missing), (missing, unexpected)


def check_ids(tokenizer: Tokenizer) -> None:
    for token, number in IDS.items():
        assert tokenizer.token_to_id(token) == number, token


def save_configs(name: str, folder: Path) -> None:
    finished = MINIATURES[name].model(DROPOUT)
    finished.config.save_pretrained(folder)
    assert finished.generation_config is not None
    finished.generation_config.save_pretrained(folder)
