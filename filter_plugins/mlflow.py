# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the role mlflow checks of its settings, and by which names its server may be called."""

from __future__ import annotations

import ipaddress
import re
from typing import Any

_SECRET = re.compile(r"[A-Za-z0-9._~-]*")
_USERNAME = re.compile(r"[A-Za-z0-9._-]+")
_IMAGE = re.compile(r"\S+/\S+:(?!latest)\w[\w.-]*")
_DIR = re.compile(r"(/[\w.@+-]+){2,}")
# As Docker reads it.
_SIZE = re.compile(r"(\d+(\.\d+)? ?[bkmg]?b?)?", re.IGNORECASE)
_LOG_SIZE = re.compile(r"\d+(\.\d+)? ?[bkmg]?b?", re.IGNORECASE)
_PROJECT = re.compile(r"[a-z0-9][a-z0-9_-]*")
_PATH = re.compile(r"/([A-Za-z0-9._~-]+/)+")
_HOST = re.compile(r"(\[[0-9A-Fa-f:]+\]|[A-Za-z0-9.-]+)(:\d+)?")
# The vendor's image has this driver alone, and SQLAlchemy reads postgresql:// as another.
_DATABASE = re.compile(r"postgresql\+psycopg2://\S+")


def mlflow_hosts(own: list[str], port: int | str, allowed: list[str]) -> list[str]:
    """List every value of the header Host that the server answers.

    Clients leave the port out where it is the scheme's own, so each name of the gateway counts with and without it.

    Args:
        own: addresses that the server is published on, besides the loopback's names.
        port: the port that it is published on.
        allowed: names of the gateway; one with a port counts as it is.

    Returns:
        each once, the server's own first.
    """
    names = [f"{name}:{port}" for name in ("127.0.0.1", "localhost", *own)]
    bare = [name for name in allowed if not re.search(r":\d+$", name)]
    return list(dict.fromkeys([*names, *allowed, *(f"{name}:443" for name in bare)]))


def _secret_problems(name: str, value: str, least: int) -> list[str]:
    if len(value) >= least and _SECRET.fullmatch(value):
        return []
    what = "too short or has other characters" if value else "empty"
    return [
        f"mlflow_{name} is {what}; it needs {least} or more letters, digits or ._~- (make one with: openssl rand -hex "
        "32)"
    ]


def _address_problems(address: str) -> list[str]:
    try:
        if not ipaddress.IPv4Address(address).is_unspecified:
            return []
    except ValueError:
        pass
    return [f"mlflow_bind_address: '{address}' is not one IPv4 address of the host, such as 127.0.0.1"]


def mlflow_problems(settings: dict[str, Any]) -> list[str]:
    """Say what MLflow could not work with. Passwords and keys are never shown.

    Args:
        settings: the role's variables by their names without ``mlflow_``.

    Returns:
        a sentence for each problem.
    """
    problems = _secret_problems("admin_password", settings["admin_password"], 12)
    problems += _secret_problems("flask_secret_key", settings["flask_secret_key"], 32)
    forms = {
        "admin_username": (_USERNAME, "has characters other than letters, digits and ._-"),
        "image": (
            _IMAGE,
            "is no whole name with a tag other than latest, such as ghcr.io/mlflow/mlflow:v3.17.0-full",
        ),
        "memory_limit": (_SIZE, "is no number with b, k, m or g behind it, such as 3g, and not nothing for no limit"),
        "log_max_size": (_LOG_SIZE, "is no number with b, k, m or g behind it, such as 20m"),
        "project": (_PROJECT, "is not of lower-case letters, digits, dashes and underscores, such as ai-idp-mlflow"),
        "dir": (_DIR, "is no absolute path of letters, digits and . _ @ + - below another folder, such as /srv/mlflow"),
        "path": (_PATH, "is no path that begins and ends with a slash, such as /mlflow/"),
    }
    problems += [
        f"mlflow_{name}: '{settings[name]}' {what}"
        for name, (form, what) in forms.items()
        if not form.fullmatch(str(settings[name]))
    ]
    problems += _address_problems(settings["bind_address"])
    if not 1024 <= int(settings["port"]) <= 65535:
        problems.append(f"mlflow_port: '{settings['port']}' is no port from 1024 to 65535")
    problems += [
        f"mlflow_allowed_hosts: '{host}' is no name or address, with or without a port; patterns are not taken"
        for host in settings["allowed_hosts"]
        if not _HOST.fullmatch(host)
    ]
    if settings["backend_store_uri"] and not _DATABASE.fullmatch(settings["backend_store_uri"]):
        problems.append(
            "mlflow_backend_store_uri is no address such as postgresql+psycopg2://mlflow:PASSWORD@database.lan/mlflow; "
            "what is there is not shown"
        )
    problems += [
        f"mlflow_{name}: '{settings[name]}' is no number from 1 on"
        for name in ("start_timeout", "workers")
        if int(settings[name]) < 1
    ]
    return problems


class FilterModule:
    """Registers the filters."""

    def filters(self) -> dict[str, Any]:
        """Name each filter."""
        return {"mlflow_hosts": mlflow_hosts, "mlflow_problems": mlflow_problems}
