"""Targets of exports and predictions: only our exports are replaced, and a failure keeps them."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest

from unipeft_run.commands.arguments import expand_path
from unipeft_run.commands.export import _parser as export_parser
from unipeft_run.commands.import_official import _parser as import_parser
from unipeft_run.commands.predict import _parser as predict_parser
from unipeft_run.commands.report_arguments import make_figure_parser, make_parser
from unipeft_run.errors import UserError
from unipeft_run.inference.export import _replacing
from unipeft_run.inference.prediction_file import PredictionFile
from unipeft_run.interop.target import ORIGIN, check_export_target

CARD = f"# sst2: mam on roberta\n\n{ORIGIN}`ab12cd34`.\n"
PICTURES = ("config.json", "model.safetensors", "preprocessor_config.json")
TEXTS = ("vocab.txt", "spiece.model", "tokenizer.model", "added_tokens.json")


def make_folder(folder: Path, *names: str, card: str | None = CARD) -> Path:
    folder.mkdir()
    for name in names:
        (folder / name).write_text(name)
    if card is not None:
        (folder / "README.md").write_text(card)
    return folder


@pytest.mark.parametrize("names", [PICTURES, TEXTS])
def test_an_export_is_replaced_by_force(names: tuple[str, ...], tmp_path: Path) -> None:
    out = make_folder(tmp_path / "out", *names)
    with pytest.raises(UserError, match=r"already holds an adapter or model; .* or add --force"):
        check_export_target(out, force=False)
    check_export_target(out, force=True)


@pytest.mark.parametrize("card", [None, "# A model\n\nNot trained with unipeft.\n"])
@pytest.mark.parametrize("force", [True, False])
def test_a_model_folder_of_others_is_never_replaced(
    card: str | None, force: bool, tmp_path: Path
) -> None:
    out = make_folder(tmp_path / "bert", *PICTURES, "vocab.txt", card=card)
    with pytest.raises(UserError, match=r"that unipeft did not export, as its README\.md would"):
        check_export_target(out, force=force)


def test_a_link_to_a_card_makes_no_export(tmp_path: Path) -> None:
    out = make_folder(tmp_path / "out", *PICTURES, card=None)
    (tmp_path / "card").write_text(CARD)
    (out / "README.md").symlink_to(tmp_path / "card")
    with pytest.raises(UserError, match=r"it holds README\.md"):
        check_export_target(out, force=True)


def test_an_export_to_the_current_folder_is_complete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = make_folder(tmp_path / "out", "old.txt")
    monkeypatch.chdir(out)
    with _replacing(Path().resolve()) as folder:
        (folder / "new.txt").write_text("new")
    assert [path.name for path in out.iterdir()] == ["new.txt"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("moves", [0, 1])
def test_a_failed_export_keeps_the_earlier_one(
    moves: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = make_folder(tmp_path / "out", "old.txt")
    rename, done = Path.rename, []

    def fail(self: Path, target: Path) -> Path:
        done.append(target)
        if len(done) == moves + 1:
            raise OSError(5, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(UserError, match="Input/output error"), _replacing(out) as folder:
        (folder / "new.txt").write_text("new")
    assert sorted(path.name for path in out.iterdir()) == ["README.md", "old.txt"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("text", ["a\rb", "a\r\nb", "a\nb", 'say "a"', "a,b", "plain", ""])
def test_every_text_is_read_back_from_csv(text: str, tmp_path: Path) -> None:
    with PredictionFile(tmp_path / "out.csv", "csv", ["text", "other"]) as file:
        file.write([{"text": text, "other": 1}])
    content = (tmp_path / "out.csv").read_bytes().decode()
    assert content.startswith("text,other\n") and content.endswith(",1\n")
    rows = list(csv.reader(io.StringIO(content, newline=""), strict=True))
    assert rows[1] == [text, "1"]


def test_the_home_folder_may_be_written_as_a_tilde(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    paths = [
        expand_path("~/x"),
        make_figure_parser("curves").parse_args(["--out=~/x", "."]).out,
        make_parser().parse_args(["--html=~/x"]).html,
        import_parser().parse_args(["c", "--options=o", "--out=~/x"]).out,
        predict_parser().parse_args(["r", "f", "--out=~/x"]).out,
        export_parser("export", "auto").parse_args(["r", "--out=~/x"]).out,
    ]
    assert paths == [Path("/home/me/x")] * len(paths)
    assert expand_path("~nobody-here/x") == Path("~nobody-here/x")
