"""Pinned npm packages: downloaded by the npm client as archives, never installed or run."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from unipeft_run.errors import UserError
from unipeft_run.miniatures.sources.checksums import hash_file
from unipeft_run.miniatures.sources.pypi import Release


@dataclass(frozen=True)
class NpmRelease(Release):
    """The archive of one release, identified by its SHA-256."""

    def _download_to(self, target: Path) -> Path:
        """Fetch the archive from the registry that npm is configured for, and check it.

        `npm pack` downloads an archive; with `--ignore-scripts`, it runs nothing of the package.
        """
        if shutil.which("npm") is None:
            raise UserError(f"{self.name} is an npm package: npm is needed")
        wanted = f"{self.name}@{self.version}"
        options = ["--ignore-scripts", "--loglevel=error", f"--pack-destination={target.parent}"]
        done = subprocess.run(
            ["npm", "pack", wanted, *options], cwd=target.parent, capture_output=True, text=True
        )
        if done.returncode or not target.is_file():
            raise UserError(f"npm pack {wanted} failed. {_find_error(done.stderr)}")
        if (found := hash_file(target)) != self.sha256:
            raise UserError(f"npm's {target.name} has SHA-256 {found}, not {self.sha256}")
        return target


def _find_error(stderr: str) -> str:
    """Return npm's first error line that says more than a code."""
    lines = [line.partition("npm error ")[2].strip() for line in stderr.splitlines()]
    return next((line for line in lines if line and not line.startswith("code ")), "")
