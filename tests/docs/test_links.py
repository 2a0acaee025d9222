"""Links and paths in the Markdown files of the repository exist, also as seen on a code host."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [*ROOT.glob("*.md"), *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^(```|~~~).*?^\1", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s#]+)(?:#[^)\s]*)?\)")
CODE = re.compile(r"`([^`\n]+)`")
FOLDERS = ("conf", "docs", "scripts", "tests", "unipeft_run", "unipeft")
PLACEHOLDER = re.compile(r"[A-Z]{3,}|[*{<]")  # NAME.py, {paper,mini}.yaml


def links(text: str) -> Iterator[str]:
    """Yield the targets of relative links, without their anchors."""
    yield from (link for link in LINK.findall(text) if not re.match(r"\w+:", link))


def paths(text: str) -> Iterator[str]:
    """Yield the files and folders of this repository that inline code names."""
    for code in CODE.findall(text):
        for word in code.split():
            path = word.partition("::")[0].rstrip(",;")
            if path.split("/")[0] in FOLDERS and "/" in path and not PLACEHOLDER.search(path):
                yield path


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_and_paths_exist(page: Path) -> None:
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    missing = [link for link in links(text) if not (page.parent / link).exists()]
    missing += [path for path in paths(text) if not (ROOT / path).exists()]
    assert not missing, f"{page.name} names what does not exist: {missing}"


@pytest.mark.parametrize("page", sorted((ROOT / "docs").glob("*.md")), ids=lambda page: page.name)
def test_pages_link_each_other_instead_of_naming_files(page: Path) -> None:
    text = LINK.sub("", CODE.sub("", FENCE.sub("", page.read_text(encoding="utf-8"))))
    prose = [line for line in text.splitlines() if not line.startswith(("    ", "<!--"))]
    named = [line for line in prose if re.search(r"\bdocs/\w+\.(md|ipynb)", line)]
    assert not named, "write [Title](page.md) instead"


def test_a_missing_file_is_found() -> None:
    text = "[a](gone.md#x) and `pytest tests/gone.py -q`, `conf/form/NAME.yaml`, [b](https://x.org)"
    assert [*links(text), *paths(text)] == ["gone.md", "tests/gone.py"]
