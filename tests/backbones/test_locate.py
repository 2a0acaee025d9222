"""Where a backbone is found without the hub."""

from __future__ import annotations

from pathlib import Path

import pytest
from huggingface_hub import constants

from unipeft_run.backbones import locate as module
from unipeft_run.backbones.locate import locate
from unipeft_run.errors import UserError

HUB = "facebook/bart-large"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(module, "is_hub_reachable", lambda: False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    return tmp_path


def test_what_was_downloaded_before_is_taken_from_the_cache(cache: Path) -> None:
    kept = cache / "models--facebook--bart-large"
    snapshot = kept / "snapshots" / "0123"
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text("{}")
    (kept / "refs").mkdir()
    (kept / "refs" / "main").write_text("0123")
    assert locate(name="bart_large", hub=HUB, path=None) == str(snapshot)


def test_what_is_nowhere_has_its_ways_out() -> None:
    with pytest.raises(UserError, match="not in the local cache") as refusal:
        locate(name="bart_large", hub=HUB, path=None)
    assert "backbone.path=DIR" in str(refusal.value)
