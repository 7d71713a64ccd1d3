"""Runs programs that may hang: one whose device or server is dead stays in the kernel and can't be killed."""

from __future__ import annotations

import os
import subprocess
import tempfile
from dataclasses import dataclass


@dataclass(frozen=True)
class Answer:
    """What one call of a program gave; ``rc`` is None when it did not end in time."""

    rc: int | None
    output: str


def run(arguments: list[str], timeout: float) -> Answer:
    """Runs a program. One that hangs in the driver can't be killed, so nobody waits for it to end."""
    environment = {**os.environ, "LC_ALL": "C"}
    with tempfile.TemporaryFile() as output:
        try:
            process = subprocess.Popen(
                arguments,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,
            )
        except OSError as error:
            return Answer(127, str(error))
        try:
            code: int | None = process.wait(timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            code = None
        output.seek(0)
        return Answer(code, output.read(16 << 20).decode("utf-8", "replace"))
