"""Debian's package descriptions and package files, fetched by apt into a private directory.

The system's own apt state is untouched and no root is needed. Addresses come from the system's
sources and keys from its keyring; only the release is replaced by a pinned one, so that every
Debian fetches the same text.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from unipeft_run.data.cache import cache_root
from unipeft_run.errors import UserError
from unipeft_run.miniatures.sources.cached_folder import build_once
from unipeft_run.miniatures.sources.checksums import find_damage, record_checksums
from unipeft_run.miniatures.sources.progress import notify

RELEASE = "trixie"
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
NO_RELEASE = r"does not have a Release file|no longer has a Release file"  # apt's own messages
DIRECTORIES = ("lists/partial", "cache/archives/partial", "state", "debs")
INDEXES = "*_*"  # the fetched files in lists/; apt's lock and partial/ have no underscore


def is_available() -> bool:
    return all(map(shutil.which, ("apt-get", "dpkg-deb")))


def parse_stanzas(path: Path) -> Iterator[dict[str, str]]:
    """Yield the paragraphs of a Debian control file as field -> value with continuation lines."""
    fields: dict[str, str] = {}
    name = ""
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            if line == "\n":
                yield fields
                fields = {}
            elif line[0] in " \t":
                fields[name] += line
            else:
                name, _, value = line.partition(":")
                fields[name] = value.lstrip()
    if fields:
        yield fields


@dataclass(frozen=True)
class Apt:
    """The package indexes of one release, in a private directory."""

    root: Path
    release: str

    @classmethod
    def open(cls) -> Apt:
        """Fetch the indexes of the pinned release, or of the system's own if no mirror has it.

        Raises UserError if a mirror cannot be reached: without a network, no other release may be
        used.
        """
        if not is_available():
            raise UserError("this text comes from Debian packages: apt-get and dpkg-deb are needed")
        repositories = _list_repositories()
        pinned = [(address, RELEASE) for address, _ in repositories]
        found = cls._first(pinned) or cls._first(repositories)
        if found is None:
            raise UserError("none of the system's package sources has the indexes of a release")
        return found

    @classmethod
    def _first(cls, repositories: Iterable[tuple[str, str]]) -> Apt | None:
        """Return the first repository that has its release; None if every mirror lacks it.

        Raises the first UserError if a mirror could not be reached and no other has the release.
        """
        problem: UserError | None = None
        for address, release in dict.fromkeys(repositories):
            apt = cls(cache_root() / "apt" / release, release)
            try:
                if apt._fetch_indexes(address):
                    return apt
            except UserError as failure:
                problem = problem or failure
        if problem:
            raise problem
        return None

    def find_indexes(self, kind: str) -> list[Path]:
        """Return the index files of a kind: `Packages` or `Translation-en`."""
        return sorted(self._lists.glob(f"*_{kind}"))

    def read_packages(self) -> dict[str, str]:
        """Map each binary package to its source package."""
        return {
            item["Package"].strip(): item.get("Source", item["Package"]).split()[0]
            for path in self.find_indexes("Packages")
            for item in parse_stanzas(path)
        }

    def unpack(self, name: str) -> Path:
        """Return the folder of a package's files; its maintainer scripts are never run."""
        return build_once(self.root / "unpacked" / name, lambda folder: self._extract(name, folder))

    def _extract(self, name: str, folder: Path) -> None:
        """Download a package, which apt checks against the signed index, and extract its files."""
        with tempfile.TemporaryDirectory(dir=self.root / "debs") as scratch:
            done = self._run("download", name, cwd=Path(scratch))
            archives = list(Path(scratch).glob("*.deb"))
            if done.returncode or len(archives) != 1:
                raise UserError(f"apt-get download {name} failed. {_find_error(done.stderr)}")
            command = ["dpkg-deb", "-x", str(archives[0]), str(folder)]
            extracted = subprocess.run(command, capture_output=True, text=True)
            if extracted.returncode:
                reason = " ".join(extracted.stderr.split())
                raise UserError(f"dpkg-deb could not unpack {archives[0].name}: {reason}")

    @property
    def _lists(self) -> Path:
        return self.root / "lists"

    def _fetch_indexes(self, address: str) -> bool:
        """Fetch the release's indexes; False if the mirror does not have that release.

        Raises UserError if the mirror cannot be reached.
        """
        self._prepare(address)
        if self._is_complete():
            if (damage := find_damage(self._lists)) is None:
                return True
            notify(f"{self._lists}: {damage}; fetching it again")
            for path in self._lists.glob(INDEXES):
                path.unlink()
        errors = self._run("update", cwd=self.root).stderr  # the exit code can be 0 nevertheless
        if self._is_complete():
            record_checksums(self._lists, INDEXES)
            return True
        if (reason := _find_error(errors)) and not re.search(NO_RELEASE, errors):
            raise UserError(f"apt-get could not fetch the indexes of {self.release}. {reason}")
        return False

    def _prepare(self, address: str) -> None:
        """Make the private directories and the list of sources."""
        for name in DIRECTORIES:
            (self.root / name).mkdir(parents=True, exist_ok=True)
        (self.root / "state" / "status").touch()
        signed = f"[signed-by={KEYRING}] " if KEYRING.is_file() else ""
        line = f"deb {signed}{address} {self.release} main universe\n"
        (self.root / "sources.list").write_text(line)

    def _is_complete(self) -> bool:
        return bool(self.find_indexes("Packages") and self.find_indexes("Translation-en"))

    def _run(self, *command: str, cwd: Path) -> subprocess.CompletedProcess[str]:
        return _run_apt([*self._options(), *command], cwd)

    def _options(self) -> list[str]:
        settings = {
            "Dir::Etc::sourcelist": self.root / "sources.list",
            "Dir::Etc::sourceparts": "/dev/null",
            "Dir::State": self.root / "state",
            "Dir::State::status": self.root / "state" / "status",
            "Dir::State::Lists": self._lists,
            "Dir::Cache": self.root / "cache",
            "Acquire::Languages": "en",
            "Acquire::GzipIndexes": "false",
            "APT::Sandbox::User": "",
        }
        return [word for key, value in settings.items() for word in ("-o", f"{key}={value}")]


def _run_apt(arguments: list[str], cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["apt-get", "-q", *arguments],
        cwd=cwd,
        env={**os.environ, "LC_ALL": "C"},
        capture_output=True,
        text=True,
    )


def _find_error(stderr: str) -> str:
    """Return the first line in which apt reports an error; empty if there is none."""
    lines = (line.strip() for line in stderr.splitlines())
    return next((t for t in lines if t.startswith("E:") or "Failed to fetch" in t), "")


def _list_repositories() -> list[tuple[str, str]]:
    """Return (address, release) of the system's own sources, main releases only."""
    printed = _run_apt(["update", "--print-uris"], Path.cwd()).stdout
    found = re.findall(r"'(\S+?)/dists/(\w+)/InRelease'", printed)
    return list(dict.fromkeys(found))
