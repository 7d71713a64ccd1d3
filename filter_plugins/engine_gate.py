# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Filters of the role engine_gate: the engines of a host in, what its template prints out."""

from __future__ import annotations

import re
from collections.abc import Iterable
from ipaddress import ip_address
from typing import Any

from ansible.module_utils.parsing.convert_bool import boolean

Item = dict[str, Any]

# As short as nobody guesses, and of signs that stand for nothing in nginx's settings.
KEY = re.compile(r"[A-Za-z0-9._~+/=-]{20,256}")
# An engine's may be the owner's own, of whatever an HTTP header carries.
UPSTREAM_KEY = re.compile(r"[!-~]{16,256}")
NAME = re.compile(r"[a-z][a-z0-9_]{0,30}")
PATH = re.compile(r"(/([A-Za-z0-9._~-]+|\*))+")


def gate_routes(doors: Iterable[Item]) -> list[Item]:
    """Make of each door what the gateway knows as a route, so that both match paths in one way.

    Args:
        doors: variable ``engine_gate_doors``.

    Returns:
        A route for each door, and one for metrics that have a port of their own (``NAME_metrics``).
    """
    routes = []
    for door in doors:
        metrics = door.get("metrics") or {}
        own_port = metrics.get("port") or door["upstream_port"]
        more = {"keepalive": boolean(door.get("keepalive", True), strict=False)}
        key = {"upstream_key": door["upstream_key"]} if door.get("upstream_key") else {}
        paths = [dict(allowed.items()) for allowed in door.get("allowed") or []]
        figures = [{"path": metrics["path"], "methods": ["GET"]}] if metrics else []
        together = int(own_port) == int(door["upstream_port"])
        paths += figures if together else []
        routes.append(_route(door["name"], int(door["upstream_port"]), paths, key | more))
        if not together:
            routes.append(_route(f"{door['name']}_metrics", int(own_port), figures, more))
    return [route for route in routes if route["allowed"]]


def _route(name: str, port: int, allowed: list[Item], more: Item) -> Item:
    return {
        **{"name": name, "path": "/", "allowed": allowed},
        "upstreams": [{"address": "127.0.0.1", "port": port}],
        **more,
    }


def gate_ports(doors: Iterable[Item], address: str, status_port: int, project: str) -> list[Item]:
    """List the ports that the gate must be able to have, as preflight_check takes them.

    Args:
        doors: variable ``engine_gate_doors``.
        address: variable ``engine_gate_listen_address``.
        status_port: of the release's name on loopback.
        project: variable ``engine_gate_former_project``.
    """
    rows: list[Item] = [
        {"address": address, "port": int(door["port"]), "variable": f"engine_gate_doors ({door['name']})"}
        for door in doors
    ]
    rows.append({"address": "127.0.0.1", "port": status_port, "variable": "engine_gate_status_port"})
    # The edge's engine held its door itself before there was a gate.
    owner = {"owner_unit": "ai-idp-gate.service", "owner_processes": ["nginx", "llama-server"]}
    return [{**row, **owner, **({"owner_compose_project": project} if project else {})} for row in rows]


def gate_asks(doors: Iterable[Item], address: str) -> list[Item]:
    """List what to ask each door without a key, as http_answers takes it.

    Args:
        doors: variable ``engine_gate_doors``.
        address: variable ``engine_gate_listen_address``.
    """
    host = f"[{address}]" if ":" in address else address
    asks = []
    for door in doors:
        metrics = [{**door["metrics"], "methods": ["GET"]}] if door.get("metrics") else []
        first = [*(door.get("allowed") or []), *metrics][0]
        url = f"https://{host}:{door['port']}"
        method = (first.get("methods") or ["GET"])[0]
        asks += [
            {"name": f"{door['name']} without a key", "url": url + first["path"].replace("*", "any"), "method": method,
             "status": [401]},
            {"name": f"{door['name']}, a path that is not let through", "url": f"{url}/", "status": [404]},
        ]  # fmt: skip
    return asks


def gate_problems(
    doors: Iterable[Item], keys: Iterable[str], address: str, own: Iterable[str], read_timeout: int
) -> list[str]:
    """Say everything that is wrong with the role's settings, each with where it stands. Keys are never shown.

    Args:
        doors: variable ``engine_gate_doors``.
        keys: variable ``engine_gate_keys``.
        address: variable ``engine_gate_listen_address``.
        own: addresses of the host.
        read_timeout: variable ``engine_gate_read_timeout``, seconds.
    """
    rows = [*doors]
    problems = _address_problems(address, [*own])
    given = [*keys]
    if not given:
        problems.append("engine_gate_keys is empty, so nobody would be let in: give the platform's key.")
    signs = "must be 20 to 256 letters, digits and ._~+/=- (it is not shown)"
    problems += [
        f"engine_gate_keys[{at}] {signs}: openssl rand -hex 32 makes a good one."
        for at, key in enumerate(given)
        if not KEY.fullmatch(str(key))
    ]
    if not rows:
        problems.append("engine_gate_doors is empty: list the engines of this host, or set engine_gate_state: absent.")
    if read_timeout < 600:
        problems.append(
            f"engine_gate_read_timeout is {read_timeout}: less than 600 seconds cuts off long prompts; set 600 or more."
        )
    names, ports = [str(row["name"]) for row in rows], [int(row["port"]) for row in rows]
    for at, row in enumerate(rows):
        where = f"engine_gate_doors[{at}] ({row['name']})"
        if not NAME.fullmatch(names[at]) or names[at].endswith("_metrics"):
            problems.append(
                f"{where}: a name begins with a small letter, goes on with small letters, digits and _ (31 at most), "
                "and does not end in _metrics."
            )
        if names.index(names[at]) != at or ports.index(ports[at]) != at:
            problems.append(f"{where}: name or port is there twice: give each engine its own.")
        if not row.get("allowed") and not row.get("metrics"):
            problems.append(f"{where}: allowed and metrics are empty, so nothing would be let through.")
        if row.get("upstream_key") and not UPSTREAM_KEY.fullmatch(str(row["upstream_key"])):
            problems.append(f"{where}: upstream_key must be 16 to 256 visible ASCII signs (it is not shown).")
        paths = [allowed["path"] for allowed in row.get("allowed") or []]
        paths += [row["metrics"]["path"]] if row.get("metrics") else []
        for path in paths:
            if not PATH.fullmatch(path):
                problems.append(f"{where}: path '{path}' is not like /v1/models or /v2/models/*.")
            if paths.count(path) > 1:
                problems.append(f"{where}: path '{path}' is there twice.")
    return list(dict.fromkeys(problems))


def _address_problems(address: str, own: list[str]) -> list[str]:
    there = f"this host has {', '.join(own) or 'none that is known'}"
    try:
        wanted = ip_address(address)
    except ValueError:
        return [f"engine_gate_listen_address is '{address}': name the address that the gateway calls ({there})."]
    if wanted.is_unspecified:
        return [f"engine_gate_listen_address is '{address}', which is every network of the host; name one ({there})."]
    if own and not wanted.is_loopback and address not in own:
        return [f"engine_gate_listen_address is '{address}', which this host does not have ({there})."]
    return []


class FilterModule:
    """Registers the filters."""

    def filters(self) -> dict[str, Any]:
        """Name each filter."""
        functions = (gate_routes, gate_ports, gate_asks, gate_problems)
        return {function.__name__: function for function in functions}
