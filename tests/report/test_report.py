"""unipeft-report: tables from run folders, and how damaged folders are reported."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from made_runs import make_run

from unipeft_run.commands.report import main
from unipeft_run.runs.lock import RunLock

ROOT = Path(__file__).parents[2]
SEEDS = (1, 2)


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def outputs() -> None:
    for seed in SEEDS:
        make_run("task=sst2", "method=mam", f"seed={seed}", primary=80.0 + 2 * seed)
    make_run("task=sst2", "method=lora_attn", primary=90.0)
    make_run("task=sst2", "method=mam", "ffn.bottleneck=8", primary=70.0)
    make_run("task=sst2", "method=mam", "backbone.weights=random", primary=60.0)
    make_run("task=sst2", "method=none", primary=50.0)
    make_run("task=mnli", "method=mam", primary=65.0)


def sheet(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[dict[str, str]]:
    capsys.readouterr()
    assert main([*arguments, "--format", "csv"]) == 0
    return list(csv.DictReader(io.StringIO(capsys.readouterr().out)))


@pytest.mark.usefixtures("outputs")
def test_a_row_averages_the_seeds_of_a_method(capsys: pytest.CaptureFixture[str]) -> None:
    rows = {row["method"]: row for row in sheet(capsys, "outputs") if row["task"] == "sst2"}
    mam = rows["mam ffn.bottleneck=64"]
    assert (mam["seeds"], float(mam["accuracy"])) == ("2", 83.0)
    assert float(mam["accuracy std"]) == pytest.approx(2**0.5)
    assert (mam["trained"], mam["stored"], mam["steps"]) == ("4302752", "371328", "600")
    assert (float(mam["tokens/s"]), float(mam["seconds"]), float(mam["loss"])) == (1000, 60, 0.5)
    assert rows["lora_attn"]["accuracy std"] == ""


@pytest.mark.usefixtures("outputs")
def test_methods_are_ranked_and_baselines_come_last(capsys: pytest.CaptureFixture[str]) -> None:
    names = [row["method"] for row in sheet(capsys, "outputs") if row["task"] == "sst2"]
    assert names == [
        "lora_attn",
        "mam ffn.bottleneck=64",
        "mam ffn.bottleneck=8",
        "mam, random backbone",
        "pretrained backbone, not fine-tuned (none)",
        "trivial: naive Bayes",
    ]


@pytest.mark.usefixtures("outputs")
def test_text_and_markdown_show_the_same_values(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["outputs"]) == 0
    text = capsys.readouterr().out
    assert main(["outputs", "--format", "markdown"]) == 0
    marked = capsys.readouterr().out
    for found in (text, marked):
        assert "83.00 +- 1.41" in found
        assert "371,328" in found
        assert "trivial: naive Bayes" in found
        assert "accuracy: percent" in found
    assert "| mam ffn.bottleneck=64 | 2 | 83.00 +- 1.41 | 0.5000 +- 0.0000 |" in marked
    assert marked.count("## ") == 2


@pytest.mark.usefixtures("outputs")
def test_miniature_nli_has_a_note_on_contamination(capsys: pytest.CaptureFixture[str]) -> None:
    notes = {row["task"]: row["notes"] for row in sheet(capsys, "outputs")}
    assert "contamination" in notes["mnli"]
    assert "contamination" not in notes["sst2"]
    assert main(["outputs"]) == 0
    assert "probably contained the pairs of SNLI and MultiNLI" in capsys.readouterr().out


def test_rows_of_one_method_are_labelled_by_their_overrides(
    capsys: pytest.CaptureFixture[str],
) -> None:
    base = "task=sst2", "method=mam"
    make_run(*base)
    make_run(*base, "composition@ffn=add")
    make_run(*base, "optim.lr=1e-4")
    metrics = make_run(*base, "seed=7") / "metrics.json"
    signatures = {"accuracy": "accuracy (%)", "references": "raw"}
    metrics.write_text(json.dumps(json.loads(metrics.read_text()) | {"signatures": signatures}))
    rows = sheet(capsys, "outputs")
    assert "references" not in rows[0]["notes"] and "accuracy (%)" not in rows[0]["notes"]
    labels = {row["method"] for row in rows}
    assert "mam composition@ffn=add optim.lr=0.0005" in labels
    assert "mam composition@ffn=scaled ffn.scale=4 optim.lr=0.0001" in labels


def test_null_is_a_difference_and_an_unused_size_is_not(
    capsys: pytest.CaptureFixture[str],
) -> None:
    base = "task=sst2", "method=mam"
    make_run(*base, "composition@ffn=add", "ffn.scale=8")
    make_run(*base, "composition@ffn=add", "recipe.max_grad_norm=null")
    labels = {row["method"] for row in sheet(capsys, "outputs")}
    assert {"mam recipe.max_grad_norm=1", "mam recipe.max_grad_norm=null"} < labels


def test_scores_on_other_examples_are_in_another_table(
    capsys: pytest.CaptureFixture[str],
) -> None:
    make_run("task=sst2", "method=mam")
    make_run("task=sst2", "method=mam", "limit.test=64")
    assert [row["data"] for row in sheet(capsys, "outputs")] == ["", "", *["limit.test=64"] * 2]


def test_scores_of_another_backbone_are_in_another_table(
    capsys: pytest.CaptureFixture[str],
) -> None:
    make_run("task=sst2", "method=mam")
    make_run("task=sst2", "method=mam", "backbone.path=mine")
    data = [row["data"] for row in sheet(capsys, "outputs")]
    place = f"backbone.path={Path.cwd() / 'mine'}"
    assert data == ["", "", place, place]


def test_a_value_that_is_not_finite_is_shown_as_nan(capsys: pytest.CaptureFixture[str]) -> None:
    make_run("task=sst2", "method=mam", **{"test/loss": None})
    assert main(["outputs"]) == 0
    assert " nan " in capsys.readouterr().out


def test_a_run_folder_or_any_folder_above_it_is_accepted(
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = make_run("task=sst2", "method=mam")
    make_run("task=sst2", "method=bitfit")
    (folder / "wandb" / "files").mkdir(parents=True)
    (folder / "wandb" / "files" / "config.yaml").write_text("{}")
    assert len(sheet(capsys, str(folder))) == 2  # with the trivial baseline
    assert len(sheet(capsys, "outputs", "outputs/sst2", str(folder))) == 3, "each run once"


@pytest.mark.usefixtures("outputs")
def test_columns_are_selected_in_every_format(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["outputs", "task=sst2", "method=mam,bit*", "ffn.bottleneck=64", "seed=1,2"]
    words += ["backbone.weights=pretrained", "columns=stored_percent,method,accuracy"]
    first = {
        "text": "stored %  method",
        "markdown": "| stored % | method | accuracy |",
        "latex": r"stored \% & method & accuracy \\",
        "csv": "task,scale,backbone,data,stored %,method,accuracy,accuracy std,notes",
    }
    for name, header in first.items():
        assert main([*words, "--format", name]) == 0
        out = capsys.readouterr().out
        assert header in out and "tokens" not in out and "mnli" not in out
        assert "lora_attn" not in out and "random" not in out
    assert main(["outputs", "--format=latex"]) == 0
    assert r"\label{tab:mnli-mini-roberta_mini}" in capsys.readouterr().out


def test_filters_apply_before_runs_are_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    make_run("task=sst2", "method=mam")
    spoil(make_run("task=sst2", "method=bitfit"), "metrics.json", None)
    assert main(["method=mam"]) == 0
    assert capsys.readouterr().err == ""
    assert main(["outputs", "seed=77"]) == 0
    assert capsys.readouterr().err == "no finished run matches seed=77\n"


# ---- damaged and unfinished folders


def spoil(folder: Path, name: str, content: bytes | None) -> None:
    if content is None:
        (folder / name).unlink()
    else:
        (folder / name).write_bytes(content)


RUNNING = b'{"state": "running", "step": 7, "heartbeat": "2022-04-25"}'
FAILED = b'{"state": "failed", "step": 7, "error": "RuntimeError: the disk\\nis full"}'
DAMAGE: list[tuple[dict[str, bytes | None], str]] = [
    ({"metrics.json": None, "status.json": RUNNING}, "stale (its process is gone) at step 7"),
    ({"metrics.json": None, "status.json": FAILED}, "failed at step 7: RuntimeError: the disk is"),
    ({"metrics.json": None, "status.json": None}, "not begun"),
    ({"metrics.json": b'{"task": "ss'}, "metrics.json is damaged"),
    ({"metrics.json": b"\xff\xfe\x00"}, "metrics.json is damaged"),
    ({"metrics.json": b""}, "metrics.json is damaged"),
    ({"metrics.json": b"[1, 2]"}, "metrics.json is damaged: it does not hold a mapping"),
    ({"metrics.json": b'{"task": "sst2", "seed": "one"}'}, "lacks method"),
    ({"status.json": b"{"}, "status.json is damaged"),
    ({"config.yaml": None}, "no config.yaml"),
    ({"config.yaml": b"a: [1,"}, "config.yaml is damaged"),
    ({"config.yaml": b"a: 1"}, "does not hold a whole configuration"),
    ({"config.yaml": b"task: 3\nrecipe: {}\nbackbone: mini"}, "not hold a whole configuration"),
    ({"config.yaml": b"\xff\xfe"}, "config.yaml is damaged"),
    ({"config.yaml": b"- 1"}, "config.yaml is damaged: it does not hold a mapping"),
]


@pytest.mark.parametrize(("files", "part"), DAMAGE)
def test_a_damaged_or_unfinished_folder_is_one_line(
    capsys: pytest.CaptureFixture[str], files: dict[str, bytes | None], part: str
) -> None:
    good = make_run("task=sst2", "method=mam")
    bad = make_run("task=sst2", "method=bitfit")
    for name, content in files.items():
        spoil(bad, name, content)
    assert main(["outputs"]) == 0
    out, err = capsys.readouterr()
    assert "mam" in out
    assert err.count("\n") == 1
    assert part in err
    assert err.startswith(f"left out: {bad}: ")
    assert str(good) not in err


def test_a_running_run_is_not_stale(capsys: pytest.CaptureFixture[str]) -> None:
    folder = make_run("task=sst2", "method=mam")
    spoil(folder, "metrics.json", None)
    spoil(folder, "status.json", RUNNING)
    with RunLock(folder):
        assert main(["outputs"]) == 0
    assert "running at step 7\n" in capsys.readouterr().err


def test_a_copied_run_counts_once(capsys: pytest.CaptureFixture[str]) -> None:
    folder = make_run("task=sst2", "method=mam")
    copy = Path("copy")
    copy.mkdir()
    for file in folder.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    assert main(["outputs", "copy"]) == 0
    out, err = capsys.readouterr()
    assert "left out: copy: the same run as" in err
    assert "+-" not in out


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["nowhere"], "nowhere is not a run folder"),
        (["empty"], "holds no run"),
        (["outputs", "tsk=sst2"], "no run has a key tsk; did you mean task?"),
        (["--columns=method,acuracy"], "columns=acuracy is unknown (did you mean accuracy?)"),
        (["--columns", ","], "no column given"),
        (["--html", "--columns=method"], "--html and --columns exclude each other"),
        (["curves", "method=mam"], "no run with records matches method=mam"),
        (["shares", "seed=7"], "no finished run matches seed=7"),
    ],
)
def test_a_wrong_word_is_one_sentence(
    capsys: pytest.CaptureFixture[str], arguments: list[str], part: str
) -> None:
    Path("empty").mkdir()
    make_run("task=sst2", "method=mam")
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert part in err


def test_without_finished_runs_there_is_no_table(capsys: pytest.CaptureFixture[str]) -> None:
    folder = make_run("task=sst2", "method=mam")
    spoil(folder, "metrics.json", None)
    assert main(["outputs"]) == 0
    out, err = capsys.readouterr()
    assert out == ""
    assert err.endswith("no finished run yet\n")


def test_nothing_heavy_is_imported(tmp_path: Path) -> None:
    make_run("task=sst2", "method=mam")
    script = """
import sys
from unipeft_run.runs.lock import RunLock
from unipeft_run.commands.report import main
main(["outputs"])
print([name for name in ("torch", "transformers", "datasets", "numpy") if name in sys.modules])
"""
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env=env, check=True
    )
    assert done.stdout.endswith("[]\n")
