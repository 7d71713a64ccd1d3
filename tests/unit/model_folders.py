"""A small model on a hub, and the folder that it is downloaded into, for the tests of model_download."""

import hashlib
from pathlib import Path
from typing import Any

from ansible.module_utils.ai_idp.hub_client import Web
from ansible.module_utils.ai_idp.model_download import ModelFolder
from ansible.module_utils.ai_idp.model_manifest import LOCK_NAME, MANIFEST_NAME, PARTIAL_NAME
from ansible.module_utils.ai_idp.model_source import Source
from hub_server import Hub

REPOSITORY = "ai-idp/tiny"
WEIGHTS = bytes(range(256)) * 12_288  # 3 MiB: several chunks
FILES = {
    "model.gguf": WEIGHTS,
    "config.json": b'{"model_type": "llama"}\n',
    "README.md": b"# tiny\n",
    "original/model.gguf": b"second copy" * 200,
    ".gitattributes": b"*.gguf filter=lfs\n",
}


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def folder(hub: Hub, dest: Path, **changes: Any) -> ModelFolder:
    source = {"type": "huggingface", "repository": REPOSITORY, "files": ["*.gguf", "config.json"]}
    source.update(changes.pop("source", {}))
    token = changes.pop("token", None)
    endpoint = changes.pop("endpoint", hub.url)
    options = {"retries": 3, "backoff": 0.01, **changes}
    return ModelFolder("tiny", str(dest), Source(**source), Web(endpoint, token, 5), **options)


def visible(dest: Path) -> list[str]:
    """What another program would take for the model's files."""
    if not dest.exists():
        return []
    own = {MANIFEST_NAME, LOCK_NAME}
    return sorted(
        str(path.relative_to(dest))
        for path in dest.rglob("*")
        if path.is_file() and path.name not in own and PARTIAL_NAME not in path.relative_to(dest).parts
    )
