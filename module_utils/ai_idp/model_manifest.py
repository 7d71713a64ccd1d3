# Copyright: AI-IDP contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a model folder records about itself: the manifest, and this project's own names in the folder."""

from __future__ import annotations

import json
import os
from typing import Any

from ansible.module_utils.ai_idp.files import write_atomically

MANIFEST_NAME = ".ai-idp-model.json"
LOCK_NAME = ".ai-idp-model.lock"
PARTIAL_NAME = ".partial"


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
