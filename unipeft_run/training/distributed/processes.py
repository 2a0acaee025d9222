"""Which of the processes of one run this is: what torchrun and accelerate say in the environment.

Imports nothing heavy.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout


def count() -> int:
    """The processes that share this run."""
    return int(os.environ.get("WORLD_SIZE", 1))


def rank() -> int:
    """The number of this process among them, from 0."""
    return int(os.environ.get("RANK", 0))


def leads() -> bool:
    """Whether this is the one that writes to the run folder and to the terminal."""
    return rank() == 0


@contextmanager
def only_the_lead_prints() -> Iterator[None]:
    """Inside, the other processes write nothing to stdout."""
    if leads():
        yield
        return
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
        yield
