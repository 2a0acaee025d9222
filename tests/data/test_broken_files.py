"""Broken local data gives one sentence that names the file and the line."""

from __future__ import annotations

import gzip
import json
import os
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tiny_tasks import ROWS, load_test, make, put, write

from unipeft_run.errors import UserError

LINES = "\n".join(json.dumps(row) for row in ROWS["sst2"]) + "\n"
OK = b'{"sentence": "ok", "label": 1}\n'
BROKEN = {
    "missing column": (
        b'{"text": "x", "label": 1}',
        r"line 1 has no column 'sentence'.*text, label",
    ),
    "misspelt column": (
        b'{"sentense": "x", "label": 1}',
        r"no column 'sentence' \(did you mean 'sentense'\?\)",
    ),
    "not UTF-8": (OK + b'{"sentence": "\xff"}', "line 2 is not UTF-8"),
    "UTF-16": ('{"sentence": "x"}'.encode("utf-16"), "line 1 is not UTF-8"),
    "half a line": (OK + b'{"sente', "line 2 is not a whole JSON object"),
    "no object": (b"[1, 2]", "line 1 is not a JSON object: write one object per line"),
    "an array of objects": (b"[\n" + OK + b"]", "line 1 is not a whole JSON object"),
    "no text": (
        b'{"sentence": null, "label": 1}',
        "line 1: column 'sentence' holds null, not text",
    ),
    "an object for a text": (OK + b'{"sentence": {"a": 1}, "label": 1}', "line 2.*holds an object"),
    "digits for a number": (
        b'{"sentence": "x", "label": "1"}',
        """line 1: column 'label' holds "1", not a""",
    ),
    "label range": (
        b'\n{"sentence": "x", "label": 2}',
        "line 2: column 'label' holds 2, which is out of range.*0 negative, 1 positive",
    ),
    "negative label": (b'{"sentence": "x", "label": -1}', "line 1.*holds -1.*out of range"),
    "float label": (b'{"sentence": "x", "label": 1.0}', "line 1.*holds 1.0, not a label"),
    "true for a label": (b'{"sentence": "x", "label": true}', "line 1.*holds true, not a label"),
    "not a number": (b'{"sentence": "x", "label": NaN}', "line 1.*holds NaN, not a label"),
    "more than 64 bits": (
        OK + b'{"sentence": "x", "label": %d}' % 10**30,
        "line 2.*holds an integer of more than 64 bits",
    ),
    "5,000 digits": (b'{"sentence": "x", "label": ' + b"9" * 5000 + b"}", "line 1.*holds .999"),
    "a lone surrogate": (
        OK + b'{"sentence": "\\ud800 x", "label": 1}',
        "line 2: column 'sentence' holds a lone surrogate",
    ),
    "100,000 nested lists": (
        OK + b'{"sentence": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        "line 2 is nested too deeply",
    ),
    "empty": (b"", "test.jsonl has no examples"),
    "blank": (b"\n \n", "test.jsonl has no examples"),
    "control characters in a name": (
        b'{"\\u001b[31m": 1}',
        r"its columns are \\u001b\[31m$",
    ),
}


def message(folder: Path, name: str = "sst2") -> str:
    """Return the error of loading the test split of `folder`, which must be one line."""
    with pytest.raises(UserError) as error:
        load_test(folder, name)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_file_gives_one_sentence_with_the_line(case: str, tmp_path: Path) -> None:
    content, sentence = BROKEN[case]
    file = put(tmp_path, "test.jsonl", content)
    found = message(tmp_path)
    assert re.search(sentence, found), found
    assert str(file) in found
    assert len(found) < 300 + len(str(file))


BROKEN_CSV = {
    "short row": (b"sentence,label\nok,1\nx\n", "line 3 has 1 fields, but the header has 2"),
    "long row": (b"sentence,label\nx,1,2\n", "line 2 has 3 fields, but the header has 2"),
    "label": (b"sentence,label\nx,2\n", "line 2: column 'label' holds 2, which is out of range"),
    "float": (b"sentence,label\nx,1.0\n", "line 2: column 'label' holds \"1.0\", not a label"),
    "digits": (b"sentence,label\nx," + b"9" * 5000, "line 2: column 'label' holds .999"),
    "no label": (b"sentence,label\nx,\n", "line 2: column 'label' holds \"\", not a label"),
    "open quote": (b'sentence,label\nok,1\n"x,1\n', "line 3 is not valid CSV"),
    "double column": (b"label,label,sentence\n", "line 1: the header names column 'label' twice"),
    "no header": (b"ok,1\nx,0\n", "test.csv has no column 'sentence'; its columns are ok, 1"),
    "only a header": (b"sentence,label\n", "test.csv has no examples"),
    "not UTF-8": (b"sentence,label\nok,1\n\xff,1\n", "line 3 is not UTF-8"),
}


@pytest.mark.parametrize("case", BROKEN_CSV)
def test_a_broken_csv_file_gives_one_sentence_with_the_line(case: str, tmp_path: Path) -> None:
    content, sentence = BROKEN_CSV[case]
    put(tmp_path, "test.csv", content)
    found = message(tmp_path)
    assert re.search(sentence, found), found


