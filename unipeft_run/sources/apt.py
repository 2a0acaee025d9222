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
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from unipeft_run.errors import UserError
from unipeft_run.sources.cache import cache_root

RELEASE = "trixie"
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
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
        """The pinned release, or else the system's own, with its indexes fetched."""
        if not available():
            raise UserError("apt-get and dpkg-deb are not there: this text comes from Debian")
        repositories = _repositories()
        wanted = [(address, RELEASE) for address, _ in repositories] + repositories
        for address, release in dict.fromkeys(wanted):
            apt = cls(cache_root() / "apt" / release, release)
            if apt._fetch_indexes(address):
                return apt
        raise UserError("apt could not fetch the indexes of any Debian release (no network?)")

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
            self._run("download", name, cwd=self.root / "debs")
            (archive, *_) = sorted((self.root / "debs").glob(f"{name}_*.deb"))
            half = folder.with_name(f".{name}")
            subprocess.run(["dpkg-deb", "-x", str(archive), str(half)], check=True)
            half.rename(folder)
            archive.unlink()
        return folder

    def _fetch_indexes(self, address: str) -> bool:
        for name in DIRECTORIES:
            (self.root / name).mkdir(parents=True, exist_ok=True)
        (self.root / "unpacked").mkdir(exist_ok=True)
        (self.root / "state" / "status").touch()
        signed = f"[signed-by={KEYRING}] " if KEYRING.is_file() else ""
        line = f"deb {signed}{address} {self.release} main universe\n"
        (self.root / "sources.list").write_text(line)
        if not self._complete():
            self._run("update", cwd=self.root, check=False)
        return self._complete()

    def _complete(self) -> bool:
        return bool(self.index("Packages") and self.index("Translation-en"))

    def _run(self, *command: str, cwd: Path, check: bool = True) -> str:
        return _apt_get([*self._options(), *command], cwd, check)

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


def _apt_get(arguments: list[str], cwd: Path, check: bool) -> str:
    done = subprocess.run(
        ["apt-get", "-q", *arguments],
        cwd=cwd,
        env={**os.environ, "LC_ALL": "C"},
        capture_output=True,
        text=True,
    )
    if check and done.returncode:
        reason = next((t for t in done.stderr.splitlines() if t.startswith("E:")), "")
        raise UserError(f"apt-get {arguments[-2]} {arguments[-1]} failed. {reason}".strip())
    return done.stdout


def _repositories() -> list[tuple[str, str]]:
    """(address, release) of the system's own sources, main releases only."""
    printed = _apt_get(["update", "--print-uris"], Path.cwd(), check=False)
    found = re.findall(r"'(\S+?)/dists/(\w+)/InRelease'", printed)
    return list(dict.fromkeys(found))
