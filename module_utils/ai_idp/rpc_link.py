# Copyright: AI-IDP contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Measures one TCP path at the message sizes of llama.cpp's RPC: the server of one end, the client of the other.

Both ends are this one file with nothing but the standard library. The module rpc_latency writes it to the host and
starts it as a process of its own::

    rpc_link.py server --bind ADDRESS --port PORT --allow ADDRESS[,ADDRESS] --lifetime SECONDS
    rpc_link.py client --source ADDRESS --interface NAME --peer ADDRESS --port PORT --seconds SECONDS

Time is that of the client alone, from before the first byte is sent until the last byte of the answer is there, so no
two clocks have to agree and everything that a caller of RPC waits for is in it: the link twice, both kernels, both
programs.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import os
import socket
import struct
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

# --- what goes over the wire ----------------------------------------------------------------------------
# Read in llama.cpp's ggml/src/ggml-rpc/ggml-rpc.cpp, build 11434 (RPC protocol 7.0.0): a request is one byte for the
# command, eight for the size, and its data, each by a send() of its own and with TCP_NODELAY; an answer is eight bytes
# for the size, and its data. Structures are packed.
COMMAND_BYTES, SIZE_BYTES = 1, 8
HEADER_BYTES = COMMAND_BYTES + SIZE_BYTES
# rpc_tensor: id 8, type 4, buffer 8, ne and nb 4 x 4 each, op 4, op_params 64, flags 4, src 10 x 8, view_src 8,
# view_offs 8, data 8, name 64, use_count 4.
TENSOR_BYTES = 296
# Of Llama 3.2 1B, the edge model: what a layer hands to the next one is a float for each of these.
EMBEDDING = 2048
VOCABULARY = 128_256
# llama.cpp reads long prompts in pieces of as many tokens (n_ubatch).
BATCH = 512
FLOAT_BYTES = 4

# SET_TENSOR has a flag and an offset between the tensor and what it holds, and no answer.
SET_TENSOR_BYTES = TENSOR_BYTES + 1 + 8
# GET_TENSOR asks with tensor, offset and size.
GET_TENSOR_BYTES = TENSOR_BYTES + 8 + 8
# A graph that is computed again is only named by its device (GRAPH_RECOMPUTE); it has no answer.
RECOMPUTE_BYTES = 4
# HELLO: 24 bytes of capabilities there; four of version and the capabilities back.
HELLO_BYTES, HELLO_ANSWER_BYTES = 24, 28
# GET_ALIGNMENT and GET_MAX_SIZE: a device there, a number back. The smallest that is answered.
SMALLEST_BYTES, SMALLEST_ANSWER_BYTES = 4, 8
# GET_ALLOC_SIZE: device, tensor and its ten sources there, a number back. The longest that holds no numbers of a model.
ALLOCATE_BYTES, ALLOCATE_ANSWER_BYTES = 4 + 11 * TENSOR_BYTES, 8


@dataclass(frozen=True)
class Case:
    """One exchange: requests that go out one after the other, of which only the last is answered."""

    name: str
    # The data of each request, without its header.
    requests: tuple[int, ...]
    # The data of the answer, without its size.
    answer: int
    # At most so many; those of few bytes say more with more of them.
    most: int = 2000


CASES = (
    Case("rtt", (SMALLEST_BYTES,), SMALLEST_ANSWER_BYTES),
    Case("hello", (HELLO_BYTES,), HELLO_ANSWER_BYTES),
    Case("allocate", (ALLOCATE_BYTES,), ALLOCATE_ANSWER_BYTES),
    # What each generated token waits for: what the layers here hand to those of the peer, the word to compute, and
    # what they hand back.
    Case(
        "rpc_latency",
        (SET_TENSOR_BYTES + EMBEDDING * FLOAT_BYTES, RECOMPUTE_BYTES, GET_TENSOR_BYTES),
        EMBEDDING * FLOAT_BYTES,
    ),
    # The same where the peer has the last layers too: it hands back a number for each word of the vocabulary.
    Case(
        "logits",
        (SET_TENSOR_BYTES + EMBEDDING * FLOAT_BYTES, RECOMPUTE_BYTES, GET_TENSOR_BYTES),
        VOCABULARY * FLOAT_BYTES,
        most=200,
    ),
    # A piece of a long prompt.
    Case(
        "prompt",
        (SET_TENSOR_BYTES + BATCH * EMBEDDING * FLOAT_BYTES, RECOMPUTE_BYTES, GET_TENSOR_BYTES),
        BATCH * EMBEDDING * FLOAT_BYTES,
        most=100,
    ),
)

