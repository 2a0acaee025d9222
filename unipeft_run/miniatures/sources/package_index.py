"""Download one file from the package indexes that pip is configured for.

`pip download` is not used: for a source distribution it builds metadata, which runs the package's
code with whatever setuptools the index serves.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests
import urllib3

from unipeft_run.errors import UserError
from unipeft_run.miniatures.sources import index_pages
from unipeft_run.miniatures.sources.pip_options import read_options

PYPI = "https://pypi.org/simple"
TIMEOUT = "15"  # seconds without an answer; pip's default
LARGEST = 2**30  # bytes; no pinned file has a tenth of that
CHUNK = 2**16


class IndexProblem(Exception):
    """One index could not be read; the next one is tried."""


@dataclass(frozen=True)
class PackageIndexes:
    """Package indexes and folders of archives, and the arguments of requests to them."""

    indexes: tuple[str, ...]
    find_links: tuple[str, ...] = ()
    trusted_hosts: tuple[str, ...] = ()
    request: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def configured(cls) -> PackageIndexes:
        """Return the indexes that `pip install` would use here."""
        options = read_options()
        off = options.get("no-index", "").lower() in ("1", "true", "yes", "on")
        indexes = (options.get("index-url", PYPI), *options.get("extra-index-url", "").split())
        proxy = options.get("proxy")
        request = {
            "timeout": _parse_timeout(options),
            "verify": options.get("cert"),
            "cert": options.get("client-cert"),
            "proxies": {"http": proxy, "https": proxy} if proxy else None,
        }
        find_links = tuple(options.get("find-links", "").split())
        trusted = tuple(options.get("trusted-host", "").split())
        return cls(() if off else indexes, find_links, trusted, request)

    def download(self, project: str, file: str, sha256: str, target: Path) -> None:
        """Write the file with this name and SHA-256 to `target`.

        Raises UserError, with the response of every index, if none of them has it.
        """
        problems = []
        for place in self._places(project):
            shown = index_pages.without_login(place)
            try:
                for address in self._list_files(place):
                    if index_pages.file_name(address) != file:
                        continue
                    if (found := self._save(address, target)) == sha256:
                        return
                    problems.append(f"{shown} has a file of that name with SHA-256 {found}")
            except IndexProblem as problem:
                problems.append(f"{shown} {problem}")
            target.unlink(missing_ok=True)
        reasons = "; ".join(problems) or "none of pip's package indexes lists it"
        raise UserError(f"cannot download {file} (SHA-256 {sha256[:12]}...): {reasons}")

    def _places(self, project: str) -> Iterator[str]:
        """Yield the folders of archives, then the project's page in each index."""
        yield from self.find_links
        for index in self.indexes:
            yield f"{index.rstrip('/')}/{index_pages.normalise_project(project)}/"

    def _list_files(self, place: str) -> list[str]:
        """Return the addresses of the files in a folder or on a page; [] if there is no page."""
        with _reading():
            if (path := index_pages.local_path(place)) is not None:
                return index_pages.list_local(path)
            with self._get(place, Accept=index_pages.ACCEPT) as answer:
                if answer.status_code == requests.codes.not_found:
                    return []
                answer.raise_for_status()
                kind = answer.headers.get("Content-Type", "")
                links = index_pages.list_links(answer.text, kind, answer.url)
        return [index_pages.with_login(link, place) for link in links]

    def _save(self, address: str, target: Path) -> str:
        """Write the content of `address` to `target` and return its SHA-256."""
        digest, size = hashlib.sha256(), 0
        with target.open("wb") as file:
            for chunk in self._read(address):
                digest.update(chunk)
                size += file.write(chunk)
                if size > LARGEST:
                    raise IndexProblem(f"sends more than {LARGEST:,} bytes for one file")
        return digest.hexdigest()

    def _read(self, address: str) -> Iterator[bytes]:
        with _reading():
            if (path := index_pages.local_path(address)) is not None:
                with path.open("rb") as file:
                    while chunk := file.read(CHUNK):
                        yield chunk
                return
            with self._get(address, **{"Accept-Encoding": "identity"}) as answer:
                answer.raise_for_status()
                yield from answer.raw.stream(CHUNK, decode_content=False)

    def _get(self, address: str, **headers: str) -> requests.Response:
        request = dict(self.request)
        if urlsplit(address).hostname in {host.partition(":")[0] for host in self.trusted_hosts}:
            request["verify"] = False
        return requests.get(address, headers=headers, stream=True, **request)


def _parse_timeout(options: Mapping[str, str]) -> float:
    text = options.get("default-timeout", options.get("timeout", TIMEOUT))
    try:
        return float(text)
    except ValueError:
        raise UserError(f"pip's option timeout={text!r}: must be a number of seconds") from None


@contextmanager
def _reading() -> Iterator[None]:
    """Turn the errors of reading an index into IndexProblem."""
    try:
        yield
    except requests.HTTPError as error:
        assert error.response is not None
        answer = error.response
        raise IndexProblem(f"answers {answer.status_code} {answer.reason}") from error
    except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
        raise IndexProblem(f"cannot be reached ({type(error).__name__})") from error
    except OSError as error:
        raise IndexProblem(f"cannot be read ({error.strerror or error})") from error
    except ValueError as error:
        raise IndexProblem(f"does not answer as a package index ({error})") from error
