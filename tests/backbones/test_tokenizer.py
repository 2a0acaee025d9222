"""Tokenizers are those that transformers loads from the same folder."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import tiny_text
import transformers
from datasets import Dataset
from hostile_models import change_json
from transformers import AutoTokenizer, BertTokenizer, GPT2Tokenizer

from unipeft_run.backbones.families import FAMILIES
from unipeft_run.backbones.load import check_tokens
from unipeft_run.backbones.tokenizer import load_tokenizer
from unipeft_run.data.encoding import find_largest_id
from unipeft_run.errors import UserError

TEXT = "The cats  sat on the Mat, é 文字"
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "The", "cats", "sat", "on", "Mat"]
MARKS = ["mat", ",", "e", "é", "文", "字", "文字"]
CASED: dict[str, Any] = {"do_lower_case": False}


def write(folder: Path, model_type: str, **settings: Any) -> Path:
    (folder / "config.json").write_text(json.dumps({"model_type": model_type}))
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


def check_equal(folder: Path) -> Any:
    """Compare our tokenizer with that of transformers; return the tokens of ours."""
    ours, theirs = load_tokenizer(str(folder)), AutoTokenizer.from_pretrained(folder)
    assert ours.backend_tokenizer.to_str() == theirs.backend_tokenizer.to_str()
    assert ours(TEXT) == theirs(TEXT)
    return ours.convert_ids_to_tokens(ours(TEXT)["input_ids"])


@pytest.mark.parametrize("file", ["vocab.txt", "tokenizer.json"])
@pytest.mark.parametrize(
    "settings",
    [
        CASED,
        {"do_lower_case": True},
        {**CASED, "strip_accents": True},
        {**CASED, "strip_accents": None, "tokenize_chinese_chars": False},
    ],
)
def test_a_bert_keeps_its_case(file: str, settings: dict[str, Any], tmp_path: Path) -> None:
    vocabulary = {word: i for i, word in enumerate(WORDS + MARKS)}
    if file == "vocab.txt":
        (tmp_path / file).write_text("\n".join(vocabulary))
    else:
        BertTokenizer(vocab=vocabulary, **settings).save_pretrained(tmp_path)
    write(tmp_path, "bert", tokenizer_class="BertTokenizer", **settings)
    tokens = check_equal(tmp_path)
    assert ("The" in tokens) is not settings["do_lower_case"]


@pytest.mark.parametrize("name", ["do_lower_case", "extra_ids"])
def test_an_option_must_be_a_plain_value(name: str, tmp_path: Path) -> None:
    write(tmp_path, "bert", **{name: ["x"]})
    with pytest.raises(UserError, match=rf"tokenizer_config\.json: {name}=\['x'\]: must be"):
        load_tokenizer(str(tmp_path))


@pytest.mark.parametrize("model_type", ["llama", "mistral", "gemma"])
@pytest.mark.parametrize("name", ["GPT2Tokenizer", "GPT2TokenizerFast", "RobertaTokenizerFast"])
def test_a_llama_uses_the_tokenizer_that_its_folder_names(
    model_type: str, name: str, tmp_path: Path
) -> None:
    tokenizer = tiny_text.bart_tokenizer()
    model = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    (tmp_path / "vocab.json").write_text(json.dumps(model["vocab"]))
    (tmp_path / "merges.txt").write_text("\n".join(" ".join(pair) for pair in model["merges"]))
    write(tmp_path, model_type, tokenizer_class=name, add_bos_token=True, add_eos_token=True)
    ours = load_tokenizer(str(tmp_path))
    assert type(ours).__name__ == name.removesuffix("Fast")
    text = ours.decode(ours("the cat sat")["input_ids"], skip_special_tokens=True)
    assert text == "the cat sat"
    if model_type != "mistral":  # there AutoTokenizer wants tokenizer.json
        tokens = check_equal(tmp_path)
        assert (tokens[0], tokens[-1]) == (ours.bos_token, ours.eos_token)


@pytest.mark.parametrize("name", ["LlamaTokenizer", "LlamaTokenizerFast", None])
def test_a_byte_level_llama_is_read_as_it_is(name: str | None, tmp_path: Path) -> None:
    tiny_text.bart_tokenizer().save_pretrained(tmp_path)
    write(tmp_path, "llama", **({"tokenizer_class": name} if name else {}))
    ours = load_tokenizer(str(tmp_path))
    assert ours.decode(ours("the cat sat")["input_ids"], skip_special_tokens=True) == "the cat sat"
    if name:
        check_equal(tmp_path)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_folder_without_vocabulary_has_no_tokenizer(name: str, tmp_path: Path) -> None:
    """transformers would make one of special tokens."""
    family = FAMILIES[name]
    if not family.tokenizer:
        return
    (tmp_path / "added_tokens.json").write_text('{"<x>": 0}')
    own = getattr(transformers, family.tokenizer).vocab_files_names.get("vocab_file")
    foreign = "vocab.json" if own != "vocab.json" else "vocab.txt"
    (tmp_path / foreign).write_text('{"the": 0}')
    write(tmp_path, family.model_type or name)
    config = {key: values[0] for key, values in family.when.items()}
    change_json(tmp_path / "config.json", config)
    with pytest.raises(UserError, match=r"has no tokenizer: it needs tokenizer\.json"):
        load_tokenizer(str(tmp_path))


def test_half_a_vocabulary_is_no_tokenizer(tmp_path: Path) -> None:
    (write(tmp_path, "roberta") / "vocab.json").write_text('{"the": 0}')
    with pytest.raises(UserError, match=r"tokenizer\.json, or vocab\.json and merges\.txt$"):
        load_tokenizer(str(tmp_path))


@pytest.mark.parametrize(
    ("token", "largest", "refused"),
    [
        ({"pad_token": "[PAD]"}, 5, r"padding token '\[PAD\]' has the id 320, .*vocab_size=320"),
        ({"additional_special_tokens": ["<|user|>"]}, 320, r"token '<.user.>' has the id 320"),
        ({"additional_special_tokens": ["<|user|>"]}, 319, None),
        ({"mask_token": "[MASK]"}, 5, None),
    ],
)
def test_ids_are_inside_the_vocabulary(
    token: dict[str, Any], largest: int, refused: str | None
) -> None:
    tokenizer = tiny_text.bart_tokenizer()
    config = transformers.LlamaConfig(vocab_size=len(tokenizer))
    towers = transformers.CLIPConfig(text_config={"vocab_size": len(tokenizer)})
    tokenizer.add_special_tokens(token)
    for own in (config, towers):
        with pytest.raises(UserError, match=refused) if refused else nullcontext():
            check_tokens(tokenizer, own, largest)


@pytest.mark.parametrize(
    ("columns", "largest"),
    [
        ({"input_ids": [[3, 9], [4]], "labels": [[12], []]}, 12),
        ({"input_ids": [[3, 9], [4]], "labels": [99, 0]}, 9),  # classes
        ({"input_ids": [[3]], "choices": [[[7], [21, 5]]]}, 21),
        ({"input_ids": [[3], [20]][:0], "labels": []}, 0),
        ({"pixels": [b"x"], "labels": [1]}, 0),
    ],
)
def test_the_largest_id_is_that_of_all_texts(columns: dict[str, Any], largest: int) -> None:
    assert find_largest_id(Dataset.from_dict(columns)) == largest


def test_the_default_is_the_familys_own(tmp_path: Path) -> None:
    GPT2Tokenizer(vocab={"a": 0, "<|endoftext|>": 1}, merges=[]).save_pretrained(tmp_path)
    write(tmp_path, "gpt2")
    assert type(load_tokenizer(str(tmp_path))) is GPT2Tokenizer
