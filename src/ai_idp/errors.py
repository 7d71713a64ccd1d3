"""What the front may end with, and the one kind of error that a user is meant to see."""

from __future__ import annotations

import json
from enum import IntEnum
from pathlib import Path
from typing import Any

# What comes of reading on in a document that has not the shape it should have.
WRONG_SHAPE = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)


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


def why_unread(error: Exception) -> str:
    """Why a text file could not be read, in words that quote nothing of it."""
    if isinstance(error, UnicodeDecodeError):
        return f"it is no UTF-8 text (byte {error.start})"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return type(error).__name__


def printable(text: str) -> str:
    """Text that can be printed and written as JSON: half a character, as JSON and file names can hold, becomes `?`."""
    return text.encode("utf-8", "replace").decode("utf-8")


def from_json(text: str | bytes) -> Any:
    """What a text says as JSON. ValueError if it is none, also for one that is nested too deeply."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def home_path(text: str) -> Path:
    """A path in which `~` and `~name` stand for a home. FrontError if there is no such home."""
    try:
        return Path(text).expanduser()
    except RuntimeError:
        raise FrontError(f"{text}: there is no such home folder: write the whole path") from None