# --- this program's own commands, in the same framing ---------------------------------------------------
# The first answers with what follows, so that a stranger at the port is not taken for this server.
GREETING = b"ai-idp-rpc-link 1\n"
GREET, CALL, TELL, ASK, COUNT = 1, 2, 3, 4, 5
# CALL's answer is as long as the last ASK_LENGTH said.
ASK_LENGTH = 6
# More than the largest message, and a bound for what a stranger could make the server wait for.
LARGEST = 64 << 20
LARGEST_ANSWER = 1 << 34
CHUNK = 1 << 20
IDLE_SECONDS = 20.0
CONNECTIONS = 8

WARMUP_CALLS, LEAST_CALLS = 10, 5
# A slow link is given up on after as many times the seconds that a case was to take.
PATIENCE = 8
SHORTEST_STREAM = 64 << 10
# Of struct tcp_info (linux/tcp.h): retransmissions of all time, and the kernel's own shortest round trip in us.
TCP_INFO_BYTES, RETRANSMITS_AT, SHORTEST_RTT_AT = 192, 100, 148


class LinkError(Exception):
    """Something at this path is not as it has to be; one sentence."""


def read_exactly(stream: socket.socket, view: memoryview) -> bool:
    """Fills the view; False when the peer is gone."""
    done, size = 0, len(view)
    while done < size:
        count = stream.recv_into(view[done:])
        if not count:
            return False
        done += count
    return True


def read_away(stream: socket.socket, size: int, scratch: memoryview) -> bool:
    while size:
        count = stream.recv_into(scratch[: min(size, len(scratch))])
        if not count:
            return False
        size -= count
    return True


def send_zeros(stream: socket.socket, size: int, zeros: memoryview) -> None:
    while size:
        part = min(size, len(zeros))
        stream.sendall(zeros[:part])
        size -= part


# --- server ---------------------------------------------------------------------------------------------


class Conversation:
    """One client's requests, until it leaves, says something that is none, or is silent for too long."""

    def __init__(self, stream: socket.socket) -> None:
        self.stream = stream
        self.scratch = memoryview(bytearray(CHUNK))
        self.zeros = memoryview(bytes(CHUNK))
        self.answer = bytes(SIZE_BYTES)
        # Of what was told: bytes, and when the first and the last came.
        self.told, self.first, self.last = 0, 0, 0

    def number(self, size: int) -> int:
        data = bytearray(8)
        if size != 8 or not read_exactly(self.stream, memoryview(data)):
            raise LinkError("a number has 8 bytes")
        return int(struct.unpack("<Q", data)[0])

    def handle(self, command: int, size: int) -> bool:
        if command == CALL:
            if not read_away(self.stream, size, self.scratch):
                return False
            self.stream.sendall(self.answer)
        elif command == TELL:
            self.first = self.first or time.perf_counter_ns()
            if not read_away(self.stream, size, self.scratch):
                return False
            self.told, self.last = self.told + size, time.perf_counter_ns()
        elif command == ASK_LENGTH:
            length = self.number(size)
            if length > LARGEST:
                raise LinkError(f"an answer of {length} bytes is asked for")
            self.answer = struct.pack("<Q", length) + bytes(length)
        elif command == ASK:
            length = self.number(size)
            if length > LARGEST_ANSWER:
                raise LinkError(f"an answer of {length} bytes is asked for")
            self.stream.sendall(struct.pack("<Q", length))
            send_zeros(self.stream, length, self.zeros)
        elif command == COUNT:
            if size:
                raise LinkError("a question has no data")
            body = struct.pack("<QQ", self.told, max(0, self.last - self.first))
            self.told, self.first, self.last = 0, 0, 0
            self.stream.sendall(struct.pack("<Q", len(body)) + body)
        elif command == GREET and not size:
            self.stream.sendall(struct.pack("<Q", len(GREETING)) + GREETING)
        else:
            raise LinkError(f"{command} is no command")
        return True

    def run(self) -> None:
        header = memoryview(bytearray(HEADER_BYTES))
        greeted = False
        while read_exactly(self.stream, header):
            command, size = struct.unpack("<BQ", header)
            if size > LARGEST:
                raise LinkError(f"a request of {size} bytes comes")
            greeted = greeted or command == GREET
            if not greeted or not self.handle(command, size):
                return


def answer(stream: socket.socket, places: threading.Semaphore) -> None:
    try:
        with stream:
            stream.settimeout(IDLE_SECONDS)
            stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            # Whoever is gone or says nonsense is left alone.
            with contextlib.suppress(OSError, LinkError):
                Conversation(stream).run()
    finally:
        places.release()


