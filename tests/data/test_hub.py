"""Tasks from the hub: it fails quickly if the hub is silent, and split names are mapped."""

from __future__ import annotations

import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from datasets import Dataset, DatasetDict
from tiny_tasks import make

from unipeft_run import hub as reach
from unipeft_run.data.tasks import hub
from unipeft_run.data.tasks.columns import Columns
from unipeft_run.data.tasks.source import Source
from unipeft_run.errors import UserError


@pytest.fixture
def _not_cached(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(reach.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(reach, "TIMEOUT_SECONDS", 0.3)
    reach.is_hub_reachable.cache_clear()
    yield
    reach.is_hub_reachable.cache_clear()


@pytest.mark.usefixtures("_not_cached")
def test_a_silent_hub_fails_quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        began = time.monotonic()
        with pytest.raises(UserError, match=r"(?s)EdinburghNLP/xsum.*scale=mini, or task.path=DIR"):
            make("xsum", hub={"path": "EdinburghNLP/xsum", "name": None}).load()
    assert time.monotonic() - began < 3


@pytest.mark.usefixtures("_not_cached")
def test_a_hub_that_answers_is_reachable(monkeypatch: pytest.MonkeyPatch) -> None:
    class Answer(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_response(404)
            self.end_headers()

        def log_message(self, *_: Any) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        monkeypatch.setattr(reach, "TIMEOUT_SECONDS", 3.0)
        assert reach.is_hub_reachable()


@pytest.mark.parametrize(
    ("name", "advice"),
    [("sst2", "set task.path=DIR, or scale=mini"), ("mine", "set task.path=DIR")],
)
def test_only_a_task_with_a_miniature_is_advised_to_use_it(name: str, advice: str) -> None:
    source = Source(name, path=None, mini=None, hub=None, optional=(), hub_splits={})
    with pytest.raises(UserError, match=f"task {name} has no data: {advice}$"):
        source.load(["train"], Columns(("text",)), {})


def test_splits_have_other_names_on_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    def dataset(word: str) -> Dataset:
        return Dataset.from_dict({"premise": [word], "hypothesis": ["h"], "label": [1], "idx": [5]})

    names = ["train", "validation_matched", "validation_mismatched", "test_matched"]
    calls: list[Any] = []

    def load(path: str, name: str | None, revision: str | None) -> DatasetDict:
        calls.append((path, name, revision))
        if revision is None:
            raise RuntimeError("Dataset scripts are no longer supported")
        return DatasetDict({word: dataset(word) for word in names})

    monkeypatch.setattr(hub.datasets, "load_dataset", load)
    task = make("mnli", hub={"path": "nyu-mll/glue", "name": "mnli", "revision": None})
    splits = task.load()
    assert {name: split["premise"][0] for name, split in splits.items()} == {
        "train": "train",
        "validation": "validation_matched",
        "test": "validation_matched",
        "validation_mismatched": "validation_mismatched",
    }
    assert calls == [("nyu-mll/glue", "mnli", None), ("nyu-mll/glue", "mnli", hub.CONVERTED)]
