"""Pretraining of llama_mini, clip_mini and vit_mini: text without leaks, loadable folders."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoTokenizer

from unipeft_run.backbones.load import load_backbone
from unipeft_run.miniatures.pretraining import (
    cards,
    clip,
    contrastive,
    language_model,
    llama,
    llama_text,
    pictures,
    vit,
)
from unipeft_run.miniatures.pretraining.tokenizer import IDS
from unipeft_run.miniatures.pretraining.train import Schedule
from unipeft_run.miniatures.sources import PACKAGED, emoji, word_problems
from unipeft_run.miniatures.sources.emoji import Emoji
from unipeft_run.miniatures.sources.rows import read_jsonl
from unipeft_run.miniatures.sources.wordnet import ANTONYM, HYPERNYM, Pointer, Synset

TINY = {"hidden_size": 256, "intermediate_size": 32, "num_hidden_layers": 1}
KNOWN = [Emoji(f"1f{i:03x}", f"thing {i}", "", "") for i in range(12)]


def paint(number: int) -> bytes:
    """Return a PNG file in one of a few colours, transparent at the border."""
    pixels = np.zeros((64, 64, 4), np.uint8)
    pixels[8:-8, 8:-8] = [40 * (number % 5), 60 * (number % 3), 20 * number, 255]
    Image.fromarray(pixels, "RGBA").save(file := io.BytesIO(), "PNG")
    return file.getvalue()


@pytest.fixture
def artists(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every artist paint the known emoji, and shrink the models."""
    painted = {item.code: paint(i) for i, item in enumerate(KNOWN)}
    monkeypatch.setattr(emoji.Artist, "read_pictures", lambda self: painted)
    monkeypatch.setattr(emoji, "read_emoji", lambda: KNOWN)
    for settings in (clip.TEXT, clip.VISION):
        monkeypatch.setitem(settings, "num_hidden_layers", 1)


def split_names(*splits: str) -> list[str]:
    """Return one synset name of each split."""
    names = (f"n{i:08}" for i in range(1000))
    made = {}
    for name in names:
        made.setdefault(Synset(name, "05", (), "", (), (), 0).split, name)
    return [made[split] for split in splits]


def test_the_text_has_no_relation_to_a_held_out_synset() -> None:
    train, test = split_names("train", "test")
    pointers = (Pointer(HYPERNYM, train, 0, 0), Pointer(ANTONYM, test, 1, 1))
    known = {
        train: Synset(train, "05", ("cat", "true cat"), "a feline", ("the cat sat",), pointers, 2),
        test: Synset(test, "05", ("dog",), "a canine", (), (Pointer(HYPERNYM, train, 0, 0),), 1),
    }
    assert llama_text.describe_all(llama_text.common(known), known, "train") == [
        "cat, true cat: a feline.",
        "a feline: cat.",
        "the cat sat.",
        "cat is a kind of cat.",
        "cat means true cat.",
    ]
    assert not llama_text.rare(known)


def test_no_sum_of_a_held_out_problem_is_in_the_text() -> None:
    problems = word_problems.split_problems()
    lines = llama_text.write_sums(problems)
    sums = {step for line in lines if "?" not in line for step in line.split(". ")}
    held_out = {step for row in problems["test"] for step in row["sum"]}
    assert len(sums) > 1000 and not {step.rstrip(".") for step in sums} & held_out


