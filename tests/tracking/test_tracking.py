"""The file, the terminal and Weights & Biases, each with what can go wrong."""

from __future__ import annotations

import builtins
import json
import struct
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import rich.console

from unipeft_run.tracking import wandb as tracking_wandb
from unipeft_run.tracking.console import Console
from unipeft_run.tracking.jsonl import Jsonl
from unipeft_run.tracking.wandb import WandB

TRAIN = {"train/loss": 0.5, "train/lr": 1e-4, "train/tokens_per_second": 1234.5}


def test_records_are_lines(tmp_path: Path) -> None:
    tracker = Jsonl(tmp_path / "train.jsonl")
    tracker.begin(0, 10)
    tracker.log({"train/loss": 0.1}, 5)
    tracker.log({"validation/loss": float("inf")}, 10)
    lines = (tmp_path / "train.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [
        {"step": 5, "train/loss": 0.1},
        {"step": 10, "validation/loss": None},
    ]


def test_a_run_taken_up_forgets_what_came_after_its_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    tracker = Jsonl(path)
    for step in (5, 10, 10, 15, 20):
        tracker.log({}, step)
    with path.open("a") as file:
        file.write('{"step": 25, "train/lo')  # the machine stopped here
    Jsonl(path).begin(10, 30)
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [5, 10, 10]


def test_an_evaluation_that_does_not_count_is_forgotten(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    tracker = Jsonl(path)
    for step in (5, 10):
        tracker.log({"train/loss": 0.5}, step)
        tracker.log({"validation/loss": 0.5}, step)
    Jsonl(path).begin(10, 30, evaluated=10)
    assert len(path.read_text().splitlines()) == 4
    Jsonl(path).begin(10, 30, evaluated=5)
    steps = [json.loads(line)["step"] for line in path.read_text().splitlines()]
    assert (steps, "validation" in path.read_text().splitlines()[-1]) == ([5, 5, 10], False)


def watched(width: int = 80) -> tuple[Console, StringIO]:
    screen = StringIO()
    return Console(console=rich.console.Console(file=screen, force_terminal=True, width=width)), (
        screen
    )


def plain(every: float) -> tuple[Console, StringIO]:
    file = StringIO()
    return Console(every=every, console=rich.console.Console(file=file, width=40)), file


def test_the_bar_fits_eighty_columns() -> None:
    console, screen = watched()
    console.begin(2, 10)
    console.tick(TRAIN, 3, 5)
    with console.progress("validation", 4) as advance:
        advance(4)
    console.log({"validation/loss": 0.25, "best_step": 5}, 5)
    console.finish({}, "done")
    text = screen.getvalue()
    assert "3/10" in text
    assert "loss 0.5000  lr 1.00e-04  1,234 tokens/s  next evaluation 5" in text
    assert "step 5  validation  loss 0.2500  (best so far)" in text
    assert text.endswith("\x1b[?25h")  # the cursor is back


def test_plain_lines_where_there_is_no_terminal() -> None:
    console, file = plain(every=0.0)
    console.begin(0, 10)
    console.tick(TRAIN, 4, 5)
    with console.progress("validation", 8) as advance:
        advance(3)
        advance(5)
    console.log({"validation/loss": 0.25, "best_step": 3}, 5)
    console.log({"train/loss": 0.25}, 5)
    console.finish({}, "done")
    lines = file.getvalue().splitlines()
    assert lines[0].startswith("4/10  0:00:00 elapsed  0:00:00 left  loss 0.5000")
    assert [line[:16] for line in lines[1:3]] == ["validation  3/8 ", "validation  8/8 "]
    assert lines[3:] == ["step 5  validation  loss 0.2500"]
    assert "\x1b" not in file.getvalue()


def test_plain_lines_come_now_and_then() -> None:
    console, file = plain(every=3600.0)
    console.begin(0, 10)
    for step in range(1, 11):
        console.tick(TRAIN, step, None)
    console.finish({}, "done")
    assert [line.split()[0] for line in file.getvalue().splitlines()] == ["10/10"]


def test_progress_without_training() -> None:
    console, screen = watched()
    with console.progress("test", 3) as advance:
        advance(3)
    assert "test" in screen.getvalue() and "3/3" in screen.getvalue()


def test_finish_without_begin() -> None:
    console, screen = watched()
    console.finish({}, "failed")
    assert screen.getvalue() == ""


# Weights & Biases


@pytest.fixture
def no_account(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))


def track(folder: Path, **given: Any) -> float:
    """A short run; gives back how long `start` and `log` held it up."""
    tracker = WandB(folder, "ab12cd34", group="sweep", tags=["mam"], **given)
    began = time.perf_counter()
    tracker.start({"task": "sst2", "attn": {"bottleneck": 16}})
    tracker.begin(0, 4)
    for step in range(1, 5):
        tracker.tick(TRAIN, step, None)
        tracker.log({"train/loss": 1 / step, "best_step": None}, step)
    held_up = time.perf_counter() - began
    tracker.finish({"test/accuracy": 90.5}, "done")
    return held_up


