"""Loads data sets from the Hugging Face hub; fails quickly if the hub is out of reach."""

from __future__ import annotations

import os
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import datasets
from huggingface_hub import constants

from unipeft_run.data.tasks.messages import printable
from unipeft_run.errors import UserError

CONVERTED = "refs/convert/parquet"  # the hub's conversion of data sets that are still scripts
SECONDS = 3.0


@cache
def is_hub_reachable() -> bool:
    """Whether the hub answers within SECONDS + 1; asked once per process.

    The clients' own retries take half a minute. The thread is needed because a silent name server
    blocks that long too, whatever the timeout.
    """
    if constants.HF_HUB_OFFLINE:
        return False
    answers: list[bool] = []
    thread = threading.Thread(target=lambda: answers.append(_answers()), daemon=True)
    thread.start()
    thread.join(SECONDS + 1)
    return bool(answers and answers[0])


def _answers() -> bool:
    endpoint = os.environ.get("HF_ENDPOINT", constants.ENDPOINT)
    request = urllib.request.Request(endpoint, method="HEAD")
    try:
        with urllib.request.urlopen(request, timeout=SECONDS):
            return True
    except urllib.error.HTTPError as error:
        return error.code < 500
    except (OSError, ValueError):
        return False


@contextmanager
def _offline(offline: bool) -> Iterator[None]:
    """Restrict the clients to their cache if `offline`."""
    before = datasets.config.HF_HUB_OFFLINE, constants.HF_HUB_OFFLINE
    if offline:
        datasets.config.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        datasets.config.HF_HUB_OFFLINE, constants.HF_HUB_OFFLINE = before


def load_hub(
    task: str, *, path: str, name: str | None = None, revision: str | None = None
) -> datasets.DatasetDict:
    """Load all splits of the data set `path` (configuration `name`) from the hub or its cache.

    Raises `UserError` if the hub does not have the data set, or is out of reach and the cache does
    not hold it.
    """
    online = is_hub_reachable()
    try:
        with _offline(not online):
            try:
                return datasets.load_dataset(path, name, revision=revision)
            except RuntimeError:  # a script, which datasets >= 4 refuses to run
                return datasets.load_dataset(path, name, revision=revision or CONVERTED)
    except (OSError, ValueError, RuntimeError) as error:
        full = path if name is None else f"{path} ({name})"
        where = f"the hub does not provide it ({_first_line(error)})"
        if not online:
            where = "it is not in the local cache and the Hugging Face hub cannot be reached"
        raise UserError(
            f"task {task} needs the data set {full}: {where}.\n"
            "Use scale=mini, or task.path=DIR with {train,validation,test}.jsonl."
        ) from error


def _first_line(error: Exception) -> str:
    return printable((str(error) or type(error).__name__).splitlines()[0], 160)
