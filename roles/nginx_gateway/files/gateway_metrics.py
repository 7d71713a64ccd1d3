#!/usr/bin/python3
"""Counts the gateway's requests by client, route and status, for Prometheus to read.

nginx itself counts requests as a whole only. This follows its access log, which names the client (never the key), and
answers on loopback:

    gateway_metrics.py --log FILE --names FILE --port PORT

Clients and routes that are configured stand at zero before their first request, so that no increase is lost.
"""

from __future__ import annotations

import argparse
import json
import os
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

NOBODY = "(none)"
"""Stands for no client (a user interface, a missing or wrong key) and for no route."""

BUCKETS_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
POLL_SECONDS = 0.5


def escaped(value: str) -> str:
    """Write a label's value as Prometheus reads it."""
    return value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


def labels(**pairs: str) -> str:
    """Write labels."""
    return "{" + ",".join(f'{name}="{escaped(value)}"' for name, value in pairs.items()) + "}"


class Histogram:
    """How many values lie at or below each bound."""

    def __init__(self) -> None:
        self.counts = [0] * (len(BUCKETS_SECONDS) + 1)
        self.sum = 0.0

    def add(self, seconds: float) -> None:
        """Count one value."""
        place = sum(1 for bound in BUCKETS_SECONDS if seconds > bound)
        self.counts[place] += 1
        self.sum += seconds

    def lines(self, name: str, client: str, route: str) -> list[str]:
        """Write the histogram."""
        total, lines = 0, []
        for bound, count in zip([*map(str, BUCKETS_SECONDS), "+Inf"], self.counts, strict=True):
            total += count
            lines.append(f"{name}_bucket{labels(client=client, route=route, le=bound)} {total}")
        pair = labels(client=client, route=route)
        return [*lines, f"{name}_sum{pair} {self.sum:.6f}", f"{name}_count{pair} {total}"]


def seconds_of(text: str) -> float | None:
    """Read the time of the last upstream that was asked; nginx writes one for each, None where there is none."""
    last = str(text).replace(":", ",").split(",")[-1].strip()
    try:
        return float(last)
    except ValueError:
        return None


class Counters:
    """Everything that was counted since the start."""

    def __init__(self) -> None:
        self.requests: dict[tuple[str, str, str], int] = {}
        self.bytes: dict[tuple[str, str, str], int] = {}
        self.first_byte: dict[tuple[str, str], Histogram] = {}
        self.whole: dict[tuple[str, str], Histogram] = {}
        self.unreadable = 0
        self.lock = threading.Lock()

    def begin(self, names: dict[str, Any]) -> None:
        """Let configured clients and routes stand at zero."""
        with self.lock:
            pairs = [(client, route) for route in names.get("api_routes", []) for client in names.get("clients", [])]
            pairs += [(NOBODY, route) for route in names.get("ui_routes", [])]
            for pair in pairs:
                self._pair(*pair)
                self.requests.setdefault((*pair, "200"), 0)

    def _pair(self, client: str, route: str) -> None:
        for direction in ("received", "sent"):
            self.bytes.setdefault((direction, client, route), 0)
        self.first_byte.setdefault((client, route), Histogram())
        self.whole.setdefault((client, route), Histogram())

    def count(self, line: str) -> None:
        """Count one line of the access log."""
        with self.lock:
            try:
                entry = json.loads(line)
                client, route = entry["client"] or NOBODY, entry["route"] or NOBODY
                status = str(int(entry["status"]))
                sent, received = int(entry["bytes_out"]), int(entry["bytes_in"])
                whole = float(entry["seconds"])
                first = seconds_of(entry["upstream_first_byte_seconds"])
            except (ValueError, KeyError, TypeError):
                self.unreadable += 1
                return
            self._pair(client, route)
            self.requests[client, route, status] = self.requests.get((client, route, status), 0) + 1
            self.bytes["sent", client, route] += sent
            self.bytes["received", client, route] += received
            # What the gateway refused by itself says nothing of an engine's speed.
            if first is not None:
                self.first_byte[client, route].add(first)
                self.whole[client, route].add(whole)

    def text(self) -> str:
        """Write everything in Prometheus' text format."""
        prefix = "ai_idp_gateway"
        with self.lock:
            lines = [f"# HELP {prefix}_requests_total Requests by client, route and status."]
            lines.append(f"# TYPE {prefix}_requests_total counter")
            for (client, route, status), count in sorted(self.requests.items()):
                lines.append(f"{prefix}_requests_total{labels(client=client, route=route, status=status)} {count}")
            for direction in ("received", "sent"):
                name = f"{prefix}_{direction}_bytes_total"
                lines += [f"# HELP {name} Bytes {direction}, headers included.", f"# TYPE {name} counter"]
                for (way, client, route), count in sorted(self.bytes.items()):
                    if way == direction:
                        lines.append(f"{name}{labels(client=client, route=route)} {count}")
            for name, meaning, histograms in (
                (f"{prefix}_first_byte_seconds", "Until an upstream's first byte.", self.first_byte),
                (f"{prefix}_request_seconds", "Until the last byte of what an upstream answered.", self.whole),
            ):
                lines += [f"# HELP {name} {meaning}", f"# TYPE {name} histogram"]
                for (client, route), histogram in sorted(histograms.items()):
                    lines += histogram.lines(name, client, route)
            name = f"{prefix}_unreadable_log_lines_total"
            lines += [f"# HELP {name} Lines of the access log that could not be read.", f"# TYPE {name} counter"]
            lines.append(f"{name} {self.unreadable}")
        return "\n".join(lines) + "\n"


