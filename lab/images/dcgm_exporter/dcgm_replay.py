#!/usr/bin/python3
"""Stands in for NVIDIA's dcgm-exporter where there is no GPU: replays a recorded exposition with changing values.

Same port, paths, metric names, help texts and labels as the real exporter, so dashboards and alerts can be tried. No
value is measured here, so each sample carries the label replay="true". The recording's own header says where its
values come from.
"""

from __future__ import annotations

import argparse
import csv
import math
import re
import signal
import socket
import sys
import time
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NoReturn

# One slow wave from idle to busy and back: long enough for a dashboard, short enough to watch.
PERIOD_S = 600.0
SAMPLE = re.compile(r"^(?P<name>[A-Za-z_:][A-Za-z0-9_:]*)\{(?P<labels>[^}]*)\} (?P<value>\S+)$")
DIRECTIVE = re.compile(r"^# REPLAY (?P<name>\S+) (?P<how>busy|total_minus|energy_of)=(?P<what>\S+)$")


class CollectorsError(ValueError):
    """The exporter would not start with this list of fields; the message names the line."""


class RecordingError(ValueError):
    """The recording can't be replayed; the message names the line."""


@dataclass(frozen=True)
class Sample:
    """One recorded line: the value when idle, as text, so that large integers stay what they are."""

    name: str
    labels: str
    idle: str


@dataclass(frozen=True)
class Recording:
    """A parsed recording: lines as text and samples in their order, and how samples change, by metric name."""

    lines: tuple[str | Sample, ...]
    busy: dict[str, float]
    total_minus: dict[str, tuple[str, float]]
    energy_of: dict[str, str]

    def idle(self, name: str) -> float:
        """Returns the recorded value of a metric."""
        return next(float(line.idle) for line in self.lines if isinstance(line, Sample) and line.name == name)


def parse_recording(text: str) -> Recording:
    """Reads an exposition with `# REPLAY` comments; raises RecordingError for a line that is neither.

    `# REPLAY METRIC busy=VALUE`: goes from the recorded value to VALUE as the load rises.
    `# REPLAY METRIC total_minus=OTHER`: falls by as much as OTHER rises.
    `# REPLAY METRIC energy_of=POWER`: a counter in mJ, the integral of POWER in W since the start.
    """
    lines: list[str | Sample] = []
    busy: dict[str, float] = {}
    others: dict[str, str] = {}
    energy_of: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        if line.startswith("# REPLAY "):
            directive = DIRECTIVE.match(line)
            if not directive:
                raise RecordingError(f"line {number}: {line!r} is not # REPLAY METRIC busy=|total_minus=|energy_of=...")
            name, how, what = directive.group("name", "how", "what")
            if how == "busy":
                busy[name] = float(what)
            else:
                (others if how == "total_minus" else energy_of)[name] = what
        elif line.startswith(("# HELP ", "# TYPE ")):
            lines.append(line)
        elif not line.startswith("#"):
            sample = SAMPLE.match(line)
            if not sample:
                raise RecordingError(f"line {number}: {line!r} is not NAME{{LABELS}} VALUE")
            lines.append(Sample(*sample.group("name", "labels", "value")))
    recording = Recording(tuple(lines), busy, {}, energy_of)
    known = {line.name for line in lines if isinstance(line, Sample)}
    unknown = {*busy, *others, *others.values(), *energy_of, *energy_of.values()} - known
    if unknown:
        raise RecordingError(f"# REPLAY names metrics without a sample: {', '.join(sorted(unknown))}")
    for name, other in others.items():
        recording.total_minus[name] = (other, recording.idle(name) + recording.idle(other))
    return recording


def load_at(now: float) -> float:
    """Returns the load between 0 (idle) and 1 (busy) at a time in seconds."""
    return (1 - math.cos(2 * math.pi * now / PERIOD_S)) / 2


def load_seconds(start: float, now: float) -> float:
    """Returns the integral of `load_at` from `start` to `now`, in seconds; it never falls."""

    def integral(moment: float) -> float:
        return moment / 2 - PERIOD_S / (4 * math.pi) * math.sin(2 * math.pi * moment / PERIOD_S)

    return integral(now) - integral(start)


