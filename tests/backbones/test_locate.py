"""Locate backbones: local folders, and the cache when the hub is out of reach."""

from __future__ import annotations

import subprocess
import sys
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


def test_an_offline_backbone_comes_from_the_cache(cache: Path) -> None:
    kept = cache / "models--facebook--bart-large"
    snapshot = kept / "snapshots" / "0123"
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text("{}")
    (kept / "refs").mkdir()
    (kept / "refs" / "main").write_text("0123")
    assert locate(name="bart_large", hub=HUB, path=None) == str(snapshot)


def test_a_missing_backbone_names_the_alternatives() -> None:
    with pytest.raises(UserError, match="not in the local cache") as refusal:
        locate(name="bart_large", hub=HUB, path=None)
    assert "backbone.path=DIR" in str(refusal.value)


def test_a_missing_folder_names_the_key(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"backbone\.path=.*gone: there is no such folder"
    ) as refusal:
        locate(name="bart_large", hub=HUB, path=str(tmp_path / "gone"))
    assert "In a copied run folder it is backbone: path: in config.yaml" in str(refusal.value)
    with pytest.raises(UserError, match=r"backbone\.path=.*: this folder holds no config\.json"):
        locate(name="bart_large", hub=HUB, path=str(tmp_path))


def test_locating_imports_nothing_heavy() -> None:
    code = "import sys, unipeft_run.backbones.locate; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {"torch", "transformers", "datasets", "unipeft_run.data", "unipeft_run.miniatures"}
    assert not heavy & set(done.stdout.split())
