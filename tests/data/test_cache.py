"""The cache folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from unipeft_run.data.cache import cache_root, writable_cache
from unipeft_run.errors import UserError


def test_the_cache_follows_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNIPEFT_CACHE", str(tmp_path / "there"))
    assert cache_root() == tmp_path / "there"
    monkeypatch.delenv("UNIPEFT_CACHE")
    assert cache_root() == Path.home() / ".cache" / "unipeft"


def test_a_failed_write_names_the_cache_its_variable_and_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNIPEFT_CACHE", str(tmp_path))
    reason = OSError(28, "No space left on device")
    with pytest.raises(UserError) as caught, writable_cache():
        raise reason
    assert f"{tmp_path}: No space left on device" in str(caught.value)
    assert "UNIPEFT_CACHE" in str(caught.value)
    assert caught.value.__cause__ is reason
