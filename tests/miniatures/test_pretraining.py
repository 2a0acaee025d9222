"""Pretraining of the miniatures: noising, special tokens, batch shapes, loadable folders."""

from __future__ import annotations

import itertools
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer

from unipeft_run.miniatures.pretraining import catalogs, recipe
from unipeft_run.miniatures.pretraining import corpus as corpora
from unipeft_run.miniatures.pretraining import tokenizer as bpe
from unipeft_run.miniatures.pretraining.batches import count_rows, make_batches
from unipeft_run.miniatures.pretraining.card import render_card
from unipeft_run.miniatures.pretraining.corpus import Corpus
from unipeft_run.miniatures.pretraining.examples import Example, Mixture, split_first_sentence
from unipeft_run.miniatures.pretraining.miniatures import MINIATURES, SHAPE
from unipeft_run.miniatures.pretraining.noising import infill, span_lengths
from unipeft_run.miniatures.pretraining.tokenizer import IDS
from unipeft_run.miniatures.pretraining.train import Schedule
from unipeft_run.miniatures.sources import PACKAGED
from unipeft_run.miniatures.sources.rows import read_jsonl

WORDS = ["alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa"]
SENTENCE = "This package does one thing and does it well. It also has a rest that is long enough "
TEXTS = [SENTENCE + " ".join(itertools.islice(itertools.cycle(WORDS), i, i + 12)) for i in range(9)]
TINY = Corpus(
    {"texts": TEXTS},
    {"texte": ["Acesta este un text \u0219i nimic mai mult."] * 3},
    [("one small file", "un fi\u0219ier mic"), ("two files", "dou\u0103 fi\u0219iere")],
    TEXTS,
)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return bpe.train(TINY)


def test_infilling_masks_the_given_share_and_keeps_the_order() -> None:
    tokens = list(range(100, 200))
    noised = infill(tokens, mask=-1, rng=np.random.default_rng(3))
    kept = [token for token in noised if token != -1]
    assert len(kept) == 65
    assert kept == sorted(kept) and set(kept) <= set(tokens)
    assert not any(a == b == -1 for a, b in itertools.pairwise(noised))
    assert noised == infill(tokens, mask=-1, rng=np.random.default_rng(3))


def test_span_lengths_sum_to_the_number_of_masked_tokens() -> None:
    rng = np.random.default_rng(0)
    assert all(sum(span_lengths(n, rng)) == n for n in range(40))
    mean = np.mean(list(itertools.chain(*(span_lengths(300, rng) for _ in range(30)))))
    assert 2.7 < mean < 3.3


def test_each_family_adds_its_special_tokens() -> None:
    example = Example([9], [8], "en_XX", "ro_RO")
    assert MINIATURES["bart_mini"].frame(example) == ([0, 9, 2], [0, 8, 2])
    framed = MINIATURES["mbart_mini"].frame(example)
    assert framed == ([9, 2, IDS["en_XX"]], [8, 2, IDS["ro_RO"]])


def test_batches_have_few_shapes() -> None:
    examples = [([7] * (20 + i % 30), [8] * (10 + i % 50)) for i in range(400)]
    made = list(make_batches(examples, tokens=1024, pad=1))
    for batch in made:
        rows, source = batch["input_ids"].shape
        target = batch["labels"].shape[1]
        assert source % 32 == target % 32 == 0
        assert rows == count_rows(source, target, 1024) and rows % 8 == 0
        assert torch.equal(batch["attention_mask"], (batch["input_ids"] == 7).long())
        assert set(batch["labels"].unique().tolist()) <= {8, -100}
    assert len({batch["input_ids"].shape for batch in made}) <= 4


def test_a_first_sentence_needs_a_rest() -> None:
    first, rest = split_first_sentence(TEXTS[0]) or ("", "")
    assert first == "This package does one thing and does it well."
    assert rest.startswith("It also")
    assert split_first_sentence("Only one sentence is in here and no more.") is None


