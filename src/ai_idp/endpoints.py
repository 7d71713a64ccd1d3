"""What the platform serves in an environment, and the keys that its endpoints ask for.

Each week's playbook writes `inventory/NAME/state/endpoints.json` on the controller; it holds no secrets. The
keys are entries of `inventory/NAME/secrets.yml`, plain or encrypted with ansible-vault.
"""

from __future__ import annotations

import os
from importlib import import_module
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from ai_idp.errors import FrontError, printable, why_unread

VAULT_VARIABLE = "ANSIBLE_VAULT_PASSWORD_FILE"
VAULT_HEADER = "$ANSIBLE_VAULT;"


class Endpoint(BaseModel):
    """One thing that answers over HTTP."""

    model_config = ConfigDict(frozen=True)

    name: str = Field(min_length=1)
    host: str = Field(min_length=1)
    kind: Literal["openai", "triton", "metrics", "http"]
    url: str = Field(pattern=r"^https?://")
    key: str | None = None
    model: str | None = None
    models: list[str] = []
    health_path: str | None = None
    metrics_path: str | None = None
    metrics_url: str | None = Field(default=None, pattern=r"^https?://")
    replay: bool = False
    # Who is admitted where that is not this machine.
    reached_from: list[str] = []

    @field_validator("url", "metrics_url")
    @classmethod
    def _can_be_asked(cls, url: str | None) -> str | None:
        parts = urlsplit(url or "http://none")
        # Asking for the port refuses one that is none.
        if not parts.hostname or parts.port == 0:
            raise ValueError(f"{url} names no host and port")
        return url

    def at(self, path: str) -> str:
        """The URL of a path of this endpoint."""
        return f"{self.url.rstrip('/')}/{path.lstrip('/')}"

    @property
    def metrics_at(self) -> str | None:
        """Where its metrics are, or None if it has none."""
        if self.metrics_url:
            return self.metrics_url
        return self.at(self.metrics_path) if self.metrics_path else None


class EndpointsFile(BaseModel):
    """The endpoints of one environment."""

    model_config = ConfigDict(frozen=True, populate_by_name=True)

    schema_version: Literal[1] = Field(alias="schema")
    environment: str
    endpoints: list[Endpoint]


class EndpointsMissing(FrontError):
    """Nothing has been deployed from this checkout yet, as far as can be told."""


def endpoints_path(inventory: Path) -> Path:
    """Where the endpoints of an inventory folder are written."""
    return inventory / "state" / "endpoints.json"


def ca_path(inventory: Path) -> Path:
    """Where the certificate of the CA is put that signs the gateway's, and those of the engines' gates."""
    return inventory / "state" / "ca.crt"


def engine_ca_path(inventory: Path) -> Path:
    """Where that of the gates is put when another authority signs the gateway's."""
    return inventory / "state" / "engine_ca.crt"


def load_endpoints(inventory: Path) -> EndpointsFile:
    """The endpoints of an inventory. EndpointsMissing without the file, FrontError if it makes no sense."""
    path = endpoints_path(inventory)
    shown = f"inventory/{inventory.name}/state/{path.name}"
    how = "ai-idp lab up" if inventory.name == "lab" else f"ai-idp run week2 --inventory {inventory.name}"
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise EndpointsMissing(f"{shown} is not there, nothing has been deployed: run `{how}`") from None
    except (OSError, UnicodeDecodeError) as error:
        raise FrontError(f"{shown} can't be read: {why_unread(error)}; remove it and run `{how}` again") from error
    try:
        return EndpointsFile.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "the file"
        raise FrontError(printable(f"{shown} makes no sense at {place} ({first['msg']}): run `{how}` again")) from None


class _EncryptedString(str):
    """The ciphertext of a `!vault` value inside a plain file."""


class _SecretsLoader(yaml.SafeLoader):
    """YAML with Ansible's `!vault` tag."""


def _vault_value(_loader: yaml.SafeLoader, node: yaml.Node) -> _EncryptedString:
    if not isinstance(node, yaml.ScalarNode):
        raise yaml.constructor.ConstructorError(None, None, "!vault stands before no text", node.start_mark)
    return _EncryptedString(node.value)


_SecretsLoader.add_constructor("!vault", _vault_value)


class Secrets:
    """The secrets file of an inventory. Values are read when asked for, and shown nowhere by this class."""

    def __init__(self, inventory: Path) -> None:
        self._path = inventory / "secrets.yml"
        self._shown = f"inventory/{inventory.name}/secrets.yml"
        self._values: dict[str, Any] | None = None

    def get(self, name: str) -> str:
        """The secret called `name`. FrontError, saying what to do, if it can't be had."""
        if self._values is None:
            self._values = self._read()
        value = self._values.get(name)
        if isinstance(value, _EncryptedString):
            value = self._decrypt(value).strip()
        if value is None or value == "":
            raise FrontError(f"{self._shown} has no {name}: run the playbook that makes it (ai-idp run week2)")
        if not isinstance(value, str | int | float):
            raise FrontError(f"{name} in {self._shown} is no text: write it in quotes, or remove it to have it made")
        text = str(value)
        # It becomes a header.
        if not (text.isascii() and text.isprintable()):
            raise FrontError(f"{name} in {self._shown} holds characters that no key can: letters, digits and signs can")
        return text

    def _read(self) -> dict[str, Any]:
        try:
            text = self._path.read_text(encoding="utf-8")
        except FileNotFoundError:
            raise FrontError(f"{self._shown} is not there: run the playbook that makes it (ai-idp run week2)") from None
        except (OSError, UnicodeDecodeError) as error:
            # Not as its cause: an error of decoding holds the whole text.
            raise FrontError(f"{self._shown} can't be read: {why_unread(error)}") from None
        if text.startswith(VAULT_HEADER):
            text = self._decrypt(text)
        try:
            values = _SecretsLoader(text).get_single_data()
        except (yaml.YAMLError, ValueError, RecursionError):
            # The parser's own message quotes the line, which may hold a secret. What looks like a date and is none, or
            # like a number, is a ValueError.
            raise FrontError(f"{self._shown} is not YAML: correct it, or remove it to have keys made") from None
        if values is None:
            return {}
        if not isinstance(values, dict):
            raise FrontError(f"{self._shown} must be a mapping of names to secrets")
        return values

    def _decrypt(self, ciphertext: str) -> str:
        password_file = os.environ.get(VAULT_VARIABLE)
        if not password_file:
            raise FrontError(f"{self._shown} is encrypted: set {VAULT_VARIABLE} to the vault password's file")
        # Ansible takes half a second to import, and only an encrypted file needs it.
        vault = import_module("ansible.parsing.vault")
        loader = import_module("ansible.parsing.dataloader").DataLoader()
        ansible_error = import_module("ansible.errors").AnsibleError
        try:
            secret = vault.get_file_vault_secret(filename=password_file, loader=loader)
            secret.load()
            return str(vault.VaultLib([("default", secret)]).decrypt(ciphertext).decode("utf-8"))
        except (ansible_error, OSError, ValueError) as error:
            decoded = isinstance(error, UnicodeError)
            reason = "its text is no UTF-8" if decoded else (str(error).splitlines() or [type(error).__name__])[0]
            raise FrontError(
                f"{self._shown} can't be decrypted with {VAULT_VARIABLE}={password_file}: {reason}"
            ) from None
