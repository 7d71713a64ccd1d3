# Copyright: AI-IDP contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Makes one model folder complete: lists, downloads, verifies and records its files.

Everything here is the standard library of Python 3.10, because it runs on the target. Sizes are bytes.
A file gets its final name only after its size and hash were checked; until then it lies in ``.partial/``.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import fnmatch
import hashlib
import http.client
import json
import os
import re
import shutil
import socket
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

MANIFEST_NAME = ".ai-idp-model.json"
LOCK_NAME = ".ai-idp-model.lock"
PARTIAL_NAME = ".partial"
CHUNK_BYTES = 1024 * 1024
SPACE_CHECK_BYTES = 64 * CHUNK_BYTES
# A long download may be cut often and still get on: this much progress refills the attempts.
PROGRESS_BYTES = 16 * CHUNK_BYTES
BACKOFF_MAX_S = 30.0
LISTING_MAX_BYTES = 32 * CHUNK_BYTES
LISTING_MAX_PAGES = 200
SHA256_RE = re.compile(r"[0-9a-f]{64}")
GIT_OID_RE = re.compile(r"[0-9a-f]{40}")
# Git's own bookkeeping is no part of a model.
NEVER_WANTED = (".gitattributes", ".gitignore")
DISK_ERRORS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EACCES, errno.EPERM})
TRANSIENT_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})


class DownloadError(Exception):
    """Something the user must settle; its text says what and how."""


class EndpointUnreachable(DownloadError):
    """The source did not answer; nothing is known to be wrong with the request itself."""


class _Transient(Exception):
    """Worth another attempt."""

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