def serve(address: str, port: int, allowed: list[str], lifetime: float) -> None:
    """Answers to the allowed addresses at the one address, and ends by itself."""
    until = time.monotonic() + lifetime
    places = threading.Semaphore(CONNECTIONS)
    with socket.create_server((address, port), backlog=CONNECTIONS) as listener:
        print(f"listening on {address}:{listener.getsockname()[1]} for {lifetime:g} s", flush=True)
        while (left := until - time.monotonic()) > 0:
            listener.settimeout(left)
            try:
                stream, (peer, _) = listener.accept()
            except TimeoutError:
                continue
            except OSError as error:
                # A client that gave up before it was accepted is no reason to end.
                print(f"a connection was not accepted: {error}", file=sys.stderr, flush=True)
                continue
            if peer not in allowed or not places.acquire(blocking=False):
                stream.close()
                continue
            threading.Thread(target=answer, args=(stream, places), daemon=True).start()
    # Conversations that still go on end with the process: daemon threads are not waited for.


# --- client ---------------------------------------------------------------------------------------------


def framed(
    command: int, data: bytes | bytearray | memoryview = b""
) -> tuple[bytes, bytes, bytes | bytearray | memoryview]:
    return bytes([command]), struct.pack("<Q", len(data)), data


class Client:
    """One connection along one path."""

    def __init__(self, source: str, interface: str, peer: str, port: int, timeout: float) -> None:
        self.scratch = memoryview(bytearray(CHUNK))
        # What this program itself sent and received beside headers of the network.
        self.sent = self.received = 0
        self.stream = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            self.stream.settimeout(timeout)
            self.stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if interface:
                # An address alone does not choose the way: the kernel would send by another interface whose route
                # is the better one.
                self.stream.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode() + b"\0")
            if source:
                self.stream.bind((source, 0))
            self.stream.connect((peer, port))
        except OSError:
            self.stream.close()
            raise

    def send(self, command: int, data: bytes = b"") -> None:
        for part in framed(command, data):
            if len(part):
                self.stream.sendall(part)
        self.sent += HEADER_BYTES + len(data)

    def receive_size(self) -> int:
        size = bytearray(SIZE_BYTES)
        if not read_exactly(self.stream, memoryview(size)):
            raise LinkError("the server hung up")
        return int(struct.unpack("<Q", size)[0])

    def receive(self) -> bytes:
        size = self.receive_size()
        if size > CHUNK:
            raise LinkError("the answer is not one of this program's server")
        data = bytearray(size)
        if not read_exactly(self.stream, memoryview(data)):
            raise LinkError("the server hung up")
        self.received += SIZE_BYTES + size
        return bytes(data)

    def greet(self) -> None:
        self.send(GREET)
        if self.receive() != GREETING:
            raise LinkError("what answers is not this program's server, or one of another version")

    def calls(self, case: Case, seconds: float) -> dict[str, Any]:
        """Milliseconds of each exchange of the case, those for warming up left out."""
        self.send(ASK_LENGTH, struct.pack("<Q", case.answer))
        parts: list[Any] = []
        for place, size in enumerate(case.requests, start=1):
            parts += framed(CALL if place == len(case.requests) else TELL, bytes(size))
        whole = memoryview(bytearray(SIZE_BYTES + case.answer))
        times: list[int] = []
        warmup = WARMUP_CALLS
        sendall, now = self.stream.sendall, time.perf_counter_ns
        begun = now()
        limit, latest = int(seconds * 1e9), int(PATIENCE * seconds * 1e9)
        while True:
            started = now()
            for part in parts:
                sendall(part)
            if not read_exactly(self.stream, whole):
                raise LinkError("the server hung up")
            ended = now()
            self.sent += sum(case.requests) + HEADER_BYTES * len(case.requests)
            self.received += len(whole)
            if warmup:
                warmup -= 1
                # On a slow link, one exchange for warming up has to do.
                if not warmup or ended - begun > limit:
                    warmup, begun = 0, ended
                continue
            times.append(ended - started)
            spent = ended - begun
            if len(times) >= case.most or (spent >= limit and len(times) >= LEAST_CALLS) or spent >= latest:
                break
        if struct.unpack("<Q", whole[:SIZE_BYTES])[0] != case.answer:
            raise LinkError("an answer has another size than was asked for")
        return {
            "request_bytes": sum(case.requests) + HEADER_BYTES * len(case.requests),
            "answer_bytes": len(whole),
            "milliseconds": [round(value / 1e6, 5) for value in times],
        }

    def stream_there(self, seconds: float) -> dict[str, float]:
        """What the peer received of a stream, by the peer's own count and time."""
        chunk = bytes(CHUNK)
        for duration in (seconds / 5, seconds):
            until = time.perf_counter() + duration
            while time.perf_counter() < until:
                self.send(TELL, chunk)
            self.send(COUNT)
            count, nanoseconds = struct.unpack("<QQ", self.receive())
        if not count or not nanoseconds:
            raise LinkError("the server received nothing of the stream")
        return {"bytes": count, "seconds": nanoseconds / 1e9}

    def stream_back(self, expected_rate: float, seconds: float) -> dict[str, float]:
        """What comes of a stream from the peer; the first bytes are there when the time begins."""
        length = 0
        # The way back may be slower or faster than the way there, so the first try only tells how much to ask for.
        for duration in (seconds / 5, seconds):
            length = int(max(SHORTEST_STREAM, min(expected_rate * duration, LARGEST_ANSWER)))
            self.send(ASK, struct.pack("<Q", length))
            if self.receive_size() != length:
                raise LinkError("an answer has another size than was asked for")
            started = time.perf_counter()
            if not read_away(self.stream, length, self.scratch):
                raise LinkError("the server hung up")
            elapsed = max(time.perf_counter() - started, 1e-9)
            self.received += SIZE_BYTES + length
            expected_rate = length / elapsed
        return {"bytes": length, "seconds": elapsed}

    def kernel(self) -> dict[str, Any]:
        """What the kernel knows of the connection; nothing where it does not tell."""
        with contextlib.suppress(OSError, struct.error):
            told = self.stream.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, TCP_INFO_BYTES)
            (retransmits,) = struct.unpack_from("<I", told, RETRANSMITS_AT)
            (shortest,) = struct.unpack_from("<I", told, SHORTEST_RTT_AT)
            return {"retransmits": retransmits, "shortest_rtt_ms": shortest / 1000}
        return {}


