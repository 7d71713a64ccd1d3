# Copyright: AI-IDP contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a model folder records about itself: the manifest, and this project's own names in the folder."""

from __future__ import annotations

import json
import os
from typing import Any

from ansible.module_utils.ai_idp.documents import from_json, printable
from ansible.module_utils.ai_idp.files import write_atomically

MANIFEST_NAME = ".ai-idp-model.json"
LOCK_NAME = ".ai-idp-model.lock"
PARTIAL_NAME = ".partial"


def read_manifest(dest: str) -> dict[str, Any]:
    """What an earlier run recorded, or {} (none there, or not readable as one: it is then made again)."""
    try:
        with open(os.path.join(dest, MANIFEST_NAME), encoding="utf-8") as stream:
            manifest = from_json(stream.read())
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return {}
    if not isinstance(manifest, dict) or not isinstance(manifest.get("files"), list):
        return {}
    if not all(_is_entry(entry) for entry in manifest["files"]):
        return {}
    return {**manifest, "files": [{"sha256": None, "git_oid": None, **entry} for entry in manifest["files"]]}


def _is_entry(entry: Any) -> bool:
    """Whether it says of a file what is recorded: path, bytes, time, and hashes that may be unknown."""
    return (
        isinstance(entry, dict)
        and isinstance(entry.get("path"), str)
        and "\0" not in entry["path"]
        and entry["path"] == printable(entry["path"])
        and all(isinstance(entry.get(name), int) for name in ("size_bytes", "mtime_ns"))
        and all(isinstance(entry.get(name), (str, type(None))) for name in ("sha256", "git_oid"))
    )


def write_manifest(dest: str, manifest: dict[str, Any]) -> None:
    text = json.dumps(manifest, indent=2, sort_keys=True) + "\n"
    write_atomically(os.path.join(dest, MANIFEST_NAME), text.encode())


def describe(state: dict[str, Any]) -> str:
    """One line per file, for --diff."""
    lines = [f"revision: {state.get('revision')}"] if state.get("files") else []
    for entry in sorted(state.get("files", []), key=lambda e: str(e["path"])):
        size = entry["size_bytes"] if entry["size_bytes"] is not None else "unknown"
        lines.append(f"{entry['path']}  {size} bytes  sha256 {entry['sha256'] or 'unknown until downloaded'}")
    return "".join(f"{line}\n" for line in lines)