def test_the_tokenizer_splits_digits_and_starts_a_text(tmp_path: Path) -> None:
    llama.save_tokenizer(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    encoded = tokenizer("12 + 345").input_ids
    assert tokenizer.convert_ids_to_tokens(encoded) == [
        *("<s>", "1", "2", "\u0120+", "\u0120", "3", "4", "5")
    ]
    assert tokenizer.decode(encoded, skip_special_tokens=True) == "12 + 345"
    assert (tokenizer.eos_token_id, tokenizer.pad_token_id) == (IDS["</s>"], IDS["<pad>"])


def test_llama_is_pretrained_in_stages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = {"SNLI": ["a cat is an animal"] * 9, "sums": ["1 + 1 = 2."] * 9}
    monkeypatch.setattr(llama_text, "training_text", lambda: text)
    monkeypatch.setattr(llama_text, "held_out_text", lambda: text)
    for name, value in TINY.items():
        monkeypatch.setitem(llama.SHAPE, name, value)
    monkeypatch.setattr(llama, "LENGTH", 32)
    schedule = Schedule(steps=2, tokens=64, warmup=1, evaluate_every=1)
    language_model.pretrain(tmp_path / "first", schedule)
    language_model.pretrain(tmp_path / "second", schedule, tmp_path / "first")
    curve = read_jsonl(tmp_path / "second" / "loss_curve.jsonl")
    assert [entry["step"] for entry in curve] == [1, 2, 3, 4]
    assert curve[-1]["tokens"] == 4 * 64
    assert curve[-1]["held_out/SNLI"] < curve[0]["held_out/SNLI"]
    model = load_backbone(str(tmp_path / "second"))
    assert model(input_ids=torch.tensor([[0, 5, 6]])).logits.shape == (
        1,
        3,
        llama.SHAPE["vocab_size"],
    )
    assert "in 2 stage(s) on 256 tokens" in (tmp_path / "second" / "README.md").read_text()


def test_clip_and_its_vision_tower_are_pretrained(tmp_path: Path, artists: None) -> None:
    schedule = Schedule(steps=3, tokens=8, warmup=1, evaluate_every=3)
    contrastive.pretrain_clip(tmp_path / "clip", schedule)
    contrastive.pretrain_clip(tmp_path / "more", schedule, tmp_path / "clip")
    assert [e["step"] for e in read_jsonl(tmp_path / "more" / "loss_curve.jsonl")] == [3, 6]
    contrastive.pretrain_vit(tmp_path / "clip", tmp_path / "vit", schedule)
    model = load_backbone(str(tmp_path / "clip"))
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "clip")
    texts = tokenizer(["thing 1", "a longer thing"], padding=True, return_tensors="pt")
    assert texts.input_ids[0].tolist().index(clip.END_ID) < len(texts.input_ids[0])
    with torch.no_grad():
        outputs = model(**texts, pixel_values=torch.zeros(2, 3, 64, 64))
    single = tokenizer(["thing 1"], return_tensors="pt")
    with torch.no_grad():
        alone = contrastive.embed_texts(model, single.input_ids, single.attention_mask)
    torch.testing.assert_close(outputs.text_embeds[:1], alone)
    vision = load_backbone(str(tmp_path / "vit"), num_labels=7)
    assert vision(pixel_values=torch.zeros(2, 3, 64, 64)).logits.shape == (2, 7)
    assert read_jsonl(tmp_path / "vit" / "loss_curve.jsonl")[-1]["pictures"] == 24


def test_the_vision_tower_is_nearly_the_same_as_a_vit() -> None:
    torch.manual_seed(0)
    model = clip.build_clip().eval()
    norm = model.vision_model.pre_layrnorm
    torch.nn.init.normal_(norm.weight, 1, 0.2)
    torch.nn.init.normal_(norm.bias, 0, 0.2)
    images = torch.rand(4, 3, 64, 64)
    converted = vit.from_clip(model, images).eval()
    with torch.no_grad():
        expected = model.vision_model(pixel_values=images).pooler_output
        found = converted.vit(pixel_values=images).last_hidden_state[:, 0]
    assert torch.cosine_similarity(expected, found).min() > 0.999


def test_random_changes_are_seeded_and_keep_the_range() -> None:
    images = torch.stack([pictures.decode(paint(i)) for i in range(6)])
    first, second = (pictures.augment(images, torch.Generator().manual_seed(1)) for _ in range(2))
    assert torch.equal(first, second)
    assert first.shape == (6, 3, 64, 64) and first.min() >= -1 and first.max() <= 1
    assert torch.equal(images[0, :, 0, 0], torch.full((3,), 255, dtype=torch.uint8))
    assert not torch.equal(first, pictures.normalise(images))


def test_a_batch_has_different_emoji() -> None:
    pixels = torch.zeros(6, 3, 64, 64, dtype=torch.uint8)
    drawn = contrastive.Pictures(pixels, torch.tensor([0, 0, 1, 1, 2, 2]))
    generator = torch.Generator().manual_seed(0)
    _, names = next(contrastive.draw_batches(drawn, 3, generator))
    assert sorted(names.tolist()) == [0, 1, 2]


def test_names_are_learnt_at_all_positions() -> None:
    ids = torch.zeros(500, 12, dtype=torch.long)
    positions = contrastive.draw_positions(ids, torch.Generator().manual_seed(0))
    assert (positions[:, 0] == 0).all() and positions.max() == clip.POSITIONS - 1
    assert (positions.diff(dim=1)[:, 1:] == 1).all() and positions[:, 1].min() == 1


@pytest.mark.parametrize("name", ["llama_mini", "clip_mini", "vit_mini"])
def test_a_packaged_folder_loads_and_its_card_is_current(name: str) -> None:
    folder = PACKAGED / name
    model = load_backbone(str(folder), num_labels=3 if name == "vit_mini" else None)
    assert sum(p.numel() for p in model.parameters()) < 6e6
    curve = read_jsonl(folder / "loss_curve.jsonl")
    card = (folder / "README.md").read_text(encoding="utf-8")
    last = curve[-1]
    assert f"| {last['step']:,} |" in card and card.startswith(f"# {name}\n")
    assert cards.PURPOSE.split("\n")[3] in card
