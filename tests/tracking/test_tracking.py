"""The trackers for train.jsonl, the console and Weights & Biases, and how each of them fails."""

from __future__ import annotations

import builtins
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import rich.console
from offline_wandb import TRAIN, stored_records, track

from unipeft_run.tracking import wandb as tracking_wandb
from unipeft_run.tracking.console import Console
from unipeft_run.tracking.jsonl import Jsonl
from unipeft_run.tracking.wandb import WandB


def test_each_record_is_one_line(tmp_path: Path) -> None:
    tracker = Jsonl(tmp_path / "train.jsonl")
    tracker.begin(0, 10)
    tracker.log({"train/loss": 0.1}, 5)
    tracker.log({"validation/loss": float("inf")}, 10)
    lines = (tmp_path / "train.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [
        {"step": 5, "train/loss": 0.1},
        {"step": 10, "validation/loss": None},
    ]


def test_a_resumed_run_drops_records_after_its_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    tracker = Jsonl(path)
    for step in (5, 10, 10, 15, 20):
        tracker.log({}, step)
    with path.open("a") as file:
        file.write('{"step": 25, "train/lo')  # the machine crashed here
    Jsonl(path).begin(10, 30)
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [5, 10, 10]


def test_a_resumed_run_drops_an_evaluation_it_repeats(tmp_path: Path) -> None:
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


def on_terminal(width: int = 80) -> tuple[Console, StringIO]:
    screen = StringIO()
    return Console(console=rich.console.Console(file=screen, force_terminal=True, width=width)), (
        screen
    )


def in_file(every: float) -> tuple[Console, StringIO]:
    file = StringIO()
    return Console(every=every, console=rich.console.Console(file=file, width=40)), file


def test_the_progress_bar_fits_eighty_columns() -> None:
    console, screen = on_terminal()
    console.begin(2, 10)
    console.tick(TRAIN, 3, 5)
    with console.progress("validation", 4) as advance:
        advance(4)
    console.log({"validation/loss": 0.25, "validation/accuracy": 81.25, "best_step": 5}, 5)
    console.finish({}, "done")
    text = screen.getvalue()
    assert "3/10" in text
    assert "loss 0.5000  lr 1.00e-04  1,234 tokens/s  next evaluation 5" in text
    assert "step 5  validation  loss 0.2500  accuracy 81.25  (best so far)" in text
    assert text.endswith("\x1b[?25h")  # the cursor is back


def test_a_long_line_on_a_terminal_breaks_between_words() -> None:
    console, screen = on_terminal(width=40)
    console.say("step 400  validation  loss 0.3476  accuracy 85.88  (best so far)")
    assert [line.rstrip() for line in screen.getvalue().splitlines()] == [
        "step 400  validation  loss 0.3476",
        "accuracy 85.88  (best so far)",
    ]


def test_plain_lines_without_a_terminal() -> None:
    console, file = in_file(every=0.0)
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


def test_plain_lines_are_rate_limited() -> None:
    console, file = in_file(every=3600.0)
    console.begin(0, 10)
    for step in range(1, 11):
        console.tick(TRAIN, step, None)
    console.finish({}, "done")
    assert [line.split()[0] for line in file.getvalue().splitlines()] == ["10/10"]


def test_progress_outside_training() -> None:
    console, screen = on_terminal()
    with console.progress("test", 3) as advance:
        advance(3)
    assert "test" in screen.getvalue() and "3/3" in screen.getvalue()


def test_finish_without_begin() -> None:
    console, screen = on_terminal()
    console.finish({}, "failed")
    assert screen.getvalue() == ""


# Weights & Biases


@pytest.fixture
def no_account(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))


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


def test_the_environment_sets_the_mode(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    track(tmp_path, mode="auto")
    assert not (tmp_path / "wandb").exists()


@pytest.mark.usefixtures("no_account")
@pytest.mark.parametrize("known", ["api.wandb.ai", "elsewhere.org"])
def test_a_key_in_netrc_is_used_for_its_own_server_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, known: str
) -> None:
    monkeypatch.delenv("WANDB_BASE_URL", raising=False)
    (tmp_path / "netrc").write_text(f"machine {known} login user password {'a' * 40}\n")
    assert tracking_wandb._resolve_mode("auto") == (
        "auto" if known == "api.wandb.ai" else "offline"
    )


@pytest.mark.usefixtures("no_account")
@pytest.mark.parametrize("problem", [ImportError, TypeError, AttributeError])
def test_training_continues_without_the_package(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    problem: type[Exception],
) -> None:
    plain_import = builtins.__import__

    def without_wandb(name: str, *rest: Any, **more: Any) -> Any:
        if name == "wandb":
            raise problem("cannot be imported")
        return plain_import(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without_wandb)
    track(tmp_path, mode="offline")
    assert ours(caplog) == ["Weights & Biases is off for this run: cannot be imported"]


@pytest.mark.usefixtures("no_account")
def test_training_survives_an_error_inside_wandb(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Unprintable:
        def __repr__(self) -> str:
            raise RuntimeError("cannot be printed")

    tracker = WandB(tmp_path, "ab12cd34", mode="offline")
    tracker.start({})
    tracker.log({"x": {1: Unprintable()}}, 1)
    tracker.log({"x": 1.0}, 2)
    tracker.finish({}, "done")
    (message,) = ours(caplog)
    assert message.startswith("Weights & Biases is off for this run: ")


class Unavailable(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(503)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Keep requests off the terminal."""


@pytest.fixture
def unavailable_server() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Unavailable)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.usefixtures("no_account")
@pytest.mark.parametrize("is_away", [True, False], ids=["no server", "server error 503"])
def test_auto_goes_offline(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    unavailable_server: str,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    is_away: bool,
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9" if is_away else unavailable_server)
    track(tmp_path, mode="auto")
    assert len([r for r in stored_records(tmp_path) if r.WhichOneof("record_type") == "history"])
    (message,) = ours(caplog)
    assert message.startswith("Weights & Biases is offline for this run: ")
    assert capfd.readouterr().out == ""
