"""A small local model hub for tests, with every way of going wrong that a real one has.

It speaks the hub's paths (``/api/models/ORG/NAME/revision/REV``, ``…/tree/REV``, ``/ORG/NAME/resolve/REV/FILE``) and
can be told to drop a connection, send a wrong byte, ignore ranges, ask for a token and redirect to a second host.
Also runs by itself: ``python hub_server.py FOLDER [PORT]`` serves FOLDER/ORG/NAME/* until it is stopped.
"""

import hashlib
import json
import sys
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self
from urllib.parse import parse_qs, unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Seen:
    """One request, as it arrived."""

    method: str
    path: str
    headers: dict[str, str]
    sent: int = 0


@dataclass
class Behaviour:
    """What the hub does; the defaults are those of a healthy one."""

    token: str | None = None
    # Accounts without access: these tokens are known and refused.
    forbidden_tokens: tuple[str, ...] = ()
    token_for_listing: bool = True
    ranges: bool = True
    etags: bool = True
    revision_page: bool = True
    tree_page: bool = True
    page_size: int | None = None
    publish_hashes: bool = True
    redirect_to: str | None = None
    # Drop the connection after this many bytes of a body, this many times.
    drop_after: int = 0
    drops: int = 0
    wrong_byte: bool = False
    statuses: list[int] = field(default_factory=list)
    # Seconds before a body is sent: lets two runs meet.
    delay_s: float = 0.0
    listed_size: int | None = None


