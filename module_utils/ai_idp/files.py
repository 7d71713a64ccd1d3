# Copyright: AI-IDP contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Files and the file systems under them: free space, writing whole or not at all, hashes. Sizes are bytes."""

from __future__ import annotations

import contextlib
import hashlib
import os

CHUNK_BYTES = 1024 * 1024


def nearest_existing(path: str) -> str:
    """The path itself or its nearest parent that exists (nothing is created in check mode)."""
    path = os.path.abspath(path)
    while not os.path.exists(path):
        parent = os.path.dirname(path)
        if parent == path:
            break
        path = parent
    return path


def free_bytes(path: str) -> int:
    """Bytes that an unprivileged user may still write on the file system of the path."""
    stat = os.statvfs(nearest_existing(path))
    return stat.f_bavail * stat.f_frsize


def fsync_folder(path: str) -> None:
    # Some network file systems refuse to sync a folder; the rename itself is still atomic there.
    with contextlib.suppress(OSError):
        handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def write_atomically(path: str, data: bytes) -> None:
    """Beside the old file first, then in its place in one step; on the disk when it returns."""
    temporary = f"{path}.new"
    with open(temporary, "wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(temporary, path)
    fsync_folder(os.path.dirname(path))


class Hashes:
    """SHA-256 and, where the size is known beforehand, git's blob hash, in one pass over the bytes."""

    def __init__(self, size_bytes: int | None) -> None:
        self._sha256 = hashlib.sha256()
        self._git = None
        if size_bytes is not None:
            # Git names a blob by SHA-1; it is the only hash that a hub publishes for small files.
            self._git = hashlib.sha1(b"blob %d\0" % size_bytes, usedforsecurity=False)

    def update(self, chunk: bytes) -> None:
        self._sha256.update(chunk)
        if self._git is not None:
            self._git.update(chunk)

    @property
    def sha256(self) -> str:
        return self._sha256.hexdigest()

    @property
    def git_oid(self) -> str | None:
        return self._git.hexdigest() if self._git is not None else None


def hash_file(path: str, size_bytes: int | None = None) -> Hashes:
    hashes = Hashes(size_bytes)
    with open(path, "rb") as stream:
        while chunk := stream.read(CHUNK_BYTES):
            hashes.update(chunk)
    return hashes