def test_messages_are_read_without_contexts_and_plurals(tmp_path: Path) -> None:
    pairs = [("menu\x04_Open file", "_Deschide"), ("file\0files", "fi\u0219ier\0fi\u0219iere")]
    texts = [text.encode() for pair in zip(*pairs, strict=True) for text in pair]
    offset, table, body = 20 + 8 * 4, b"", b""
    for text in texts:
        table += struct.pack("<2I", len(text), offset + len(body))
        body += text + b"\0"
    content = struct.pack("<5I", 0x950412DE, 0, 2, 20, 36) + table + body
    read = list(catalogs.read_messages(content))
    assert read == [("_Open file", "_Deschide"), ("file", "fi\u0219ier")]
    assert catalogs.clean_message("_Open  file") == "Open file"
    assert not catalogs.is_usable("Open <b>this file</b>", "Deschide acest fi\u0219ier")


def test_a_gloss_starts_with_its_synonyms(tmp_path: Path) -> None:
    folder = tmp_path / "usr/share/wordnet"
    folder.mkdir(parents=True)
    line = '00001740 03 n 02 entity 0 living_thing 0 001 ~ 00001930 n 0000 | that which is; "it"  '
    for part in ("noun", "verb", "adj", "adv"):
        (folder / f"data.{part}").write_text("  1 licence | text\n" + line + "\n")
    assert next(corpora.read_glosses(tmp_path)) == 'entity, living thing: that which is; "it"'


def test_special_tokens_have_barts_order(tokenizer: Tokenizer) -> None:
    assert [tokenizer.token_to_id(token) for token in bpe.FIRST] == [0, 1, 2, 3]
    assert [IDS[token] for token in bpe.LAST] == list(range(8187, 8192))


def test_the_mixture_is_seeded(tokenizer: Tokenizer) -> None:
    shares = {"infill": 0.4, "infill_ro": 0.2, "lead": 0.2, "translate": 0.2}
    first, again, other = (
        list(itertools.islice(iter(Mixture(TINY, tokenizer, shares, seed)), 30))
        for seed in (1, 1, 2)
    )
    assert first == again != other
    assert {example.target_language for example in first} == {"en_XX", "ro_RO"}
    prefixes = {example.source[0] for example in first}
    assert {IDS["<lead>"], IDS["<translate>"]} <= prefixes


@pytest.mark.parametrize("name", sorted(MINIATURES))
def test_the_packaged_card_equals_the_rendered_one(name: str) -> None:
    folder = PACKAGED / name
    rendered = render_card(MINIATURES[name], Schedule(steps=3000, seed=43), folder)
    assert (folder / "README.md").read_text(encoding="utf-8") == rendered


@pytest.mark.parametrize("name", sorted(MINIATURES))
def test_a_pretrained_folder_loads(
    name: str, tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

    sizes = {"d_model": 16, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16}
    for key, value in {**sizes, "encoder_layers": 1, "decoder_layers": 1}.items():
        monkeypatch.setitem(SHAPE, key, value)
    monkeypatch.setattr(corpora, "load_corpus", lambda: TINY)
    monkeypatch.setattr(recipe, "validation_corpus", lambda: replace(TINY))
    monkeypatch.setattr(recipe, "check_ids", lambda tokenizer: None)
    monkeypatch.setattr(recipe, "HELD_OUT_EXAMPLES", 4)
    recipe.pretrain(name, tmp_path, Schedule(steps=3, tokens=512, warmup=1, evaluate_every=2))

    model, report = AutoModelForSeq2SeqLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert model.config.dropout == recipe.DROPOUT
    curve = read_jsonl(tmp_path / "loss_curve.jsonl")
    assert [entry["step"] for entry in curve] == [2, 3]
    described = (tmp_path / "README.md").read_text()
    assert "3 steps" in described and "SNLI" in described and f"# {name}" in described
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert (loaded.pad_token_id, loaded.eos_token_id, loaded.mask_token) == (1, 2, "<mask>")
    framed = {"bart_mini": "<s>a file</s>", "mbart_mini": "a file</s>en_XX"}[name]
    assert loaded.decode(loaded("a file")["input_ids"]) == framed
    assert loaded.decode(loaded("a file")["input_ids"], skip_special_tokens=True) == "a file"
