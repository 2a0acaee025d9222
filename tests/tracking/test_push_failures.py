"""unipeft-runs push: damaged and hostile folders, read-only folders, a missing package."""

from __future__ import annotations

import errno
import os
import sys
import types
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from made_runs import make_sst2_run
from sampling import sampled

from unipeft_run.commands.runs import main
from unipeft_run.tracking import Record, Tracker, replay
from unipeft_run.tracking.tensorboard import TensorBoard
from unipeft_run.tracking.wandb import WandB


class Recorder(Tracker):
    """Records what is pushed, in place of a dashboard."""

    problem = None

    def __init__(self) -> None:
        self.losses: list[Any] = []

    def log(self, record: Record, step: int) -> None:
        self.losses.append((step, record.get("validation/loss")))


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Recorder:
    monkeypatch.chdir(tmp_path)
    recorder = Recorder()
    monkeypatch.setattr(replay, "_make_tracker", lambda *_: recorder)
    return recorder


def make_two(root: Path) -> tuple[Path, Path]:
    """Make two runs; push visits the first one first."""
    first, second = make_sst2_run(root / "outputs" / "a"), make_sst2_run(root / "outputs" / "b")
    return first, second


def plant_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def plant(content: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(content)


GOOD = b'{"step": 1, "validation/loss": 0.5}\n'
SKIPPED_LINES = {
    "deeply nested": b'{"step": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "huge integer": b'{"step": ' + b"9" * 5000 + b"}",
    "infinite step": b'{"step": 1e999}',
    "not a number": b'{"step": NaN}',
    "negative step": b'{"step": -1}',
    "step as text": b'{"step": "3"}',
    "boolean step": b'{"step": true}',
    "no step": b'{"loss": 1}',
    "list": b"[1, 2]",
    "cut short": b'{"step": 3, "validat',
    "not UTF-8": b'{"step": 3, "x": "\xff"}',
    "null bytes": b"\0" * 100,
}


@pytest.mark.parametrize(
    "line", sampled(((line,) for line in SKIPPED_LINES.values()), 3), ids=SKIPPED_LINES
)
def test_a_damaged_record_is_skipped(
    recorder: Recorder, tmp_path: Path, capsys: pytest.CaptureFixture[str], line: bytes
) -> None:
    first, _ = make_two(tmp_path)
    (first / "train.jsonl").write_bytes(GOOD + line + b"\n" + GOOD.replace(b"1", b"2"))
    assert main(["push", "outputs"]) == 0
    assert recorder.losses == [(1, 0.5), (2, 0.5), (3, 0.5)]
    assert capsys.readouterr().out.count("sent: ") == 2


DAMAGE: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "FIFO": ("train.jsonl", plant_fifo, "failed: "),
    "no YAML": ("config.yaml", plant(b"a: [1,"), "failed: "),
    "date in YAML": ("config.yaml", plant(b"seed: 2022-04-25"), "failed: "),
    "escape sequence": ("config.yaml", plant(b'{"a": "\x1b[2J\n'), "failed: "),
    "odd options": ("config.yaml", plant(b"tracking: {wandb: {tags: 3, folder: x}}"), "sent: "),
    "no sections": ("config.yaml", plant(b"tracking: 3\ntask: [1]\nattn: 3"), "sent: "),
    "markup": ("config.yaml", plant(b"method: '[/bold]'"), "sent: "),
    "nested metrics": ("metrics.json", plant(b"[" * 100_000), "sent: "),
    "mark is no object": ("pushed.json", plant(b"[1]"), "sent: "),
    "mark is a folder": ("pushed.json", lambda path: path.mkdir(), "failed: "),
}


@pytest.mark.parametrize(("name", "damage", "answer"), DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_folder_is_one_line_and_the_rest_is_sent(
    recorder: Recorder,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    name: str,
    damage: Callable[[Path], object],
    answer: str,
) -> None:
    first, second = make_two(tmp_path)
    damage(first / name)
    code = main(["push", "outputs"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 and lines[0].startswith(answer), lines
    assert lines[1] == f"sent: sst2/mam/{second.name}: 1 record"
    assert code == (1 if lines[0].startswith("failed") else 0)
    assert "\x1b" not in "".join(lines)


@pytest.mark.parametrize("problem", [errno.EROFS, errno.EACCES, errno.ENOSPC])
def test_a_folder_that_cannot_be_written_does_not_stop_the_others(
    recorder: Recorder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    problem: int,
) -> None:
    first, second = make_two(tmp_path)
    write = replay.replace_file

    def refuse(path: Path, data: bytes) -> None:
        if path.parent == Path("outputs") / first.relative_to(tmp_path / "outputs"):
            raise OSError(problem, os.strerror(problem), str(path))
        write(path, data)

    monkeypatch.setattr(replay, "replace_file", refuse)
    assert main(["push", "outputs"]) == 1
    failed, sent = capsys.readouterr().out.splitlines()
    reason = f"it was sent, but pushed.json cannot be written: {os.strerror(problem)}"
    assert failed == f"failed: sst2/mam/{first.name}: {reason}"
    assert sent.startswith("sent: ")
    assert [(path / "pushed.json").exists() for path in (first, second)] == [False, True]


class Broken(types.ModuleType):
    """Fakes a package that another version of a dependency breaks."""

    def __getattr__(self, name: str) -> Any:
        raise TypeError("Descriptors cannot be created directly.\nUpdate protobuf.")


BROKEN = "tensorboard cannot be imported: Descriptors cannot be created directly."
ABSENT = {None: "pip install 'unipeft[tensorboard]'", Broken("tensorboard"): BROKEN}


@pytest.mark.parametrize("package", ABSENT)
def test_without_tensorboard_nothing_counts_as_sent(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    package: Broken | None,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", package)
    first, second = make_two(tmp_path)
    assert main(["push", "outputs", "--to", "tensorboard"]) == 2
    error = capsys.readouterr().err
    assert "nothing was sent: " in error and ABSENT[package] in error
    tracker = TensorBoard("boards", "x")
    tracker.begin(0, 10)
    assert ABSENT[package] in str(tracker.problem), "training continues"
    assert main(["push", "outputs", "--to", "wandb", "seed=99"]) == 0
    assert capsys.readouterr().out == "nothing to send\n"
    assert not (first / "pushed.json").exists() and not (second / "pushed.json").exists()


class Writer:
    """Fakes PyTorch's SummaryWriter; `fails` names the methods that raise."""

    fails: tuple[str, ...] = ()
    opened: list[tuple[str, int]] = []  # noqa: RUF012  shared by design
    scalars: list[tuple[Any, ...]] = []  # noqa: RUF012

    def __init__(self, folder: str, purge_step: int) -> None:
        self.opened.append((folder, purge_step))
        self._maybe_fail("open")

    def add_scalar(self, *scalar: Any) -> None:
        self._maybe_fail("add_scalar")
        self.scalars.append(scalar)

    def close(self) -> None:
        self._maybe_fail("close")

    def _maybe_fail(self, method: str) -> None:
        if method in self.fails:
            raise OSError(errno.ENOSPC, "No space left on device")


@pytest.fixture
def writer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> type[Writer]:
    monkeypatch.chdir(tmp_path)
    kind = type("Kind", (Writer,), {"opened": [], "scalars": []})
    module = types.ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = kind  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    return kind


@pytest.mark.parametrize("method", ["open", "add_scalar", "close"])
def test_a_board_that_cannot_be_written_fails_the_push(
    writer: type[Writer], tmp_path: Path, capsys: pytest.CaptureFixture[str], method: str
) -> None:
    make_two(tmp_path)
    writer.fails = (method,)
    assert main(["push", "outputs", "--to", "tensorboard"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in lines] == ["failed", "failed"]
    assert lines[0].endswith("TensorBoard is off for this run: [Errno 28] No space left on device")


def test_training_survives_a_board_that_cannot_be_written(writer: type[Writer]) -> None:
    writer.fails = ("add_scalar",)
    tracker = TensorBoard("boards", "x")
    tracker.begin(3, 10)
    tracker.log({"train/loss": 0.5}, 4)
    tracker.log({"train/loss": 0.5}, 5)
    tracker.finish({}, "done")
    assert writer.opened == [("boards/x", 4)]
    assert tracker.problem == "TensorBoard is off for this run: [Errno 28] No space left on device"


def test_a_stored_configuration_does_not_choose_where_boards_are_written(
    writer: type[Writer], tmp_path: Path
) -> None:
    folder = make_sst2_run(tmp_path / "outputs")
    config = (folder / "config.yaml").read_text()
    hostile = config.replace("tensorboard: null", f"tensorboard: {tmp_path / 'elsewhere'}")
    assert hostile != config
    (folder / "config.yaml").write_text(hostile)
    assert main(["push", "outputs", "--to", "tensorboard"]) == 0
    assert writer.opened == [(f"boards/sst2-mam-{folder.name}", 0)]
    assert writer.scalars == [("validation/loss", 0.5, 3), ("validation/accuracy", 81.5, 3)]


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({"project": "p", "entity": 3, "name": ["x"]}, {"project": "p"}),
        ({"folder": "x", "run_id": "y", "dir": "/tmp"}, {}),
        (3, {}),
    ],
)
def test_only_names_of_the_right_type_are_taken_from_a_stored_configuration(
    options: Any, names: Mapping[str, str]
) -> None:
    found = replay._stored_names({"tracking": {"wandb": options}})
    assert {key: value for key, value in found.items() if key != "tags"} == names
    WandB(Path("x"), "y", **found)
