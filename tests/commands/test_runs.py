"""unipeft-runs: the table, JSON, filters, reruns and user errors."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from made_runs import make_sst2_run

from unipeft_run.commands.runs import RETRIED, main
from unipeft_run.config import PlannedRun
from unipeft_run.runs.filters import select_runs
from unipeft_run.runs.reader import find_runs


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("runs") / "outputs"
    for number, state in enumerate(("done", "failed", "diverged", "stale")):
        make_sst2_run(root, state, f"seed={number}")
    make_sst2_run(root, "done", "method=lora_attn", "optim.lr=0.0003")
    return root


@pytest.fixture(autouse=True)
def _in_the_folder_above(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root.parent)


@pytest.mark.parametrize(
    ("filters", "seeds"),
    [
        ([], [0, 1, 2, 3, 42]),
        (["task=sst2", "method=mam"], [0, 1, 2, 3]),
        (["seed=1,2"], [1, 2]),
        (["state=failed,diverged", "seed=1"], [1]),
        (["method=lora_*"], [42]),
        (["optim.lr=3e-4"], [42]),
        (["ffn=null"], [42]),
        (["backbone=roberta_mini", "ffn=*", "ffn.insertion=parallel"], [0, 1, 2, 3]),
        (["recipe.epochs=null", "seed=0"], [0]),
        (["seed=77"], []),
    ],
)
def test_filters(root: Path, filters: list[str], seeds: list[int]) -> None:
    assert sorted(run.config["seed"] for run in select_runs(find_runs([root]), filters)) == seeds


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["sed=1"], "no run has a key sed; did you mean seed?"),
        (["state=dune"], "state=dune is unknown; choose from running, interrupted, stale"),
        (["=1"], "=1 is not a filter; write key=value"),
        (["nowhere"], "nowhere is not a run folder, nor the id of a run in /"),
        (["no\x1b[2Jwhere"], r"no\x1b[2Jwhere is not a run folder"),
        (["outputs", "other"], "one folder at a time"),
        (["--fast"], "there is no option --fast; did you mean --format?"),
        (["push", "--to", "moon"], "to=moon is unknown; choose from wandb, tensorboard"),
    ],
)
def test_user_errors_are_one_sentence(
    arguments: list[str],
    part: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(arguments) == 2
    err = capsys.readouterr().err
    assert part in err and len(err.splitlines()) == 1


def test_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    out, err = capsys.readouterr()
    assert "5 runs: " in out and "2 done" in out
    assert out.count("test/accuracy 90.25") == 2
    assert "3/10" in out
    assert "diverged: sst2/mam/" in err and "the loss is nan at step 4" in err
    assert "settings" not in out, "no two runs of a method differ in more than their seed"
    assert main(["--stale"]) == 0
    assert "1 run: 1 stale" in capsys.readouterr().out


def test_columns_are_aligned(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for method in ("mam", "\u4e2d\u6587"):
        folder = tmp_path / "sst2" / method / "ab12cd34"
        folder.mkdir(parents=True)
        (folder / "config.yaml").write_text("seed: 7\n")
        (folder / "status.json").write_text('{"state": "failed", "step": 1}')
    assert main([str(tmp_path)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "run                 started  seed  state   step  metric  left",
        "sst2/mam/ab12cd34            7     failed  1",
        "sst2/\u4e2d\u6587/ab12cd34           7     failed  1",
        "2 runs: 2 failed",
    ]


def test_a_narrow_terminal_breaks_neither_ids_nor_numbers(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "75")
    assert main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 75
    labels = [f"sst2/{run.parent.name}/{run.name}" for run in sorted(root.glob("sst2/*/*"))]
    assert (lines[0], sorted(lines[2:-1:2])) == ("run", labels)
    rows = [line.split()[2:] for line in lines[3:-1:2]]
    assert ["3", "stale", "3/10", "validation/accuracy", "81.50"] in rows


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["seed=0", "--json"]) == 0
    (run,) = json.loads(capsys.readouterr().out)
    assert (run["state"], run["step"], run["metric"]) == ("done", 3, ["test/accuracy", 90.25])
    assert run["config"]["seed"] == 0


def test_listing_only_reads_and_imports_nothing_heavy(root: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    script = """
import sys
from unipeft_run.commands.runs import main
main(["outputs", "task=sst2"])
print([name for name in ("torch", "transformers", "wandb", "datasets") if name in sys.modules])
"""
    done = run_python(script)
    assert done.stdout.splitlines()[-1] == b"[]"
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before


def run_python(
    script: str, *arguments: str | bytes, **env: str
) -> subprocess.CompletedProcess[bytes]:
    env = {"PYTHONPATH": str(Path(__file__).parents[2]), "PATH": "", **env}
    command = [sys.executable, "-c", script, *arguments]
    return subprocess.run(command, capture_output=True, env=env, check=True)


@pytest.mark.parametrize("damage", [b"", b"{", b"\xff\xfe\x00", b"[1, 2]", b"a: [", b"12"])
@pytest.mark.parametrize("name", ["config.yaml", "status.json", "metrics.json", "train.jsonl"])
def test_damaged_files_give_a_state_not_a_traceback(
    tmp_path: Path, name: str, damage: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_sst2_run(tmp_path, "done")
    (folder / name).write_bytes(damage)
    assert main([str(tmp_path)]) == 0
    state = "damaged" if name in ("config.yaml", "metrics.json") else "done"
    out, err = capsys.readouterr()
    assert f"1 run: 1 {state}" in out
    if name != "train.jsonl":
        assert f"{state}: sst2/mam/{folder.name}: {name} is damaged: " in err


# ---- names


@pytest.mark.parametrize("name", ["seed=1", "a=b=c", "=", "state=none"])
def test_a_folder_with_an_equals_sign_is_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    make_sst2_run(tmp_path / "outputs", "done", "seed=1")
    os.rename(tmp_path / "outputs", tmp_path / name)
    assert main([name, "seed=1"] if name != "seed=1" else [name]) == 0
    assert "1 run: 1 done" in capsys.readouterr().out
    assert main([f"./{name}/sst2"]) == 0


MAIN = "import sys; from unipeft_run.commands.runs import main; sys.exit(main(sys.argv[1:]))"


@pytest.mark.parametrize("encoding", ["ascii", "utf-8", "latin-1"])
def test_any_name_is_listed_on_any_terminal(tmp_path: Path, encoding: str) -> None:
    top = bytes(tmp_path) + b"/out\xff\x1b[2J"
    folder = top + "/sst2/\u0219[\u002fbold]/ab12cd34".encode()
    try:
        os.makedirs(folder)
    except OSError:
        pytest.skip("the disk takes no such names")
    Path(os.fsdecode(folder), "config.yaml").write_text("seed: 1\nname: '\u0219'\n", "utf-8")
    Path(os.fsdecode(folder), "status.json").write_text(
        '{"state": "failed", "error": "\u0219\\u001b[2J"}', "utf-8"
    )
    done = run_python(MAIN, top, PYTHONIOENCODING=encoding, LANG="C")
    assert b"1 run: 1 failed" in done.stdout and b"[/bold]/ab12cd34" in done.stdout
    assert b"\x1b" not in done.stdout + done.stderr
    assert b"failed: " in done.stderr and rb"\x1b[2J" in done.stderr
    done = run_python(MAIN, top, "--json", PYTHONIOENCODING=encoding, LANG="C")
    (run,) = json.loads(done.stdout)
    assert os.fsencode(run["folder"]) == folder


# ---- reruns


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[PlannedRun]]:
    """The planned runs that reached `run`."""
    seen: list[PlannedRun] = []

    def run(planned: PlannedRun) -> dict[str, Any]:
        seen.append(planned)
        return {"state": "done"}

    stub = ModuleType("unipeft_run.run")
    stub.run = run  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "unipeft_run.run", stub)
    yield seen


def test_failed_diverged_and_stale_runs_are_rerun_as_stored(
    root: Path, ran: list[PlannedRun], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["outputs", "--retry-failed"]) == 0
    assert sorted(planned.config.seed for planned in ran) == [1, 2, 3]
    folders = {planned.folder for planned in ran}
    assert folders == {run.folder.absolute() for run in find_runs([root]) if run.state != "done"}
    assert capsys.readouterr().out.count("done") == 3
    ran.clear()
    assert main(["outputs", "--retry-failed", "seed=2"]) == 0
    assert [planned.config.seed for planned in ran] == [2]
    assert main(["outputs", "--retry-failed", "seed=0"]) == 0
    assert "nothing to rerun" in capsys.readouterr().out


def test_reruns_are_prepared_as_train_prepares_its_run(
    ran: list[PlannedRun], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[object] = []
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")
    monkeypatch.setattr(
        "unipeft_run.commands.runs.retry",
        lambda *_: seen.append(signal.getsignal(signal.SIGTERM)) or 0,
    )
    assert main(["outputs", "--retry-failed"]) == 0
    assert seen != [signal.SIG_DFL] and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    assert "ACCELERATE_MIXED_PRECISION" not in os.environ and os.environ["TQDM_DISABLE"]


def test_a_damaged_run_does_not_stop_the_reruns_of_others(
    tmp_path: Path, ran: list[PlannedRun], capsys: pytest.CaptureFixture[str]
) -> None:
    make_sst2_run(tmp_path, "failed", "seed=2")
    (make_sst2_run(tmp_path, "failed", "seed=3") / "config.yaml").write_text("a: &a [*a]\n")
    os.mkfifo(make_sst2_run(tmp_path, "failed", "seed=4") / "fifo")
    (make_sst2_run(tmp_path, "done", "seed=5") / "metrics.json").unlink()
    assert main([str(tmp_path), "--retry-failed"]) == 1
    assert sorted(planned.config.seed for planned in ran) == [2, 4, 5]
    assert "config.yaml is damaged: it holds YAML aliases" in capsys.readouterr().err


def test_a_run_behind_a_link_is_rerun_in_its_real_folder(
    tmp_path: Path, ran: list[PlannedRun]
) -> None:
    folder = make_sst2_run(tmp_path / "disk", "failed")
    (tmp_path / "outputs").mkdir()
    (tmp_path / "outputs" / "link").symlink_to(folder)
    assert main([str(tmp_path / "outputs"), "--retry-failed"]) == 0
    assert [planned.folder for planned in ran] == [folder]


def test_foreign_classes_in_a_stored_run_are_refused(
    tmp_path: Path, ran: list[PlannedRun], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_sst2_run(tmp_path, "failed")
    text = (folder / "config.yaml").read_text()
    (folder / "config.yaml").write_text(re.sub("_target_: .*SST2", "_target_: os.system", text))
    assert main([str(tmp_path), "--retry-failed"]) == 2
    assert ran == []
    assert "os.system" in capsys.readouterr().err


def test_a_folder_that_holds_another_run_is_refused(
    tmp_path: Path, ran: list[PlannedRun], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_sst2_run(tmp_path, "failed")
    folder.rename(folder.with_name("00000000"))
    assert main([str(tmp_path), "--retry-failed"]) == 2
    assert ran == []
    assert f"makes a new run, {folder.name}" in capsys.readouterr().err


def test_help_has_examples(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "unipeft runs push --to wandb" in text
    assert f"rerun {', '.join(RETRIED[:-1])} and {RETRIED[-1]} runs with" in text
