"""Measures what the gateway, or the gate of an engine's host, adds to a stream: how much later the first token comes,
and whether each token still comes as it is made.

Direct and through the gateway are asked in turn in one run, so that what else the machine does meets both alike. Keys
come from the environment, never from the command line:

    AI_IDP_DIRECT_KEY=... AI_IDP_API_KEY=... python -m tests.stream_timing \
        --direct http://HOST:8000 --gateway https://GATEWAY --ca CA_FILE --model MODEL

prints the figures as JSON and ends with 1 when the gateway is too slow or a stream failed.
"""

import argparse
import http.client
import json
import os
import ssl
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import pairwise
from statistics import median, quantiles
from typing import Any
from urllib.parse import urlsplit

FIRST_TOKEN_LIMIT_MS = 2.0
"""How much later the first token may come through the gateway (median)."""


@dataclass(frozen=True)
class Target:
    """A server that speaks OpenAI's API."""

    url: str
    key: str = ""
    # File of the certificate authority; the machine's own authorities when empty.
    ca: str = ""
    path: str = "/v1/chat/completions"


@dataclass(frozen=True)
class Stream:
    """What one stream did; times in milliseconds."""

    status: int
    first_ms: float
    gaps_ms: list[float]
    tokens: int
    # How it ended when not with [DONE].
    problem: str = ""


class Session:
    """One kept connection to a server, as clients have it.

    Args:
        target: the server.
        timeout: seconds of silence after which a stream has failed.
    """

    def __init__(self, target: Target, timeout: float = 120) -> None:
        self.target = target
        parts = urlsplit(target.url)
        host, port = parts.hostname or "", parts.port
        if parts.scheme == "https":
            context = ssl.create_default_context(cafile=target.ca or None)
            self.connection: http.client.HTTPConnection = http.client.HTTPSConnection(
                host, port, timeout=timeout, context=context
            )
        else:
            self.connection = http.client.HTTPConnection(host, port, timeout=timeout)
        self.path = parts.path.rstrip("/") + target.path

    def stream(self, model: str, tokens: int, prompt: str = "Count.") -> Stream:
        """Ask for one stream and note when each token arrives."""
        body = json.dumps(
            {
                "model": model,
                "messages": [{"role": "user", "content": prompt}],
                "max_tokens": tokens,
                "stream": True,
                "ignore_eos": True,
            }
        )
        headers = {"Content-Type": "application/json"}
        if self.target.key:
            headers["Authorization"] = f"Bearer {self.target.key}"
        arrived: list[float] = []
        problem = "ended before [DONE]"
        status = 0
        # The connection is opened before the clock starts: a client opens it once for many requests.
        if self.connection.sock is None:
            self.connection.connect()
        started = time.perf_counter()
        try:
            self.connection.request("POST", self.path, body, headers)
            answer = self.connection.getresponse()
            status = answer.status
            if status != http.client.OK:
                return Stream(status, 0, [], 0, answer.read(300).decode("utf-8", "replace"))
            while line := answer.readline():
                now = time.perf_counter()
                if line.startswith(b"data: [DONE]"):
                    problem = ""
                elif line.startswith(b"data: ") and has_token(line[6:]):
                    arrived.append(now)
        except (OSError, http.client.HTTPException) as error:
            problem = f"{type(error).__name__}: {error}"
            self.connection.close()
        if not arrived:
            return Stream(status, 0, [], 0, problem or "no token")
        gaps = [(later - earlier) * 1000 for earlier, later in pairwise(arrived)]
        return Stream(status, (arrived[0] - started) * 1000, gaps, len(arrived), problem)

    def close(self) -> None:
        """Close the connection."""
        self.connection.close()


def has_token(data: bytes) -> bool:
    """Whether an event brings a token, not only a role or the usage."""
    try:
        choices = json.loads(data).get("choices") or []
    except ValueError:
        return False
    return any((choice.get("delta") or {}).get("content") or choice.get("text") for choice in choices)


def percentiles(values: Sequence[float]) -> dict[str, float]:
    """Median, 95th and 99th percentile and maximum."""
    if len(values) < 2:
        one = values[0] if values else 0.0
        return {"p50": one, "p95": one, "p99": one, "max": one}
    cut = quantiles(values, n=100, method="inclusive")
    return {"p50": median(values), "p95": cut[94], "p99": cut[98], "max": max(values)}


@dataclass(frozen=True)
class Comparison:
    """Direct against through the gateway; times in milliseconds."""

    runs: int
    tokens: int
    first_direct: dict[str, float]
    first_gateway: dict[str, float]
    # Median of the gateway less median of direct.
    first_added_p50: float
    # Of pairs that were asked one right after the other.
    first_added: dict[str, float]
    gaps_direct: dict[str, float]
    gaps_gateway: dict[str, float]
    # Share of tokens that came within a tenth of the usual gap after the one before: held back and sent together.
    together_direct: float
    together_gateway: float
    problems: list[str]


def together(gaps: Sequence[float], usual: float) -> float:
    """Share of gaps that are so small that both tokens must have been sent at once."""
    return sum(1 for gap in gaps if gap < usual / 10) / len(gaps) if gaps else 0.0


