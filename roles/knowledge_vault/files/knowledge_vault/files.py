"""Files that are either whole or not there."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

TEMPORARY = ".ai-idp-*.tmp"
"""Obsidian does not look at names that begin with a dot."""


class Outside(OSError):
    """A file would lie outside of its folder. Whoever put a link there can take it away, so this passes."""


def write_whole(path: Path, content: str | bytes, *, inside: Path | None = None) -> None:
    """Write a file under another name and rename it, so that nobody ever sees half of it.

    Args:
        path: the file; missing folders are made.
        content: what it holds.
        inside: a folder that the file must lie in, after every symbolic link was followed.

    Raises:
        OSError: it can't be written (the disk is full, say). What was there before is still there, and nothing else.
        Outside: the file would lie outside.
    """
    data = content.encode() if isinstance(content, str) else content
    if inside is not None and not path.parent.resolve().is_relative_to(inside.resolve()):
        raise Outside(f"{path} is not inside {inside}: a symbolic link leads out of it")
    with whole(path) as file:
        file.write(data)


@contextlib.contextmanager
def whole(path: Path) -> Iterator[BinaryIO]:
    """Open a file that gets its name when it is written to the end, and is gone where it is not.

    Raises:
        OSError: it can't be written. What was there before is still there, and nothing else.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / TEMPORARY.replace("*", secrets.token_hex(8))
    try:
        with temporary.open("xb") as file:
            yield file
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
