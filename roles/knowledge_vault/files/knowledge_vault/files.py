"""Files that are either whole or not there."""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path

TEMPORARY = ".ai-idp-*.tmp"
"""Obsidian does not look at names that begin with a dot."""


def write_whole(path: Path, content: str | bytes, *, inside: Path | None = None) -> None:
    """Write a file under another name and rename it, so that nobody ever sees half of it.

    Args:
        path: the file; missing folders are made.
        content: what it holds.
        inside: a folder that the file must lie in, after every symbolic link was followed.

    Raises:
        OSError: it can't be written (the disk is full, say). What was there before is still there, and nothing else.
        ValueError: the file would lie outside.
    """
    data = content.encode() if isinstance(content, str) else content
    if inside is not None and not path.parent.resolve().is_relative_to(inside.resolve()):
        raise ValueError(f"{path} is not inside {inside}")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / TEMPORARY.replace("*", secrets.token_hex(8))
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