class Follower:
    """Reads what is added to a file, through rotation and truncation, from the file's end at the start on."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.stream: Any = None
        self.rest = b""
        self._open(at_end=True)

    def _open(self, at_end: bool) -> None:
        if self.stream is not None:
            self.stream.close()
        self.rest = b""
        try:
            self.stream = self.path.open("rb")
        except FileNotFoundError:
            self.stream = None
            return
        if at_end:
            self.stream.seek(0, os.SEEK_END)

    def lines(self) -> list[str]:
        """Give the whole lines that were added since the last call."""
        found = self._read()
        try:
            now = self.path.stat()
        except FileNotFoundError:
            return found
        if self.stream is None or now.st_ino != os.fstat(self.stream.fileno()).st_ino:
            # The old file was read to its end just now.
            self._open(at_end=False)
            found += self._read()
        elif now.st_size < self.stream.tell():
            self.stream.seek(0)
            self.rest = b""
            found += self._read()
        return found

    def _read(self) -> list[str]:
        if self.stream is None:
            return []
        *whole, self.rest = (self.rest + self.stream.read()).split(b"\n")
        return [line.decode("utf-8", "replace") for line in whole]


class Server(ThreadingHTTPServer):
    """Answers /metrics."""

    daemon_threads = True

    def __init__(self, address: tuple[str, int], counters: Counters) -> None:
        self.counters = counters
        super().__init__(address, Handler)


class Handler(BaseHTTPRequestHandler):
    """One request."""

    server: Server

    def do_GET(self) -> None:
        """Answer with the counters."""
        found = self.path == "/metrics"
        body = self.server.counters.text().encode() if found else b"see /metrics\n"
        self.send_response(200 if found else 404)
        self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: Any) -> None:
        """Keep quiet: a scrape every few seconds is no news."""


def main() -> None:
    """Follow the log until the service is stopped."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--log", type=Path, required=True)
    parser.add_argument("--names", type=Path, required=True, help="configured clients and routes (JSON)")
    parser.add_argument("--port", type=int, required=True)
    arguments = parser.parse_args()
    counters = Counters()
    follower = Follower(arguments.log)
    server = Server(("127.0.0.1", arguments.port), counters)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    known = ""
    while True:
        # A new release of the gateway's configuration may name new clients.
        names = arguments.names.read_text(encoding="utf-8")
        if names != known:
            counters.begin(json.loads(names))
            known = names
        for line in follower.lines():
            counters.count(line)
        time.sleep(POLL_SECONDS)


if __name__ == "__main__":
    main()
