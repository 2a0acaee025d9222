"""The examples of docs/library.md and of the notebook run, and print what the pages show."""

import re
import subprocess
import sys
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


def test_the_notebook_runs(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "scripts" / "notebook.py"), "--check"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_failing_notebook_is_noticed(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "notebook.ipynb").read_text(encoding="utf-8")
    broken = tmp_path / "broken.ipynb"
    broken.write_text(text.replace("import unipeft\\n", "import unipft\\n"), encoding="utf-8")
    command = [sys.executable, str(ROOT / "scripts" / "notebook.py"), "--check", str(broken)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1
    assert "No module named 'unipft'" in done.stderr
