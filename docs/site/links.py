"""A MkDocs hook: turn links to repository files outside docs/ into pages of the site.

Pages link such files relatively, as in ../conf/method/mam.yaml, which works on a code host. For the
site, each linked file becomes a page below source/; CHANGELOG.md and CONTRIBUTING.md become pages
of their own. A link to a file that does not exist fails the strict build.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[2]
PAGES = {"CHANGELOG.md": "changelog.md", "CONTRIBUTING.md": "contributing.md"}
LANGUAGES = {".py": "python", ".yaml": "yaml", ".yml": "yaml", ".toml": "toml", ".sh": "bash"}
LINK = re.compile(r"(\]\()([^)\s#]+)(#[^)\s]*)?(\))")


def on_files(files: Files, config: Any) -> Files:
    """Add a page for every file outside docs/ that a page links, and for the changelog."""
    linked = {
        target
        for file in files.documentation_pages()
        for target in _outside(file.src_uri, file.content_string)
    }
    for target in sorted(linked | PAGES.keys()):
        text = (ROOT / target).read_text(encoding="utf-8")
        content = text if target in PAGES else _source_page(target, text)
        files.append(File.generated(config, page_of(target), content=content))
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Point links that leave docs/ to the pages made for them."""
    here = page.file.src_uri
    base = _origin(here)

    def replace(match: re.Match[str]) -> str:
        before, link, anchor, after = match.groups(default="")
        target = _resolve(base, link)
        if target is None:
            return match.group()
        return before + posixpath.relpath(page_of(target), posixpath.dirname(here)) + anchor + after

    return LINK.sub(replace, markdown)


def page_of(target: str) -> str:
    """Return the page of the site for a file of the repository."""
    if target.startswith("docs/"):
        return target.removeprefix("docs/")
    return PAGES.get(target, f"source/{target}.md")


def _outside(src_uri: str, markdown: str) -> Iterator[str]:
    """Yield the existing files outside docs/ that a page links."""
    for match in LINK.finditer(markdown):
        target = _resolve(_origin(src_uri), match.group(2))
        if target is not None and not target.startswith("docs/"):
            yield target


def _origin(src_uri: str) -> str:
    """Return the path in the repository of the file that a page was made from."""
    made_from = {page: file for file, page in PAGES.items()}
    return made_from.get(src_uri, f"docs/{src_uri}")


def _resolve(origin: str, link: str) -> str | None:
    """Return the linked file as a path in the repository; None if the link stays in docs/."""
    if "://" in link or link.startswith(("/", "mailto:")):
        return None
    target = posixpath.normpath(posixpath.join(posixpath.dirname(origin), link))
    crosses = origin.startswith("docs/") != target.startswith("docs/") or origin in PAGES
    return target if crosses and (ROOT / target).is_file() else None


def _source_page(target: str, text: str) -> str:
    language = LANGUAGES.get(Path(target).suffix, "text")
    front = f"---\ntitle: {Path(target).name}\nsearch:\n  exclude: true\n---\n"
    return f"{front}# {target}\n\n~~~~{language}\n{text}\n~~~~\n"
