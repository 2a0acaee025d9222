"""Extension folders: `--config-dir` in every command, what it trusts, and classes that fail."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml

from unipeft_run.commands.dispatch import run
from unipeft_run.commands.new import main as new
from unipeft_run.config import RunConfig, compose, load, resolve
from unipeft_run.config.declarations import declaration_of
from unipeft_run.config.design_space import combinations, find_objections
from unipeft_run.deltas.slots import build_slot
from unipeft_run.errors import UserError
from unipeft_run.extensions import (
    config_dirs,
    extended_by,
    named_folders,
    options,
    with_search_path,
)

Capture = pytest.CaptureFixture[str]
RUN = ("task=sst2", "method=parallel_ffn", "scale=mini")


@pytest.fixture
def lab(tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An extension with a form `gate`; its name, that of the package, is used in one test only."""
    monkeypatch.chdir(tmp_path)
    name = "".join(char if char.isalnum() else "_" for char in request.node.name)
    assert new(["form", "gate", "--dir", name]) == 0
    return tmp_path / name


def configured(*overrides: str) -> RunConfig:
    return resolve(compose([*RUN, "form@ffn=gate", *overrides]))


@pytest.mark.parametrize(
    "words",
    [
        ["train", *RUN, "form@ffn=gate", "--cfg", "job"],
        ["params", *RUN, "form@ffn=gate"],
        ["space", "explain", "form@ffn=gate", "insertion@ffn=parallel"],
        ["space", "explain", "method=parallel_ffn", "form@ffn=gate"],
        ["space", "solve", *RUN, "form@ffn=gate", "budget=1%"],
        ["train", "--help", "ffn.form.rank"],
    ],
    ids=lambda words: "-".join(words[:2]),
)
def test_every_command_finds_the_groups(words: list[str], lab: Path, capsys: Capture) -> None:
    assert run([*words, "--config-dir", lab.name]) == 0
    assert "gate" in capsys.readouterr().out or words[0] in ("params", "space")
    assert config_dirs() == (), "the folder belongs to one command"
    if words[1:2] != ["--help"]:
        assert run(words) == 2, "without the folder there is no such form"


