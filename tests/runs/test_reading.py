"""Reading untrusted files as bounded plain data, and printing their text escaped."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from made_runs import resolved
from omegaconf import OmegaConf

from unipeft_run.runs import reading
from unipeft_run.runs.printable import printable, printable_lines
from unipeft_run.runs.reading import UnreadableFile, read_bytes, read_json, read_records, read_yaml

RECORDED = Path(__file__).parents[1] / "recorded_runs" / "runs"
CONFIGS = [
    ("task=sst2", "method=mam"),
    ("task=mnli", "method=bitfit", "recipe.epochs=3"),
    ("task=xsum", "method=prefix", "scale=paper"),
    ("task=wmt16_en_ro", "method=lora_attn", "optim.lr=1e-6", "seed=0"),
]


# ---- YAML


@pytest.mark.parametrize("overrides", CONFIGS, ids=" ".join)
def test_configurations_are_read_as_pyyaml_reads_them(tmp_path: Path, overrides: list[str]) -> None:
    file = tmp_path / "config.yaml"
    config = resolved(*overrides)
    for text in (OmegaConf.to_yaml(OmegaConf.create(config)), yaml.safe_dump(config)):
        file.write_text(text)
        assert read_yaml(file) == yaml.safe_load(text) == config


TEXTS = [
    "a: 1\nb: 'x: y'\nc: \"#\"\n",
    "a:\n- 1\n- 2\nb: {c: [d, e]}\n",
    "a: |\n  text\n  b: 2\nc: 3\n",
    "a: >-\n  folded\n\n  text\nb:\n",
    "a: 1 # a comment\n# another\nb: 2\n",
    "---\na: 1\n",
    "a: 'two\n  lines'\nb: 1\n",
    "a: 1\na: 2\n",
    "on: 1\n",
    "a: {b: 1,\n  c: 2}\nd: ~\n",
    "a: 1e3\nb: 1.0e-08\nc: yes\nd: null\ne: 0x10\nf: 1_000\n",
    "a: b\n  c\nd: e\n",
    "a: 1",
    "\ufeffa: 1\nb: 2\n",
]


@pytest.mark.parametrize("text", TEXTS)
def test_other_yaml_is_read_as_pyyaml_reads_it(tmp_path: Path, text: str) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(text, encoding="utf-8")
    expected = yaml.safe_load(text)
    if all(isinstance(key, str) for key in expected):
        assert read_yaml(file) == expected
    else:
        with pytest.raises(UnreadableFile, match="the key True is a bool"):
            read_yaml(file)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("seed: 2020-01-01\n", "2020-01-01 is a date"),
        ("seed: !!binary aGVsbG8=\n", r"b'hello' is a bytes"),
        ("a: &a [1]\nb: *a\n", "it holds YAML aliases"),
        ("a: *b\n", "it holds YAML aliases"),
        ("a: " + "[" * 45 + "]" * 45 + "\n", "nested too deeply"),
        ("seed: .nan\n", "a number out of range"),
        ("seed: 99999999999999999999\n", "a number out of range"),
        ("1: a\n", "the key 1 is a int"),
        ("- a\n", "it does not hold a mapping"),
        ("", "it does not hold a mapping"),
        ("a: 'x\n", "while scanning a quoted scalar"),
        ("a: !!python/name:os.system\n", "could not determine a constructor"),
    ],
)
def test_yaml_that_no_run_writes_is_refused_with_the_reason(
    tmp_path: Path, text: str, part: str
) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(text)
    with pytest.raises(UnreadableFile) as problem:
        read_yaml(file)
    assert str(problem.value).startswith("config.yaml is damaged: ") and part in str(problem.value)


def test_a_path_that_is_not_unicode_leaves_a_configuration_readable(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(OmegaConf.to_yaml(OmegaConf.create({"output": "out\udcff", "seed": 1})))
    assert read_yaml(file) == {"output": "out\ufffd", "seed": 1}


# ---- JSON


def test_numbers_out_of_range_are_null(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(
        '{"a": NaN, "b": -Infinity, "c": 1e999, "d": 1' + "0" * 30 + "}"
    )
    assert read_json(tmp_path / "a.json") == dict.fromkeys("abcd")


def test_records_skip_what_is_damaged(tmp_path: Path) -> None:
    good = [{"step": 1}, {"step": 2, "text": "a\u2028b"}]
    lines = [json.dumps(good[0]), "{", "[1]", "", "x" * (3 << 20), "[" * 9999, json.dumps(good[1])]
    (tmp_path / "a.jsonl").write_text("\n".join(lines) + '\n{"step": 3', encoding="utf-8")
    assert list(read_records(tmp_path / "a.jsonl")) == good
    assert list(read_records(tmp_path / "missing.jsonl")) == []


def test_records_end_at_the_limit(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"a": 1}\n' * 100)
    assert len(list(read_records(tmp_path / "a.jsonl", limit=9 * 7))) == 7


# ---- other files


def test_a_large_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "metrics.json"
    file.write_text("{}")
    os.truncate(file, 1 << 40)
    with pytest.raises(UnreadableFile, match=r"metrics\.json is larger than 1 MiB"):
        read_json(file)


@pytest.mark.parametrize("path", ["/dev/zero", "/dev/null", "/proc"])
def test_only_regular_files_are_read(path: str) -> None:
    with pytest.raises(UnreadableFile, match="is not a regular file"):
        read_bytes(Path(path))


def test_a_fifo_never_blocks(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for read in (read_bytes, read_json, read_yaml, lambda path: list(read_records(path))):
        with pytest.raises(UnreadableFile, match="is not a regular file"):
            read(tmp_path / "fifo")


def test_files_without_a_size_are_read_up_to_the_limit() -> None:
    assert read_bytes(Path("/proc/self/status"))
    with pytest.raises(UnreadableFile, match="is larger than"):
        read_bytes(Path("/proc/self/status"), limit=10)


def test_a_section_is_parsed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parsed: list[bytes] = []
    load = reading._load_yaml

    def counting(content: bytes) -> Any:
        parsed.append(content)
        return load(content)

    reading._load_section.cache_clear()
    monkeypatch.setattr(reading, "_load_yaml", counting)
    for number in range(5):
        (tmp_path / "config.yaml").write_text(f"a:\n  b: 1\nseed: {number}\n")
        assert read_yaml(tmp_path / "config.yaml") == {"a": {"b": 1}, "seed": number}
    assert len(parsed) == 1 + 5


# ---- printing


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain \u0219\u4e2d \U0001f600", "plain \u0219\u4e2d \U0001f600"),
        ("\x1b[2J\x07", r"\x1b[2J\x07"),
        ("a\r\nb\tc", r"a\r\nb\tc"),
        ("\u202eabc\u2066", r"\u202eabc\u2066"),
        ("\x9b31m", r"\x9b31m"),
        ("a\u2028b", r"a\u2028b"),
        ("\udcff\ud800", r"\xff\ud800"),
        (b"x\x1b", r"b'x\x1b'"),
        (None, "None"),
    ],
)
def test_text_is_printable(text: Any, shown: str) -> None:
    assert printable(text) == shown
    assert printable(text).isprintable()


def test_text_is_truncated() -> None:
    assert printable("x" * 100, 10) == "xxxxxxx..."
    assert printable_lines("a\x1b\nb") == "a\\x1b\nb"
