# Copyright: AI-IDP contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Makes one model folder complete: plans, fetches, verifies and records its files.

Everything here is the standard library of Python 3.10, because it runs on the target. Sizes are bytes.
A file gets its final name only after its size and hash were checked; until then it lies in ``.partial/``.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from ansible.module_utils.ai_idp.files import free_bytes, fsync_folder, hash_file, nearest_existing
from ansible.module_utils.ai_idp.hub_client import DownloadError, EndpointUnreachable, Web
from ansible.module_utils.ai_idp.messages import display_url, exact_bytes
from ansible.module_utils.ai_idp.model_manifest import (
    LOCK_NAME,
    MANIFEST_NAME,
    PARTIAL_NAME,
    describe,
    read_manifest,
    write_manifest,
)
from ansible.module_utils.ai_idp.model_source import Lister, Listing, Source, WantedFile
from ansible.module_utils.ai_idp.model_transfer import Fetcher, way_out


@dataclass
class Plan:
    """What has to happen to one folder."""

    ok: dict[str, dict[str, Any]] = field(default_factory=dict)
    fetch: list[WantedFile] = field(default_factory=list)
    corrupt: list[str] = field(default_factory=list)
    unverified: list[WantedFile] = field(default_factory=list)
    stale: list[str] = field(default_factory=list)
    reasons: dict[str, str] = field(default_factory=dict)


