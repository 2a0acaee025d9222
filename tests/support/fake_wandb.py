"""A Weights & Biases server on loopback that stores what it receives, and fails on request.

It implements only what wandb needs to open a run, stream its records and upload its files: GraphQL
at /graphql, /files/<entity>/<project>/<run>/file_stream, and uploads to the URLs it returned.
"""

from __future__ import annotations

import base64
import gzip
import json
import re
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

ENTITY = "somebody"


@dataclass
class StoredRun:
    """A run as stored by the server; `exit_code` is None until it finished."""

    name: str
    given: dict[str, Any] = field(default_factory=dict)
    rows: list[str] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    exit_code: int | None = None

    @property
    def config(self) -> dict[str, Any]:
        entries = json.loads(self.given.get("config") or "{}")
        return {key: entry["value"] for key, entry in entries.items() if key != "_wandb"}

    def history(self, *keys: str) -> list[tuple[Any, ...]]:
        """Return the values of `keys` in every row that has one of them, in the server's order."""
        rows = [json.loads(row) for row in self.rows]
        return [tuple(map(row.get, keys)) for row in rows if any(key in row for key in keys)]

    def content(self) -> dict[str, Any]:
        """Return everything that does not depend on the time of sending, for comparison."""
        given = {word: self.given.get(word) for word in ("groupName", "jobType", "tags")}
        rows = [_timeless(json.loads(row)) for row in self.rows]
        media = sorted(name for name in self.files if name.startswith("media/"))
        kept = {key: value for key, value in self.summary.items() if not isinstance(value, dict)}
        summary = {key: value for key, value in _timeless(kept).items() if key != "_step"}
        return {**given, "config": self.config, "rows": rows, "summary": summary, "media": media}


def _timeless(row: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in row.items() if key not in ("_runtime", "_timestamp")}


class FakeWandB(ThreadingHTTPServer):
    """`fails[kind]` says how requests of that kind fail.

    kind: a GraphQL operation (UpsertBucket), file_stream or upload; "*" for all of them.
    value: a status (int), seconds to wait (float), "drop" the connection, or "drip": answer one
    byte a second.
    """

    daemon_threads, block_on_close = True, False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.runs: dict[str, StoredRun] = {}
        self.fails: dict[str, int | float | str] = {}
        self.asked: Counter[str] = Counter()
        self.lock = threading.Lock()

    def handle_error(self, *_: Any) -> None:
        """Ignore clients that closed the connection."""

    def operation(self, name: str, values: dict[str, Any]) -> dict[str, Any]:
        """Return the data that answers a GraphQL operation."""
        if name == "ServerFeaturesQuery":
            return {"serverInfo": {"features": []}}
        if name == "Viewer":
            viewer = {"entity": ENTITY, "username": ENTITY, "email": "", "flags": "{}"}
            return {"viewer": {**viewer, "teams": {"edges": []}}}
        if name == "RowsOfRun":  # our own query
            run = self.runs.get(values["run"])
            return {"model": run and {"bucket": {"historyLineCount": len(run.rows)}}}
        if name == "RunResumeStatus":
            return {"model": self._resume_status(values)}
        if name == "UpsertBucket":
            return {"upsertBucket": self._upsert(values)}
        if name == "CreateRunFiles":
            return {"createRunFiles": self._uploads(values)}
        if name == "RunStoppedStatus":
            return {"project": {"run": {"stopped": False}}}
        raise KeyError(name)

    def _resume_status(self, values: dict[str, Any]) -> dict[str, Any] | None:
        run = self.runs.get(values["name"])
        if run is None:
            return None
        config = json.loads(run.given.get("config") or "{}")
        begun = config.get("_wandb", {}).get("value", {}).get("t")
        bucket = {
            "id": _node_id(run),
            "name": run.name,
            "summaryMetrics": json.dumps(run.summary),
            "displayName": run.given.get("displayName"),
            "logLineCount": 0,
            "historyLineCount": len(run.rows),
            "eventsLineCount": 0,
            "historyTail": json.dumps(run.rows[-1:]),
            "eventsTail": "[]",
            "config": run.given.get("config") or "{}",
            "tags": run.given.get("tags") or [],
            "notes": None,
            "wandbConfig": json.dumps({"t": begun} if begun else {}),
        }
        return {"name": values["project"], "entity": {"name": ENTITY}, "bucket": bucket}

    def _upsert(self, values: dict[str, Any]) -> dict[str, Any]:
        run = self.runs.setdefault(values["name"], StoredRun(values["name"]))
        run.given |= {key: value for key, value in values.items() if value is not None}
        project = {
            "id": "project",
            "name": values.get("project") or "uncategorized",
            "entity": {"id": "entity", "name": ENTITY},
        }
        bucket = {
            "id": _node_id(run),
            "name": run.name,
            "displayName": run.given.get("displayName"),
            "description": None,
            "config": run.given.get("config") or "{}",
            "sweepName": None,
            "project": project,
            "historyLineCount": len(run.rows),
        }
        return {"bucket": bucket, "inserted": not run.rows}

    def _uploads(self, values: dict[str, Any]) -> dict[str, Any]:
        files = [
            {"name": name, "uploadUrl": f"{self.url}/upload/{values['run']}/{name}"}
            for name in values["files"]
        ]
        return {"runID": values["run"], "uploadHeaders": [], "files": files}

    def stream(self, name: str, sent: dict[str, Any]) -> None:
        """Store lines at their offsets, as the real server does: sending twice stores once."""
        run = self.runs[name]
        for file, part in (sent.get("files") or {}).items():
            if file == "wandb-history.jsonl":
                run.rows[part["offset"] : part["offset"] + len(part["content"])] = part["content"]
            elif file == "wandb-summary.json":
                run.summary = json.loads(part["content"][-1])
        if sent.get("complete"):
            run.exit_code = sent.get("exitcode")