class Hub:
    """The server and what it has seen. Use it as a context manager."""

    def __init__(self, files: dict[str, dict[str, bytes]] | None = None, port: int = 0) -> None:
        self.files = files or {}
        self.behaviour = Behaviour()
        self.seen: list[Seen] = []
        hub = self

        class Handler(_Handler):
            pass

        Handler.hub = hub
        self.server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True)

    def __enter__(self) -> Self:
        self.thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.server.shutdown()
        self.server.server_close()

    def bodies(self) -> list[Seen]:
        return [seen for seen in self.seen if seen.method == "GET" and "/resolve/" in seen.path]

    def body_bytes(self) -> int:
        return sum(seen.sent for seen in self.bodies())


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, format: str, *args: Any) -> None:
        return

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        record = Seen(self.command, self.path, {k.lower(): v for k, v in self.headers.items()})
        self.hub.seen.append(record)
        self.record = record
        behaviour = self.hub.behaviour
        parts = urlsplit(self.path)
        names = [unquote(name) for name in parts.path.strip("/").split("/")]
        if behaviour.statuses:
            self._answer(behaviour.statuses.pop(0), b"not now")
        elif names[:2] == ["api", "models"] and len(names) >= 6:
            self._api("/".join(names[2:4]), names[4], names[5], parse_qs(parts.query))
        elif len(names) >= 5 and names[2] == "resolve":
            self._resolve("/".join(names[:2]), names[3], "/".join(names[4:]))
        else:
            self._answer(404, b"no such page")

    def _admitted(self) -> bool:
        behaviour = self.hub.behaviour
        if behaviour.token is None:
            return True
        given = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if given == behaviour.token:
            return True
        code = 403 if given in behaviour.forbidden_tokens else 401
        self._answer(code, b"Access to this model is restricted", {"X-Error-Code": "GatedRepo"})
        return False

    def _api(self, repository: str, page: str, revision: str, query: dict[str, list[str]]) -> None:
        behaviour = self.hub.behaviour
        if behaviour.token_for_listing and not self._admitted():
            return
        files = self.hub.files.get(repository)
        if files is None:
            self._answer(404, b"{}", {"X-Error-Code": "RepoNotFound"})
        elif page == "revision" and behaviour.revision_page:
            if revision not in ("main", COMMIT):
                self._answer(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
            else:
                self._json({"id": repository, "sha": COMMIT})
        elif page == "tree" and behaviour.tree_page:
            self._tree(repository, revision, files, query)
        else:
            self._answer(404, b"no such page")

    def _tree(self, repository: str, revision: str, files: dict[str, bytes], query: dict[str, list[str]]) -> None:
        behaviour = self.hub.behaviour
        entries: list[dict[str, Any]] = [{"type": "directory", "path": "folder", "size": 0, "oid": "0" * 40}]
        for path, data in sorted(files.items()):
            size = behaviour.listed_size if behaviour.listed_size is not None else len(data)
            entry: dict[str, Any] = {"type": "file", "path": path, "size": size}
            if behaviour.publish_hashes:
                if len(data) > 1000:
                    entry["oid"] = "f" * 40
                    entry["lfs"] = {"oid": hashlib.sha256(data).hexdigest(), "size": size, "pointerSize": 134}
                else:
                    entry["oid"] = git_oid(data)
            entries.append(entry)
        headers = {}
        if behaviour.page_size:
            start = int(query.get("cursor", ["0"])[0])
            end = start + behaviour.page_size
            if end < len(entries):
                target = f"/api/models/{repository}/tree/{revision}?recursive=true&cursor={end}"
                headers["Link"] = f'<{self.hub.url}{target}>; rel="next"'
            entries = entries[start:end]
        self._json(entries, headers)

    def _resolve(self, repository: str, revision: str, path: str) -> None:
        behaviour = self.hub.behaviour
        if not self._admitted():
            return
        data = self.hub.files.get(repository, {}).get(path)
        if data is None or revision not in ("main", COMMIT):
            self._answer(404, b"Entry not found", {"X-Error-Code": "EntryNotFound"})
            return
        if behaviour.redirect_to:
            headers = {
                "Location": behaviour.redirect_to + self.path,
                "X-Linked-ETag": f'"{hashlib.sha256(data).hexdigest()}"',
                "X-Linked-Size": str(len(data)),
                "X-Repo-Commit": COMMIT,
            }
            self._answer(302, b"", headers)
            return
        self._body(data)

    def _body(self, data: bytes) -> None:
        behaviour = self.hub.behaviour
        etag = f'"{hashlib.md5(data, usedforsecurity=False).hexdigest()}"'
        headers = {"ETag": etag} if behaviour.etags else {}
        start, status = 0, 200
        asked = self.headers.get("Range", "")
        if behaviour.ranges and asked.startswith("bytes="):
            valid = self.headers.get("If-Range", etag) == etag
            start = int(asked.removeprefix("bytes=").rstrip("-")) if valid else 0
            if start >= len(data):
                self._answer(416, b"", {"Content-Range": f"bytes */{len(data)}"})
                return
            if start:
                status = 206
                headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        if behaviour.wrong_byte:
            data = data[:-1] + bytes([data[-1] ^ 1])
        body = data[start:]
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        time.sleep(behaviour.delay_s)
        if behaviour.drops > 0 and len(body) > behaviour.drop_after:
            behaviour.drops -= 1
            self._send(body[: behaviour.drop_after])
            self.close_connection = True
            return
        self._send(body)

    def _send(self, body: bytes) -> None:
        self.wfile.write(body)
        self.wfile.flush()
        self.record.sent += len(body)

    def _json(self, value: Any, headers: dict[str, str] | None = None) -> None:
        self._answer(200, json.dumps(value).encode(), {"Content-Type": "application/json", **(headers or {})})

    def _answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def git_oid(data: bytes) -> str:
    """The name that git gives a file with this content."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


def main() -> None:
    root = Path(sys.argv[1])
    files: dict[str, dict[str, bytes]] = {}
    for folder in root.glob("*/*"):
        paths = (path for path in folder.rglob("*") if path.is_file())
        name = str(folder.relative_to(root))
        files[name] = {str(path.relative_to(folder)): path.read_bytes() for path in paths}
    hub = Hub(files, int(sys.argv[2]) if len(sys.argv) > 2 else 0)
    print(hub.url, flush=True)
    hub.server.serve_forever()


if __name__ == "__main__":
    main()
