# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the role n8n checks of its settings before it changes anything."""

from __future__ import annotations

import ipaddress
import re
from typing import Any

_SECRET = re.compile(r"[A-Za-z0-9._~-]*")
_DIR = re.compile(r"(/[\w.@+-]+){2,}")
_EMAIL = re.compile(r"[A-Za-z0-9._%+-]+@[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+")
_FILE = re.compile(r"(/[\w.@+-]+)+|")
_IMAGE = re.compile(r"\S+/\S+:2\.\d+\.\d+")
# As Docker reads it.
_SIZE = re.compile(r"(\d+(\.\d+)? ?[bkmg]?b?)?", re.IGNORECASE)
_LOG_SIZE = re.compile(r"\d+(\.\d+)? ?[bkmg]?b?", re.IGNORECASE)
_PROJECT = re.compile(r"[a-z0-9][a-z0-9_-]*")
# It stands between quotation marks in YAML, where Compose looks for variables.
_PUBLIC_URL = re.compile(r"https?://[^/\s\"$\\]+/([^\s\"$\\]*/)?")
_TIMEZONE = re.compile(r"[A-Za-z0-9_+-]+(/[A-Za-z0-9_+-]+)*")
_HOST_NAME = re.compile(r"[A-Za-z0-9.*-]+")
_ID = re.compile(r"[A-Za-z0-9_-]*")

SECRET_LENGTHS = {
    # More than that bcrypt does not look at.
    "owner_password": (12, 72),
    "encryption_key": (32, 256),
}
ID_LENGTHS = {
    # Longer ones do not fit into n8n's database.
    "workflows": (8, 36),
    "credentials": (8, 16),
}
LEAST = ("concurrency", "keep_executions_hours", "start_timeout")


def _secret_problems(settings: dict[str, Any]) -> list[str]:
    problems = []
    for name, (least, most) in SECRET_LENGTHS.items():
        value = settings[name]
        if not (least <= len(value) <= most and _SECRET.fullmatch(value)):
            what = "too short, too long or has other characters" if value else "empty"
            problems.append(
                f"n8n_{name} is {what}; it needs {least} to {most} letters, digits or ._~- (make one with: "
                "openssl rand -hex 32)"
            )
    return problems


def _key_problems(found: dict[str, Any], data_dir: str) -> list[str]:
    if found["encryption_key_matches"] is not False:
        return []
    return [
        f"n8n_encryption_key is not the one that {data_dir} was made with, and n8n can not read its credentials with "
        f"another. Put the former key back; {data_dir}/config holds it"
    ]


def _address_problems(address: str) -> list[str]:
    try:
        if not ipaddress.IPv4Address(address).is_unspecified:
            return []
    except ValueError:
        pass
    return [f"n8n_listen_address: '{address}' is not one IPv4 address of the host, such as 127.0.0.1"]


def _network_problems(networks: list[str]) -> list[str]:
    problems = []
    for network in networks:
        try:
            ipaddress.ip_network(network)
            good = "/" in network
        except ValueError:
            good = False
        if not good:
            problems.append(f"n8n_reachable_networks: '{network}' is no network such as 192.168.1.11/32")
    return problems


def _entry_problems(settings: dict[str, Any]) -> list[str]:
    return [
        f"n8n_{kind}: the id '{entry['id']}' of {entry['name']} is not of {least} to {most} letters, digits, dashes "
        "and underscores"
        for kind, (least, most) in ID_LENGTHS.items()
        for entry in settings[kind]
        if not (least <= len(entry["id"]) <= most and _ID.fullmatch(entry["id"]))
    ]


def n8n_problems(settings: dict[str, Any], found: dict[str, Any]) -> list[str]:
    """Say what n8n could not work with. Passwords, keys and what is in credentials are never shown.

    Args:
        settings: the role's variables by their names without ``n8n_``.
        found: what the module n8n_info tells of the host.

    Returns:
        a sentence for each problem.
    """
    forms = {
        "memory_limit": (_SIZE, "is no number with b, k, m or g behind it, such as 3g, and not nothing for no limit"),
        "log_max_size": (_LOG_SIZE, "is no number with b, k, m or g behind it, such as 20m"),
        "project": (_PROJECT, "is not of lower-case letters, digits, dashes and underscores, such as ai-idp-n8n"),
        "dir": (_DIR, "is no absolute path of letters, digits and . _ @ + - below another folder, such as /srv/n8n"),
        "image": (_IMAGE, "is no whole name with a tag of version 2, such as docker.io/n8nio/n8n:2.41.1"),
        "owner_email": (_EMAIL, "is no e-mail address such as owner@ai-idp.lan"),
        "public_url": (_PUBLIC_URL, "is no http(s) address that ends with a slash"),
        "timezone": (_TIMEZONE, "is no time zone such as Europe/Berlin"),
        "files_dir": (_FILE, "is no absolute path of letters, digits and . _ @ + -, such as /srv/files"),
        "ca_file": (_FILE, "is no absolute path of letters, digits and . _ @ + -, such as /etc/ssl/house.crt"),
    }
    problems = _secret_problems(settings) + _key_problems(found, f"{settings['dir']}/data")
    problems += [
        f"n8n_{name}: '{settings[name]}' {what}"
        for name, (form, what) in forms.items()
        if not form.fullmatch(str(settings[name]))
    ]
    problems += _address_problems(settings["listen_address"])
    ports = {name: int(settings[name]) for name in ("port", "broker_port")}
    problems += [
        f"n8n_{name}: '{port}' is no port from 1024 to 65535"
        for name, port in ports.items()
        if not 1024 <= port <= 65535
    ]
    problems += _network_problems(settings["reachable_networks"])
    problems += [
        f"n8n_reachable_names: '{name}' is no name such as gateway.lan"
        for name in settings["reachable_names"]
        if not _HOST_NAME.fullmatch(name)
    ]
    problems += _entry_problems(settings)
    problems += [f"n8n_{name}: '{settings[name]}' is no number from 1 on" for name in LEAST if int(settings[name]) < 1]
    return problems


class FilterModule:
    """Registers the filter."""

    def filters(self) -> dict[str, Any]:
        """Name it."""
        return {"n8n_problems": n8n_problems}
