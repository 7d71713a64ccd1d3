"""An OpenAI-compatible server whose timing is known, to find the error of the client that measures with it.

Each request is answered on a plan of absolute times: the first token at the time to first token after the request has
arrived, each further one exactly the spacing later, however late the one before was. It can also fail in each way that
a real server fails in. It runs as a process of its own, so that the work of a test does not disturb its clock:

    python -m tests.mock_openai --ttft-ms 50 --spacing-ms 20

prints its address and serves until it is stopped; ``GET /stats`` tells how late it was itself.
"""

import argparse
import asyncio
import json
import selectors
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from statistics import median, quantiles
from typing import Any

PATHS = ("/v1/completions", "/v1/chat/completions")


@dataclass
class Behaviour:
    """What the server does; the defaults are those of a healthy one."""

    host: str = "127.0.0.1"
    port: int = 0
    ttft_ms: float = 10.0
    spacing_ms: float = 5.0
    # What it says that it serves, with commas between. It takes any.
    models: str = "mock"
    # Bearer token that requests must carry; empty for none.
    key: str = ""
    # Every so many requests is answered with an error 500; 0 for none.
    fail_every: int = 0
    # After so many tokens the stream stands still, breaks off, or ends early with an error inside it; 0 for never.
    hang_after: int = 0
    drop_after: int = 0
    error_after: int = 0
    # Leave the usage out, so that a client has to count by itself.
    usage: int = 1


class Mock:
    """The server's state over all its connections."""

    def __init__(self, behaviour: Behaviour) -> None:
        self.behaviour = behaviour
        self.requests = 0
        self.listed = 0
        self.lateness: list[float] = []
        self.ttfts: list[float] = []

    async def connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the requests of one connection, one after another."""
        try:
            while await self.answer(reader, writer):
                pass
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer one request; tells whether the connection stays open."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        method, path, _ = head[0].split(" ")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])}
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        arrived = asyncio.get_running_loop().time()

        def reply(status: str, content: Any) -> bool:
            data = json.dumps(content).encode()
            length = f"Content-Length: {len(data)}"
            writer.write(f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\n{length}\r\n\r\n".encode() + data)
            return True

        if path == "/stats":
            return reply("200 OK", self.stats())
        if (method, path) == ("GET", "/v1/models"):
            self.listed += 1
            listed = [{"id": model, "object": "model"} for model in self.behaviour.models.split(",")]
            return reply("200 OK", {"object": "list", "data": listed})
        if method != "POST" or path not in PATHS:
            return reply("404 Not Found", {"error": {"message": f"no {path} here"}})
        if self.behaviour.key and headers.get("authorization") != f"Bearer {self.behaviour.key}":
            return reply("401 Unauthorized", {"error": {"message": "Unauthorized"}})
        self.requests += 1
        if self.behaviour.fail_every and self.requests % self.behaviour.fail_every == 0:
            return reply("500 Internal Server Error", {"error": {"message": "told to fail"}})
        return await self.stream(writer, json.loads(body), path.endswith("/chat/completions"), arrived)

    async def stream(self, writer: asyncio.StreamWriter, request: dict[str, Any], chat: bool, arrived: float) -> bool:
        """Send the tokens of one answer at their times; tells whether the connection stays open."""
        behaviour, loop = self.behaviour, asyncio.get_running_loop()
        tokens = request.get("max_completion_tokens") or request.get("max_tokens") or 16
        prompt = request.get("prompt") or "".join(str(message["content"]) for message in request.get("messages", ""))
        usage = {"prompt_tokens": len(prompt), "completion_tokens": tokens, "total_tokens": len(prompt) + tokens}

        kind = {"id": "mock", "object": "chat.completion.chunk" if chat else "text_completion"}

        def event(content: Any) -> None:
            data = b"data: " + (content if isinstance(content, bytes) else json.dumps(content).encode()) + b"\n\n"
            writer.write(b"%x\r\n%b\r\n" % (len(data), data))

        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        for index in range(tokens):
            if behaviour.hang_after and index == behaviour.hang_after:
                await asyncio.sleep(3600)
            if behaviour.drop_after and index == behaviour.drop_after:
                writer.transport.abort()
                return False
            if behaviour.error_after and index == behaviour.error_after:
                event({"error": {"message": "told to fail", "code": 500}})
                break
            due = arrived + (behaviour.ttft_ms + index * behaviour.spacing_ms) / 1000
            await asyncio.sleep(due - loop.time())
            now = loop.time()
            self.lateness.append(now - due)
            if index == 0:
                self.ttfts.append(now - arrived)
            if chat and index == 0:
                # The engines send the role by itself, together with the first token.
                event({**kind, "choices": [{"index": 0, "finish_reason": None, "delta": {"role": "assistant"}}]})
            piece = {"delta": {"content": " a"}} if chat else {"text": " a"}
            event({**kind, "choices": [{"index": 0, "finish_reason": None, **piece}]})
        else:
            if behaviour.usage:
                event({**kind, "choices": [], "usage": usage})
        event(b"[DONE]")
        writer.write(b"0\r\n\r\n")
        await writer.drain()
        return True

    def stats(self) -> dict[str, float]:
        """How many requests came and lists of models; when first tokens left, and how late all did, in milliseconds."""
        late = quantiles(self.lateness, n=100) if len(self.lateness) > 1 else [0.0] * 99
        return {
            "requests": self.requests,
            "listed": self.listed,
            "ttft_p50_ms": median(self.ttfts or [0.0]) * 1000,
            "late_p50_ms": late[49] * 1000,
            "late_p99_ms": late[98] * 1000,
        }


async def serve(behaviour: Behaviour) -> None:
    """Serve until the process is told to end."""
    server = await asyncio.start_server(Mock(behaviour).connection, behaviour.host, behaviour.port)
    host, port = server.sockets[0].getsockname()
    print(f"http://{host}:{port}", flush=True)
    async with server:
        await server.serve_forever()


@contextmanager
def mock_server(**behaviour: Any) -> Iterator[str]:
    """A server in a process of its own, by the fields of ``Behaviour``; gives its address."""
    options = [f"--{name.replace('_', '-')}={value}" for name, value in behaviour.items()]
    command = [sys.executable, str(Path(__file__)), *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


def stats(url: str) -> dict[str, float]:
    """What a server says of its own lateness."""
    with urllib.request.urlopen(f"{url}/stats", timeout=5) as answer:
        told: dict[str, float] = json.loads(answer.read())
    return told


def exact_loop() -> asyncio.SelectorEventLoop:
    """An event loop that waits in microseconds, as select does; epoll waits in whole milliseconds."""
    return asyncio.SelectorEventLoop(selectors.SelectSelector())


def main() -> None:
    """Read the behaviour from the command line and serve."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for field in fields(Behaviour):
        parser.add_argument(f"--{field.name.replace('_', '-')}", type=type(field.default), default=field.default)
    asyncio.run(serve(Behaviour(**vars(parser.parse_args()))), loop_factory=exact_loop)


if __name__ == "__main__":
    main()
