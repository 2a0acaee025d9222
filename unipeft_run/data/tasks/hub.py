"""Load data sets from the Hugging Face hub, and fail quickly if it is unreachable."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import datasets
from huggingface_hub import constants

from unipeft_run.data.tasks.messages import printable
from unipeft_run.errors import UserError
from unipeft_run.hub import is_hub_reachable

FILES = "task.path=DIR with {train,validation,test}.jsonl"
CONVERTED = "refs/convert/parquet"  # the hub's conversion of data sets that are scripts


@contextmanager
def _offline(offline: bool) -> Iterator[None]:
    """Restrict the hub's clients to their cache if `offline`."""
    before = datasets.config.HF_HUB_OFFLINE, constants.HF_HUB_OFFLINE
    if offline:
        datasets.config.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        datasets.config.HF_HUB_OFFLINE, constants.HF_HUB_OFFLINE = before


def load_hub(
    task: str,
    *,
    path: str,
    name: str | None = None,
    revision: str | None = None,
    advice: str = f"Use {FILES}.",
) -> datasets.DatasetDict:
    """Load all splits of the data set `path` (configuration `name`) from the hub or its cache.

    Raises `UserError`, which ends in `advice`, if the hub does not have the data set, or if the hub
    is unreachable and the data set is not in the cache.
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
        raise UserError(f"task {task} needs the data set {full}: {where}.\n{advice}") from error


def _first_line(error: Exception) -> str:
    return printable((str(error) or type(error).__name__).splitlines()[0], 160)