def test_line_numbers_count_line_breaks_within_fields(tmp_path: Path) -> None:
    put(tmp_path, "test.csv", b'sentence,label\n"two\nlines",1\nx,7\n')
    assert "line 4: column 'label' holds 7" in message(tmp_path)


def test_a_broken_gzip_file_gives_one_sentence(tmp_path: Path) -> None:
    whole = gzip.compress(LINES.encode() * 50)
    for content in (whole[:40], b"not gzip", whole[:30] + b"\0\0\0" + whole[33:]):
        put(tmp_path, "test.jsonl.gz", content)
        assert "test.jsonl.gz is not a whole gzip file" in message(tmp_path)


PARQUET: dict[str, tuple[dict[str, Any], str]] = {
    "null": ({"sentence": ["x", None], "label": [1, 0]}, "column 'sentence' has no value in row 2"),
    "no text": ({"sentence": [1], "label": [1]}, "'sentence' holds int64, not text"),
    "list": ({"sentence": [["x"]], "label": [1]}, r"'sentence' holds list<.*>, not text"),
    "floats": ({"sentence": ["x"], "label": [1.0]}, "'label' holds double, not class numbers"),
    "booleans": ({"sentence": ["x"], "label": [True]}, "column 'label' holds true, not a label"),
    "range": (
        {"sentence": ["x", "y"], "label": [1, 2]},
        "row 2: column 'label' holds 2, which is out of range: the classes are 0 negative",
    ),
    "unsigned": (
        {"sentence": ["x"], "label": pa.array([2**64 - 1], pa.uint64())},
        "row 1: column 'label' holds 18446744073709551615, which is out of range",
    ),
    "misspelt": ({"sentense": ["x"], "label": [1]}, r"did you mean 'sentense'\?"),
    "empty": (
        {"sentence": pa.array([], pa.string()), "label": pa.array([], pa.int64())},
        "no examples",
    ),
    "not UTF-8": (
        {"sentence": pa.array([b"\xff"]).view(pa.string()), "label": [1]},
        "'sentence' is not UTF-8",
    ),
    "labels not UTF-8": (
        {"sentence": ["x"], "label": pa.array([b"\xff"]).view(pa.string())},
        "'label' is not UTF-8",
    ),
}


@pytest.mark.parametrize("case", PARQUET)
def test_a_wrong_parquet_column_gives_one_sentence(case: str, tmp_path: Path) -> None:
    columns, sentence = PARQUET[case]
    pq.write_table(pa.table(columns), tmp_path / "test.parquet")
    found = message(tmp_path)
    assert re.search(sentence, found), found
    assert str(tmp_path / "test.parquet") in found


@pytest.mark.parametrize("content", [b"", b"PAR1", b"PAR1 but not really PAR1"])
def test_a_damaged_parquet_file_gives_one_sentence(content: bytes, tmp_path: Path) -> None:
    put(tmp_path, "test.parquet", content)
    assert "test.parquet is not a readable Parquet file" in message(tmp_path)


def test_missing_folders_and_splits_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=re.escape(f"no folder {tmp_path / 'gone'}")):
        make("xsum", path=tmp_path / "gone").load()
    folder = write(tmp_path, "xsum")
    (folder / "validation.jsonl").unlink()
    with pytest.raises(UserError, match=r"no validation.jsonl.*there is test.jsonl, train.jsonl"):
        make("xsum", path=folder).load()
    with pytest.raises(UserError, match=r"train.jsonl is a file: give the folder"):
        make("xsum", path=folder / "train.jsonl").load()
    with pytest.raises(UserError, match=r"task.path=DIR, or scale=mini"):
        make("xsum").load()


def test_paths_that_are_not_files_are_named(tmp_path: Path) -> None:
    file = tmp_path / "test.jsonl"
    file.mkdir()
    assert f"{file} is a folder; a data file is expected there" in message(tmp_path)
    file.rmdir()
    os.mkfifo(file)
    assert f"{file} is a broken link or a special file" in message(tmp_path)
    file.unlink()
    file.symlink_to("gone")
    assert f"{file} is a broken link or a special file" in message(tmp_path)
    file.unlink()
    (tmp_path / "test").mkdir()
    assert "no test.jsonl" in message(tmp_path)


def test_a_file_that_cannot_be_opened_gives_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, "sst2")
    if os.geteuid() == 0:  # root may read everything
        refusal = PermissionError(13, "Permission denied")
        monkeypatch.setattr(Path, "open", lambda *_, **__: (_ for _ in ()).throw(refusal))
    else:
        (tmp_path / "test.jsonl").chmod(0)
    assert f"{tmp_path / 'test.jsonl'} cannot be read: Permission denied" in message(tmp_path)


def test_a_missing_language_is_reported_as_a_missing_column(tmp_path: Path) -> None:
    put(tmp_path, "test.jsonl", b'{"translation": {"en": "a", "de": "b"}}')
    found = message(tmp_path, "wmt16_en_ro")
    assert re.search(r"'translation.ro'.*translation.en, translation.de", found), found