@contextlib.contextmanager
def folder_lock(dest: str, wait_s: float, name: str) -> Iterator[None]:
    """One run at a time per model folder, also over hosts that share it where the file system can lock."""
    path = os.path.join(dest, LOCK_NAME)
    deadline = time.monotonic() + wait_s
    while True:
        os.makedirs(dest, mode=0o755, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Somebody may have removed the file between our open and our lock.
            if os.path.exists(path) and os.path.samestat(os.fstat(handle), os.stat(path)):
                break
            os.close(handle)
            continue
        except (BlockingIOError, PermissionError):
            holder = os.read(handle, 200).decode("utf-8", "replace").strip() or "another run"
            os.close(handle)
        except OSError as error:
            os.close(handle)
            raise DownloadError(
                f"model {name}: {path} cannot be locked ({error.strerror}). On a network disk, mount it with locks."
            ) from None
        if time.monotonic() >= deadline:
            raise DownloadError(
                f"model {name}: {dest} is being worked on by {holder}. Wait for that run to end and run again."
            )
        time.sleep(min(1.0, max(0.05, deadline - time.monotonic())))
    try:
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
        yield
    finally:
        # Whoever asks next must not read a holder that is gone.
        with contextlib.suppress(OSError):
            os.ftruncate(handle, 0)
        os.close(handle)


class ModelFolder:
    """One model's folder on this host."""

    def __init__(
        self,
        name: str,
        dest: str,
        source: Source,
        web: Web,
        *,
        lock: list[dict[str, Any]] | None = None,
        lock_revision: str | None = None,
        sha256: str | None = None,
        keep_free_bytes: int = 0,
        retries: int = 5,
        backoff: float = 1.0,
        verify: str = "quick",
    ) -> None:
        self.name = name
        self.dest = os.path.abspath(dest)
        self.source = source
        self.web = web
        self.lock = {entry["path"]: entry for entry in lock or []}
        self.lock_revision = lock_revision
        self.sha256 = sha256.lower() if sha256 else None
        self.keep_free_bytes = keep_free_bytes
        self.retries = retries
        self.backoff = backoff
        self.verify = verify
        self.fetcher = Fetcher(name, source, web, self.check_space, retries, backoff)

    # -- looking ---------------------------------------------------------------------------------------

    def _stat(self, path: str) -> os.stat_result | None:
        try:
            return os.stat(os.path.join(self.dest, path))
        except (FileNotFoundError, NotADirectoryError):
            return None

    def _unchanged(self, entry: dict[str, Any]) -> bool:
        stat = self._stat(entry["path"])
        return stat is not None and stat.st_size == entry["size_bytes"] and stat.st_mtime_ns == entry["mtime_ns"]

    def complete(self, manifest: dict[str, Any]) -> bool:
        """Is everything as recorded, for this source and this lock? Costs one stat per file, no network."""
        if self.verify == "full" or manifest.get("source") != self.source.identity():
            return False
        recorded = {entry["path"]: entry for entry in manifest["files"]}
        if any(path not in recorded for path in self.lock):
            return False
        for path, entry in recorded.items():
            expected = self.lock[path]["sha256"] if path in self.lock else None
            if expected is not None and entry["sha256"] != expected.lower():
                return False
        if self.sha256 and [entry["sha256"] for entry in recorded.values()] != [self.sha256]:
            return False
        return bool(recorded) and all(self._unchanged(entry) for entry in recorded.values())

    def enforce_lock(self, wanted: list[WantedFile]) -> None:
        """Puts the hashes that are enforced into the wanted files; raises where the source differs already."""
        if self.sha256 and len(wanted) != 1:
            raise DownloadError(
                f"model {self.name}: sha256 is given, but the source has {len(wanted)} files. A single hash fits a "
                f"single file: name it in source.files, or leave sha256 out and let the lock keep the hashes."
            )
        for item in wanted:
            locked = self.lock.get(item.path)
            for by, sha256, size in (
                ("the lock", locked and locked["sha256"], locked and locked.get("size_bytes")),
                ("the catalogue", self.sha256, None),
            ):
                if not sha256:
                    continue
                sha256 = sha256.lower()
                if item.sha256 and item.sha256 != sha256:
                    raise DownloadError(
                        f"model {self.name}: {item.path} has another hash than {by} allows: expected sha256 {sha256}, "
                        f"{item.sha256_by} at {display_url(item.location)} says {item.sha256}. {way_out(self.name, by)}"
                    )
                if size is not None and item.size_bytes is not None and item.size_bytes != size:
                    raise DownloadError(
                        f"model {self.name}: {item.path} has another size than {by} allows: expected {size} bytes, "
                        f"{display_url(item.location)} has {item.size_bytes}. {way_out(self.name, by)}"
                    )
                item.sha256, item.sha256_by = sha256, by
                if item.size_bytes is None:
                    item.size_bytes = size

    def plan(self, listing: Listing, manifest: dict[str, Any], *, hash_unknown: bool) -> Plan:
        """Compares the folder with what is wanted. ``hash_unknown=False`` leaves long hashing to the real run."""
        plan = Plan()
        recorded = {entry["path"]: entry for entry in manifest.get("files", [])}
        for item in listing.files:
            self._plan_file(plan, item, recorded.get(item.path), hash_unknown=hash_unknown)
        chosen = {item.path for item in listing.files}
        plan.stale = sorted(path for path in recorded if path not in chosen and self._stat(path) is not None)
        return plan

    def _plan_file(self, plan: Plan, item: WantedFile, entry: dict[str, Any] | None, *, hash_unknown: bool) -> None:
        stat = self._stat(item.path)
        if stat is None:
            plan.fetch.append(item)
            plan.reasons[item.path] = "missing"
            return
        if entry and self._unchanged(entry) and self.verify != "full":
            known = {key: entry.get(key) for key in ("sha256", "git_oid")}
            recorded = True
        elif item.size_bytes is not None and stat.st_size != item.size_bytes:
            plan.fetch.append(item)
            plan.corrupt.append(item.path)
            plan.reasons[item.path] = f"size {stat.st_size}, expected {item.size_bytes}"
            return
        elif not hash_unknown and self.verify != "full":
            plan.unverified.append(item)
            plan.reasons[item.path] = "not verified yet"
            return
        else:
            hashes = hash_file(os.path.join(self.dest, item.path), stat.st_size)
            known = {"sha256": hashes.sha256, "git_oid": hashes.git_oid}
            recorded = False
        expected = item.sha256
        if expected is None and not item.git_oid and entry and not recorded:
            expected = entry["sha256"]
        wrong = (expected is not None and known["sha256"] != expected) or (
            item.git_oid is not None and known["git_oid"] is not None and known["git_oid"] != item.git_oid
        )
        if wrong:
            plan.fetch.append(item)
            # A file that is what an earlier run verified is another version: it stays until its successor is there.
            if recorded or (entry and known["sha256"] == entry["sha256"]):
                plan.reasons[item.path] = "another version"
            else:
                plan.corrupt.append(item.path)
                plan.reasons[item.path] = f"sha256 {known['sha256']}, expected {expected or 'git ' + str(item.git_oid)}"
            return
        plan.ok[item.path] = {
            "path": item.path,
            "size_bytes": stat.st_size,
            "mtime_ns": stat.st_mtime_ns,
            "sha256": known["sha256"],
            "git_oid": known["git_oid"],
        }

    def partial_path(self, path: str) -> str:
        return os.path.join(self.dest, PARTIAL_NAME, path)

    def remaining_bytes(self, plan: Plan) -> int:
        """Bytes still to be written; files of unknown size count when their download begins."""
        total = 0
        for item in plan.fetch:
            if item.size_bytes is None:
                continue
            done = 0
            if self.source.type != "file":
                with contextlib.suppress(OSError):
                    done = os.stat(self.partial_path(item.path)).st_size
            total += max(0, item.size_bytes - done)
        return total

    def check_space(self, needed: int, reclaimed: int = 0) -> None:
        free = free_bytes(self.dest)
        if needed > 0 and needed + self.keep_free_bytes > free + reclaimed:
            short = needed + self.keep_free_bytes - free - reclaimed
            raise DownloadError(
                f"model {self.name}: {self.dest} has too little space: {exact_bytes(needed)} are needed and "
                f"{exact_bytes(self.keep_free_bytes)} are to stay free, but {exact_bytes(free)} are free on the file "
                f"system of {nearest_existing(self.dest)}. Free {exact_bytes(short)} there, put the store on a larger "
                f"disk (model_store_dir), keep less free (model_store_keep_free_bytes) or take the model off the list "
                f"(model_store_models)."
            )

    # -- doing -----------------------------------------------------------------------------------------

    def ensure(self, *, check_mode: bool, lock_wait_s: float = 0.0) -> dict[str, Any]:
        """Makes the folder complete (or says what would happen) and returns what the module returns."""
        manifest = read_manifest(self.dest)
        if manifest and self.complete(manifest):
            return self._result(manifest, manifest, changed=False)
        if check_mode:
            return self._work(manifest, check_mode=True)
        with folder_lock(self.dest, lock_wait_s, self.name):
            # While this run waited, another may have done the work.
            manifest = read_manifest(self.dest)
            if manifest and self.complete(manifest):
                return self._result(manifest, manifest, changed=False)
            return self._work(manifest, check_mode=False)

    def _work(self, manifest: dict[str, Any], *, check_mode: bool) -> dict[str, Any]:
        lister = Lister(self.name, self.web, self.retries, self.backoff)
        try:
            listing = lister.listing(self.source, self.lock_revision)
        except EndpointUnreachable as error:
            if not check_mode:
                raise
            result = self._result(manifest, {"revision": None, "files": []}, changed=True)
            return {**result, "reachable": False, "problem": str(error)}
        self.enforce_lock(listing.files)
        plan = self.plan(listing, manifest, hash_unknown=not check_mode)
        remaining = self.remaining_bytes(plan)
        reclaimed = sum(stat.st_size for stat in map(self._stat, plan.corrupt) if stat)
        self.check_space(remaining, reclaimed)
        if check_mode:
            if self.source.type == "huggingface" and plan.fetch:
                # A hub lists a gated repository to anybody and refuses only its files.
                lister.probe(self.source, plan.fetch[0].location)
            return self._predict(manifest, listing, plan, remaining)
        for path in plan.corrupt:
            os.unlink(os.path.join(self.dest, path))
        entries = dict(plan.ok)
        # Every file is fetched and verified before the first one gets its final name, so that a model never
        # consists of files of two versions.
        verified = {item.path: self.fetcher.fetch(item, self.partial_path(item.path)) for item in plan.fetch}
        for path, hashes in verified.items():
            final = os.path.join(self.dest, path)
            os.makedirs(os.path.dirname(final), mode=0o755, exist_ok=True)
            os.replace(self.partial_path(path), final)
            fsync_folder(os.path.dirname(final))
            stat = os.stat(final)
            entries[path] = {
                "path": path,
                "size_bytes": stat.st_size,
                "mtime_ns": stat.st_mtime_ns,
                "sha256": hashes.sha256,
                "git_oid": hashes.git_oid,
            }
        for path in plan.stale:
            os.unlink(os.path.join(self.dest, path))
        after = {
            "version": 1,
            "name": self.name,
            "source": self.source.identity(),
            "revision": listing.revision,
            "files": [entries[path] for path in sorted(entries)],
        }
        changed = after != manifest
        if changed:
            write_manifest(self.dest, after)
        shutil.rmtree(os.path.join(self.dest, PARTIAL_NAME), ignore_errors=True)
        return {**self._result(manifest, after, changed=changed), "reasons": plan.reasons}

    def _predict(self, manifest: dict[str, Any], listing: Listing, plan: Plan, remaining: int) -> dict[str, Any]:
        files = []
        for item in listing.files:
            there = plan.ok.get(item.path, {})
            files.append(
                {
                    "path": item.path,
                    "size_bytes": there.get("size_bytes", item.size_bytes),
                    "sha256": there.get("sha256", item.sha256),
                }
            )
        after = {"revision": listing.revision, "files": files}
        same = manifest.get("source") == self.source.identity() and manifest.get("revision") == listing.revision
        changed = bool(plan.fetch or plan.unverified or plan.stale) or not same
        result = self._result(manifest, after, changed=changed)
        return {**result, "needed_bytes": remaining, "reasons": plan.reasons}

    def _result(self, before: dict[str, Any], after: dict[str, Any], *, changed: bool) -> dict[str, Any]:
        files = [{key: entry[key] for key in ("path", "size_bytes", "sha256")} for entry in after["files"]]
        return {
            "changed": changed,
            "files": files,
            "revision": after["revision"],
            "downloaded_bytes": self.fetcher.downloaded_bytes,
            "bytes_total": sum(entry["size_bytes"] or 0 for entry in files),
            "needed_bytes": 0,
            "free_bytes": free_bytes(self.dest),
            "reachable": True,
            "problem": None,
            "reasons": {},
            "diff": {"before": describe(before), "after": describe(after)},
        }


def remove_model(dest: str, name: str, *, check_mode: bool, lock_wait_s: float = 0.0) -> dict[str, Any]:
    """Removes what this module put there. Files that it does not know stay, and the folder with them."""
    dest = os.path.abspath(dest)
    manifest = read_manifest(dest)
    own = [entry["path"] for entry in manifest.get("files", [])]
    names = [*own, MANIFEST_NAME, LOCK_NAME]
    there = [path for path in names if os.path.lexists(os.path.join(dest, path))]
    partial = os.path.join(dest, PARTIAL_NAME)
    result = {
        "changed": bool(there) or os.path.isdir(partial),
        "removed": sorted(set(there) & set(own)),
        "kept": [],
        "diff": {"before": describe(manifest), "after": ""},
    }
    if check_mode or not result["changed"]:
        return result
    with folder_lock(dest, lock_wait_s, name):
        shutil.rmtree(partial, ignore_errors=True)
        for path in own:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(os.path.join(dest, path))
        for path in (MANIFEST_NAME, LOCK_NAME):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(os.path.join(dest, path))
    kept = []
    for folder, _folders, files in os.walk(dest, topdown=False):
        kept += [os.path.relpath(os.path.join(folder, file), dest) for file in files]
        with contextlib.suppress(OSError):
            os.rmdir(folder)
    return {**result, "kept": sorted(kept)}
