# Copyright: AI-IDP contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Brings one file of a model into ``.partial/``, over as many connections as it takes, and verifies it there."""

from __future__ import annotations

import contextlib
import errno
import http.client
import json
import os
import re
import time
import urllib.error
from collections.abc import Callable
from typing import Any

from ansible.module_utils.ai_idp.documents import from_json, mapping_of
from ansible.module_utils.ai_idp.files import CHUNK_BYTES, Hashes, hash_file, write_atomically
from ansible.module_utils.ai_idp.hub_client import (
    BACKOFF_MAX_S,
    NETWORK_ERRORS,
    TRANSIENT_STATUS,
    DownloadError,
    EndpointUnreachable,
    Web,
    explain_network_error,
)
from ansible.module_utils.ai_idp.messages import display_url
from ansible.module_utils.ai_idp.model_source import Source, WantedFile, explain_status

SPACE_CHECK_BYTES = 64 * CHUNK_BYTES
# A long download may be cut often and still get on: this much progress refills the attempts.
PROGRESS_BYTES = 16 * CHUNK_BYTES
DISK_ERRORS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EACCES, errno.EPERM})


class _Transient(Exception):
    """Worth another attempt."""

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


def way_out(name: str, by: str) -> str:
    if by == "the lock":
        return (
            f"The model was replaced at its source, or it was tampered with. If the change is wanted, delete the "
            f"entry {name} from the lock file and run again; if not, pin source.revision."
        )
    if by == "the catalogue":
        return "Check where the sha256 in the catalogue comes from; if the new file is wanted, correct it there."
    return "The file was damaged on its way or at its source: run again; if it stays, use another source or mirror."


def discard(partial: str) -> None:
    for path in (partial, f"{partial}.json"):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)


class Fetcher:
    """Fetches the files of one model. ``downloaded_bytes`` counts what came, bytes that came twice included."""

    def __init__(
        self, name: str, source: Source, web: Web, check_space: Callable[[int], None], retries: int, backoff: float
    ) -> None:
        self.name = name
        self.source = source
        self.web = web
        self.check_space = check_space
        self.retries = retries
        self.backoff = backoff
        self.downloaded_bytes = 0

    def fetch(self, item: WantedFile, partial: str) -> Hashes:
        """Brings one file to the path ``partial`` and verifies it there."""
        os.makedirs(os.path.dirname(partial), mode=0o755, exist_ok=True)
        if self.source.type == "file":
            hashes = self._copy(item, partial)
            self._verify(item, partial, hashes)
            return hashes
        hashes, resumed = self._download(item, partial)
        try:
            self._verify(item, partial, hashes)
        except DownloadError:
            if not resumed:
                raise
            # The rest of an earlier run may be what is damaged: once more, from the first byte.
            hashes, _resumed = self._download(item, partial)
            self._verify(item, partial, hashes)
        return hashes

    def _copy(self, item: WantedFile, partial: str) -> Hashes:
        hashes = Hashes(item.size_bytes)
        with open(item.location, "rb") as source, open(partial, "wb") as target:
            while chunk := source.read(CHUNK_BYTES):
                target.write(chunk)
                hashes.update(chunk)
                self.downloaded_bytes += len(chunk)
            target.flush()
            os.fsync(target.fileno())
        return hashes

    def _verify(self, item: WantedFile, partial: str, hashes: Hashes) -> None:
        size = os.stat(partial).st_size
        where = display_url(item.location) if self.source.type != "file" else item.location
        problem = ""
        if item.size_bytes is not None and size != item.size_bytes:
            problem = f"expected {item.size_bytes} bytes, got {size}"
        elif item.sha256 and hashes.sha256 != item.sha256:
            problem = f"expected sha256 {item.sha256} ({item.sha256_by}), got {hashes.sha256}"
        elif item.git_oid and not item.sha256 and hashes.git_oid != item.git_oid:
            problem = f"expected git blob {item.git_oid} (the hub's listing), got {hashes.git_oid}"
        if problem:
            discard(partial)
            by = item.sha256_by if item.sha256 else ""
            raise DownloadError(
                f"model {self.name}: {item.path} from {where} is not the file it should be: {problem}. The corrupt "
                f"download was deleted and nothing was put in place. {way_out(self.name, by)}"
            )

    def _download(self, item: WantedFile, partial: str) -> tuple[Hashes, bool]:
        """Returns the hashes and whether bytes of an earlier run were used."""
        transfer = _Transfer(self, item, partial)
        resumed = transfer.offset > 0
        attempts = self.retries
        while True:
            start = transfer.received
            try:
                transfer.attempt()
                return transfer.hashes, resumed
            except _Transient as error:
                if transfer.received - start >= PROGRESS_BYTES:
                    attempts = self.retries
                if attempts <= 0:
                    raise EndpointUnreachable(
                        f"model {self.name}: {display_url(item.location)} broke off after {transfer.offset} of "
                        f"{item.size_bytes if item.size_bytes is not None else 'an unknown number of'} bytes and did "
                        f"not go on in {self.retries + 1} attempts: {error}. What arrived is kept; run again to resume."
                    ) from None
                delay = error.retry_after
                if delay is None:
                    delay = self.backoff * 2 ** (self.retries - attempts)
                attempts -= 1
                time.sleep(min(delay, BACKOFF_MAX_S))


