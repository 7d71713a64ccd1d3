"""What the front may end with, and the one kind of error that a user is meant to see."""

from __future__ import annotations

from enum import IntEnum


class Exit(IntEnum):
    """Exit codes of every command; 130 is what a shell expects after Ctrl-C."""

    HEALTHY = 0
    FAILED = 1
    COULD_NOT_RUN = 2
    INTERRUPTED = 130


class FrontError(Exception):
    """Something a user can put right: printed as one line on stderr, never as a traceback.

    The message says what is wrong and what to do. `code` is the exit code, "could not run" unless told.
    """

    def __init__(self, message: str, code: int = Exit.COULD_NOT_RUN) -> None:
        super().__init__(message)
        self.code = int(code)
