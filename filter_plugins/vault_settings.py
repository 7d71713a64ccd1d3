# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the role knowledge_vault checks of its settings, and what it gives to systemd and to n8n."""

from __future__ import annotations

import ipaddress
import json
import posixpath
import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from ansible.errors import AnsibleFilterError

_SECRET = re.compile(r"[A-Za-z0-9_-]{32,}")
_ADDRESS = re.compile(r"https?://[^/@\s\"\\]+(/[^\s\"\\]*)?")
_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,62}[A-Za-z0-9_-])?")
_REMOTE = re.compile(r"(https?|ssh|file)://\S+|[a-z_][a-z0-9_-]*@[A-Za-z0-9.-]+:[^\s:]+")
_WITH_PASSWORD = re.compile(r"://[^/]*:[^/]*@")
_PATH = re.compile(r"/[^\s%]+")
_OWN_DIR = re.compile(r"/[^/\s%]+/[^\s%]+")
_TAG = re.compile(r"[A-Za-z][A-Za-z0-9_/-]*")
_TIMEZONE = re.compile(r"[A-Za-z0-9_+-]+(/[A-Za-z0-9_+-]+)*")
_CRON = re.compile(r"[0-9*/,-]+( [0-9A-Za-z*/,-]+){4}")
_PLACE = re.compile(r"<< (\w+) >>")

BOUNDS = {
    "interval": (5, 86400),
    "port": (1024, 65535),
    "model_timeout": (1, 3600),
    "model_parallel": (1, 64),
    "prompt_budget": (400, 20000),
}
SECRETS = ("webhook_secret", "service_token")
ADDRESSES = ("webhook_url", "service_url", "model_url", "mlflow_url", "mlflow_public_url")
OPTIONAL = ("service_url", "mlflow_url", "mlflow_public_url")


def _repository_problems(one: Mapping[str, Any], vault: str, user: str) -> list[str]:
    path, url = one.get("path") or "", one.get("url") or ""
    problems = []
    if not _NAME.fullmatch(one["name"]):
        problems.append("the name may have letters, digits, dots, _ and -, 64 at most")
    if bool(path) == bool(url):
        problems.append("either a path or a url is needed")
    elif url and not _REMOTE.fullmatch(url):
        problems.append("the url may be https://..., ssh://..., file://... or name@host:path")
    elif url and _WITH_PASSWORD.search(url):
        problems.append(f"the url holds a password; use an SSH key or a credential helper of {user}")
    elif path and (not _PATH.fullmatch(path) or _nested(path, vault)):
        problems.append(
            f"the path has to be absolute, without blanks, and not that of the vault itself, nor may one of the two "
            f"lie in the other ({path} and {vault}): its notes would become notes"
        )
    return [f"knowledge_vault_repositories, '{one['name']}': {problem}" for problem in problems]


def _nested(one: str, other: str) -> bool:
    """Tell whether two paths are one, or one lies in the other. Links of the host are followed by the sender."""
    first, second = (PurePosixPath(posixpath.normpath(path)) for path in (one, other))
    return first.is_relative_to(second) or second.is_relative_to(first)


def _listen_problems(address: str) -> list[str]:
    try:
        if not ipaddress.ip_address(address).is_unspecified:
            return []
    except ValueError:
        pass
    return [f"knowledge_vault_listen_address: '{address}' is not one address of the host, such as 127.0.0.1"]


def _twice(names: list[str]) -> bool:
    return len({name.lower() for name in names}) < len(names)


