"""Debian's package descriptions and package files, through apt in a private directory.

Nothing of the system's own apt state is touched and root is not needed. Addresses come from the
system's own sources, keys from the system's own keyring; only the release's name is replaced, so
that the same text is fetched on every Debian.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from unipeft_run.data.cache import cache_root
from unipeft_run.errors import UserError

RELEASE = "trixie"
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
NO_RELEASE = r"does not have a Release file|no longer has a Release file"  # apt's words for it
DIRECTORIES = ("lists/partial", "cache/archives/partial", "state", "debs")


def available() -> bool:
    return all(map(shutil.which, ("apt-get", "dpkg-deb")))


def stanzas(path: Path) -> Iterator[dict[str, str]]:
    """The paragraphs of a Debian control file, field -> value with its continuation lines."""
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
    """One release's indexes in one private directory."""

    root: Path
    release: str

    @classmethod
    def open(cls) -> Apt:
        """The pinned release, with its indexes fetched; the system's own where no mirror has it.

        Raises UserError where that cannot be told: no network is no reason for another text.
        """
        if not available():
            raise UserError("apt-get and dpkg-deb are not there: this text comes from Debian")
        repositories = _repositories()
        pinned = [(address, RELEASE) for address, _ in repositories]
        found = cls._first(pinned) or cls._first(repositories)
        if found is None:
            raise UserError("none of the system's package sources has the indexes of a release")
        return found

    @classmethod
    def _first(cls, repositories: Iterable[tuple[str, str]]) -> Apt | None:
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

    def index(self, kind: str) -> list[Path]:
        """Index files by the end of their name: `Packages` or `Translation-en`."""
        return sorted((self.root / "lists").glob(f"*_{kind}"))

    def packages(self) -> dict[str, str]:
        """Binary package -> its source package."""
        return {
            item["Package"].strip(): item.get("Source", item["Package"]).split()[0]
            for path in self.index("Packages")
            for item in stanzas(path)
        }

    def unpack(self, name: str) -> Path:
        """The folder of a package's files; scripts in it are never run."""
        folder = self.root / "unpacked" / name
        if not folder.is_dir():
            done = self._run("download", name, cwd=self.root / "debs")
            if done.returncode:
                raise UserError(f"apt-get download {name} failed. {_reason(done.stderr)}")
            (archive, *_) = sorted((self.root / "debs").glob(f"{name}_*.deb"))
            half = folder.with_name(f".{name}")
            subprocess.run(["dpkg-deb", "-x", str(archive), str(half)], check=True)
            half.rename(folder)
            archive.unlink()
        return folder

    def _fetch_indexes(self, address: str) -> bool:
        """Whether the mirror has the release. Raises UserError where it cannot be asked."""
        for name in DIRECTORIES:
            (self.root / name).mkdir(parents=True, exist_ok=True)
        (self.root / "unpacked").mkdir(exist_ok=True)
        (self.root / "state" / "status").touch()
        signed = f"[signed-by={KEYRING}] " if KEYRING.is_file() else ""
        line = f"deb {signed}{address} {self.release} main universe\n"
        (self.root / "sources.list").write_text(line)
        if self._complete():
            return True
        errors = self._run("update", cwd=self.root).stderr  # apt's exit code may be 0 all the same
        if self._complete():
            return True
        if (reason := _reason(errors)) and not re.search(NO_RELEASE, errors):
            raise UserError(f"apt-get could not fetch the indexes of {self.release}. {reason}")
        return False

    def _complete(self) -> bool:
        return bool(self.index("Packages") and self.index("Translation-en"))

    def _run(self, *command: str, cwd: Path) -> subprocess.CompletedProcess[str]:
        return _apt_get([*self._options(), *command], cwd)

    def _options(self) -> list[str]:
        settings = {
            "Dir::Etc::sourcelist": self.root / "sources.list",
            "Dir::Etc::sourceparts": "/dev/null",
            "Dir::State": self.root / "state",
            "Dir::State::status": self.root / "state" / "status",
            "Dir::State::Lists": self.root / "lists",
            "Dir::Cache": self.root / "cache",
            "Acquire::Languages": "en",
            "Acquire::GzipIndexes": "false",
            "APT::Sandbox::User": "",
        }
        return [word for key, value in settings.items() for word in ("-o", f"{key}={value}")]


def _apt_get(arguments: list[str], cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["apt-get", "-q", *arguments],
        cwd=cwd,
        env={**os.environ, "LC_ALL": "C"},
        capture_output=True,
        text=True,
    )


def _reason(stderr: str) -> str:
    """The first line in which apt says what failed; empty where nothing did."""
    lines = (line.strip() for line in stderr.splitlines())
    return next((t for t in lines if t.startswith("E:") or "Failed to fetch" in t), "")


def _repositories() -> list[tuple[str, str]]:
    """(address, release) of the system's own sources, main releases only."""
    printed = _apt_get(["update", "--print-uris"], Path.cwd()).stdout
    found = re.findall(r"'(\S+?)/dists/(\w+)/InRelease'", printed)
    return list(dict.fromkeys(found))
