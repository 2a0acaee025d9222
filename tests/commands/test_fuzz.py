"""200 wrong command lines and damaged folders: exit code 2 or a clear state, never a traceback.

Everything runs in this process, with random cases drawn from the fixed `SEED`.
"""

from __future__ import annotations

import random
import shutil
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from omegaconf import OmegaConf
from tiny_cli import call
from tiny_files import write_roberta, write_sentiment
from tiny_fuzz import copy_folder, damaged, snapshot, wrong_overrides

from unipeft_run import cli
from unipeft_run.config import compose, hydra_errors
from unipeft_run.config.messages import dotted_keys

pytestmark = pytest.mark.slow
SEED = 20220429
COMMAND_LINES, FINISHED, STOPPED, INPUTS = 110, 78, 6, 6
HEADLINE = 9  # lines: what is trained, before a checkpoint is read, and one message
SST2 = ("task=sst2", "method=mam", "scale=mini")
TRAIN = (
    *(*SST2, "debug=tiny", "tracking=local", "task.path=data", "backbone.path=model"),
    *("attn.bottleneck=2", "attn.form.mlp_width=4", "ffn.bottleneck=2", "output=out"),
    "task.max_source_length=64",  # the model has 78 positions
)
Call = tuple[int, str, str]


class Caller:
    """Calls the commands in the folder of the test and collects faults."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
        self._monkeypatch, self._capsys = monkeypatch, capsys
        self.faults: list[str] = []

    def __call__(self, entry: Any, *overrides: str) -> Call:
        code = call(entry, self._monkeypatch, *overrides)
        return code, *self._capsys.readouterr()

    def judge(self, case: object, result: Call, max_lines: int = 3) -> None:
        """Record a fault unless the call succeeded or was refused in up to `max_lines` lines."""
        code, _, stderr = result
        lines = stderr.strip().splitlines()
        refused = code == 2 and 1 <= len(lines) <= max_lines
        if not (code == 0 or refused) or "Traceback" in stderr:
            self.faults.append(f"{case}: exit {code}\n{stderr[-1500:]}")

    def close(self) -> None:
        assert not self.faults, f"{len(self.faults)} faults:\n" + "\n".join(self.faults)


@pytest.fixture
def caller(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Caller]:
    caller = Caller(monkeypatch, capsys)
    yield caller


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with data, a model, and one finished run with its checkpoints."""
    home = tmp_path_factory.mktemp("home")
    write_sentiment(home / "data")
    write_roberta(home / "model")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        patch.setenv("UNIPEFT_CACHE", str(home / "cache"))
        patch.setenv("HOME", str(home))
        assert call(cli.train, patch, *TRAIN) == 0
        (run,) = (home / "out" / "sst2" / "mam").iterdir()
        run.rename(home / "run")
        shutil.rmtree(home / "out")
        yield home


def test_command_lines(tmp_path: Path, caller: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    keys = list(dotted_keys(OmegaConf.to_container(compose(SST2))))
    stub = ModuleType("unipeft_run.run")
    stub.run = lambda cfg: {"state": "done"}  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "unipeft_run.run", stub)
    known = cache(lambda compose, overrides, name: keys)
    monkeypatch.setattr(
        hydra_errors, "_composed_keys", lambda c, overrides, name: known(c, tuple(overrides), name)
    )
    rng = random.Random(SEED)
    refused = 0
    for _ in range(COMMAND_LINES):
        overrides = wrong_overrides(rng, keys)
        answer = caller(cli.train, *SST2, *overrides)
        caller.judge(overrides, answer)
        refused += answer[0] == 2
    caller.close()
    assert refused > 0.8 * COMMAND_LINES, "most of them are wrong"
    assert list(tmp_path.iterdir()) == [], "nothing is written"


def test_finished_runs(home: Path, caller: Caller) -> None:
    """unipeft-eval reads a damaged run folder: refuses, or gives the same as before."""
    rng, run = random.Random(SEED), home / "damaged"
    code, whole, _ = caller(cli.evaluate, "run=run")
    assert code == 0
    before = snapshot(home, run, home / "cache")
    for _ in range(FINISHED):
        what = damaged(
            rng,
            copy_folder(home / "run", run),
            ("config.yaml", "config.yaml", "delta.json", "delta.safetensors"),
        )
        content = snapshot(run)
        answer = caller(cli.evaluate, "run=damaged")
        caller.judge(what, answer)
        if answer[0] == 0 and answer[1] != whole and "config" not in what:
            caller.faults.append(f"{what}: other metrics without a message: {answer}")
        assert snapshot(run) == content, "evaluation only reads"
    caller.close()
    assert snapshot(home, run, home / "cache") == before


def test_stopped_runs(home: Path, caller: Caller) -> None:
    """unipeft-train resumes a damaged run, starts afresh, or says what to do."""
    rng = random.Random(SEED)
    caller(cli.train, *TRAIN)
    (run,) = (home / "out" / "sst2" / "mam").iterdir()
    names = [str(f.relative_to(home / "run")) for f in (home / "run").rglob("*") if f.is_file()]
    before = snapshot(home, run, home / "cache")
    for _ in range(STOPPED):
        copy_folder(home / "run", run)
        what = damaged(rng, run, names)
        if rng.random() < 0.7 and "metrics" not in what:
            (run / "metrics.json").unlink()  # as if stopped in the final report
            what += ", stopped"
        answer = caller(cli.train, *TRAIN)
        caller.judge(what, answer, HEADLINE)
        if answer[0] == 0 and "done" not in (run / "status.json").read_text():
            caller.faults.append(f"{what}: exit code 0, but the run is not done")
    caller.close()
    assert snapshot(home, run, home / "cache") == before


def test_damaged_inputs(home: Path, caller: Caller) -> None:
    """unipeft-train handles damaged data and damaged models."""
    rng = random.Random(SEED)
    for _ in range(INPUTS):
        folder = rng.choice(("data", "model"))
        shutil.rmtree(home / "inputs", ignore_errors=True)
        names = [f.name for f in (home / folder).iterdir()]
        what = f"{folder}: {damaged(rng, copy_folder(home / folder, home / 'inputs'), names)}"
        given = "task.path" if folder == "data" else "backbone.path"
        answer = caller(
            cli.train,
            *TRAIN,
            f"{given}=inputs",
            "output=scratch",
            "force=true",
            "recipe.max_steps=1",
        )
        caller.judge(what, answer)
    caller.close()
