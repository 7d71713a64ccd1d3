# Copyright: AI-IDP contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the role model_store derives from its catalogue and its lock."""

from __future__ import annotations

import difflib
import posixpath
import re
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from ansible.errors import AnsibleFilterError
from ansible.module_utils.parsing.convert_bool import boolean

SOURCE_KEYS = {"huggingface": ("repository", "revision"), "url": ("url",), "file": ("path",)}
GATED_HOST = "huggingface.co"


def _given(mapping: dict[str, Any] | None) -> dict[str, Any]:
    return {key: value for key, value in (mapping or {}).items() if value not in (None, "", [])}


def _source(entry: dict[str, Any]) -> dict[str, Any]:
    """The source without what is not set; a hub's revision is 'main' when nothing is said."""
    source = _given(entry.get("source"))
    kind = source.get("type", "huggingface")
    if kind == "huggingface":
        source.setdefault("revision", "main")
    return {"type": kind, **{key: source[key] for key in SOURCE_KEYS.get(kind, ()) if key in source}}


def _entry_problems(entry: dict[str, Any], endpoint: str, has_token: bool) -> list[str]:
    name = entry["name"]
    problems = []
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        problems.append(
            f"model_store_catalogue: the name {name!r} must be letters, digits, '.', '_' and '-' and begin with a "
            f"letter or digit, since it is the name of a folder."
        )
    source = _given(entry.get("source"))
    kind = source.get("type", "huggingface")
    for key, wanted in (("repository", "huggingface"), ("url", "url"), ("path", "file")):
        if kind == wanted and key not in source:
            problems.append(f"model_store_catalogue: {name} has a source of type {kind} without source.{key}: add it.")
        if kind != wanted and key in source:
            problems.append(
                f"model_store_catalogue: {name} has source.{key}, which a source of type {kind} does not use: remove "
                f"it, or set source.type to {wanted}."
            )
    sha256 = entry.get("sha256")
    if sha256 and not re.fullmatch(r"[0-9a-fA-F]{64}", sha256):
        problems.append(f"model_store_catalogue: the sha256 of {name} is {sha256!r}; it must be 64 hexadecimal digits.")
    gated = boolean(entry.get("gated", False), strict=False)
    if gated and not has_token and kind == "huggingface" and urlsplit(endpoint).hostname == GATED_HOST:
        repository = source.get("repository")
        problems.append(
            f"model_store_models: {name} comes from {repository}, which is gated, and model_store_token is empty: "
            f"accept the licence at https://{GATED_HOST}/{repository}, make a token with read access there and put it "
            f"into the secrets file, or choose a model that is not gated."
        )
    return problems


def model_store_problems(
    catalogue: list[dict[str, Any]],
    names: list[str],
    endpoint: str,
    has_token: bool,
    nas: dict[str, Any],
    keep_free: str = "0",
) -> list[str]:
    """One sentence for each thing that is wrong with the wanted models; an empty list when all is well."""
    known = [entry["name"] for entry in catalogue]
    problems = [
        f"model_store_catalogue: {name} is listed {known.count(name)} times: give each entry a name of its own."
        for name in sorted(set(known))
        if known.count(name) > 1
    ]
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            problems.append(
                f"model_store_models: {name!r} is not in the catalogue{hint}. "
                f"It has: {', '.join(sorted(known)) or 'nothing yet'}. Correct the name or add an entry to "
                f"model_store_catalogue."
            )
    if not re.match(r"https?://[^/]", endpoint):
        problems.append(
            f"model_store_endpoint is {endpoint!r}; it must begin with http:// or https:// and name a host."
        )
    for entry in catalogue:
        if entry["name"] in names:
            problems += _entry_problems(entry, endpoint, has_token)
    if not re.fullmatch(r"\d+(\.\d+)?\s*([kmgt]?b?)", str(keep_free).strip(), re.IGNORECASE):
        problems.append(
            f"model_store_keep_free_bytes is {keep_free!r}; it must be a number of bytes or a number with a unit, such "
            f"as 20GB."
        )
    given = _given(nas)
    if given:
        missing = [key for key in ("source", "path") if key not in given]
        if missing:
            problems.append(
                f"model_store_nas lacks {' and '.join(missing)}: set what is missing, or leave model_store_nas empty."
            )
        elif not given["path"].startswith("/") or posixpath.normpath(given["path"]) == "/":
            problems.append(f"model_store_nas.path is {given['path']!r}; it must be an absolute path other than '/'.")
    return problems


