"""unipeft-runs push: records sent to dashboards, read back with the dashboards' own readers."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from made_runs import make_sst2_run
from offline_wandb import stored_records, track

from unipeft_run.commands.runs import main
from unipeft_run.runs.folder import RunFolder
from unipeft_run.runs.lock import RunLock
from unipeft_run.tracking.content import find_axes, find_tables, make_tags
from unipeft_run.tracking.tensorboard import TensorBoard

SITES = [{"site": "encoder.0", "trained": 12, "stored": 8}]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A finished run that was never pushed."""
    path = make_sst2_run(tmp_path / "outputs")
    written = RunFolder(path)
    lines = ({"step": step, "train/loss": 1 / step} for step in range(1, 6))
    written.write_text("train.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
    written.write_json("parameters.json", {"trained": 12, "sites": SITES})
    rows = [{"id": i, "prediction": "ja", "reference": "no", "score": 0.5} for i in range(3)]
    written.write_predictions("test", rows)
    return path


@pytest.fixture(autouse=True)
def _without_account(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.chdir(tmp_path)


def pushed(folder: Path) -> list[Path]:
    return sorted(folder.glob("wandb/offline-run-*"))


def test_wandb_receives_everything_in_the_folder(folder: Path) -> None:
    assert main(["push", "outputs", "--to", "wandb", "--mode", "offline"]) == 0
    records = stored_records(folder)
    (run,) = (record.run for record in records if record.WhichOneof("record_type") == "run")
    assert run.run_id == f"sst2-mam-{folder.name}"
    assert (run.run_group, run.job_type) == ("sst2-mini", "mam")
    assert "attn.form=Memory" in run.tags and "ffn.insertion=parallel" in run.tags
    config = {item.key: json.loads(item.value_json) for item in run.config.update}
    assert config["seed"] == 42 and config["axes"]["attn"]["composition"] == "Gated"
    history = [
        {(item.key or item.nested_key[0]): item.value_json for item in record.history.item}
        for record in records
        if record.WhichOneof("record_type") == "history"
    ]
    losses = [float(row["train/loss"]) for row in history if "train/loss" in row]
    assert losses == [1 / step for step in range(1, 6)]
    summary = {
        (item.key or item.nested_key[0]): item.value_json
        for record in records
        for item in record.summary.update
    }
    assert summary["test/accuracy"] == "90.25" and summary["state"] == '"done"'
    files = sorted(
        path.name for path in folder.glob("wandb/offline-run-*/files/media/table/**/*.json")
    )
    assert [name.split("_")[0] for name in files] == ["parameters", "test"]


def test_a_second_push_sends_only_changed_runs(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    send = ["push", "outputs", "--to", "wandb", "--mode", "offline"]
    assert main(send) == 0 and main(send) == 0
    out = capsys.readouterr().out
    assert f"sent: sst2/mam/{folder.name}: 5 records" in out
    assert f"sent before: sst2/mam/{folder.name}" in out
    assert len(pushed(folder)) == 1
    with (folder / "train.jsonl").open("a") as file:
        file.write('{"step": 6, "train/loss": 0.1}\n')
    assert main(send) == 0
    assert "6 records" in capsys.readouterr().out


def test_push_without_a_server_fails(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("unipeft_run.tracking.wandb.CONNECTING", 2)
    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    assert main(["push", "outputs"]) == 1
    assert f"failed: sst2/mam/{folder.name}: Weights & Biases is off" in capsys.readouterr().out
    assert not (folder / "pushed.json").exists()


def test_a_running_run_is_skipped(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    RunFolder(folder).mark("running", step=3)
    with RunLock(folder):
        assert main(["push", "outputs", "--mode", "offline"]) == 0
    assert "skipped: " in capsys.readouterr().out
    assert pushed(folder) == []


def test_tensorboard_receives_the_same_metrics(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    assert main(["push", "outputs", "--to", "tensorboard"]) == 0
    events = EventAccumulator(str(tmp_path / "boards" / f"sst2-mam-{folder.name}"))
    events.Reload()
    found = [(event.step, event.value) for event in events.Scalars("train/loss")]
    assert found == [(step, pytest.approx(1 / step)) for step in range(1, 6)]


def test_without_the_package_tensorboard_is_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    monkeypatch.delitem(sys.modules, "torch.utils.tensorboard", raising=False)
    tracker = TensorBoard(tmp_path / "boards", "x")
    tracker.begin(0, 10)
    tracker.log({"train/loss": 0.5}, 1)
    tracker.finish({}, "done")
    assert "TensorBoard is off for this run" in caplog.text


def test_axes_are_named_by_class_and_site() -> None:
    slot = {
        "form": {"_target_": "unipeft_run.deltas.forms.memory.Memory"},
        "insertion": "parallel",
        "representation": {"sites": ["attn.heads"]},
        "composition": {"_target_": "unipeft_run.deltas.compositions.Gated"},
    }
    axes = {
        "form": "Memory",
        "insertion": "parallel",
        "representation": "attn.heads",
        "composition": "Gated",
    }
    assert find_axes({"attn": slot, "ffn": None}) == {"attn": axes}
    assert make_tags({"attn": slot}) == [f"attn.{axis}={name}" for axis, name in axes.items()]


def test_tables_come_from_the_files_that_exist(folder: Path, tmp_path: Path) -> None:
    found: dict[str, Any] = dict(find_tables(folder))
    assert found["parameters"] == (["site", "trained", "stored"], [["encoder.0", 12, 8]])
    assert found["predictions/test"][1][0] == [0, "ja", "no", 0.5]
    assert dict(find_tables(tmp_path)) == {}


class Silent(BaseHTTPRequestHandler):
    """Answers `/` if `greets`, and accepts every other request without ever answering."""

    greets = True
    over = threading.Event()

    def do_GET(self) -> None:
        if not self.greets:
            self.over.wait()
        self.send_response(200)
        self.end_headers()

    def do_POST(self) -> None:
        self.over.wait()

    def log_message(self, *_: object) -> None:
        """Keep requests off the terminal."""


@pytest.fixture(params=[True, False], ids=["greets", "never answers"])
def silent_server(request: pytest.FixtureRequest) -> Iterator[str]:
    kind = type("Kind", (Silent,), {"greets": request.param, "over": threading.Event()})
    server = ThreadingHTTPServer(("127.0.0.1", 0), kind)
    server.daemon_threads, server.block_on_close = True, False
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    kind.over.set()
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.slow
def test_a_silent_server_does_not_delay_training(
    silent_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setattr("unipeft_run.tracking.wandb.CONNECTING", 3)
    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", silent_server)
    began = time.monotonic()
    held_up = track(tmp_path, mode="auto")
    assert held_up < 10, "the import of wandb, on a busy machine"
    assert time.monotonic() - began < 90
    records = stored_records(tmp_path)
    assert [record.WhichOneof("record_type") for record in records].count("history") == 4
