"""Stands in for the engines of a second GPU host and their gate: figures for Prometheus, and streams that say who made
them, over TLS.

python3 stand_in_engine.py CERTIFICATE ADDRESS PORT...
"""

import json
import ssl
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

# Slow, so that a stream outlasts a run of a playbook.
SPACING_S = 0.5


class Engine(BaseHTTPRequestHandler):
    """Answers every path."""

    def do_GET(self) -> None:
        """Figures."""
        self._begin("text/plain")
        self.wfile.write(b"# TYPE stand_in_engine gauge\nstand_in_engine 1\n")

    def do_POST(self) -> None:
        """A stream."""
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self._begin("text/event-stream")
        for _ in range(request["max_tokens"]):
            self._event(json.dumps({"model": "stand-in", "choices": [{"index": 0, "delta": {"content": "a "}}]}))
            time.sleep(SPACING_S)
        self._event("[DONE]")

    def _begin(self, kind: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.end_headers()

    def _event(self, data: str) -> None:
        self.wfile.write(f"data: {data}\n\n".encode())

    def log_message(self, format: str, *args: object) -> None:
        """Nobody reads it."""


context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
context.load_cert_chain(sys.argv[1])
for port in sys.argv[3:]:
    server = ThreadingHTTPServer((sys.argv[2], int(port)), Engine)
    # The handshake is the business of a connection's own thread.
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    threading.Thread(target=server.serve_forever).start()