def vault_problems(settings: Mapping[str, Any]) -> list[str]:
    """Say what the vault could not work with. Secrets are never shown.

    Args:
        settings: the role's variables by their names without ``knowledge_vault_``.

    Returns:
        a sentence for each problem.
    """
    problems = [
        f"knowledge_vault_{name}: 32 or more letters, digits, _ or - are needed, as 'openssl rand -hex 32' makes them; "
        "what is there is not shown"
        for name in SECRETS
        if not _SECRET.fullmatch(settings[name])
    ]
    problems += [
        f"knowledge_vault_{name} has a line break or another control character; what is there is not shown"
        for name in ("mlflow_password", "api_key")
        if not settings[name].isprintable()
    ]
    problems += [
        f"knowledge_vault_{name}: '{settings[name]}' is no address; write it like http://127.0.0.1:80/path"
        for name in ADDRESSES
        if not (_ADDRESS.fullmatch(settings[name]) or (name in OPTIONAL and not settings[name]))
    ]
    repositories = settings["repositories"]
    for one in repositories:
        problems += _repository_problems(one, settings["dir"], settings["user"])
    if _twice([one["name"] for one in repositories]):
        problems.append("knowledge_vault_repositories: a name is there twice; each has a folder of its own")
    tags = [tag["name"] for tag in settings["tags"]]
    problems += [
        f"knowledge_vault_tags: '{tag}' is no tag for Obsidian: letters, digits, _ - /, a letter first"
        for tag in tags
        if not _TAG.fullmatch(tag)
    ]
    if not tags or _twice(tags):
        problems.append("knowledge_vault_tags: one at least, and none twice, whatever its case")
    if not settings["model"]:
        problems.append("knowledge_vault_model is empty: name a model that the endpoint serves")
    forms = {
        "dir": (_OWN_DIR, "is no folder of its own without blanks; write it like /home/ubuntu/ai-idp/vault"),
        "timezone": (_TIMEZONE, "is no zone; write it like Europe/Berlin"),
        "daily_cron": (_CRON, 'has not the five fields of cron; write it like "10 0 * * *"'),
    }
    problems += [
        f"knowledge_vault_{name}: '{settings[name]}' {what}"
        for name, (form, what) in forms.items()
        if not form.fullmatch(settings[name])
    ]
    problems += _listen_problems(settings["listen_address"])
    problems += [
        f"knowledge_vault_{name} is {settings[name]}: {low} to {high} are possible"
        for name, (low, high) in BOUNDS.items()
        if not low <= int(settings[name]) <= high
    ]
    return problems


def vault_environment(values: Mapping[str, str]) -> str:
    """Write variables as systemd reads them from an EnvironmentFile.

    Args:
        values: texts without line breaks by the names of the variables.
    """
    rows = [f'{name}="{re.sub(r"([\"\\$`])", r"\\\1", value)}"\n' for name, value in values.items()]
    return "".join(["# Made by Ansible (role knowledge_vault); changes by hand are lost.\n", *rows])


def vault_workflow(text: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Fill the places of a workflow.

    Args:
        text: the workflow as JSON; ``<< NAME >>`` in a text of it is a place.
        values: what stands there, by name. A number is a number where the place is the whole text.

    Returns:
        the workflow, as n8n exports it.

    Raises:
        AnsibleFilterError: a place has no value.
    """

    def value(name: str) -> Any:
        if name not in values:
            raise AnsibleFilterError(f"the workflow has a place '{name}', and no value for it was given")
        return values[name]

    def filled(part: Any) -> Any:
        if isinstance(part, dict):
            return {name: filled(one) for name, one in part.items()}
        if isinstance(part, list):
            return [filled(one) for one in part]
        if not isinstance(part, str):
            return part
        if whole := _PLACE.fullmatch(part):
            return value(whole[1])
        return _PLACE.sub(lambda place: str(value(place[1])), part)

    workflow: dict[str, Any] = filled(json.loads(text))
    return workflow


def tree_places(source: str, destination: str) -> dict[str, list[dict[str, str]]]:
    """List a folder of the role with all that is in it, as the module host_state takes it.

    Args:
        source: the folder on the controller.
        destination: where it goes on the host.

    Returns:
        ``directories`` and ``files``.
    """
    # What Python compiled where tests ran the programs is not the role's.
    found = sorted(path for path in Path(source).rglob("*") if "__pycache__" not in path.parts)
    places = {path: f"{destination}/{path.relative_to(source)}" for path in found}
    return {
        "directories": [{"path": destination}, *({"path": places[path]} for path in found if path.is_dir())],
        "files": [{"path": places[path], "source": str(path)} for path in found if path.is_file()],
    }


class FilterModule:
    """Registers the filters."""

    def filters(self) -> dict[str, Any]:
        """Name each filter."""
        return {
            "tree_places": tree_places,
            "vault_environment": vault_environment,
            "vault_problems": vault_problems,
            "vault_workflow": vault_workflow,
        }
