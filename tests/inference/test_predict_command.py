"""unipeft-predict: every kind of file in and out, refusals, and interrupts."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from finished_runs import row

from unipeft_run.commands import predict
from unipeft_run.inference import predictor

Finished = Callable[..., Path]
Capture = pytest.CaptureFixture[str]
SENTENCES = [row("sst2", n)["sentence"] for n in range(7)]
RECORDS = [
    {"id": n, "sentence": f'{text}, "so" said', "stars": n / 2} for n, text in enumerate(SENTENCES)
]


def read_csv(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def read_jsonl(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def write_as(suffix: str, folder: Path) -> Path:
    """Write RECORDS as a file of this kind; .txt holds the sentences alone."""
    file = folder / f"inputs{suffix}"
    if suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(RECORDS), file)
    elif suffix == ".jsonl":
        file.write_text("".join(json.dumps(record) + "\n" for record in RECORDS))
    elif suffix == ".txt":
        file.write_text("".join(f"{record['sentence']}\r\n" for record in RECORDS))
    else:
        with file.open("w", newline="") as out:
            style: dict[str, Any] = {
                "delimiter": "\t",
                "quoting": csv.QUOTE_NONE,
                "quotechar": None,
            }
            writer = csv.writer(out, **(style if suffix == ".tsv" else {}))
            writer.writerow(RECORDS[0])
            writer.writerows(record.values() for record in RECORDS)
    return file


@pytest.fixture(scope="module")
def expected(finished: Finished) -> list[Any]:
    import unipeft_run

    run = unipeft_run.load_run(finished("sst2"), device="cpu")
    found: list[Any] = run.predict(RECORDS, probabilities=True)
    assert len({prediction.label for prediction in found}) == 2
    return found


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet", ".txt"])
def test_rows_keep_their_columns_and_order(
    suffix: str, finished: Finished, expected: list[Any], tmp_path: Path, capsys: Capture
) -> None:
    file = write_as(suffix, tmp_path)
    assert predict.main([str(finished("sst2")), str(file), "batch_size=3"]) == 0
    captured = capsys.readouterr()
    is_json = suffix in (".jsonl", ".parquet")
    rows: list[Any] = (read_jsonl if is_json else read_csv)(captured.out)
    kept = {"sentence"} if suffix == ".txt" else set(RECORDS[0])
    for found, record, prediction in zip(rows, RECORDS, expected, strict=True):
        assert set(found) == {*kept, "prediction", "probability"}
        cells = {name: record[name] if is_json else str(record[name]) for name in kept}
        assert {name: found[name] for name in kept} == cells
        assert found["prediction"] == prediction.label
        assert float(found["probability"]) == pytest.approx(prediction.probability, abs=1e-5)
    assert "predict  7/7" in captured.err and "it/s" not in captured.err


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".txt"])
def test_stdin_is_read_by_its_first_line(
    suffix: str,
    finished: Finished,
    expected: list[Any],
    tmp_path: Path,
    capsys: Capture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    content = write_as(suffix, tmp_path).read_bytes()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
    assert predict.main([str(finished("sst2")), "-", "--format", "jsonl"]) == 0
    rows = read_jsonl(capsys.readouterr().out)
    assert [found["prediction"] for found in rows] == [p.label for p in expected]


def test_an_error_in_stdin_names_stdin(
    finished: Finished, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = io.BytesIO(b'{"sentence": "a"}\n{"sentence": 3}\n')
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(content))
    assert predict.main([str(finished("sst2")), "-"]) == 2
    assert capsys.readouterr().err == "stdin, line 2: column 'sentence' holds 3, not text\n"


def test_texts_with_overridden_decoding(
    finished: Finished, tmp_path: Path, capsys: Capture
) -> None:
    import unipeft_run

    file, out = tmp_path / "in.jsonl", tmp_path / "out.csv"
    documents = [row("xsum", n)["document"] for n in range(3)]
    file.write_text("".join(json.dumps({"document": d, "more": [1]}) + "\n" for d in documents))
    words = [str(finished("xsum")), str(file), "--out", str(out), "--column", "summary"]
    more = "max_length=5", "min_length=0", "evaluation.decoding.num_beams=1"
    assert predict.main([*words, *more]) == 0
    assert "3 predictions in" in capsys.readouterr().out
    run = unipeft_run.load_run(finished("xsum"), device="cpu")
    rows = read_csv(out.read_text())
    found = [found["summary"] for found in rows]
    short = run.predict(documents, max_length=5, min_length=0, num_beams=1)
    assert found == short != run.predict(documents)
    assert list(rows[0]) == ["document", "more", "summary"] and rows[0]["more"] == "[1]"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["{home}/nowhere.csv"], "nowhere.csv cannot be read: No such file or directory"),
        (["{file}", "num_beams=2"], "num_beams= has no effect: task sst2 generates no text"),
        (["{file}", "num_beam=2"], "there is no key num_beam; did you mean num_beams?"),
        (["{file}", "batch_size=0"], "batch_size=0: must be a whole number, at least 1"),
        (["{file}", "colour"], "colour is not understood; overrides look like key=value"),
        (["{file}", "--out", "{file}"], "is the input file; name another one"),
        (["{file}", "--out", "{home}/x.tsv"], "its name must end in .csv or .jsonl"),
        (["{file}", "--out", "{home}/no/x.csv"], "there is no folder"),
        (["{file}", "--out", "{home}", "--force"], "is a folder; name a file in it"),
        (["{file}", "--column", "stars"], "already has a column 'stars'"),
        (["{home}/model.pdf"], "its name must end in one of .txt, .jsonl"),
        (["{renamed}"], "no column 'sentence' (did you mean 'sentences'?); its columns are id"),
        (["{empty}"], "has no examples"),
        (["{file}", "--format", "xml"], "format=xml is unknown; choose from csv, jsonl"),
        ([], "the following arguments are required: FILE; see unipeft predict --help"),
    ],
)
def test_refusals_come_before_any_weight(
    words: list[str],
    sentence: str,
    finished: Finished,
    tmp_path: Path,
    capsys: Capture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("unipeft_run.inference.loaded_run.load_trained", None)
    names = {"file": write_as(".csv", tmp_path), "home": tmp_path}
    names["renamed"] = tmp_path / "renamed.csv"
    names["renamed"].write_text(names["file"].read_text().replace("sentence", "sentences", 1))
    names["empty"] = tmp_path / "empty.txt"
    names["empty"].touch()
    before = sorted(tmp_path.iterdir())
    assert predict.main([str(finished("sst2")), *(word.format(**names) for word in words)]) == 2
    error = capsys.readouterr().err
    assert sentence in error and error.count("\n") == 1
    assert sorted(tmp_path.iterdir()) == before


def test_an_existing_file_is_replaced_by_force_only(
    finished: Finished, tmp_path: Path, capsys: Capture
) -> None:
    out = tmp_path / "out.csv"
    out.write_text("precious\n" * 1000)
    words = [str(finished("sst2")), str(write_as(".csv", tmp_path)), "--out", str(out)]
    assert predict.main(words) == 2
    assert "exists; name another file, or add --force" in capsys.readouterr().err
    assert predict.main([*words, "--force"]) == 0
    assert len(read_csv(out.read_text())) == 7 and "precious" not in out.read_text()


def test_an_interrupt_leaves_whole_rows(
    finished: Finished, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = iter(range(100))
    original = predictor.Predictor._predict_batch

    def interrupted(self: Any, sources: Any) -> Any:
        if next(calls) == 5:
            raise KeyboardInterrupt
        return original(self, sources)

    monkeypatch.setattr(predictor.Predictor, "_predict_batch", interrupted)
    monkeypatch.setattr(predict, "BATCHES", 2)
    out = tmp_path / "out.jsonl"
    words = [str(finished("sst2")), str(write_as(".csv", tmp_path)), "--out", str(out)]
    assert predict.main([*words, "batch_size=1"]) == 128 + signal.SIGINT
    assert "interrupted after 4 of 7 predictions" in capsys.readouterr().err
    assert [found["id"] for found in read_jsonl(out.read_text())] == ["0", "1", "2", "3"]


@pytest.mark.slow
def test_the_command_itself(finished: Finished, home: Path, tmp_path: Path) -> None:
    """Predict from stdin to stdout with a run id, in a subprocess."""
    script = "from unipeft_run.commands.dispatch import main; main()"
    words = [sys.executable, "-c", script, "predict", finished("sst2").name, "-"]
    done = subprocess.run(
        words, input="the cat sat\n", capture_output=True, text=True, cwd=home, env=os.environ
    )
    assert done.returncode == 0, done.stderr
    [found] = read_csv(done.stdout)
    assert found["sentence"] == "the cat sat" and found["prediction"] in ("negative", "positive")
