# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the role postgresql checks of its settings, and whom it admits."""

from __future__ import annotations

import ipaddress
import re
from collections import Counter
from typing import Any

_NAME = re.compile(r"[a-z_][a-z0-9_]{0,62}")
_PASSWORD = re.compile(r"[A-Za-z0-9._~-]{12,}")
RESERVED = ("postgres", "template0", "template1", "all", "replication", "sameuser", "samerole")
RELEASES = {"trixie": "17", "noble": "16"}


def postgresql_release(distribution_release: str) -> str:
    """Tell the major version that a distribution has; empty where it is not known."""
    return RELEASES.get(distribution_release, "")


def postgresql_networks(addresses: list[str], networks: list[str]) -> list[str]:
    """List the networks from which owners are admitted: the host itself, by each address, and the clients'.

    Args:
        addresses: what the server listens on.
        networks: networks of clients.

    Returns:
        networks as ADDRESS/LENGTH, each once.
    """
    own = [str(ipaddress.ip_network(address)) for address in addresses]
    return list(dict.fromkeys([*own, *(str(ipaddress.ip_network(network)) for network in networks)]))


def postgresql_foreign(cluster_dir: str, foreign: bool) -> list[str]:
    """Refuse a server that somebody else made.

    Args:
        cluster_dir: folder of its settings.
        foreign: whether it is somebody else's.

    Returns:
        a sentence, or nothing.
    """
    if not foreign:
        return []
    return [
        f"this host has a PostgreSQL that somebody else made ({cluster_dir}); take another host, or move its data and "
        "remove it with pg_dropcluster"
    ]


def _is_address(text: str) -> bool:
    try:
        return not ipaddress.ip_address(text).is_unspecified
    except ValueError:
        return False


def _is_network(text: str) -> bool:
    try:
        return "/" in text and ipaddress.ip_network(text).prefixlen > 0
    except ValueError:
        return False


def postgresql_problems(settings: dict[str, Any]) -> list[str]:
    """Say what PostgreSQL could not work with. Passwords are never shown.

    Args:
        settings: the role's variables by their names without ``postgresql_``; ``version`` is the one that counts.

    Returns:
        a sentence for each problem.
    """
    problems = []
    if not re.fullmatch(r"\d{2}", settings["version"]):
        problems.append(
            f"postgresql_version: '{settings['version']}' is no major version such as 17; name the one that this "
            "distribution has"
        )
    if not settings["listen_addresses"]:
        problems.append("postgresql_listen_addresses is empty; name one address of the host, such as 127.0.0.1")
    problems += [
        f"postgresql_listen_addresses: '{address}' is not one address of the host, such as 127.0.0.1"
        for address in settings["listen_addresses"]
        if not _is_address(address)
    ]
    problems += [
        f"postgresql_client_networks: '{network}' is no network such as 10.0.0.0/24"
        for network in settings["client_networks"]
        if not _is_network(network)
    ]
    if not 1024 <= int(settings["port"]) <= 65535:
        problems.append(f"postgresql_port: '{settings['port']}' is no port from 1024 to 65535")
    for database in settings["databases"]:
        problems += [
            f"postgresql_databases: the {kind} '{database[kind]}' has to be lower case letters, digits and "
            f"underscores, and none of {', '.join(RESERVED)}"
            for kind in ("name", "owner")
            if not _NAME.fullmatch(database[kind]) or database[kind] in RESERVED or database[kind].startswith("pg_")
        ]
        if not _PASSWORD.fullmatch(database["password"]):
            problems.append(
                f"postgresql_databases: the password of {database['owner']} is too short or has other characters; it "
                "needs 12 or more letters, digits or ._~- (make one with: openssl rand -hex 32)"
            )
    for kind in ("name", "owner"):
        counted = Counter(database[kind] for database in settings["databases"])
        problems += [
            f"postgresql_databases: the {kind} '{one}' is there twice" for one, count in counted.items() if count > 1
        ]
    return problems


class FilterModule:
    """Registers the filters."""

    def filters(self) -> dict[str, Any]:
        """Name each filter."""
        return {
            "postgresql_foreign": postgresql_foreign,
            "postgresql_networks": postgresql_networks,
            "postgresql_problems": postgresql_problems,
            "postgresql_release": postgresql_release,
        }