def model_store_credentials(nas: dict[str, Any]) -> str:
    """The text of a credentials file, as mount.cifs reads it."""
    lines = [f"username={nas['username']}", f"password={nas.get('password') or ''}"]
    return "\n".join([*lines, *([f"domain={nas['domain']}"] if nas.get("domain") else []), ""])


def _lock_fits(locked: dict[str, Any] | None, source: dict[str, Any]) -> bool:
    """A lock speaks of one source; when the catalogue names another one, a new lock is made."""
    return bool(locked) and (locked or {}).get("source") == source


def model_store_wanted(
    catalogue: list[dict[str, Any]], names: list[str], lock: dict[str, Any] | None
) -> list[dict[str, Any]]:
    """The arguments of model_download for each wanted model, with what the lock enforces."""
    models = (lock or {}).get("models") or {}
    by_name = {entry["name"]: entry for entry in catalogue}
    wanted = []
    # A name that the catalogue does not have is a problem that model_store_problems tells.
    for name in [name for name in dict.fromkeys(names) if name in by_name]:
        entry = by_name[name]
        source = _source(entry)
        locked = models.get(name) if _lock_fits(models.get(name), source) else None
        size = entry.get("size_bytes")
        wanted.append(
            {
                "name": name,
                "label": f"{name} ({size / 1e9:.2f} GB)" if size else name,
                "source": {**source, **({"files": entry["files"]} if entry.get("files") else {})},
                "locked_source": source,
                "sha256": entry.get("sha256") or "",
                "lock": [{"path": path, **file} for path, file in (locked or {}).get("files", {}).items()],
                "lock_revision": (locked or {}).get("revision") or "",
            }
        )
    return wanted


def model_store_arguments(wanted: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What of each wanted model the module model_download takes in its list."""
    keys = ("name", "source", "lock", "lock_revision", "sha256")
    return [{key: item[key] for key in keys if item[key]} for item in wanted]


def model_store_locked(wanted: list[dict[str, Any]], results: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """What this host found, in the shape of the lock: {name: {source, revision, files}}."""
    by_name = {result["name"]: result for result in results}
    locked = {}
    for item in wanted:
        result = by_name.get(item["name"])
        if result is None or not all(file["sha256"] for file in result["files"]):
            continue
        locked[item["name"]] = {
            "source": item["locked_source"],
            "revision": item["lock_revision"] or result["revision"],
            "files": {file["path"]: {key: file[key] for key in ("size_bytes", "sha256")} for file in result["files"]},
        }
    return locked


def model_store_is_locked(lock: dict[str, Any] | None, found: dict[str, dict[str, Any]]) -> bool:
    """Whether the lock says all that this host found already."""
    return model_store_merge(lock, [found]) == dict((lock or {}).get("models") or {})


def model_store_merge(lock: dict[str, Any] | None, found: list[dict[str, dict[str, Any]]]) -> dict[str, dict[str, Any]]:
    """Adds what the hosts found to the lock; entries of models that no host holds now are kept."""
    models = dict((lock or {}).get("models") or {})
    fresh: dict[str, dict[str, Any]] = {}
    for of_host in found:
        for name, entry in of_host.items():
            if name in fresh and fresh[name] != entry:
                raise AnsibleFilterError(
                    f"model {name}: two hosts hold different files under this name. Run again with model_store_verify: "
                    f"full; if it stays, the source changed between two downloads: pin source.revision."
                )
            fresh[name] = entry
    for name, entry in fresh.items():
        old = models.get(name)
        if _lock_fits(old, entry["source"]) and old is not None:
            models[name] = {**entry, "files": {**old["files"], **entry["files"]}}
        else:
            models[name] = entry
    return models


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {
            "model_store_problems": model_store_problems,
            "model_store_wanted": model_store_wanted,
            "model_store_credentials": model_store_credentials,
            "model_store_arguments": model_store_arguments,
            "model_store_is_locked": model_store_is_locked,
            "model_store_locked": model_store_locked,
            "model_store_merge": model_store_merge,
        }
