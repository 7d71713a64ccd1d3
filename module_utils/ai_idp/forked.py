"""Asks a vendor's library in a child process: a call that hangs or crashes must not take the module with it."""

from __future__ import annotations

import json
import os
import select
import signal
import time
from collections.abc import Callable
from typing import Any

TIMED_OUT = "timeout"
CRASHED = "crashed"


class ForkError(Exception):
    """The child gave no answer; ``kind`` is TIMED_OUT or CRASHED."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text)
        self.kind = kind


def _read_until(descriptor: int, until: float) -> bytes | None:
    """All that is written before the other end closes; None when the time is up first."""
    data = b""
    while True:
        left = until - time.monotonic()
        if left <= 0 or not select.select([descriptor], [], [], left)[0]:
            return None
        part = os.read(descriptor, 1 << 16)
        if not part:
            return data
        data += part


def _end_of(child: int, seconds: float) -> int:
    """The child's exit status; 0 for one that hangs in the driver and can't be waited for."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return status
        time.sleep(0.01)
    return 0


def in_child(work: Callable[[], dict[str, Any]], timeout: float) -> dict[str, Any]:
    """The answer of ``work``, which runs in a child process and is left behind when it hangs.

    :param work: gives what can be written as JSON.
    :param timeout: seconds.
    :raises ForkError: when the child gave no answer.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setsid()
            os.close(reading)
            null = os.open(os.devnull, os.O_RDWR)
            # A child that hangs in the driver must not hold the module's output open.
            for descriptor in (0, 1, 2):
                os.dup2(null, descriptor)
            with os.fdopen(writing, "wb") as stream:
                stream.write(json.dumps(work()).encode())
        finally:
            os._exit(0)
    os.close(writing)
    try:
        data = _read_until(reading, time.monotonic() + timeout)
    finally:
        os.close(reading)
    if data is None:
        os.kill(child, signal.SIGKILL)
        _end_of(child, 0.5)
        raise ForkError(TIMED_OUT, f"no answer within {timeout:g} seconds")
    status = _end_of(child, 5)
    if not data:
        how = f"ended by signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else "ended without an answer"
        raise ForkError(CRASHED, how)
    found: dict[str, Any] = json.loads(data)
    return found
