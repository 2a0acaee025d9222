"""Parse the pages of a package index: the files it lists, and their addresses."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urljoin, urlsplit
from urllib.request import url2pathname

JSON = "application/vnd.pypi.simple.v1+json"
ACCEPT = f"{JSON}, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.1"


class _Anchors(HTMLParser):
    """Collects the targets of the links on a page."""

    def __init__(self) -> None:
        super().__init__()
        self.targets: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        target = dict(attrs).get("href")
        if tag == "a" and target:
            self.targets.append(target)


def list_links(page: str, content_type: str, address: str) -> list[str]:
    """Return the absolute addresses on a project's page, JSON (PEP 691) or HTML (PEP 503).

    Raises ValueError if the page is neither.
    """
    if content_type.partition(";")[0].strip() == JSON:
        try:
            targets = [str(file["url"]) for file in json.loads(page)["files"]]
        except (KeyError, TypeError) as error:
            raise ValueError("no list of files") from error
    else:
        anchors = _Anchors()
        anchors.feed(page)
        targets = anchors.targets
    return [urljoin(address, target) for target in targets]


def list_local(path: Path) -> list[str]:
    """Return the addresses in a local page, or of the files in a folder; [] if there is neither."""
    page = path / "index.html" if path.is_dir() else path
    if page.is_file():
        return list_links(page.read_text(encoding="utf-8"), "text/html", page.as_uri())
    return [file.as_uri() for file in sorted(path.iterdir())] if path.is_dir() else []


def local_path(place: str) -> Path | None:
    """Return the path named by a `file:` address or a plain path; None for a remote address."""
    parts = urlsplit(place)
    if parts.scheme == "file":
        return Path(url2pathname(parts.path))
    return None if "://" in place else Path(place).expanduser().absolute()


def file_name(address: str) -> str:
    """Return the last part of an address, without its fragment."""
    return unquote(PurePosixPath(urlsplit(address).path).name)


def normalise_project(name: str) -> str:
    """Return a project's name as it is spelt in addresses (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def with_login(address: str, index: str) -> str:
    """Return `address` with the user name and password of `index`, if it is on the same host."""
    target, source = urlsplit(address), urlsplit(index)
    same = target.hostname == source.hostname and target.port == source.port
    if same and "@" in source.netloc and "@" not in target.netloc:
        return target._replace(netloc=source.netloc).geturl()
    return address


def without_login(address: str) -> str:
    """Return `address` without user name and password, for messages."""
    parts = urlsplit(address)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
