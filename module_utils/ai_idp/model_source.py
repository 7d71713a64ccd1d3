# Copyright: AI-IDP contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Where a model comes from: a hub, a URL or a path, and which files it has there.

A listing gives each file's size and hash as far as the source publishes them. Sizes are bytes.
"""

from __future__ import annotations

import fnmatch
import http.client
import os
import re
import time
import urllib.error
import urllib.parse
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from ansible.module_utils.ai_idp.documents import mapping_of
from ansible.module_utils.ai_idp.hub_client import (
    BACKOFF_MAX_S,
    NETWORK_ERRORS,
    TRANSIENT_STATUS,
    DownloadError,
    EndpointUnreachable,
    NoJson,
    Web,
    etag_hash,
    explain_network_error,
    joined,
    next_page,
    read_json,
    size_from,
)
from ansible.module_utils.ai_idp.messages import display_url
from ansible.module_utils.ai_idp.model_manifest import LOCK_NAME, MANIFEST_NAME, PARTIAL_NAME

LISTING_MAX_PAGES = 200
SHA256_RE = re.compile(r"[0-9a-f]{64}")
GIT_OID_RE = re.compile(r"[0-9a-f]{40}")
# Git's own bookkeeping is no part of a model.
NEVER_WANTED = (".gitattributes", ".gitignore")


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


class Lister:
    """Asks a source which files it has."""

    def __init__(self, name: str, web: Web, retries: int, backoff: float) -> None:
        self.name = name
        self.web = web
        self.retries = retries
        self.backoff = backoff

    def listing(self, source: Source, revision: str | None = None) -> Listing:
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
            except NoJson:
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
            info = self._patiently(url, source, partial(self._tolerant_json, url), missing={})
            sha = info.get("sha") if isinstance(info, dict) else None
            if isinstance(sha, str) and GIT_OID_RE.fullmatch(sha):
                revision = sha
        tree_url = f"{api}/tree/{urllib.parse.quote(revision, safe='')}?recursive=true"
        tree = self._patiently(tree_url, source, partial(self._tree, tree_url), missing=False)
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
        self._patiently(url, source, partial(self.web.head, url))

    def _tolerant_json(self, url: str) -> Any:
        try:
            return read_json(self.web, url)[0]
        except NoJson:
            return {}

    def _tree(self, url: str) -> list[dict[str, Any]]:
        entries: list[dict[str, Any]] = []
        page: str | None = url
        for _ in range(LISTING_MAX_PAGES):
            if page is None:
                return entries
            body, headers = read_json(self.web, page)
            if not isinstance(body, list) or not all(isinstance(mapping_of(e).get("path"), str) for e in body):
                raise DownloadError(
                    f"model {self.name}: {display_url(page)} does not list files the way a Hugging Face hub does. "
                    f"Check the endpoint (model_store_endpoint, HF_ENDPOINT)."
                )
            entries += body
            following = next_page(headers.get("Link"))
            page = joined(page, following) if following else None
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
        lfs = mapping_of(entry.get("lfs"))
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
            headers = self._patiently(url, source, partial(self.web.head, url))
            linked = etag_hash(headers.get("X-Linked-ETag"))
            plain = etag_hash(headers.get("ETag")) if headers.get("X-Repo-Commit") else ""
            files.append(
                WantedFile(
                    path=path,
                    location=url,
                    size_bytes=size_from(headers),
                    sha256=linked if SHA256_RE.fullmatch(linked) else None,
                    git_oid=next((h for h in (linked, plain) if GIT_OID_RE.fullmatch(h)), None),
                    sha256_by="the hub's X-Linked-ETag",
                )
            )
        return Listing(files, revision)

    def _url(self, source: Source) -> list[WantedFile]:
        url = source.url or ""
        if urllib.parse.urlsplit(joined("", url)).scheme not in ("http", "https"):
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
                headers = self._patiently(one, source, partial(self.web.head, one))
                size = size_from(headers)
            except DownloadError:
                # Some servers answer GET and refuse HEAD: then a GET of nothing but the headers decides.
                headers = self._patiently(one, source, partial(self._headers_by_get, one))
                size = size_from(headers)
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
