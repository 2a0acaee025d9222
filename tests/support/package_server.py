"""A package index on this machine, and a source distribution whose setup.py leaves a trace."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

JSON = "application/vnd.pypi.simple.v1+json"


def make_sdist(content: bytes, trace: Path) -> bytes:
    """Make a .tar.gz with `data/rows.txt` and a setup.py that creates `trace` if it is executed."""
    packed = io.BytesIO()
    files = {
        "thing-1.0/setup.py": f"open({str(trace)!r}, 'w').close()\n".encode(),
        "thing-1.0/data/rows.txt": content,
    }
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name, text in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(text)
            tar.addfile(entry, io.BytesIO(text))
    return packed.getvalue()


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@dataclass
class PackageServer:
    """Serves `files` as the project `thing`; requires the user:password in `login`, if any."""

    files: dict[str, bytes]
    as_json: bool = False
    login: str = ""
    status: int = 200
    requests: list[str] = field(default_factory=list)
    address: str = ""

    def answer(self, path: str) -> tuple[int, str, bytes]:
        """Return status, content type and body for a path."""
        self.requests.append(path)
        if self.status != 200:
            return self.status, "text/plain", b""
        if path == "/simple/thing/":
            return self.page()
        name = path.removeprefix("/files/")
        found = name in self.files
        return (200, "application/gzip", self.files[name]) if found else (404, "text/plain", b"")

    def page(self) -> tuple[int, str, bytes]:
        if self.as_json:
            listed = [{"filename": n, "url": f"/files/{n}", "hashes": {}} for n in self.files]
            return 200, JSON, json.dumps({"files": listed}).encode()
        links = "".join(f'<a href="../../files/{n}#sha256=0">{n}</a>' for n in self.files)
        return 200, "text/html; charset=utf-8", f"<html><body>{links}</body></html>".encode()


@contextmanager
def serving(server: PackageServer) -> Iterator[PackageServer]:
    """Run the server on a free port and set its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            wanted = "Basic " + base64.b64encode(server.login.encode()).decode()
            if server.login and self.headers.get("Authorization") != wanted:
                status, kind, body = 401, "text/plain", b""
            else:
                status, kind, body = server.answer(self.path)
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None: ...

    listener = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=listener.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    login = f"{server.login}@" if server.login else ""
    server.address = f"http://{login}127.0.0.1:{listener.server_port}/simple"
    try:
        yield server
    finally:
        listener.shutdown()
        thread.join()
        listener.server_close()
