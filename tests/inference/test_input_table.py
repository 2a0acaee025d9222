"""Names of images in the inputs of `unipeft predict`."""

from __future__ import annotations

import io
from pathlib import Path
from types import SimpleNamespace

import pytest
from tiny_vision import classes, picture

from unipeft_run.data.images.new_images import encode_files
from unipeft_run.inference.input_table import read_inputs


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with an image, beside the current folder."""
    made = tmp_path / "data"
    (made / "images").mkdir(parents=True)
    (made / "images" / "a.png").write_bytes(picture((220, 30, 30), 0))
    (tmp_path / "current").mkdir()
    monkeypatch.chdir(tmp_path / "current")
    return made


@pytest.mark.parametrize("name", ["table.csv", "table.jsonl", "names.txt"])
def test_images_are_relative_to_the_folder_of_the_table(name: str, folder: Path) -> None:
    header = {"table.csv": "img\n{}\n", "names.txt": "{}\n"}.get(name, '{{"img": "{}"}}\n')
    (folder / name).write_text(header.format("images/a.png"))
    task = classes()
    table = read_inputs(f"../data/{name}", task)
    assert [dict(record) for record in table.records] == [{"img": "images/a.png"}]
    assert len(encode_files(task, table.texts)) == 1
    whole = str(folder / "images" / "a.png")
    (folder / name).write_text(header.format(whole))
    assert read_inputs(f"../data/{name}", task).texts["img"] == [whole]


def test_images_on_stdin_are_relative_to_the_current_folder(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    content = io.BytesIO(b"img\n../data/images/a.png\n")
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=content))
    table = read_inputs("-", classes())
    assert table.texts["img"] == ["../data/images/a.png"]
    assert len(encode_files(classes(), table.texts)) == 1
