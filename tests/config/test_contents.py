"""A run's identity depends on the content of its data, weights and classes, not on their paths."""

from __future__ import annotations

import importlib
import shutil
import sys
from pathlib import Path

import pytest
from tiny_files import write_roberta, write_sentiment

from unipeft_run.config import PlannedRun, compose, plan
from unipeft_run.config.contents import check_unchanged, hash_contents
from unipeft_run.config.user_sources import find_sources
from unipeft_run.data.fingerprint import fingerprint_files, observe
from unipeft_run.errors import UserError

FORM = "bottleneck: ???\nform:\n  _target_: my_forms.Doubled\n  _partial_: true\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("UNIPEFT_CACHE", str(tmp_path / "cache"))
    write_sentiment(tmp_path / "data")
    write_roberta(tmp_path / "model")
    return tmp_path


def planned(folder: Path, *overrides: str, data: str = "data") -> PlannedRun:
    paths = f"task.path={folder / data}", f"backbone.path={folder / 'model'}"
    return plan(compose(["task=sst2", "method=parallel_ffn", "scale=mini", *paths, *overrides]))


def edit(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))


def test_equal_data_in_another_folder_is_the_same_run(folder: Path) -> None:
    shutil.copytree(folder / "data", folder / "copy")
    (folder / "copy" / "notes.txt").write_text("not read")
    assert planned(folder).run_id == planned(folder, data="copy").run_id


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_one_edited_row_makes_another_run(folder: Path, split: str) -> None:
    before = planned(folder)
    edit(folder / "data" / f"{split}.jsonl", "film", "play")
    assert planned(folder).run_id != before.run_id
    edit(folder / "data" / f"{split}.jsonl", "play", "film")
    assert planned(folder).run_id == before.run_id


def test_an_interrupted_run_does_not_resume_on_other_data(folder: Path) -> None:
    """Its checkpoints are in the folder of the old data, which the new command does not use."""
    before = planned(folder)
    rows = (folder / "data" / "train.jsonl").read_text().splitlines(keepends=True)
    (folder / "data" / "train.jsonl").write_text("".join(rows[:4]))
    assert planned(folder).folder != before.folder


def test_changed_weights_make_another_run_and_a_readme_does_not(folder: Path) -> None:
    before = planned(folder)
    (folder / "model" / "README.md").write_text("a card")
    assert planned(folder).run_id == before.run_id
    weights = folder / "model" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert planned(folder).run_id != before.run_id


def test_the_changed_source_of_a_form_makes_another_run(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "conf" / "form").mkdir(parents=True)
    (folder / "conf" / "form" / "doubled.yaml").write_text(FORM)
    (folder / "python").mkdir()
    (folder / "python" / "my_forms.py").write_text("FACTOR = 2\n")
    monkeypatch.syspath_prepend(str(folder / "python"))
    words = f"hydra.searchpath=[file://{folder / 'conf'}]", "form@ffn=doubled", "ffn.bottleneck=3"
    before = planned(folder, *words)
    assert "ffn.form._source_" in before.contents
    edit(folder / "python" / "my_forms.py", "2", "3")
    assert planned(folder, *words).run_id != before.run_id


def test_the_modules_that_a_form_imports_belong_to_its_source(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A package with relative imports; an installed package beside it and other files do not."""
    files = {
        "lab/__init__.py": "",
        "lab/forms.py": "import torch\nfrom . import scales\nfrom lab.deep.more import rate\n",
        "lab/scales.py": "import single\n",
        "lab/deep/__init__.py": "",
        "lab/deep/more.py": "from ..wide import width\nrate = 1\n",
        "lab/wide.py": "width = 1\n",
        "lab/unused.py": "",
        "single.py": "",
        "torch.py": "",  # never imported: the first `torch` on the path is another one
    }
    for name, text in files.items():
        (folder / "python" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "python" / name).write_text(text)
    monkeypatch.syspath_prepend(str(folder / "python"))
    names = [f.relative_to(folder / "python").as_posix() for f in find_sources("lab.forms")]
    expected = {"lab/forms.py", "lab/scales.py", "lab/deep/more.py", "lab/wide.py", "single.py"}
    assert set(names) >= expected and "lab/unused.py" not in names
    installed = folder / "site-packages"
    (folder / "python").rename(installed)
    monkeypatch.syspath_prepend(str(installed))
    importlib.invalidate_caches()
    monkeypatch.delitem(sys.modules, "lab", raising=False)
    found = {f.relative_to(installed).as_posix() for f in find_sources("lab.forms")}
    assert found == {*(name for name in names if name.startswith("lab/"))}
    assert find_sources("lab.nothing") == find_sources("nothing.at.all") == []


@pytest.mark.parametrize("file", ["lab/utils.py", "lab/deep/utils.py", "lab/__init__.py"])
def test_every_file_of_a_class_counts_whatever_its_name(
    folder: Path, monkeypatch: pytest.MonkeyPatch, file: str
) -> None:
    files = {
        "lab/__init__.py": "RATE = 1\n",
        "lab/forms.py": "from . import utils\nfrom .deep import utils as more\n",
        "lab/utils.py": "RATE = 1\n",
        "lab/deep/__init__.py": '"""Only a docstring."""\n',
        "lab/deep/utils.py": "RATE = 1\n",
    }
    for name, text in files.items():
        (folder / "python" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "python" / name).write_text(text)
    monkeypatch.syspath_prepend(str(folder / "python"))
    monkeypatch.delitem(sys.modules, "lab", raising=False)

    def digest() -> str:
        return fingerprint_files(find_sources("lab.forms"))

    before = digest()
    edit(folder / "python" / file, "1", "2")
    assert digest() != before


@pytest.mark.parametrize("text", ["", "# a comment\n", '"""Only a docstring."""\n'])
def test_an_init_file_without_code_leaves_the_run_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    (tmp_path / "quiet").mkdir()
    (tmp_path / "quiet" / "forms.py").write_text("import os\n")
    (tmp_path / "quiet" / "__init__.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "quiet", raising=False)
    with observe() as read:
        assert find_sources("quiet.forms") == [tmp_path / "quiet" / "forms.py"]
    assert read == [tmp_path / "quiet" / "__init__.py"], "an edit of it may change the run"


@pytest.mark.parametrize(
    ("file", "sentence"),
    [("data/test.jsonl", "the test data changed after the run in outputs/x was trained; "
      "give the original with task.path=DIR, or train again"),
     ("model/model.safetensors", "the backbone changed after the run in outputs/x was "
      "trained; give the original with backbone.path=DIR, or train again")],
)  # fmt: skip
def test_evaluation_names_what_changed(folder: Path, file: str, sentence: str) -> None:
    before = planned(folder)
    with (folder / file).open("ab") as content:
        content.write(b'{"sentence": "a new one", "label": 1}\n')
    now = hash_contents(before.config)
    with pytest.raises(UserError, match=sentence):
        check_unchanged(Path("outputs/x"), before.contents, now)
    check_unchanged(Path("outputs/x"), before.contents, before.contents)