def value_at(recording: Recording, sample: Sample, start: float, now: float) -> str:
    """Returns a sample's value as text: as recorded, or as its directive says; whole numbers stay whole."""
    name = sample.name
    if name in recording.energy_of:
        power = recording.energy_of[name]
        idle = recording.idle(power)
        rise = recording.busy.get(power, idle) - idle
        joules = idle * (now - start) + rise * load_seconds(start, now)
        return str(int(sample.idle) + int(joules * 1000))
    if name in recording.total_minus:
        other, total = recording.total_minus[name]
        reading = next(line for line in recording.lines if isinstance(line, Sample) and line.name == other)
        return str(round(total - float(value_at(recording, reading, start, now))))
    if name in recording.busy:
        idle = float(sample.idle)
        value = idle + (recording.busy[name] - idle) * load_at(now)
        return f"{value:.6f}" if "." in sample.idle else str(round(value))
    return sample.idle


def render(recording: Recording, hostname: str, start: float, now: float) -> str:
    """Returns the exposition at a time in seconds; `start` is when the counters began."""
    lines = [
        line
        if isinstance(line, str)
        else f'{line.name}{{{line.labels},hostname="{hostname}",replay="true"}} {value_at(recording, line, start, now)}'
        for line in recording.lines
    ]
    return "\n".join(lines) + "\n"


def make_handler(recording: Recording, hostname: str, start: float) -> type[BaseHTTPRequestHandler]:
    """Returns the request handler for a recording."""

    class Handler(BaseHTTPRequestHandler):
        """Answers /metrics and /health."""

        def do_GET(self) -> None:
            """Answers one request."""
            path = self.path.partition("?")[0]
            if path == "/metrics":
                self._answer(200, "text/plain; version=0.0.4; charset=utf-8", render_now())
            elif path == "/health":
                self._answer(200, "text/plain; charset=utf-8", "OK\n")
            else:
                self._answer(404, "text/plain; charset=utf-8", "404: see /metrics\n")

        def _answer(self, status: int, kind: str, text: str) -> None:
            body = text.encode()
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Keeps a scrape every few seconds out of the log."""

    def render_now() -> str:
        return render(recording, hostname, start, time.time())

    return Handler


def check_collectors(text: str) -> None:
    """Refuses a list of fields that the real exporter refuses: every line is a field, its type and its help."""
    for number, record in enumerate(csv.reader(text.splitlines(), skipinitialspace=True), 1):
        if record and not record[0].startswith("#") and len(record) != 3:
            raise CollectorsError(f"line {number}: {len(record)} columns, expected field, type and help")


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    """Reads the command line; the options of the real exporter that the stack may set are taken and have no effect."""
    parser = argparse.ArgumentParser(description="Replays a recorded dcgm-exporter exposition.")
    parser.add_argument("-a", "--address", default=":9400", help="HOST:PORT or :PORT to listen on")
    parser.add_argument(
        "-f", "--collectors", type=Path, help="checked only: the recording says which metrics there are"
    )
    parser.add_argument("-c", "--collect-interval", help="taken and ignored: values are computed when asked for")
    parser.add_argument("--recording", type=Path, default=Path("/usr/share/dcgm-replay/recording.prom"))
    return parser.parse_args(arguments)


def stop(signal_number: int, frame: object) -> NoReturn:
    """Ends at once when the container is stopped."""
    sys.exit(0)


def main(arguments: list[str] | None = None) -> int:
    """Serves until it is stopped."""
    options = parse_arguments(arguments)
    host, _, port = options.address.rpartition(":")
    try:
        recording = parse_recording(options.recording.read_text(encoding="utf-8"))
    except (OSError, RecordingError) as error:
        print(f"dcgm_replay: {options.recording}: {error}", file=sys.stderr)
        return 1
    try:
        if options.collectors:
            check_collectors(options.collectors.read_text(encoding="utf-8"))
    except (OSError, CollectorsError) as error:
        print(f"dcgm_replay: {options.collectors}: {error}", file=sys.stderr)
        return 1
    signal.signal(signal.SIGTERM, stop)
    server = ThreadingHTTPServer((host, int(port)), make_handler(recording, socket.gethostname(), time.time()))
    print(f"dcgm_replay: replays {options.recording} on {options.address}; no GPU is measured", flush=True)
    server.serve_forever()
    return 0


if __name__ == "__main__":
    sys.exit(main())
