"""Pinned files of Python package releases: downloaded as files, never built, installed or run."""

from __future__ import annotations

import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from unipeft_run.data.cache import cache_root
from unipeft_run.miniatures.sources.cached_folder import remove_stale
from unipeft_run.miniatures.sources.checksums import hash_file
from unipeft_run.miniatures.sources.progress import notify

PART = ".part-"  # prefix of the temporary folders of downloads


@dataclass(frozen=True)
class Release:
    """One file of one release, identified by its SHA-256."""

    name: str
    version: str
    file: str
    sha256: str

    def describe(self) -> dict[str, str]:
        """Return the entry for `source.json`."""
        return asdict(self)

    def download(self) -> Path:
        """Return the file from the cache, or download it and check its SHA-256 first."""
        path = cache_root() / "downloads" / self.sha256[:12] / self.file
        if path.is_file():
            if hash_file(path) == self.sha256:
                return path
            notify(f"{path}: the checksum has changed; fetching it again")
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_stale(path.parent, PART)
        with tempfile.TemporaryDirectory(prefix=PART, dir=path.parent) as scratch:
            self._download_to(Path(scratch) / self.file).replace(path)
        return path

    def _download_to(self, target: Path) -> Path:
        from unipeft_run.miniatures.sources.package_index import PackageIndexes

        PackageIndexes.configured().download(self.name, self.file, self.sha256, target)
        return target