def human_bytes(count: int) -> str:
    """4920000000 → '4.92 GB (4920000000 bytes)'; decimal units, as model pages print them."""
    for unit, factor in (("TB", 10**12), ("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= factor:
            return f"{count / factor:.2f} {unit} ({count} bytes)"
    return f"{count} bytes"


def display_url(url: str) -> str:
    """The URL without user, password and query: those may be secrets (signed links)."""
    parts = urllib.parse.urlsplit(url)
    host = parts.hostname or ""
    if ":" in host:
        host = f"[{host}]"
    port = f":{parts.port}" if parts.port else ""
    return urllib.parse.urlunsplit((parts.scheme, host + port, parts.path, "", ""))


def origin(url: str) -> tuple[str, str, int]:
    """(scheme, host, port): a token made for one origin is never sent to another."""
    parts = urllib.parse.urlsplit(url)
    default = 443 if parts.scheme == "https" else 80
    return parts.scheme.lower(), (parts.hostname or "").lower(), parts.port or default


def safe_relative_path(path: str) -> str:
    """Returns the path when it stays inside the model folder, else raises DownloadError."""
    parts = path.split("/")
    if (
        not path
        or path.startswith("/")
        or "\\" in path
        or "\0" in path
        or any(part in ("", ".", "..") for part in parts)
        or parts[0] in (PARTIAL_NAME, MANIFEST_NAME, LOCK_NAME)
    ):
        raise DownloadError(
            f"the file name {path!r} is refused: it must be a relative path inside the model's folder, "
            f"without '..' and not one of this project's own names"
        )
    return path


def is_pattern(text: str) -> bool:
    return any(char in text for char in "*?[")


def select_paths(paths: list[str], wanted: list[str] | None) -> tuple[list[str], list[str]]:
    """Returns (chosen paths, wanted entries that matched nothing).

    An entry without a slash looks at the top level only, so that ``*.safetensors`` does not also fetch a
    second copy of the weights from a sub-folder.
    """
    if not wanted:
        return sorted(path for path in paths if path.rsplit("/", 1)[-1] not in NEVER_WANTED), []
    chosen: set[str] = set()
    unmatched = []
    for entry in wanted:
        hits = {path for path in paths if path == entry}
        if is_pattern(entry):
            hits |= {path for path in paths if ("/" in entry or "/" not in path) and fnmatch.fnmatchcase(path, entry)}
        if not hits:
            unmatched.append(entry)
        chosen |= hits
    return sorted(chosen), unmatched


def next_page(link_header: str | None) -> str | None:
    """The URL of rel="next" in an RFC 8288 Link header."""
    for match in re.finditer(r'<([^>]*)>((?:\s*;\s*[\w!#$&+.^`|~-]+\s*=\s*(?:"[^"]*"|[^",;\s]+))*)', link_header or ""):
        if re.search(r';\s*rel\s*=\s*"?next"?(?:\s|;|$)', match.group(2)):
            return match.group(1)
    return None


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


@dataclass
class Source:
    """Where a model comes from."""

    type: str
    repository: str | None = None
    revision: str = "main"
    files: list[str] | None = None
    url: str | None = None
    path: str | None = None

    def identity(self) -> dict[str, Any]:
        """What the manifest keeps: the model is looked at again when one of these differs."""
        if self.type == "huggingface":
            what: dict[str, Any] = {"repository": self.repository, "revision": self.revision}
        elif self.type == "url":
            what = {"url": display_url(self.url or "")}
        else:
            what = {"path": self.path}
        return {"type": self.type, **what, "files": sorted(self.files) if self.files else None}


@dataclass
class WantedFile:
    """One file as its source describes it. ``sha256`` and ``git_oid`` are None where nobody published them."""

    path: str
    location: str
    size_bytes: int | None = None
    sha256: str | None = None
    git_oid: str | None = None
    # Who said what the hash is; named in the error when it is wrong.
    sha256_by: str = ""


@dataclass
class Listing:
    files: list[WantedFile]
    revision: str | None


@dataclass
class Plan:
    """What has to happen to one folder."""

    ok: dict[str, dict[str, Any]] = field(default_factory=dict)
    fetch: list[WantedFile] = field(default_factory=list)
    corrupt: list[str] = field(default_factory=list)
    unverified: list[WantedFile] = field(default_factory=list)
    stale: list[str] = field(default_factory=list)
    reasons: dict[str, str] = field(default_factory=dict)


class _Redirect(urllib.request.HTTPRedirectHandler):
    """Follows redirects; the token goes along only when the target is the endpoint itself."""

    def __init__(self, web: Web) -> None:
        self.web = web

    def redirect_request(self, req, fp, code, msg, headers, newurl):  # type: ignore[no-untyped-def]
        if urllib.parse.urlsplit(newurl).scheme not in ("http", "https"):
            raise urllib.error.HTTPError(newurl, code, "redirect to another protocol", headers, fp)
        new = super().redirect_request(req, fp, 307 if code == 308 else code, msg, headers, newurl)
        if new is not None:
            # Python before 3.13 turns a redirected HEAD into a GET.
            new.method = req.get_method()
            self.web.authorise(new)
        return new

    http_error_308 = urllib.request.HTTPRedirectHandler.http_error_302


class _Stay(urllib.request.HTTPRedirectHandler):
    """Follows nothing: the hub tells size and hash in the headers of the redirect itself."""

    def redirect_request(self, req, fp, code, msg, headers, newurl):  # type: ignore[no-untyped-def]
        return None


class Web:
    """HTTP with one rule: the token is for the endpoint's origin and for no other."""

    def __init__(self, endpoint: str, token: str | None, timeout: float) -> None:
        self.endpoint = endpoint.rstrip("/")
        self.timeout = timeout
        self._token = token or None
        self._opener = urllib.request.build_opener(_Redirect(self))
        self._stay = urllib.request.build_opener(_Stay())

    @property
    def has_token(self) -> bool:
        return self._token is not None

    def authorise(self, request: urllib.request.Request) -> None:
        request.remove_header("Authorization")
        if self._token and origin(request.full_url) == origin(self.endpoint):
            # "Unredirected": urllib does not copy it to the next request by itself.
            request.add_unredirected_header("Authorization", f"Bearer {self._token}")

    def open(
        self, url: str, headers: dict[str, str] | None = None, method: str = "GET", follow: bool = True
    ) -> http.client.HTTPResponse:
        """Raises urllib.error.HTTPError for every status from 300 on that was not followed."""
        request = urllib.request.Request(
            url, headers={"User-Agent": "ai-idp-model-download", **(headers or {})}, method=method
        )
        self.authorise(request)
        opener = self._opener if follow else self._stay
        return opener.open(request, timeout=self.timeout)  # type: ignore[no-any-return]

    def head(self, url: str) -> http.client.HTTPMessage:
        """Headers of the answer that speaks of the file: the first one that is the hub's own word."""
        for _ in range(6):
            try:
                with self.open(url, method="HEAD", follow=False) as answer:
                    return answer.headers
            except urllib.error.HTTPError as error:
                target = error.headers.get("Location")
                if error.code not in (301, 302, 303, 307, 308) or not target:
                    raise
                if error.headers.get("X-Linked-ETag") or error.headers.get("X-Linked-Size"):
                    return error.headers
                url = urllib.parse.urljoin(url, target)
                if urllib.parse.urlsplit(url).scheme not in ("http", "https"):
                    raise
        raise DownloadError(f"{display_url(url)} redirects in a circle")


def explain_network_error(error: BaseException) -> str:
    """Names the layer that failed: name, connection, certificate or time."""
    reason: Any = error
    while isinstance(reason, urllib.error.URLError) and not isinstance(reason, urllib.error.HTTPError):
        if not isinstance(reason.reason, BaseException):
            return str(reason.reason)
        reason = reason.reason
    if isinstance(reason, socket.gaierror):
        return f"the host name cannot be resolved ({reason.strerror or reason})"
    if isinstance(reason, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted ({reason.verify_message})"
    if isinstance(reason, ssl.SSLError):
        return f"TLS failed ({reason.reason or reason})"
    if isinstance(reason, TimeoutError):
        return "no answer in time"
    if isinstance(reason, ConnectionRefusedError):
        return "the connection was refused"
    return str(reason) or type(reason).__name__


NETWORK_ERRORS = (urllib.error.URLError, http.client.HTTPException, OSError)


def explain_status(name: str, error: urllib.error.HTTPError, url: str, web: Web, source: Source) -> DownloadError:
    """Turns a refusal into a sentence with the way out. The hub's X-Error-Code tells gated from missing."""
    code = error.headers.get("X-Error-Code", "") if error.headers else ""
    where = f"model {name}: {display_url(url)} answered HTTP {error.code}"
    page = f"{web.endpoint}/{source.repository}" if source.repository else display_url(url)
    if error.code == 401 and not web.has_token:
        return DownloadError(
            f"{where}: it wants a token and none is set. The repository is gated or private, or its name is "
            f"wrong: check the name, accept the licence at {page}, then set a token (model_store_token)."
        )
    if error.code == 401:
        return DownloadError(
            f"{where}: the token was refused. It is wrong, expired or not meant for this endpoint: make a new "
            f"one with read access and set it (model_store_token)."
        )
    if error.code == 403:
        token = "the token's account has" if web.has_token else "no token is set and there is"
        return DownloadError(
            f"{where}: {token} no access to it. Accept the licence at {page} with that account"
            f"{'' if web.has_token else ', set a token (model_store_token)'} and run again."
        )
    if error.code == 404:
        wrong = {
            "RepoNotFound": f"there is no repository {source.repository}",
            "RevisionNotFound": f"there is no revision {source.revision} in {source.repository}",
            "EntryNotFound": "the repository has no such file",
        }.get(code, "there is nothing under this address")
        return DownloadError(f"{where}: {wrong}. Correct the source of this model in the catalogue.")
    if error.code in TRANSIENT_STATUS:
        return EndpointUnreachable(f"{where}: the server is busy or broken. Run again later.")
    return DownloadError(f"{where}, which is no answer to go on with. Check the source of this model.")


def _read_json(web: Web, url: str) -> tuple[Any, http.client.HTTPMessage]:
    with web.open(url, headers={"Accept": "application/json"}) as answer:
        body = answer.read(LISTING_MAX_BYTES + 1)
        if len(body) > LISTING_MAX_BYTES:
            raise DownloadError(f"{display_url(url)} answered more than {human_bytes(LISTING_MAX_BYTES)}")
        return json.loads(body), answer.headers


def _size_from(headers: http.client.HTTPMessage) -> int | None:
    for key in ("X-Linked-Size", "Content-Length"):
        value = headers.get(key, "")
        if value.isdigit():
            return int(value)
    return None


def _etag_hash(value: str | None) -> str:
    return (value or "").removeprefix("W/").strip('"').lower()


class Lister:
    """Asks a source which files it has."""

    def __init__(self, name: str, web: Web, retries: int, backoff: float) -> None:
        self.name = name
        self.web = web
        self.retries = retries
        self.backoff = backoff

    def list(self, source: Source, revision: str | None = None) -> Listing:
        if source.type == "huggingface":
            return self._huggingface(source, revision or source.revision)
        if source.type == "url":
            return Listing(self._url(source), None)
        return Listing(self._file(source), None)

    def _patiently(self, url: str, source: Source, ask: Callable[[], Any], missing: Any = None) -> Any:
        """Asks a few times; a 404 gives ``missing`` back when that is set."""
        for attempt in range(self.retries + 1):
            try:
                return ask()
            except urllib.error.HTTPError as error:
                with error:
                    if error.code == 404 and missing is not None and not error.headers.get("X-Error-Code"):
                        return missing
                    problem: DownloadError = explain_status(self.name, error, url, self.web, source)
                if error.code not in TRANSIENT_STATUS:
                    raise problem from None
            except json.JSONDecodeError:
                raise DownloadError(
                    f"model {self.name}: {display_url(url)} does not answer with JSON, so it is no Hugging "
                    f"Face-compatible endpoint. Check the endpoint (model_store_endpoint, HF_ENDPOINT)."
                ) from None
            except NETWORK_ERRORS as error:
                problem = EndpointUnreachable(
                    f"model {self.name}: {display_url(url)} cannot be reached: {explain_network_error(error)}. "
                    f"Check the network, the proxy and the endpoint (model_store_endpoint, HF_ENDPOINT)."
                )
            if attempt < self.retries:
                time.sleep(min(self.backoff * 2**attempt, BACKOFF_MAX_S))
        raise problem

    def _huggingface(self, source: Source, revision: str) -> Listing:
        repository = source.repository or ""
        api = f"{self.web.endpoint}/api/models/{urllib.parse.quote(repository)}"
        if not GIT_OID_RE.fullmatch(revision):
            url = f"{api}/revision/{urllib.parse.quote(revision, safe='')}"
            # A plain mirror has no such page: the revision then stays as it was given.
            info = self._patiently(url, source, lambda: self._tolerant_json(url), missing={})
            sha = info.get("sha") if isinstance(info, dict) else None
            if isinstance(sha, str) and GIT_OID_RE.fullmatch(sha):
                revision = sha
        tree_url = f"{api}/tree/{urllib.parse.quote(revision, safe='')}?recursive=true"
        tree = self._patiently(tree_url, source, lambda: self._tree(tree_url), missing=False)
        if tree is False:
            return self._huggingface_by_name(source, revision, tree_url)
        known = {entry["path"]: entry for entry in tree if entry.get("type") == "file"}
        chosen, unmatched = select_paths(list(known), source.files)
        if unmatched or not chosen:
            some = ", ".join(sorted(known)[:12]) or "no file at all"
            raise DownloadError(
                f"model {self.name}: {repository} at revision {revision} has no file matching "
                f"{', '.join(unmatched) or 'anything'}; it has {some}{' …' if len(known) > 12 else ''}. "
                f"Correct source.files of this model in the catalogue."
            )
        return Listing([self._from_tree(repository, revision, known[path]) for path in chosen], revision)

    def probe(self, source: Source, url: str) -> None:
        """Raises when the file would not be handed out."""
        self._patiently(url, source, lambda: self.web.head(url))

    def _tolerant_json(self, url: str) -> Any:
        try:
            return _read_json(self.web, url)[0]
        except json.JSONDecodeError:
            return {}

    def _tree(self, url: str) -> list[dict[str, Any]]:
        entries: list[dict[str, Any]] = []
        page: str | None = url
        for _ in range(LISTING_MAX_PAGES):
            if page is None:
                return entries
            body, headers = _read_json(self.web, page)
            if not isinstance(body, list) or not all(isinstance(e, dict) and "path" in e for e in body):
                raise DownloadError(
                    f"model {self.name}: {display_url(page)} does not list files the way a Hugging Face hub does. "
                    f"Check the endpoint (model_store_endpoint, HF_ENDPOINT)."
                )
            entries += body
            following = next_page(headers.get("Link"))
            page = urllib.parse.urljoin(page, following) if following else None
            if page is not None and urllib.parse.urlsplit(page).scheme not in ("http", "https"):
                page = None
        raise DownloadError(f"model {self.name}: {display_url(url)} lists more than {LISTING_MAX_PAGES} pages")

    def _resolve_url(self, repository: str, revision: str, path: str) -> str:
        return (
            f"{self.web.endpoint}/{urllib.parse.quote(repository)}/resolve/"
            f"{urllib.parse.quote(revision, safe='')}/{urllib.parse.quote(path)}"
        )

    def _from_tree(self, repository: str, revision: str, entry: dict[str, Any]) -> WantedFile:
        path = safe_relative_path(entry["path"])
        lfs = entry.get("lfs") or {}
        sha256 = str(lfs.get("oid", "")).removeprefix("sha256:").lower()
        oid = str(entry.get("oid", "")).lower()
        size = lfs.get("size", entry.get("size"))
        return WantedFile(
            path=path,
            location=self._resolve_url(repository, revision, path),
            size_bytes=size if isinstance(size, int) and not isinstance(size, bool) else None,
            sha256=sha256 if SHA256_RE.fullmatch(sha256) else None,
            # A file that is not in LFS is known by its git hash; of one in LFS the oid is the pointer's.
            git_oid=oid if not lfs and GIT_OID_RE.fullmatch(oid) else None,
            sha256_by="the hub's listing",
        )

    def _huggingface_by_name(self, source: Source, revision: str, tree_url: str) -> Listing:
        """An endpoint without a listing still answers for files that are asked for by name."""
        if not source.files or any(is_pattern(entry) for entry in source.files):
            raise DownloadError(
                f"model {self.name}: {display_url(tree_url)} answered HTTP 404. Either the repository "
                f"{source.repository} or its revision {revision} does not exist, or this endpoint cannot list "
                f"files: correct the source, or name each file in source.files without patterns."
            )
        files = []
        for path in source.files:
            url = self._resolve_url(source.repository or "", revision, safe_relative_path(path))
            headers = self._patiently(url, source, lambda url=url: self.web.head(url))
            linked = _etag_hash(headers.get("X-Linked-ETag"))
            plain = _etag_hash(headers.get("ETag")) if headers.get("X-Repo-Commit") else ""
            files.append(
                WantedFile(
                    path=path,
                    location=url,
                    size_bytes=_size_from(headers),
                    sha256=linked if SHA256_RE.fullmatch(linked) else None,
                    git_oid=next((h for h in (linked, plain) if GIT_OID_RE.fullmatch(h)), None),
                    sha256_by="the hub's X-Linked-ETag",
                )
            )
        return Listing(files, revision)

    def _url(self, source: Source) -> list[WantedFile]:
        url = source.url or ""
        if urllib.parse.urlsplit(url).scheme not in ("http", "https"):
            raise DownloadError(
                f"model {self.name}: source.url is {display_url(url)!r}; it must begin with http:// or https://. "
                f"For a file that is already on the host use source.type 'file' with source.path."
            )
        base_name = urllib.parse.unquote(urllib.parse.urlsplit(url).path.rsplit("/", 1)[-1])
        names = source.files or ([base_name] if base_name else [])
        if not names or any(is_pattern(name) for name in names) or (len(names) > 1 and not url.endswith("/")):
            raise DownloadError(
                f"model {self.name}: {display_url(url)} does not name one file. Give the URL of the file, or a URL "
                f"that ends in '/' and the names (no patterns) in source.files."
            )
        files = []
        for name in names:
            path = safe_relative_path(name)
            one = urllib.parse.urljoin(url, urllib.parse.quote(path)) if url.endswith("/") else url
            try:
                headers = self._patiently(one, source, lambda one=one: self.web.head(one))
                size = _size_from(headers)
            except DownloadError:
                # Some servers answer GET and refuse HEAD: then a GET of nothing but the headers decides.
                headers = self._patiently(one, source, lambda one=one: self._headers_by_get(one))
                size = _size_from(headers)
            files.append(WantedFile(path=path, location=one, size_bytes=size))
        return files

    def _headers_by_get(self, url: str) -> http.client.HTTPMessage:
        with self.web.open(url) as answer:
            return answer.headers

    def _file(self, source: Source) -> list[WantedFile]:
        root = source.path or ""
        if os.path.isdir(root):
            found = {}
            for folder, folders, names in os.walk(root):
                folders[:] = sorted(f for f in folders if not f.startswith("."))
                for file_name in names:
                    full = os.path.join(folder, file_name)
                    relative = os.path.relpath(full, root)
                    if not relative.startswith(".") and os.path.isfile(full):
                        found[relative] = full
            chosen, unmatched = select_paths(list(found), source.files)
        elif os.path.isfile(root):
            name = (source.files or [os.path.basename(root)])[0]
            found, chosen, unmatched = {name: root}, [name], []
        else:
            raise DownloadError(
                f"model {self.name}: source.path {root} is not on this host. Put the file or folder there (is the "
                f"disk or NAS mounted?) or correct source.path in the catalogue."
            )
        if unmatched or not chosen:
            raise DownloadError(
                f"model {self.name}: {root} has no file matching {', '.join(unmatched) or 'anything'}. "
                f"Correct source.files of this model in the catalogue."
            )
        return [
            WantedFile(path=safe_relative_path(p), location=found[p], size_bytes=os.stat(found[p]).st_size)
            for p in chosen
        ]


class _Hashes:
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


def hash_file(path: str, size_bytes: int | None = None, limit: int | None = None) -> _Hashes:
    """Hashes a file (its first ``limit`` bytes)."""
    hashes = _Hashes(size_bytes)
    left = limit if limit is not None else -1
    with open(path, "rb") as stream:
        while left != 0:
            chunk = stream.read(CHUNK_BYTES if left < 0 else min(CHUNK_BYTES, left))
            if not chunk:
                break
            hashes.update(chunk)
            left -= len(chunk) if left > 0 else 0
    return hashes


def _fsync_folder(path: str) -> None:
    # Some network file systems refuse to sync a folder; the rename itself is still atomic there.
    with contextlib.suppress(OSError):
        handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def write_atomically(path: str, data: bytes) -> None:
    temporary = f"{path}.new"
    with open(temporary, "wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(temporary, path)
    _fsync_folder(os.path.dirname(path))


def read_manifest(dest: str) -> dict[str, Any]:
    """What an earlier run recorded, or {} (none there, or not readable as one: it is then made again)."""
    try:
        with open(os.path.join(dest, MANIFEST_NAME), encoding="utf-8") as stream:
            manifest = json.load(stream)
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return {}
    if not isinstance(manifest, dict) or not isinstance(manifest.get("files"), list):
        return {}
    return manifest


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
        warn: Callable[[str], None] = lambda message: None,
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
        self.warn = warn
        self.downloaded_bytes = 0

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
                        f"{item.sha256_by} at {display_url(item.location)} says {item.sha256}. {self._way_out(by)}"
                    )
                if size is not None and item.size_bytes is not None and item.size_bytes != size:
                    raise DownloadError(
                        f"model {self.name}: {item.path} has another size than {by} allows: expected {size} bytes, "
                        f"{display_url(item.location)} has {item.size_bytes}. {self._way_out(by)}"
                    )
                item.sha256, item.sha256_by = sha256, by
                if item.size_bytes is None:
                    item.size_bytes = size

    def _way_out(self, by: str) -> str:
        if by == "the lock":
            return (
                f"The model was replaced at its source, or it was tampered with. If the change is wanted, delete the "
                f"entry {self.name} from the lock file and run again; if not, pin source.revision."
            )
        if by == "the catalogue":
            return "Check where the sha256 in the catalogue comes from; if the new file is wanted, correct it there."
        return "The file was damaged on its way or at its source: run again; if it stays, use another source or mirror."

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
                f"model {self.name}: {self.dest} has too little space: {human_bytes(needed)} are needed and "
                f"{human_bytes(self.keep_free_bytes)} are to stay free, but {human_bytes(free)} are free on the file "
                f"system of {nearest_existing(self.dest)}. Free {human_bytes(short)} there, put the store on a larger "
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
            listing = lister.list(self.source, self.lock_revision)
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
        verified = {item.path: self._fetch(item) for item in plan.fetch}
        for path, hashes in verified.items():
            final = os.path.join(self.dest, path)
            os.makedirs(os.path.dirname(final), mode=0o755, exist_ok=True)
            os.replace(self.partial_path(path), final)
            _fsync_folder(os.path.dirname(final))
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
            text = json.dumps(after, indent=2, sort_keys=True) + "\n"
            write_atomically(os.path.join(self.dest, MANIFEST_NAME), text.encode())
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
            "downloaded_bytes": self.downloaded_bytes,
            "bytes_total": sum(entry["size_bytes"] or 0 for entry in files),
            "needed_bytes": 0,
            "free_bytes": free_bytes(self.dest),
            "reachable": True,
            "problem": None,
            "reasons": {},
            "diff": {"before": describe(before), "after": describe(after)},
        }

    def _fetch(self, item: WantedFile) -> _Hashes:
        """Brings one file into .partial/ and verifies it there."""
        partial = self.partial_path(item.path)
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

    def _copy(self, item: WantedFile, partial: str) -> _Hashes:
        hashes = _Hashes(item.size_bytes)
        with open(item.location, "rb") as source, open(partial, "wb") as target:
            while chunk := source.read(CHUNK_BYTES):
                target.write(chunk)
                hashes.update(chunk)
                self.downloaded_bytes += len(chunk)
            target.flush()
            os.fsync(target.fileno())
        return hashes

    def _verify(self, item: WantedFile, partial: str, hashes: _Hashes) -> None:
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
            self._discard(partial)
            by = item.sha256_by if item.sha256 else ""
            raise DownloadError(
                f"model {self.name}: {item.path} from {where} is not the file it should be: {problem}. The corrupt "
                f"download was deleted and nothing was put in place. {self._way_out(by)}"
            )

    @staticmethod
    def _discard(partial: str) -> None:
        for path in (partial, f"{partial}.json"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)

    def _download(self, item: WantedFile, partial: str) -> tuple[_Hashes, bool]:
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

    def __init__(self, folder: ModelFolder, item: WantedFile, partial: str) -> None:
        self.folder = folder
        self.item = item
        self.partial = partial
        self.meta_path = f"{partial}.json"
        self.meta = self._read_meta()
        self.received = 0
        self.offset = 0
        self.hashes = _Hashes(item.size_bytes)
        if os.path.exists(partial):
            size = os.stat(partial).st_size
            same = self.meta.get("sha256") == item.sha256 and self.meta.get("size_bytes") == item.size_bytes
            if same and self._may_resume() and (item.size_bytes is None or size <= item.size_bytes):
                self.offset = size
                self.hashes = hash_file(partial, item.size_bytes)
            else:
                ModelFolder._discard(partial)
                self.meta = {}

    def _read_meta(self) -> dict[str, Any]:
        try:
            with open(self.meta_path, encoding="utf-8") as stream:
                meta = json.load(stream)
        except (FileNotFoundError, ValueError):
            return {}
        return meta if isinstance(meta, dict) else {}

    def _may_resume(self) -> bool:
        """Half a file is worth keeping when the server can confirm it, or a hash will find a mixture out."""
        return bool(self.meta.get("validator") or self.item.sha256 or self.item.git_oid)

    def _restart(self) -> None:
        self.offset = 0
        self.hashes = _Hashes(self.item.size_bytes)

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
            with self.folder.web.open(item.location, headers) as answer:
                self._receive(answer)
        except urllib.error.HTTPError as error:
            with error:
                self._refused(error)
        except _Transient:
            raise
        except NETWORK_ERRORS as error:
            if isinstance(error, OSError) and error.errno in DISK_ERRORS:
                raise DownloadError(
                    f"model {self.folder.name}: {self.partial} cannot be written: {error.strerror}. "
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
        raise explain_status(self.folder.name, error, self.item.location, self.folder.web, self.folder.source)

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
            ModelFolder._discard(self.partial)
            raise DownloadError(
                f"model {self.folder.name}: {display_url(item.location)} sends {total} bytes where {item.size_bytes} "
                f"are expected. The file was replaced at its source, or a proxy answers in its place: check the "
                f"source and run again."
            )
        expected = item.size_bytes if item.size_bytes is not None else total
        if item.size_bytes is None and expected is not None:
            self.folder.check_space(expected - self.offset)
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
                        ModelFolder._discard(self.partial)
                        raise DownloadError(
                            f"model {self.folder.name}: {display_url(self.item.location)} sends more than the "
                            f"{expected} bytes it should. Check the source and run again."
                        )
                    target.write(chunk)
                    self.hashes.update(chunk)
                    self.offset += len(chunk)
                    self.received += len(chunk)
                    self.folder.downloaded_bytes += len(chunk)
                    unchecked += len(chunk)
                    if unchecked >= SPACE_CHECK_BYTES:
                        unchecked = 0
                        # Others write on this disk too; what is to stay free stays free.
                        target.flush()
                        self.folder.check_space(max(1, (expected or 0) - self.offset))
            finally:
                target.flush()
                os.fsync(target.fileno())


def describe(state: dict[str, Any]) -> str:
    """One line per file, for --diff."""
    lines = [f"revision: {state.get('revision')}"] if state.get("files") else []
    for entry in sorted(state.get("files", []), key=lambda e: str(e["path"])):
        size = entry["size_bytes"] if entry["size_bytes"] is not None else "unknown"
        lines.append(f"{entry['path']}  {size} bytes  sha256 {entry['sha256'] or 'unknown until downloaded'}")
    return "".join(f"{line}\n" for line in lines)


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
