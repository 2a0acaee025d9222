"""Check whether the Hugging Face hub is reachable. Imports neither transformers nor datasets."""

from __future__ import annotations

import os
import threading
import urllib.error
import urllib.request
from functools import cache

from huggingface_hub import constants

TIMEOUT_SECONDS = 3.0


@cache
def is_hub_reachable() -> bool:
    """Return whether the hub answers within TIMEOUT_SECONDS + 1; tried once per process.

    The hub's own client would retry for half a minute. The request runs in a thread because a
    silent name server blocks just as long, whatever the timeout.
    """
    if constants.HF_HUB_OFFLINE:
        return False
    answers: list[bool] = []
    thread = threading.Thread(target=lambda: answers.append(_answers()), daemon=True)
    thread.start()
    thread.join(TIMEOUT_SECONDS + 1)
    return bool(answers and answers[0])


def _answers() -> bool:
    endpoint = os.environ.get("HF_ENDPOINT", constants.ENDPOINT)
    request = urllib.request.Request(endpoint, method="HEAD")
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS):
            return True
    except urllib.error.HTTPError as error:
        return error.code < 500
    except (OSError, ValueError):
        return False
