"""A finished run is found again without composing, and only as long as nothing has changed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from unipeft_run.extensions import extended_by
from unipeft_run.runs import plan_memory
from unipeft_run.runs.plan_memory import recall, remember

WORDS = ("task=sst2", "method=mam")


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data file an hour old, from which WORDS plan the run in tmp_path/run."""
    monkeypatch.setenv("UNIPEFT_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(plan_memory, "CLOCK_TICK_NS", -1)  # the files were just written
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "train.jsonl").write_text("{}\n")
    remember(WORDS, tmp_path / "run", [folder / "train.jsonl"])
    return folder / "train.jsonl"


def test_the_same_command_finds_the_run(data: Path, tmp_path: Path) -> None:
    assert recall(WORDS) == tmp_path / "run"
    assert recall(WORDS[::-1]) is None, "the last word of a key wins, so order matters"
    assert recall([*WORDS, "seed=2"]) is None


def _rewrite(data: Path) -> None:
    data.write_text("{} \n")


def _replace_in_place(data: Path) -> None:
    """Change the content, but neither size nor modification time."""
    status = data.stat()
    data.write_text("[]\n")
    os.utime(data, ns=(status.st_atime_ns, status.st_mtime_ns))


def _add(data: Path) -> None:
    (data.parent / "test.jsonl").touch()


def _remove(data: Path) -> None:
    data.unlink()


def _damage(data: Path) -> None:
    for entry in (data.parents[1] / "cache" / "plans").iterdir():
        entry.write_text("[1")


@pytest.mark.parametrize("change", [_rewrite, _replace_in_place, _add, _remove, _damage])
def test_a_change_makes_the_entry_void(change: object, data: Path) -> None:
    assert callable(change)
    change(data)
    assert recall(WORDS) is None


def test_a_named_folder_counts_by_its_files(data: Path, tmp_path: Path) -> None:
    words = [*WORDS, "task.path=data", "output=."]
    remember(words, tmp_path / "run", [])
    (tmp_path / "outputs").mkdir()
    assert recall(words), "the run writes to the current folder"
    (data.parent / "train.csv").touch()
    assert recall(words) is None


def test_a_change_of_the_source_makes_it_void(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "package"
    package.mkdir()
    (package / "module.py").write_text("a = 1\n")
    monkeypatch.setattr(plan_memory, "PACKAGE", package)
    remember(WORDS, tmp_path / "run", [data])
    assert recall(WORDS)
    (package / "module.py").write_text("a = 12\n")
    assert recall(WORDS) is None


def test_another_folder_or_environment_is_another_plan(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.chdir(data.parent)
        assert recall(WORDS) is None
    monkeypatch.setenv("PYTHONPATH", "elsewhere")
    assert recall(WORDS) is None


@pytest.mark.parametrize("word", ["task.path=${oc.env:HOME}", "--cfg", "mam"])
def test_what_varies_is_not_remembered(word: str, data: Path) -> None:
    remember([word], data.parent, [])
    assert recall([word]) is None


def test_an_extension_counts_by_its_files(data: Path, tmp_path: Path) -> None:
    lab = tmp_path / "lab" / "method"
    lab.mkdir(parents=True)
    (lab / "mine.yaml").write_text("method: mine\n")
    with extended_by([str(tmp_path / "lab")]):
        remember(WORDS, tmp_path / "run", [data])
        assert recall(WORDS)
        (lab / "mine.yaml").write_text("method: mine  \n")
        assert recall(WORDS) is None
        (lab / "mine.yaml").write_text("seed: ${oc.env:SEED}\n")
        remember(WORDS, tmp_path / "run", [data])
        assert recall(WORDS) is None, "the environment may change"