def _node_id(run: StoredRun) -> str:
    return base64.b64encode(run.name.encode()).decode()


class _Handler(BaseHTTPRequestHandler):
    server: FakeWandB
    protocol_version = "HTTP/1.1"
    _is_dripping = False

    def do_GET(self) -> None:
        self._body()
        if self._is_answered("get"):
            self._answer({})

    def do_POST(self) -> None:
        body = json.loads(self._body())
        stream = re.fullmatch(r"/files/[^/]+/[^/]+/([^/]+)/file_stream", self.path)
        found = re.search(r"(?:query|mutation)\s+(\w+)", str(body.get("query")))
        kind = "file_stream" if stream else found[1] if found else "unknown"
        if not self._is_answered(kind):
            return
        with self.server.lock:
            if stream:
                self.server.stream(stream[1], body)
                return self._answer({})
            try:
                data = self.server.operation(kind, body.get("variables") or {})
            except KeyError:
                return self._answer({"errors": [{"message": f"no such operation: {kind}"}]}, 400)
        return self._answer({"data": data})

    def do_PUT(self) -> None:
        _, _, run, name = self.path.split("?")[0].split("/", 3)
        data = self._body()
        if self._is_answered("upload"):
            with self.server.lock:
                self.server.runs[run].files[name] = data
            self._answer({})

    def _is_answered(self, kind: str) -> bool:
        """Return whether to answer this request; otherwise fail it here."""
        self.server.asked[kind] += 1
        how = self.server.fails.get(kind, self.server.fails.get("*"))
        self._is_dripping = how == "drip"
        if how == "drop":
            self.close_connection = True
            self.connection.close()
            return False
        if isinstance(how, float):
            time.sleep(how)
        elif isinstance(how, int):
            self._answer({"error": "on purpose"}, how)
            return False
        return True

    def _body(self) -> bytes:
        data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        return gzip.decompress(data) if self.headers.get("Content-Encoding") == "gzip" else data

    def _answer(self, content: dict[str, Any], status: int = 200) -> None:
        data = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data) + 1000 * self._is_dripping))
        self.end_headers()
        if self._is_dripping:
            self._drip(data)
        else:
            self.wfile.write(data)

    def _drip(self, data: bytes) -> None:
        for byte in data + b" " * 1000:  # more than any test waits for
            self.wfile.write(bytes([byte]))
            self.wfile.flush()
            time.sleep(1)

    def log_message(self, *_: object) -> None:
        """Keep requests off the terminal."""


@contextmanager
def serving() -> Iterator[FakeWandB]:
    """Run a server until the end of the block."""
    server = FakeWandB()
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
