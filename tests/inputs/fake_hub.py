"""A Hub on this machine: as much of its API as a snapshot takes, and ways to misbehave. Nothing here reaches any network."""

import hashlib
import json
import os
import re
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from attrs import field, mutable

INFO = re.compile(r"/api/models/([^/]+/[^/]+)(?:/revision/(.+))?")
TREE = re.compile(r"/api/models/([^/]+/[^/]+)/tree/([^/]+)")
FILE = re.compile(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)")


@mutable
class FakeHub:
    """Commits of repositories, and what was asked for.

    status: answered to everything if set. closed: repositories whose files (not their list) are gated. cut: file name → after
    so many bytes the connection breaks off, `cuts` times in all. stalled: the file whose last byte is not sent before
    `released`; this process gets a SIGTERM instead.
    """

    endpoint: str
    commits: dict[tuple[str, str], dict[str, bytes]] = field(factory=dict)
    revisions: dict[tuple[str, str], str] = field(factory=dict)
    status: int | None = None
    closed: set[str] = field(factory=set)
    cut: dict[str, int] = field(factory=dict)
    cuts: int = 1
    stalled: str = ""
    released: threading.Event = field(factory=threading.Event)
    asked: list[str] = field(factory=list)
    ranges: list[str] = field(factory=list)

    def push(self, repository: str, files: Path | dict[str, bytes], revision: str = "main") -> str:
        """A new commit, which `revision` then names. Returns its hash."""
        if isinstance(files, Path):
            files = {p.relative_to(files).as_posix(): p.read_bytes() for p in files.rglob("*") if p.is_file()}
        commit = hashlib.sha1(repr((repository, sorted(files.items()))).encode()).hexdigest()
        self.commits[repository, commit] = files
        self.revisions[repository, revision] = self.revisions[repository, commit] = commit
        return commit

    @property
    def fetched(self) -> list[str]:
        """The names of the files whose content was asked for, sorted."""
        return sorted({match[3] for path in self.asked if (match := FILE.fullmatch(path.removeprefix("GET ")))})


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: FakeHub

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.asked.append(f"{self.command} {path}")
        if self.hub.status:
            self._fail(self.hub.status)
        elif match := TREE.fullmatch(path):
            files = self._commit(match[1], match[2])
            if files is not None:
                self._json([{"type": "file", "path": n, "size": len(c), "oid": _etag(c)} for n, c in files.items()])
        elif match := INFO.fullmatch(path):
            files = self._commit(match[1], match[2] or "main")
            if files is not None:
                sha = self.hub.revisions[match[1], match[2] or "main"]
                self._json({"id": match[1], "sha": sha, "siblings": [{"rfilename": name} for name in files]})
        elif match := FILE.fullmatch(path):
            files = self._commit(match[1], match[2])
            if files is not None and match[1] in self.hub.closed:
                self._fail(403, "GatedRepo")
            elif files is not None:
                self._file(match[3], files[match[3]], match[2])

    def do_HEAD(self) -> None:
        self.do_GET()

    def _commit(self, repository: str, revision: str) -> dict[str, bytes] | None:
        if commit := self.hub.revisions.get((repository, revision)):
            return self.hub.commits[repository, commit]
        known = any(name == repository for name, _ in self.hub.commits)
        self._fail(404 if known else 401, "RevisionNotFound" if known else "RepoNotFound")
        return None

    def _fail(self, status: int, code: str = "") -> None:
        self.send_response(status)
        if code:
            self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _json(self, value: Any) -> None:
        content = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _file(self, name: str, content: bytes, commit: str) -> None:
        start = 0
        if wanted := self.headers.get("Range"):
            self.hub.ranges.append(f"{name} {wanted}")
            start = int(wanted.removeprefix("bytes=").split("-")[0])
        self.send_response(206 if wanted else 200)
        if wanted:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - start))
        self.send_header("ETag", f'"{_etag(content)}"')
        self.send_header("X-Repo-Commit", commit)
        self.end_headers()
        if self.command == "HEAD":
            return
        if self.hub.cuts and name in self.hub.cut:
            self.hub.cuts -= 1
            self.wfile.write(content[start : start + self.hub.cut[name]])
            self.close_connection = True
        elif name == self.hub.stalled:
            self.wfile.write(content[start:-1])
            os.kill(os.getpid(), signal.SIGTERM)
            self.hub.released.wait(8)
            self.close_connection = True
        else:
            self.wfile.write(content[start:])

    def log_message(self, *_: object) -> None:
        pass


def _etag(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()


@contextmanager
def served() -> Iterator[FakeHub]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {}))
    hub = FakeHub(f"http://127.0.0.1:{server.server_port}")
    server.RequestHandlerClass.hub = hub
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """The Hub as huggingface_hub knows it in this process, with an empty cache in `tmp_path/hub`."""
    from huggingface_hub import close_session, constants

    with served() as hub:
        template = hub.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        changed = {"ENDPOINT": hub.endpoint, "HUGGINGFACE_CO_URL_TEMPLATE": template, "HF_HUB_OFFLINE": False}
        changed |= {"HF_HUB_CACHE": str(tmp_path / "hub"), "HF_HUB_DISABLE_XET": True}
        changed |= {"HF_TOKEN_PATH": str(tmp_path / "token")}
        for name, value in changed.items():
            monkeypatch.setattr(constants, name, value)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        close_session()
        yield hub
        close_session()
