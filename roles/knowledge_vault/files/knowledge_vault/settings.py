"""What Ansible wrote for the programs: settings in a file, secrets in the environment."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

REPOSITORY = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,62}[A-Za-z0-9_-])?")
COMMIT = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
TAG = re.compile(r"[^\W\d_][\w/-]*")


@dataclass(frozen=True)
class Settings:
    """Everything that the programs are told."""

    vault: Path
    state: Path
    listen: str = "127.0.0.1"
    port: int = 5690
    webhook_url: str = ""
    webhook_secret: str = ""
    service_token: str = ""
    ca_file: str = ""
    repositories: tuple[dict[str, Any], ...] = ()
    interval: float = 15
    tags: tuple[dict[str, str], ...] = ()
    model: str = ""
    model_timeout: int = 45
    model_parallel: int = 2
    prompt_budget: int = 6000
    git: bool = False
    mlflow: dict[str, str] = field(default_factory=dict)

    @property
    def spool(self) -> Path:
        """Folder of the events that n8n has not taken yet."""
        return self.state / "spool"


def load(path: Path) -> Settings:
    """Read the settings' file and the environment.

    Raises:
        OSError, ValueError, KeyError, TypeError: the file is not what Ansible wrote.
    """
    told = json.loads(path.read_text(encoding="utf-8"))
    told["mlflow"] = {**told.get("mlflow", {}), "password": os.environ.get("KNOWLEDGE_VAULT_MLFLOW_PASSWORD", "")}
    return Settings(
        **{
            **told,
            "vault": Path(told["vault"]),
            "state": Path(told["state"]),
            "repositories": tuple(told.get("repositories", ())),
            "tags": tuple(told.get("tags", ())),
            "webhook_secret": os.environ["KNOWLEDGE_VAULT_WEBHOOK_SECRET"],
            "service_token": os.environ["KNOWLEDGE_VAULT_SERVICE_TOKEN"],
        }
    )
