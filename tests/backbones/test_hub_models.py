"""Models on the hub are read like a local folder, and never from a pickle."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import huggingface_hub
import pytest
import torch
from hostile_models import AUTO_MAP, change_json, write_pickle
from huggingface_hub import constants
from huggingface_hub.errors import RemoteEntryNotFoundError
from safetensors.torch import load_file
from tiny_files import write_roberta

from unipeft_run.backbones import converted, files, locate
from unipeft_run.backbones.load import load_backbone, load_tokenizer
from unipeft_run.errors import UserError

REPOSITORY = "somebody/model"


class Discussion(NamedTuple):
    author: str
    title: str = "Adding `safetensors` variant of this model"
    is_pull_request: bool = True
    git_reference: str = "refs/pr/1"


class NotThere(RemoteEntryNotFoundError):
    def __init__(self) -> None: ...


class Hub:
    """A repository with one folder per revision, which replaces the hub's client."""

    def __init__(self, folder: Path) -> None:
        self.main, self.pull_request = write_roberta(folder / "main"), folder / "pull_request"
        self.pull_request.mkdir()
        self.discussions: list[Discussion] = []

    def download(self, source: str, name: str, revision: str | None = None) -> str:
        assert source == REPOSITORY
        file = (self.main if revision is None else self.pull_request) / name
        if not file.is_file():
            raise NotThere
        return str(file)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    hub = Hub(tmp_path)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", hub.download)
    monkeypatch.setattr(huggingface_hub, "get_repo_discussions", lambda *_, **__: hub.discussions)
    set_reachable(monkeypatch, True)
    return hub


def set_reachable(monkeypatch: pytest.MonkeyPatch, reachable: bool) -> None:
    for module in (converted, files, locate):
        monkeypatch.setattr(module, "is_hub_reachable", lambda: reachable)


class CachedHub(Hub):
    """A repository in the hub's cache, whose main branch has a pickle only."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        kept = folder / "models--somebody--model"
        snapshots = kept / "snapshots"
        snapshots.mkdir(parents=True)
        self.main = self.main.rename(snapshots / "0a1b")
        self.pull_request = self.pull_request.rename(snapshots / "c0de")
        for reference, commit in (("main", "0a1b"), ("refs/pr/1", "c0de")):
            file = kept / "refs" / reference
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(commit)
        (self.main / "model.safetensors").rename(self.pull_request / "model.safetensors")
        (self.main / "pytorch_model.bin").write_bytes(b"")


@pytest.fixture
def cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CachedHub:
    hub = CachedHub(tmp_path)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", hub.download)
    monkeypatch.setattr(huggingface_hub, "get_repo_discussions", lambda *_, **__: hub.discussions)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    return hub


def tensors_of(model: Any) -> dict[str, torch.Tensor]:
    return dict(model.named_parameters())


def test_a_repository_is_read_like_a_folder(hub: Hub) -> None:
    expected = tensors_of(load_backbone(str(hub.main), family="roberta"))
    found = tensors_of(load_backbone(REPOSITORY, family="roberta"))
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    text = "the cat sat"
    assert load_tokenizer(REPOSITORY)(text) == load_tokenizer(str(hub.main))(text)


def test_code_of_a_repository_is_refused(hub: Hub) -> None:
    change_json(hub.main / "config.json", {"auto_map": AUTO_MAP})
    with pytest.raises(UserError, match="auto_map asks for code"):
        load_backbone(REPOSITORY, family="roberta")


def test_a_pickle_is_replaced_by_the_hubs_own_conversion_only(hub: Hub) -> None:
    proof = hub.main.parent / "proof"
    (hub.main / "model.safetensors").rename(hub.pull_request / "model.safetensors")
    write_pickle(hub.main / "pytorch_model.bin", proof)
    for discussions in ([], [Discussion("somebody")], [Discussion("SFconvertbot", "Hello")]):
        hub.discussions = discussions
        with pytest.raises(UserError, match=r"somebody/model holds no model\.safetensors"):
            load_backbone(REPOSITORY, family="roberta")
    hub.discussions = [Discussion("somebody"), Discussion("SFconvertbot")]
    model = load_backbone(REPOSITORY, family="roberta")
    stored = load_file(hub.pull_request / "model.safetensors")
    assert all(torch.equal(stored[name], tensor) for name, tensor in tensors_of(model).items())
    assert not proof.exists()


@pytest.mark.parametrize("by_id", [True, False])
def test_a_conversion_is_found_without_a_network(
    by_id: bool, cached: CachedHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load() -> Any:
        source = locate.locate(name="", hub=REPOSITORY, path=None)
        return load_backbone(REPOSITORY if by_id else source, family="roberta")

    set_reachable(monkeypatch, False)
    with pytest.raises(UserError, match=r"pickle|holds no model\.safetensors"):
        load()  # anybody may have opened the pull request in the cache
    set_reachable(monkeypatch, True)
    cached.discussions = [Discussion("SFconvertbot")]
    expected = tensors_of(load())
    set_reachable(monkeypatch, False)
    found = tensors_of(load())
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    assert load_tokenizer(REPOSITORY)("a cat") == load_tokenizer(str(cached.main))("a cat")


def test_a_damaged_record_of_a_conversion_is_ignored(
    cached: CachedHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = cached.main.parents[1] / converted.REFERENCE
    record.parent.mkdir(parents=True)
    record.write_text("../snapshots/c0de")
    set_reachable(monkeypatch, False)
    with pytest.raises(UserError, match="is a pickle"):
        load_backbone(str(cached.main), family="roberta")


def test_an_id_that_is_not_cached_is_named(
    cached: CachedHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_reachable(monkeypatch, False)
    with pytest.raises(UserError, match="cannot reach the model hub for a/b, and it is not in the"):
        load_backbone("a/b")


def test_errors_of_the_hub_client_are_one_sentence(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> str:
        raise ConnectionError("the line\nis cut")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fail)
    with pytest.raises(UserError, match="somebody/model cannot be loaded: the line is cut"):
        load_backbone(REPOSITORY, family="roberta")
