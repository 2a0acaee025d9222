"""Files of an extension folder that are edited in a notebook, or replaced by another folder's."""

import shutil
from pathlib import Path

import pytest

from unipeft_run.commands.new import main as new
from unipeft_run.extensions import conf_dir
from unipeft_run.library.choices import configure


def test_edited_files_are_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lab = tmp_path / "edited_lab"
    assert new(["form", "gate", "--dir", str(lab)]) == 0
    (lab / "preset").mkdir()
    (lab / "method").mkdir()
    method = (conf_dir() / "method" / "parallel_ffn.yaml").read_text()
    method = method.replace("method: parallel_ffn", "method: mine")
    (lab / "method" / "mine.yaml").write_text(method)
    axes = {"insertion": "parallel", "representation": "ffn", "composition": "add"}
    text, source = (lab / "form" / "gate.yaml").read_text(), (lab / "form" / "gate.py").read_text()
    other = lab.parent / "other" / lab.name
    shutil.copytree(lab, other)
    for number, folder in enumerate((lab, other, lab)):
        monkeypatch.setenv("UNIPEFT_CONFIG_DIR", str(folder))
        size, name = 3 + number, f"rank{number}"
        preset = f"sst2:\n  mine: {{ffn: {{bottleneck: {size}}}}}\n"
        (folder / "preset" / "paper.yaml").write_text(preset)
        (folder / "form" / "gate.yaml").write_text(text.replace("rank: $", f"{name}: $"))
        (folder / "form" / "gate.py").write_text(source.replace("rank: Count", f"{name}: Count"))
        choices = {"form": "gate", "bottleneck": size, **axes}
        by_axes = configure("roberta", None, {"ffn": choices}).slots()["ffn"]
        assert by_axes.form.keywords[name] == size
        by_method = configure("roberta", "mine", {}).slots()["ffn"]
        assert by_method.form.keywords["rank"] == size
