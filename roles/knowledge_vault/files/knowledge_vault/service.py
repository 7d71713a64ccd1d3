"""The service that n8n asks. It listens on one address, and everything but its health wants the token.

GET  /health    how many notes there are, by state
GET  /metrics   the same for Prometheus
POST /events    an event as it was sent, with its signature: the plain note is written
POST /work      the next note that the model may complete
POST /answers   what the model said, or why it did not: the note is completed or left for later
POST /daily     days that are over are summed up
"""

from __future__ import annotations

import hmac
import json
import signal
import sqlite3
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from . import events, history
from .events import say
from .settings import Settings
from .vault import Keeper

BODY_LIMIT = 2_000_000
CLOCK_SECONDS = 600


class Refused(Exception):
    """A request that is answered with an error."""

    def __init__(self, status: int, problem: str) -> None:
        super().__init__(problem)
        self.status = status


class Handler(BaseHTTPRequestHandler):
    """Answers one request."""

    server: Server
    timeout = 30
    server_version = "ai-idp-vault"
    sys_version = ""

    def do_GET(self) -> None:
        """Tell how it is."""
        counts = self.server.keeper.counts()
        waiting = len(list(self.server.settings.spool.glob("*.json")))
        if self.path == "/health":
            self._reply(200, {"ok": True, "notes": counts, "spool": waiting})
        elif self.path == "/metrics":
            rows = ["# HELP ai_idp_vault_notes Notes of commits, by state.", "# TYPE ai_idp_vault_notes gauge"]
            rows += [f'ai_idp_vault_notes{{state="{state}"}} {count}' for state, count in sorted(counts.items())]
            rows += ["# HELP ai_idp_vault_spool_events Events that n8n has not taken yet."]
            rows += ["# TYPE ai_idp_vault_spool_events gauge", f"ai_idp_vault_spool_events {waiting}"]
            rows += [*self._more_metrics(), ""]
            self._send(200, "text/plain; version=0.0.4", "\n".join(rows).encode())
        else:
            self._reply(404, {"status": "error", "problem": "there is no such page"})

    def _more_metrics(self) -> list[str]:
        settings, outcomes = self.server.settings, self.server.keeper.outcomes
        rejected = len(list((settings.state / "rejected").glob("*.json")))
        rows = ["# HELP ai_idp_vault_rejected_events Events that can never be a note; they are kept for whoever looks."]
        rows += ["# TYPE ai_idp_vault_rejected_events gauge", f"ai_idp_vault_rejected_events {rejected}"]
        rows += ["# HELP ai_idp_vault_model_answers_total What came of asking the model for a note, since the start."]
        rows += ["# TYPE ai_idp_vault_model_answers_total counter"]
        rows += [f'ai_idp_vault_model_answers_total{{outcome="{name}"}} {count}' for name, count in outcomes.items()]
        try:
            unreadable = json.loads((settings.state / "unreadable.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            # The sender has not looked yet.
            return rows
        rows += ["# HELP ai_idp_vault_repository_readable Whether the sender could read a repository the last time."]
        rows += ["# TYPE ai_idp_vault_repository_readable gauge"]
        names = [one["name"] for one in settings.repositories]
        return rows + [
            f'ai_idp_vault_repository_readable{{repository="{name}"}} {int(name not in unreadable)}' for name in names
        ]

    def do_POST(self) -> None:
        """Do what is asked."""
        try:
            self._reply(200, self._answer())
        except Refused as error:
            status = "rejected" if error.status == 422 else "error"
            self._reply(error.status, {"status": status, "problem": str(error)})
        except (OSError, sqlite3.Error) as error:
            # The disk is full, perhaps. Whoever asked asks again.
            say(3, f"{self.path}: {error}")
            self._reply(507, {"status": "error", "problem": "it could not be written"})

    def _answer(self) -> dict[str, Any]:
        keeper, settings = self.server.keeper, self.server.settings
        body = self._body()
        if not hmac.compare_digest(
            self.headers.get("Authorization", "").encode(), f"Bearer {settings.service_token}".encode()
        ):
            raise Refused(401, "the token is missing or wrong")
        if self.path == "/events":
            return self._event(body)
        told = self._json(body)
        if self.path == "/work":
            return {"work": keeper.work()}
        if self.path == "/answers":
            status = told.get("status")
            problem = told.get("problem")
            return keeper.complete(
                str(told.get("lease") or ""),
                status if isinstance(status, int) and not isinstance(status, bool) else None,
                told.get("answer"),
                str(problem)[:300] if problem else "",
            )
        if self.path == "/daily":
            try:
                return keeper.sum_up(str(told.get("day") or ""))
            except ValueError as error:
                raise Refused(400, "day: write it as 2026-01-31") from error
        raise Refused(404, "there is no such page")

    def _event(self, body: bytes) -> dict[str, Any]:
        settings = self.server.settings
        stamp = self.headers.get("X-AI-IDP-Timestamp", "")
        expected = events.signature(settings.webhook_secret, stamp, body)
        if not hmac.compare_digest(expected.encode(), self.headers.get("X-AI-IDP-Signature", "").encode()):
            raise Refused(401, "the signature is missing or wrong")
        if not stamp.isdecimal() or abs(time.time() - int(stamp)) > CLOCK_SECONDS:
            raise Refused(401, "the event was signed too long ago; are both clocks right?")
        try:
            return self.server.keeper.take(json.loads(body))
        except (ValueError, RecursionError) as error:
            # A note that would lie outside is none of these: whoever made the link may take it away.
            raise Refused(422, str(error)) from error

    def _body(self) -> bytes:
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal():
            raise Refused(411, "Content-Length is missing")
        if int(length) > BODY_LIMIT:
            raise Refused(413, "the body is too large")
        return self.rfile.read(int(length))

    @staticmethod
    def _json(body: bytes) -> dict[str, Any]:
        try:
            told = json.loads(body or b"{}")
        except (ValueError, RecursionError) as error:
            raise Refused(400, "the body is no JSON") from error
        if not isinstance(told, dict):
            raise Refused(400, "the body is no JSON object")
        return told

    def _reply(self, status: int, content: dict[str, Any]) -> None:
        self._send(status, "application/json", json.dumps(content).encode())

    def _send(self, status: int, kind: str, data: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: n8n keeps the requests, the journal the problems."""


class Server(ThreadingHTTPServer):
    """The service with the vault's keeper."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.keeper = Keeper(settings)
        super().__init__((settings.listen, settings.port), Handler)


def serve(settings: Settings) -> None:
    """Serve until the process is told to end."""
    stop = threading.Event()
    with Server(settings) as server:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: threading.Thread(target=server.shutdown).start())
        committer = threading.Thread(target=history.keep_committing, args=(server.keeper, stop))
        if settings.git:
            committer.start()
        server.serve_forever()
        stop.set()
        if settings.git:
            committer.join(timeout=60)
