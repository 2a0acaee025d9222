"""Rank and world size of this process, as torchrun sets them in the environment.

Imports nothing heavy. `environment.prepare_environment` validates the variables first.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout


def world_size() -> int:
    """Return the number of processes that share this run."""
    return int(os.environ.get("WORLD_SIZE", 1))


def rank() -> int:
    """Return the rank of this process, from 0."""
    return int(os.environ.get("RANK", 0))


def is_main() -> bool:
    """Return whether this is rank 0, which writes to the run folder and the terminal."""
    return rank() == 0


@contextmanager
def silence_other_ranks() -> Iterator[None]:
    """Discard what ranks other than 0 print to stdout."""
    if is_main():
        yield
        return
    with open(os.devnull, "w") as devnull, redirect_stdout(devnull):
        yield
