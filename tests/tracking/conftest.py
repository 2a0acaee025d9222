"""A W&B server on loopback, for the tests of tracking."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import wandb
from fake_wandb import FakeWandB, serving


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeWandB]:
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
    monkeypatch.chdir(tmp_path)
    with serving() as server:
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        wandb.teardown()  # its service still uses the previous test's server
        yield server
