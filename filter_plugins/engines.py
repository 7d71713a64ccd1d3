# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What follows from the engines' table (playbooks/group_vars/all/engines.yml). There is no second table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ansible.module_utils.parsing.convert_bool import boolean

Item = dict[str, Any]

# A name that the certificate of every engine's host has: nginx checks one name for all servers behind a route.
ENGINES_NAME = "engines.ai-idp.internal"


def engine_ports(engines: Iterable[Item]) -> dict[str, int]:
    """Number every port of the engines.

    Args:
        engines: the table.

    Returns:
        The port of each engine by its name, and of metrics that have one of their own by ``NAME_metrics``.
    """
    ports = {}
    for row in engines:
        ports[str(row["name"])] = int(row["port"])
        if "port" in row["metrics"]:
            ports[f"{row['name']}_metrics"] = int(row["metrics"]["port"])
    return ports


def engine_keys(engines: Iterable[Item], group: str) -> list[str]:
    """Name the secrets that the engines of a group want."""
    return [row["key"] for row in engines if row["hosts"] == group and row.get("key")]


def engine_doors(engines: Iterable[Item]) -> list[Item]:
    """List the ports that the engines' gates have on their hosts' addresses.

    Args:
        engines: the table.

    Returns:
        ``name``, ``hosts``, ``port`` and ``admits`` of each, as the doors of other services have them, and what it
        ``wants`` of who comes in.
    """
    return [
        {
            **{key: row[key] for key in ("name", "hosts", "port", "admits")},
            "wants": "TLS, the platform's key, a listed path",
        }
        for row in engines
    ]


def engine_gates(engines: Iterable[Item], groups: Iterable[str], secrets: Mapping[str, str]) -> list[Item]:
    """Say what the gate of a host lets through to which engine.

    Args:
        engines: the table.
        groups: the host's groups, as far as their engines are there.
        secrets: secrets by name; one that is not made yet is missing.

    Returns:
        The host's engines, as the role engine_gate takes them. What tells whether an engine is well is let through
        beside what clients ask.
    """
    mine = {*groups}
    return [
        {
            **{"name": row["name"], "port": row["port"], "upstream_port": row["port"]},
            "keepalive": boolean(row.get("keepalive", True), strict=False),
            "allowed": _let_through(row),
            "metrics": {key: row["metrics"][key] for key in ("path", "port") if key in row["metrics"]},
            **({"upstream_key": secrets.get(row["key"]) or ""} if row.get("key") else {}),
        }
        for row in engines
        if row["hosts"] in mine
    ]


def _let_through(row: Item) -> list[Item]:
    paths = [dict(allowed.items()) for allowed in row.get("paths") or []]
    known = {allowed["path"] for allowed in paths}
    return paths + ([{"path": row["health"], "methods": ["GET"]}] if row.get("health", "") not in {"", *known} else [])


def engine_routes(engines: Iterable[Item], key: str) -> list[Item]:
    """Say where the gateway has the engines, and what it lets through.

    Args:
        engines: the table.
        key: the key of the engines' gates; empty while it is not made yet.

    Returns:
        A route for each engine that the gateway has, with the group of its ``hosts`` and its ``port``, as
        ``upstream_routes`` takes it.
    """
    return [
        {
            **{"name": row["name"], "path": row["route"], "hosts": row["hosts"], "port": row["port"]},
            "allowed": [dict(allowed.items()) for allowed in row["paths"]],
            **{"upstream_key": key, "upstream_name": ENGINES_NAME},
        }
        for row in engines
        if row.get("route")
    ]


def engine_jobs(engines: Iterable[Item], key: str, ca_file: str) -> list[Item]:
    """Say where Prometheus reads the engines.

    Args:
        engines: the table.
        key: the key of the engines' gates; empty while it is not made yet.
        ca_file: the authority that signs the gates' certificates, on Prometheus' host.

    Returns:
        A job for each engine, with the group of its ``hosts`` and its ``port``, as ``scrape_jobs`` takes it.
    """
    return [
        {
            **{"name": row["metrics"]["job"], "metrics_path": row["metrics"]["path"]},
            **{"hosts": row["hosts"], "port": row["port"]},
            **{"scheme": "https", "ca_file": ca_file, "credentials": key},
        }
        for row in engines
    ]


def certificate_names(host: str, engine_hosts: Iterable[str]) -> list[str]:
    """Name what the certificate of a host is for: the host, and the engines where it has any."""
    return [host, ENGINES_NAME] if host in {*engine_hosts} else [host]


class FilterModule:
    """Registers the filters."""

    def filters(self) -> dict[str, Any]:
        """Name each filter."""
        functions = (
            *(engine_ports, engine_keys, engine_doors, engine_gates, engine_routes, engine_jobs),
            certificate_names,
        )
        return {function.__name__: function for function in functions}
