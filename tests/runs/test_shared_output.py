"""Several processes train in one folder only if all of them see it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from unipeft_run import run
from unipeft_run.errors import UserError
from unipeft_run.runs.folder import RunFolder
from unipeft_run.runs.lock import RunLock, owner_of
from unipeft_run.training.distributed import parallel


@pytest.mark.parametrize("mine", ["shared", "local"])
def test_another_machine_must_see_the_folder_of_rank_0(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mine: str
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setattr(parallel, "all_reduce_sum", lambda values, device: list(values))
    planned: Any = SimpleNamespace(config=SimpleNamespace(output=mine))
    folder = RunFolder(tmp_path / mine, writes=False)
    with RunLock(tmp_path / "shared"):
        monkeypatch.setattr(parallel, "broadcast", lambda value: owner_of(tmp_path / "shared"))
        if mine == "shared":
            run._check_shared(planned, folder)
            return
        with pytest.raises(UserError, match=r"^output=local: must be on a disk that all machines"):
            run._check_shared(planned, folder)
