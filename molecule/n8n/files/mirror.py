"""Answers with the header X-Token of each request, as a service of the house would see it."""

import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Mirror(BaseHTTPRequestHandler):
    """Answers a GET."""

    def do_GET(self) -> None:
        """Tell the token."""
        body = json.dumps({"token": self.headers.get("X-Token")}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


ThreadingHTTPServer(("0.0.0.0", 8099), Mirror).serve_forever()