def stored_records(folder: Path) -> list[Any]:
    """What is in the offline file, which wandb's own process closes soon after `finish`."""
    for _ in range(600):
        records = read_records(folder)
        if any(record.WhichOneof("record_type") == "exit" for record in records):
            break
        time.sleep(0.1)
    return records


def read_records(folder: Path) -> list[Any]:
    """Protobuf records in LevelDB's log format.

    wandb 0.31 has no reader in Python: a head of 7 bytes, then blocks of 32 KiB with fragments
    of a checksum (4 bytes), a length (2), a kind (1: whole, 2 to 4: first, middle, last).
    """
    from wandb.proto import wandb_internal_pb2

    files = [path.read_bytes() for path in folder.glob("wandb/offline-run-*/*.wandb")]
    data, position, payload, records = b"".join(files), 7, b"", []
    while position + 7 <= len(data):
        if (left := 32768 - position % 32768) < 7:
            position += left
            continue
        length, kind = struct.unpack_from("<HB", data, position + 4)
        payload += data[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):
            records.append(wandb_internal_pb2.Record.FromString(payload))
            payload = b""
    return records


def ours(caplog: pytest.LogCaptureFixture) -> list[str]:
    name = "unipeft_run.tracking.wandb"
    return [record.getMessage() for record in caplog.records if record.name == name]


@pytest.mark.usefixtures("no_account")
def test_offline_without_a_key(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    track(tmp_path, mode="auto")
    records = stored_records(tmp_path)
    kinds = [record.WhichOneof("record_type") for record in records]
    assert kinds.count("history") == 4 and kinds.count("exit") == 1
    (run,) = (record.run for record in records if record.WhichOneof("record_type") == "run")
    assert (run.run_id, run.run_group, list(run.tags)) == ("ab12cd34", "sweep", ["mam"])
    summary = {
        (item.key or item.nested_key[0]): item.value_json
        for record in records
        for item in record.summary.update
    }
    assert summary["test/accuracy"] == "90.5"
    assert capfd.readouterr() == ("", "")


@pytest.mark.usefixtures("no_account")
def test_disabled_does_nothing(tmp_path: Path) -> None:
    assert track(tmp_path, mode="disabled") < 0.1
    assert not list(tmp_path.iterdir())


def test_the_mode_of_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    track(tmp_path, mode="auto")
    assert not (tmp_path / "wandb").exists()


@pytest.mark.usefixtures("no_account")
@pytest.mark.parametrize("known", ["api.wandb.ai", "elsewhere.org"])
def test_a_key_in_netrc_is_for_its_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, known: str
) -> None:
    monkeypatch.delenv("WANDB_BASE_URL", raising=False)
    (tmp_path / "netrc").write_text(f"machine {known} login user password {'a' * 40}\n")
    assert tracking_wandb._resolve("auto") == ("auto" if known == "api.wandb.ai" else "offline")


@pytest.mark.usefixtures("no_account")
def test_without_the_package_training_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    plain_import = builtins.__import__

    def without_wandb(name: str, *rest: Any, **more: Any) -> Any:
        if name == "wandb":
            raise ImportError("No module named 'wandb'")
        return plain_import(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without_wandb)
    track(tmp_path, mode="offline")
    assert ours(caplog) == ["Weights & Biases is off for this run: No module named 'wandb'"]


@pytest.mark.usefixtures("no_account")
def test_an_error_inside_does_not_reach_training(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Unspeakable:
        def __repr__(self) -> str:
            raise RuntimeError("cannot be written")

    tracker = WandB(tmp_path, "ab12cd34", mode="offline")
    tracker.start({})
    tracker.log({"x": {1: Unspeakable()}}, 1)
    tracker.log({"x": 1.0}, 2)
    tracker.finish({}, "done")
    (message,) = ours(caplog)
    assert message.startswith("Weights & Biases is off for this run: ")


class Sick(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(503)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Not on the terminal."""


@pytest.fixture
def sick_server() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Sick)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.usefixtures("no_account")
@pytest.mark.parametrize("away", [True, False], ids=["no server", "a server with errors"])
def test_auto_goes_offline(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    sick_server: str,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    away: bool,
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9" if away else sick_server)
    track(tmp_path, mode="auto")
    assert len([r for r in stored_records(tmp_path) if r.WhichOneof("record_type") == "history"])
    (message,) = ours(caplog)
    assert message.startswith("Weights & Biases is offline for this run: ")
    assert capfd.readouterr().out == ""
