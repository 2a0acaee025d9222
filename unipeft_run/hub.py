"""Whether the Hugging Face hub answers. Imports neither transformers nor datasets."""

from __future__ import annotations

import os
import threading
import urllib.error
import urllib.request
from functools import cache

from huggingface_hub import constants

SECONDS = 3.0


@cache
def is_hub_reachable() -> bool:
    """Whether the hub answers; asked once per process, for at most SECONDS + 1.

    The hub's own client retries for half a minute. A silent name server blocks for as long whatever
    the timeout, hence the thread.
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
