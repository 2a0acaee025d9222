"""Ask the Weights & Biases server whether it is reachable, and for the rows of a run."""

from __future__ import annotations

import base64
import json
import netrc
import os
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

PATIENCE = 5  # seconds for a whole answer
LONGEST = 1 << 20  # bytes of an answer
ROWS = """query RowsOfRun($entity: String, $project: String, $run: String!) {
  model(name: $project, entityName: $entity) {
    bucket(name: $run, missingOk: true) { historyLineCount }
  }
}"""


def api_key() -> str | None:
    """Return the account's key from $WANDB_API_KEY, or from netrc for this server."""
    if key := os.environ.get("WANDB_API_KEY"):
        return key
    try:
        found = netrc.netrc(os.environ.get("NETRC")).authenticators(urlsplit(_address()).netloc)
    except (OSError, netrc.NetrcParseError):
        return None
    return found[2] if found else None


def check_reachable() -> None:
    """Raise `OSError` if the server does not answer, much sooner than wandb would."""
    try:
        _fetch(_address())
    except HTTPError as answer:
        if answer.code >= 500:
            raise


def count_rows(entity: str, project: str, run_id: str) -> int:
    """Ask how many history rows the server has of a run. Raises `OSError` without an answer."""
    variables = {"entity": entity, "project": project, "run": run_id}
    model = _query(ROWS, variables)["model"]
    bucket = model["bucket"] if model else None
    return int(bucket["historyLineCount"]) if bucket else 0


def _query(query: str, variables: dict[str, Any]) -> dict[str, Any]:
    account = base64.b64encode(f"api:{api_key()}".encode()).decode()
    headers = {"Content-Type": "application/json", "Authorization": f"Basic {account}"}
    body = json.dumps({"query": query, "variables": variables}).encode()
    data: dict[str, Any] = json.loads(_fetch(Request(f"{_address()}/graphql", body, headers)))
    content: dict[str, Any] = data["data"]
    return content


def _fetch(request: str | Request) -> bytes:
    """Return the body of the answer; raise `TimeoutError` after PATIENCE seconds in all.

    The timeout of `urlopen` alone starts again with every byte that arrives.
    """
    answers: SimpleQueue[bytes | Exception] = SimpleQueue()

    def read() -> None:
        try:
            with urlopen(request, timeout=PATIENCE) as answer:
                answers.put(answer.read(LONGEST))
        except Exception as error:
            answers.put(error)

    Thread(target=read, daemon=True).start()
    try:
        answer = answers.get(timeout=PATIENCE)
    except Empty:
        raise TimeoutError(f"the server did not answer within {PATIENCE} seconds") from None
    if isinstance(answer, Exception):
        raise answer
    return answer


def _address() -> str:
    return os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai").rstrip("/")