class _Transfer:
    """The bytes of one file, over as many connections as it takes."""

    def __init__(self, fetcher: Fetcher, item: WantedFile, partial: str) -> None:
        self.fetcher = fetcher
        self.item = item
        self.partial = partial
        self.meta_path = f"{partial}.json"
        self.meta = self._read_meta()
        self.received = 0
        self.offset = 0
        self.hashes = Hashes(item.size_bytes)
        if os.path.exists(partial):
            size = os.stat(partial).st_size
            same = self.meta.get("sha256") == item.sha256 and self.meta.get("size_bytes") == item.size_bytes
            if same and self._may_resume() and (item.size_bytes is None or size <= item.size_bytes):
                self.offset = size
                self.hashes = hash_file(partial, item.size_bytes)
            else:
                discard(partial)
                self.meta = {}

    def _read_meta(self) -> dict[str, Any]:
        try:
            with open(self.meta_path, encoding="utf-8") as stream:
                meta = mapping_of(from_json(stream.read()))
        except (FileNotFoundError, ValueError):
            return {}
        # It becomes a header.
        return meta if isinstance(meta.get("validator", ""), str) else {}

    def _may_resume(self) -> bool:
        """Half a file is worth keeping when the server can confirm it, or a hash will find a mixture out."""
        return bool(self.meta.get("validator") or self.item.sha256 or self.item.git_oid)

    def _restart(self) -> None:
        self.offset = 0
        self.hashes = Hashes(self.item.size_bytes)

    def attempt(self) -> None:
        item = self.item
        if item.size_bytes is not None and self.offset == item.size_bytes and os.path.exists(self.partial):
            return
        if self.offset and not self._may_resume():
            self._restart()
        headers = {"Accept-Encoding": "identity"}
        if self.offset:
            headers["Range"] = f"bytes={self.offset}-"
            if self.meta.get("validator"):
                headers["If-Range"] = self.meta["validator"]
        try:
            with self.fetcher.web.open(item.location, headers) as answer:
                self._receive(answer)
        except urllib.error.HTTPError as error:
            with error:
                self._refused(error)
        except _Transient:
            raise
        except NETWORK_ERRORS as error:
            if isinstance(error, OSError) and error.errno in DISK_ERRORS:
                raise DownloadError(
                    f"model {self.fetcher.name}: {self.partial} cannot be written: {error.strerror}. "
                    f"Free space or repair the disk, then run again."
                ) from None
            raise _Transient(explain_network_error(error)) from None

    def _refused(self, error: urllib.error.HTTPError) -> None:
        if error.code == 416:
            self._restart()
            raise _Transient("the server could not go on where the download had stopped")
        if error.code in TRANSIENT_STATUS:
            after = error.headers.get("Retry-After", "")
            raise _Transient(f"HTTP {error.code}", float(after) if after.isdigit() else None)
        raise explain_status(self.fetcher.name, error, self.item.location, self.fetcher.web, self.fetcher.source)

    def _receive(self, answer: http.client.HTTPResponse) -> None:
        item = self.item
        if answer.status == 206:
            match = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+|\*)", answer.headers.get("Content-Range", "").strip())
            if not match or int(match.group(1)) != self.offset:
                self._restart()
                raise _Transient("the server sent another range than was asked for")
            total = None if match.group(3) == "*" else int(match.group(3))
        else:
            # No range support, or the file is not the one that was begun: from the first byte.
            self._restart()
            length = answer.headers.get("Content-Length", "")
            total = int(length) if length.isdigit() else None
        if total is not None and item.size_bytes is not None and total != item.size_bytes:
            discard(self.partial)
            raise DownloadError(
                f"model {self.fetcher.name}: {display_url(item.location)} sends {total} bytes where {item.size_bytes} "
                f"are expected. The file was replaced at its source, or a proxy answers in its place: check the "
                f"source and run again."
            )
        expected = item.size_bytes if item.size_bytes is not None else total
        if item.size_bytes is None and expected is not None:
            self.fetcher.check_space(expected - self.offset)
        self._remember(answer)
        self._write(answer, expected)
        if expected is not None and self.offset < expected:
            raise _Transient(f"the connection ended after {self.offset} of {expected} bytes")

    def _remember(self, answer: http.client.HTTPResponse) -> None:
        """Keeps the server's name for this version of the file (RFC 9110: only a strong one fits If-Range)."""
        etag = answer.headers.get("ETag", "")
        validator = etag if etag.startswith('"') else answer.headers.get("Last-Modified", "")
        self.meta = {
            "validator": validator,
            "sha256": self.item.sha256,
            "size_bytes": self.item.size_bytes,
        }
        write_atomically(self.meta_path, json.dumps(self.meta, sort_keys=True).encode())

    def _write(self, answer: http.client.HTTPResponse, expected: int | None) -> None:
        unchecked = 0
        with open(self.partial, "r+b" if self.offset else "wb") as target:
            target.truncate(self.offset)
            target.seek(self.offset)
            try:
                while chunk := answer.read(CHUNK_BYTES):
                    if expected is not None and self.offset + len(chunk) > expected:
                        discard(self.partial)
                        raise DownloadError(
                            f"model {self.fetcher.name}: {display_url(self.item.location)} sends more than the "
                            f"{expected} bytes it should. Check the source and run again."
                        )
                    target.write(chunk)
                    self.hashes.update(chunk)
                    self.offset += len(chunk)
                    self.received += len(chunk)
                    self.fetcher.downloaded_bytes += len(chunk)
                    unchecked += len(chunk)
                    if unchecked >= SPACE_CHECK_BYTES:
                        unchecked = 0
                        # Others write on this disk too; what is to stay free stays free.
                        target.flush()
                        self.fetcher.check_space(max(1, (expected or 0) - self.offset))
            finally:
                target.flush()
                os.fsync(target.fileno())