def compare(direct: Target, gateway: Target, model: str, runs: int = 50, tokens: int = 40) -> Comparison:
    """Ask both in turn.

    Args:
        direct: the engine itself.
        gateway: the same engine through the gateway.
        model: name of the model.
        runs: streams of each.
        tokens: tokens of each stream.
    """
    streams: dict[str, list[Stream]] = {"direct": [], "gateway": []}
    sessions = {"direct": Session(direct), "gateway": Session(gateway)}
    try:
        for session in sessions.values():
            # Opens the connections, and warms what wants to be warm.
            session.stream(model, 2)
        for index in range(runs):
            order = ("direct", "gateway") if index % 2 == 0 else ("gateway", "direct")
            for name in order:
                streams[name].append(sessions[name].stream(model, tokens, f"Count from {index}."))
    finally:
        for session in sessions.values():
            session.close()
    problems = [f"{name}: {one.status} {one.problem}" for name, each in streams.items() for one in each if one.problem]
    good = {name: [one for one in each if not one.problem] for name, each in streams.items()}
    gaps = {name: [gap for one in each for gap in one.gaps_ms] for name, each in good.items()}
    first = {name: percentiles([one.first_ms for one in each]) for name, each in good.items()}
    usual = median(gaps["direct"]) if gaps["direct"] else 0.0
    pairs = [
        pair for pair in zip(streams["direct"], streams["gateway"], strict=True) if not any(s.problem for s in pair)
    ]
    added = [through.first_ms - own.first_ms for own, through in pairs]
    return Comparison(
        runs=runs,
        tokens=tokens,
        first_direct=first["direct"],
        first_gateway=first["gateway"],
        first_added_p50=first["gateway"]["p50"] - first["direct"]["p50"],
        first_added=percentiles(added),
        gaps_direct=percentiles(gaps["direct"]),
        gaps_gateway=percentiles(gaps["gateway"]),
        together_direct=together(gaps["direct"], usual),
        together_gateway=together(gaps["gateway"], usual),
        problems=problems,
    )


@dataclass(frozen=True)
class Load:
    """Many streams at the same time; times in milliseconds."""

    streams: int
    concurrency: int
    seconds: float
    tokens: int
    first: dict[str, float]
    gaps: dict[str, float]
    problems: list[str]


def load(target: Target, model: str, concurrency: int = 50, streams: int = 200, tokens: int = 40) -> Load:
    """Keep so many streams running until all have been asked for.

    Args:
        target: the server.
        model: name of the model.
        concurrency: streams at the same time, each on a connection of its own.
        streams: how many in all.
        tokens: tokens of each stream.
    """
    each = [streams // concurrency + (index < streams % concurrency) for index in range(concurrency)]

    def worker(count: int) -> list[Stream]:
        session = Session(target)
        try:
            return [session.stream(model, tokens, f"Count {index}.") for index in range(count)]
        finally:
            session.close()

    started = time.perf_counter()
    with ThreadPoolExecutor(concurrency) as pool:
        done = [stream for found in pool.map(worker, each) for stream in found]
    seconds = time.perf_counter() - started
    return Load(
        streams=len(done),
        concurrency=concurrency,
        seconds=seconds,
        tokens=sum(stream.tokens for stream in done),
        first=percentiles([stream.first_ms for stream in done if not stream.problem]),
        gaps=percentiles([gap for stream in done for gap in stream.gaps_ms]),
        problems=[f"{stream.status} {stream.problem}" for stream in done if stream.problem],
    )


def rounded(value: Any) -> Any:
    """Round every number for people."""
    if isinstance(value, float):
        return round(value, 3)
    if isinstance(value, dict):
        return {name: rounded(each) for name, each in value.items()}
    return value


def main() -> int:
    """Measure as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--direct", required=True, help="address of the engine")
    parser.add_argument("--gateway", required=True, help="address of the same engine through the gateway")
    parser.add_argument("--ca", default="", help="file of the gateway's certificate authority")
    parser.add_argument("--model", default="m")
    parser.add_argument("--runs", type=int, default=50)
    parser.add_argument("--tokens", type=int, default=40)
    parser.add_argument("--concurrency", type=int, default=50, help="streams at once in the second part; 0 for none")
    parser.add_argument("--streams", type=int, default=200)
    parser.add_argument("--limit-ms", type=float, default=FIRST_TOKEN_LIMIT_MS, help="how much later, by the median")
    options = parser.parse_args()
    direct = Target(options.direct, os.environ.get("AI_IDP_DIRECT_KEY", ""))
    gateway = Target(options.gateway, os.environ.get("AI_IDP_API_KEY", ""), options.ca)
    compared = compare(direct, gateway, options.model, options.runs, options.tokens)
    told: dict[str, Any] = {"compare": rounded(asdict(compared))}
    problems = list(compared.problems)
    if options.concurrency:
        loaded = load(gateway, options.model, options.concurrency, options.streams, options.tokens)
        told["load"] = rounded(asdict(loaded))
        problems += loaded.problems
    print(json.dumps(told, indent=2))
    return 1 if problems or compared.first_added_p50 > options.limit_ms else 0


if __name__ == "__main__":
    sys.exit(main())
