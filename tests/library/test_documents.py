"""The examples of docs/library.md and of the notebook run, and print what the pages show."""

import importlib.util
import re
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLE = re.compile(r"```python\n(.*?)```\n(?:```text\n(.*?)```\n)?", re.DOTALL)


def test_the_examples_of_the_page_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    examples = EXAMPLE.findall((ROOT / "docs" / "library.md").read_text(encoding="utf-8"))
    assert len(examples) >= 10
    namespace: dict[str, Any] = {}
    for code, expected in examples:
        printed = StringIO()
        with redirect_stdout(printed):
            exec(code, namespace)
        assert printed.getvalue() == expected, code


def run_notebook(*argv: str) -> int:
    """Run scripts/notebook.py in this process, which has imported torch already."""
    spec = importlib.util.spec_from_file_location("notebook", ROOT / "scripts" / "notebook.py")
    assert spec and spec.loader
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    status = script.main(argv)
    assert isinstance(status, int)
    return status


@pytest.mark.slow
def test_the_notebook_runs(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_notebook("--check") == 0, capsys.readouterr().out


@pytest.mark.parametrize(
    "change, error",
    [(("import torch", "import trch"), "No module named 'trch'"), (("unipeft 0", "uni 0"), "")],
)
def test_a_notebook_that_fails_or_prints_something_else_is_noticed(
    change: tuple[str, str], error: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (ROOT / "docs" / "notebook.ipynb").read_text(encoding="utf-8")
    assert change[0] in text
    (tmp_path / "changed.ipynb").write_text(text.replace(*change), encoding="utf-8")
    if error:
        with pytest.raises(ModuleNotFoundError, match=error):
            run_notebook("--check", str(tmp_path / "changed.ipynb"))
    else:
        assert run_notebook("--check", str(tmp_path / "changed.ipynb")) == 1
        assert "cell 1 prints" in capsys.readouterr().out