def test_the_variable_is_the_flag(lab: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNIPEFT_CONFIG_DIR", str(lab))
    assert "gate" in options("form")
    assert run(["params", *RUN, "form@ffn=gate"]) == 0


def test_a_plan_finds_an_experiment(lab: Path, capsys: Capture) -> None:
    (lab / "experiment").mkdir()
    cells = {
        "cells": [{"row": "ours", "run": ["task=sst2", "method=parallel_ffn", "form@ffn=gate"]}]
    }
    (lab / "experiment" / "ours.yaml").write_text(yaml.safe_dump(cells))
    words = ["report", "plan", "ours", "output=~/runs", "--format", "csv"]
    assert run([*words, "--config-dir", lab.name]) == 0
    table = capsys.readouterr().out.replace('""', '"')
    chosen = f"form@ffn=gate \"output='~/runs'\" --config-dir {lab.name}"
    assert f"unipeft train task=sst2 method=parallel_ffn {chosen}" in table
    assert run(["report", "plan", "ours", "output=~/runs", "--config-dir", lab.name]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "ours: 1 cell, 0 done, 1 to run" in text
    assert f"train -m experiment=ours 'output=~/runs' --config-dir {lab.name}" in text


def test_commands_do_not_name_the_folders_of_the_variable(
    lab: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNIPEFT_CONFIG_DIR", str(lab))
    with extended_by(["."]), extended_by([]), extended_by([lab.name]):
        assert named_folders() == (".",)
    assert named_folders() == ()


def test_search_paths_are_joined(tmp_path: Path) -> None:
    folder = tmp_path / "it's, mine"
    folder.mkdir()
    with extended_by([str(folder)]):
        (word,) = with_search_path(["hydra.searchpath=[file://other]"])
        assert word == f"hydra.searchpath=[file://other,'file://{tmp_path}/it\\'s, mine']"
        assert with_search_path([word])[0].count("file://") >= 2
        assert compose([*RUN]).method == "parallel_ffn"


@pytest.mark.parametrize(
    "words",
    [
        ["train", *RUN, "insertion@ffn=mine", "--cfg", "job"],
        ["params", *RUN, "insertion@ffn=mine"],
        ["space", "explain", "insertion@ffn=mine"],
        ["space", "explain", "task=sst2", "method=parallel_ffn", "insertion@ffn=mine"],
    ],
    ids=lambda words: "-".join(words[:3]),
)
def test_an_insertion_cannot_be_added(words: list[str], lab: Path, capsys: Capture) -> None:
    (lab / "insertion").mkdir()
    (lab / "insertion" / "mine.yaml").write_text("insertion: mine\n")
    assert run([*words, "--config-dir", lab.name]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "insertion" in line and "=mine is unknown; choose from parallel, post_norm" in line
    if words[0] != "space":
        assert line.endswith("--config-dir cannot add an insertion")


# ---- broken files

BROKEN = {  # file -> its content, the words of a command, and what the one sentence says
    "preset/mini.yaml": ("", ["train", *RUN, "--cfg", "job"], "the file holds nothing; sections"),
    "preset/paper.yaml": ("a: [1", ["train", *RUN, "--cfg", "job"], "line 2 is not YAML"),
    "preset/other.yaml": ("any:\n  mam:\n", ["params", *RUN], "any.mam holds nothing"),
    "form/bad.yaml": ("form: [8", ["train", *RUN, "form@ffn=bad", "--cfg", "job"], "is not YAML"),
    "form/bad2.yaml": ("form: [8", ["space", "explain", "form@ffn=bad2"], "line 1 is not YAML"),
    "form/list.yaml": ("- 1", ["space", "explain", "form@ffn=list"], "holds a list"),
    "form/ref.yaml": ("form: ${x}", ["space", "explain", "form@ffn=ref"], "ref.yaml: "),
    "form/far.yaml": ("defaults: [away]", ["space", "explain", "form@ffn=far"], "away.yaml cannot"),
    "form/bytes.yaml": (b"form: \xff", ["train", *RUN, "form@ffn=bytes", "--cfg", "job"], "UTF-8"),
    "method/word.yaml": ("word", ["params", "task=sst2", "method=word"], "must be text"),
    "task/mine.yaml": ("task: [8", ["train", "--help", "task.mine"], "mine.yaml, line 1 is not"),
    "representation/r.yaml": ("a: 1", ["space", "list", "ffn"], "gives no representation.sites"),
}


@pytest.mark.parametrize("file", BROKEN)
def test_a_broken_file_is_one_sentence(
    file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    content, words, sentence = BROKEN[file]
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "broken" / file
    path.parent.mkdir(parents=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert run([*words, "--config-dir", "broken"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert sentence in line


# ---- declarations


def test_a_form_outside_declares_like_ours(lab: Path) -> None:
    with extended_by([str(lab)]):
        declared = declaration_of(f"{lab.name}.form.gate.Gate")
        assert declared and "attn.heads" in declared.attributes["illegal_at"]
        assert declared.attributes["gives"] == ("change",)
        axes = {"form": "gate", "insertion": "parallel", "composition": "add"}
        (point,) = combinations("attn", {**axes, "representation": "heads"})
        assert "gate reads a whole hidden state" in find_objections(point)[0]
        with pytest.raises(UserError, match=r"ffn.form.rank=x: must be a whole number"):
            configured("ffn.form.rank=x")
        with pytest.raises(UserError, match=r"ffn.form.rnk; did you mean ffn.form.rank"):
            configured("+ffn.form.rnk=3")
    assert declaration_of(f"{lab.name}.form.gate.Gate") is None


@pytest.mark.parametrize("source", ["def __init__(self, site, *, rank): ...", "x = 1"])
def test_an_untyped_constructor_is_left_to_itself(source: str, lab: Path) -> None:
    text = f"from unipeft_run.deltas.forms.base import Form\nclass Gate(Form):\n    {source}\n"
    (lab / "form" / "gate.py").write_text(text)
    with extended_by([str(lab)]):
        declared = declaration_of(f"{lab.name}.form.gate.Gate")
        assert declared and declared.keywords is None and declared.attributes["sites"] == ()
        assert configured("+ffn.form.anything=1").ffn


# ---- trust


def stored(lab: Path, target: str) -> Path:
    """Write a run folder whose form is the class `target`."""
    with extended_by([str(lab)]):
        plain = configured().plain()
    plain["ffn"]["form"]["_target_"] = target
    folder = lab.parent / "run"
    folder.mkdir()
    (folder / "config.yaml").write_text(yaml.safe_dump(plain))
    return folder


def test_a_stored_run_may_name_classes_of_the_folder(lab: Path) -> None:
    folder = stored(lab, target := f"{lab.name}.form.gate.Gate")
    trust = f"if you trust it, add --config-dir {lab.name}, or --allow {target}"
    with pytest.raises(UserError, match=trust):
        load(folder)
    assert load(folder, allow=[f"{lab.name}."]).ffn
    with extended_by([str(lab)]):
        assert load(folder).ffn


@pytest.mark.parametrize(
    "target",
    ["{lab}.form.gate.torch.load", "{lab}.form.gate.nn", "{lab}.os.system", "{lab}.form.other.Gate",
     "os.system", "{lab}_evil.Gate"],
)  # fmt: skip
def test_nothing_else_is_trusted(target: str, lab: Path) -> None:
    folder = stored(lab, target.format(lab=lab.name))
    with extended_by([str(lab)]), pytest.raises(UserError, match="if you trust it"):
        load(folder)


# ---- classes that fail


@pytest.mark.parametrize(
    ("source", "parts"),
    [
        (
            "import not_to_be_found\n",
            ["ModuleNotFoundError", "not_to_be_found", "({lab}/form/gate.py, line 1)"],
        ),
        ("def broken(:\n", ["imported: SyntaxError: ", "({lab}/form/gate.py, line 1)"]),
        ("1 / 0\n", ["ZeroDivisionError: division by zero", "gate.py, line 1"]),
        ("x = 1\n", ["AttributeError", "Gate"]),
    ],
)
def test_a_failing_import_is_one_message(
    source: str, parts: list[str], lab: Path, capsys: Capture
) -> None:
    (lab / "form" / "gate.py").write_text(source)
    for command in ("params", "train"):
        assert run([command, *RUN, "form@ffn=gate", "--config-dir", lab.name]) == 2
        err = capsys.readouterr().err
        assert err.startswith(f"ffn.form._target_={lab.name}.form.gate.Gate cannot be imported: ")
        assert all(part.format(lab=lab.name) in err for part in parts)
        assert len(err.splitlines()) == 1
    assert not Path("outputs").exists(), "a wrong class leaves no run"


def test_a_failing_constructor_is_one_message(lab: Path, capsys: Capture) -> None:
    file = lab / "form" / "gate.py"
    text = file.read_text()
    file.write_text(
        text.replace("        self.up =", "        self.x = {}['y']\n        self.up =")
    )
    assert run(["params", *RUN, "form@ffn=gate", "--config-dir", lab.name]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    problem = f"ffn.form: {lab.name}.form.gate.Gate cannot be built: KeyError: 'y'"
    assert line.startswith(f"{problem} ({lab.name}/form/gate.py, line ")


def test_a_missing_package_says_where_python_looks(lab: Path) -> None:
    config = yaml.safe_load((lab / "form" / "gate.yaml").read_text())
    config["form"]["_target_"] = "my_missing_package.Gate"
    (lab / "form" / "gate.yaml").write_text(yaml.safe_dump(config))
    with extended_by([str(lab)]):
        slot = configured().ffn
        assert slot is not None
        with pytest.raises(UserError, match=r"(?s)my_missing_package.*on PYTHONPATH"):
            build_slot("ffn", slot)


def test_no_other_module_of_these_folders_is_importable(lab: Path) -> None:
    """A library that probes for an optional package must not find a planted one."""
    (lab.parent / "planted.py").touch()
    (lab / "planted_too.py").touch()
    with extended_by([str(lab)]):
        assert configured().ffn and find_spec(f"{lab.name}.form.gate")
        assert find_spec("planted") is None and find_spec("planted_too") is None


def test_a_class_in_the_current_folder_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "only_here.py").write_text(
        "from unipeft_run.deltas.forms.bottleneck import Bottleneck as Mine\n"
    )
    words = ["ffn.form._target_=only_here.Mine", "ffn.bottleneck=4"]
    assert run(["params", *RUN, *words]) == 0
