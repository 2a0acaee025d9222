"""unipeft-runs: how runs stand, read from folders alone."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from omegaconf import DictConfig, OmegaConf

from unipeft_run import config as configuration
from unipeft_run.commands.runs import command, main
from unipeft_run.runs.filters import select_runs
from unipeft_run.runs.folder import RunFolder
from unipeft_run.runs.lock import RunLock
from unipeft_run.runs.reader import find_runs, read_run

SST2 = ("task=sst2", "method=mam", "scale=mini")


def make(root: Path, state: str, *words: str) -> Path:
    """A run folder as a run leaves it."""
    cfg = configuration.compose([*SST2, f"output={root}", *words])
    folder = RunFolder(configuration.run_folder(cfg))
    folder.write_text(
        "config.yaml", OmegaConf.to_yaml(OmegaConf.create(configuration.resolve(cfg)))
    )
    error = "the loss is nan at step 4" if state == "diverged" else None
    folder.mark("running" if state == "stale" else state, step=3, total=10, error=error)  # type: ignore[arg-type]
    lines = ({"step": 3, "validation/loss": 0.5, "validation/accuracy": 81.5}, {"step": 4, "x": 1})
    folder.write_text("train.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
    if state == "done":
        folder.write_json("metrics.json", {"primary": "test/accuracy", "test/accuracy": 90.25})
    return folder.path


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("runs") / "outputs"
    for number, state in enumerate(("done", "failed", "diverged", "stale")):
        make(root, state, f"seed={number}")
    make(root, "done", "method=lora_attn", "optim.lr=0.0003")
    return root


@pytest.fixture(autouse=True)
def _there(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root.parent)


def test_states_steps_and_metrics(root: Path) -> None:
    found = {(run.config["method"], run.config["seed"]): run for run in find_runs([root])}
    assert {seed: found["mam", seed].state for seed in range(4)} == {
        0: "done",
        1: "failed",
        2: "diverged",
        3: "stale",
    }
    assert found["mam", 0].metric == ("test/accuracy", 90.25)
    assert found["mam", 1].metric == ("validation/accuracy", 81.5)
    assert (found["mam", 1].step, found["mam", 1].total) == (3, 10)
    assert found["mam", 2].error == "the loss is nan at step 4"


def test_a_run_whose_process_lives_is_running(tmp_path: Path) -> None:
    folder = make(tmp_path, "stale")
    with RunLock(folder):
        assert read_run(folder).state == "running"
    assert read_run(folder).state == "stale"


@pytest.mark.parametrize("state", ["stale", "failed"])
def test_a_run_that_was_stopped_after_its_metrics_is_done(tmp_path: Path, state: str) -> None:
    folder = make(tmp_path, state)
    RunFolder(folder).write_json("metrics.json", {"primary": "test/loss", "test/loss": 0.5})
    assert (read_run(folder).state, read_run(folder).metric) == ("done", ("test/loss", 0.5))
    (folder / "metrics.json").write_text("{")
    assert read_run(folder).state == state


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
    ("words", "part"),
    [
        (["sed=1"], "no run has a key sed; did you mean seed?"),
        (["state=dune"], "state=dune is unknown; choose from running, stale"),
        (["=1"], "is not a filter"),
        (["nowhere"], "there is no folder nowhere"),
        (["outputs", "other"], "one folder at a time"),
        (["--fast"], "unrecognized arguments: --fast; see unipeft-runs --help"),
        (["push", "--to", "moon"], "invalid choice"),
    ],
)
def test_wrong_words_are_one_sentence(
    words: list[str],
    part: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "argv", ["unipeft-runs", *words])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2
    err = capsys.readouterr().err
    assert part in err and len(err.splitlines()) == 1


def test_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert command([]) == 0
    out, err = capsys.readouterr()
    assert "5 runs: " in out and "2 done" in out
    assert out.count("test/accuracy 90.25") == 2
    assert "3/10" in out
    assert "diverged: sst2/mam/" in err and "the loss is nan at step 4" in err
    assert command(["--stale"]) == 0
    assert "1 runs: 1 stale" in capsys.readouterr().out


def test_data_instead_of_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert command(["seed=0", "--json"]) == 0
    (run,) = json.loads(capsys.readouterr().out)
    assert (run["state"], run["step"], run["metric"]) == ("done", 3, ["test/accuracy", 90.25])
    assert run["config"]["seed"] == 0


def test_it_reads_only_and_imports_nothing_heavy(root: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    script = """
import sys
from unipeft_run.commands.runs import command
command(["outputs", "task=sst2"])
print([name for name in ("torch", "transformers", "wandb", "datasets") if name in sys.modules])
"""
    env = {"PYTHONPATH": str(Path(__file__).parents[2]), "PATH": ""}
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env=env, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before


@pytest.mark.parametrize("damage", [b"", b"{", b"\xff\xfe\x00", b"[1, 2]", b"a: [", b"12"])
@pytest.mark.parametrize("name", ["config.yaml", "status.json", "metrics.json", "train.jsonl"])
def test_damaged_files_are_a_state_and_no_traceback(
    tmp_path: Path, name: str, damage: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make(tmp_path, "done")
    (folder / name).write_bytes(damage)
    assert command([str(tmp_path)]) == 0
    state = "damaged" if name == "config.yaml" else "done"
    assert f"1 runs: 1 {state}" in capsys.readouterr().out


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[DictConfig]]:
    """What reached `run`."""
    seen: list[DictConfig] = []

    def run(cfg: DictConfig) -> dict[str, Any]:
        seen.append(cfg)
        return {"state": "done"}

    stub = ModuleType("unipeft_run.run")
    stub.run = run  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "unipeft_run.run", stub)
    yield seen


def test_failed_diverged_and_stale_ones_run_again_as_stored(
    root: Path, ran: list[DictConfig], capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(["outputs", "--retry-failed"]) == 0
    assert sorted(cfg.seed for cfg in ran) == [1, 2, 3]
    folders = {configuration.run_folder(cfg) for cfg in ran}
    assert folders == {run.folder.absolute() for run in find_runs([root]) if run.state != "done"}
    assert capsys.readouterr().out.count("done") == 3
    ran.clear()
    assert command(["outputs", "--retry-failed", "seed=2"]) == 0
    assert [cfg.seed for cfg in ran] == [2]
    assert command(["outputs", "--retry-failed", "seed=0"]) == 0
    assert "nothing to rerun" in capsys.readouterr().out


def test_a_stored_run_may_not_name_any_class(
    tmp_path: Path, ran: list[DictConfig], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make(tmp_path, "failed")
    text = (folder / "config.yaml").read_text()
    (folder / "config.yaml").write_text(re.sub("_target_: .*SST2", "_target_: os.system", text))
    assert command([str(tmp_path), "--retry-failed"]) == 2
    assert ran == []
    assert "wants to run os.system" in capsys.readouterr().err


def test_a_folder_whose_content_is_another_run_is_refused(
    tmp_path: Path, ran: list[DictConfig], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make(tmp_path, "failed")
    folder.rename(folder.with_name("00000000"))
    assert command([str(tmp_path), "--retry-failed"]) == 2
    assert ran == []
    assert "belongs to another run by now" in capsys.readouterr().err


def test_help_has_examples(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command(["--help"])
    assert "unipeft-runs push --to wandb" in capsys.readouterr().out