def interface_bytes(interface: str) -> tuple[int, int] | None:
    """Bytes that the interface sent and received since it is there."""
    counts = []
    for name in ("tx_bytes", "rx_bytes"):
        try:
            with open(f"/sys/class/net/{interface}/statistics/{name}", encoding="ascii") as stream:
                counts.append(int(stream.read()))
        except (OSError, ValueError):
            return None
    return counts[0], counts[1]


@contextlib.contextmanager
def no_garbage_collection() -> Iterator[None]:
    """A collection in the middle of an exchange would be taken for the link's."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    client = Client(arguments.source, arguments.interface, arguments.peer, arguments.port, arguments.timeout)
    with client.stream, no_garbage_collection():
        before = interface_bytes(arguments.interface)
        client.greet()
        result: dict[str, Any] = {"source": client.stream.getsockname()[0], "cases": {}}
        for case in CASES:
            if arguments.case in ("", case.name):
                result["cases"][case.name] = client.calls(case, arguments.seconds)
        if not arguments.case:
            # Told bytes of the cases are in the server's count.
            client.send(COUNT)
            client.receive()
            there = client.stream_there(arguments.seconds)
            back = client.stream_back(there["bytes"] / there["seconds"], arguments.seconds)
            result["streams"] = {"there": there, "back": back}
        result["kernel"] = client.kernel()
        after = interface_bytes(arguments.interface)
        result["program_bytes"] = {"sent": client.sent, "received": client.received}
        if before and after:
            result["interface_bytes"] = {"sent": after[0] - before[0], "received": after[1] - before[1]}
    return result


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="rpc_link.py", description="TCP at the message sizes of llama.cpp's RPC")
    ends = parser.add_subparsers(dest="end", required=True)
    server = ends.add_parser("server")
    server.add_argument("--bind", required=True)
    server.add_argument("--port", type=int, required=True)
    server.add_argument("--allow", required=True)
    server.add_argument("--lifetime", type=float, required=True)
    client = ends.add_parser("client")
    client.add_argument("--source", default="")
    client.add_argument("--interface", default="")
    client.add_argument("--peer", required=True)
    client.add_argument("--port", type=int, required=True)
    client.add_argument("--seconds", type=float, default=0.3)
    client.add_argument("--timeout", type=float, default=20)
    client.add_argument("--case", default="", choices=["", *(case.name for case in CASES)])
    given = parser.parse_args(arguments)
    if given.end == "server":
        try:
            serve(given.bind, given.port, given.allow.split(","), given.lifetime)
        except OSError as error:
            print(f"{given.bind}:{given.port} can't be listened on: {error.strerror or error}", file=sys.stderr)
            return 1
        return 0
    try:
        print(json.dumps(measure(given)))
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error) or "no answer in time"
        print(f"{given.peer}:{given.port} can't be measured: {reason}", file=sys.stderr)
        return 1
    except LinkError as error:
        print(f"{given.peer}:{given.port} can't be measured: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
