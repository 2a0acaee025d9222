"""What a Weights & Biases server is asked by us: whether it is there, and how much it has."""

from __future__ import annotations

import base64
import json
import netrc
import os
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

PATIENCE = 5  # seconds for an answer
ROWS = """query RowsOfRun($entity: String, $project: String, $run: String!) {
  model(name: $project, entityName: $entity) {
    bucket(name: $run, missingOk: true) { historyLineCount }
  }
}"""


def key() -> str | None:
    """The account's key: $WANDB_API_KEY, or what netrc has for the server."""
    if given := os.environ.get("WANDB_API_KEY"):
        return given
    try:
        found = netrc.netrc(os.environ.get("NETRC")).authenticators(urlsplit(_address()).netloc)
    except (OSError, netrc.NetrcParseError):
        return None
    return found[2] if found else None


def knock() -> None:
    """Raise where no server is; much sooner than wandb itself gives up."""
    try:
        urlopen(_address(), timeout=PATIENCE).close()
    except HTTPError as answer:
        if answer.code >= 500:
            raise


def rows(entity: str, project: str, run_id: str) -> int:
    """How many rows of history the server has of a run. Raises `OSError` without an answer."""
    values = {"entity": entity, "project": project, "run": run_id}
    found = _ask(ROWS, values)["model"]
    bucket = found["bucket"] if found else None
    return int(bucket["historyLineCount"]) if bucket else 0


def _ask(query: str, values: dict[str, Any]) -> dict[str, Any]:
    account = base64.b64encode(f"api:{key()}".encode()).decode()
    headers = {"Content-Type": "application/json", "Authorization": f"Basic {account}"}
    body = json.dumps({"query": query, "variables": values}).encode()
    with urlopen(Request(f"{_address()}/graphql", body, headers), timeout=PATIENCE) as answer:
        data: dict[str, Any] = json.loads(answer.read())["data"]
    return data


def _address() -> str:
    return os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai").rstrip("/")
