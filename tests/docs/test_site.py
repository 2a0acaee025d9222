"""The documentation site: the strict build, and its pages in a real browser, offline."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from browser import console, open_browser, requests, show

ROOT = Path(__file__).parents[2]
WIDTHS = {"desktop": 1280, "phone": 390}
pytestmark = pytest.mark.slow


def build(root: Path, out: Path) -> subprocess.CompletedProcess[str]:
    """Build the documentation of `root` as `make docs` does."""
    pytest.importorskip("material", reason="unipeft[docs] is not installed")
    command = [sys.executable, "-m", "mkdocs", "build", "-f", "docs/site/mkdocs.yml"]
    return subprocess.run(
        [*command, "-d", str(out)],
        cwd=root,
        capture_output=True,
        text=True,
        env={"NO_MKDOCS_2_WARNING": "1", "PATH": ""},
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    done = build(ROOT, folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with open_browser() as opened:
        yield opened


def pages(site: Path) -> list[Path]:
    """Return the pages; 404.html is for servers, with absolute paths."""
    return sorted(page for page in site.rglob("*.html") if page.name != "404.html")


class Paragraphs(HTMLParser):
    """Collects the text of paragraphs."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.inside = False
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        if tag == "p":
            self.inside = True
            self.texts.append("")

    def handle_endtag(self, tag: str) -> None:
        self.inside = self.inside and tag != "p"

    def handle_data(self, data: str) -> None:
        if self.inside:
            self.texts[-1] += data


def test_lists_and_tables_are_not_paragraphs(site: Path) -> None:
    raw = re.compile(r"^(\* |- |\| |```)", re.MULTILINE)  # a blank line before them is missing
    wrong = [text for page in pages(site) for text in Paragraphs(page).texts if raw.search(text)]
    assert not wrong


def test_source_files_and_the_changelog_are_pages(site: Path) -> None:
    methods = (site / "methods.html").read_text(encoding="utf-8")
    assert 'href="source/conf/method/mam.yaml.html"' in methods
    assert "prefix" in (site / "source/conf/method/mam.yaml.html").read_text(encoding="utf-8")
    assert (site / "changelog.html").exists()


@pytest.mark.parametrize("width", WIDTHS.values(), ids=WIDTHS)
def test_pages_open_offline(site: Path, browser: Any, width: int) -> None:
    for page in pages(site):
        show(browser, page, width)
        wide = browser.execute_script("return document.documentElement.scrollWidth")
        outside = [url for url in requests(browser) if not url.startswith(("file:", "data:"))]
        assert (console(browser), outside, wide <= width) == ([], [], True), page.name


def test_search_works_without_a_server(site: Path, browser: Any) -> None:
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import WebDriverWait

    show(browser, site / "index.html", WIDTHS["desktop"])
    field = browser.find_element(By.CSS_SELECTOR, ".md-search__input")
    field.click()
    field.send_keys("bottleneck")
    found = (By.CSS_SELECTOR, ".md-search-result__item")
    WebDriverWait(browser, 20).until(lambda browser: browser.find_elements(*found))
    assert console(browser) == []


def test_broken_links_fail_the_build(tmp_path: Path) -> None:
    for name in ("conf", "unipeft", "unipeft_run", "CHANGELOG.md", "CONTRIBUTING.md"):
        (tmp_path / name).symlink_to(ROOT / name)
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    broken = "[a](gone.md) [b](library.md#gone) [c](../conf/gone.yaml)\n\n"
    with (tmp_path / "docs/index.md").open("a", encoding="utf-8") as page:
        page.write(broken)
    reference = tmp_path / "docs/reference/unipeft.md"
    text = reference.read_text(encoding="utf-8")
    reference.write_text(text.replace("::: unipeft.fold", "::: unipeft.gone"), encoding="utf-8")
    done = build(tmp_path, tmp_path / "site")
    assert done.returncode == 1
    for message in (
        "'gone.md'",
        "does not contain an anchor '#gone'",
        "'../conf/gone.yaml'",
        "unipeft.gone is not a public name",
        "unipeft.fold is public but not documented",
    ):
        assert message in done.stdout + done.stderr, message
