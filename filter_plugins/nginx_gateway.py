"""Filters of the role nginx_gateway: routes and clients in, what its templates print out."""

import json
import re
from typing import Any

from ansible.module_utils.parsing.convert_bool import boolean

NAME = re.compile(r"[a-z][a-z0-9_-]{0,30}")
# May be the owner's own. A comma is where nginx joins headers that come twice.
KEY = re.compile(r"[!-+\--~]{20,256}")
# An engine's may be the owner's own, of whatever an HTTP header carries.
UPSTREAM_KEY = re.compile(r"[!-~]{16,256}")
PATH = re.compile(r"(/([A-Za-z0-9._~-]+|\*))+/?|/")
HOST = re.compile(r"[A-Za-z0-9.-]+|[0-9A-Fa-f:]+")
# By Anthropic's list of errors.
ANTHROPIC_TYPES = {
    **{401: "authentication_error", 403: "permission_error", 404: "not_found_error", 413: "request_too_large"},
    **{429: "rate_limit_error", 504: "timeout_error"},
}
# As browsers write it, in small letters; a port may be any.
ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://([a-z0-9]([a-z0-9.-]*[a-z0-9])?|\[[0-9a-f:]+\])(:([1-9][0-9]{0,4}|\*))?")
# What a request's body names the model in, by OpenAI's and Anthropic's APIs.
MODEL_PATHS = (
    *("/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses"),
    *("/v1/messages", "/v1/messages/count_tokens"),
)
# The first releases whose nginx has libnginx-mod-http-js.
WITH_NJS = {"Debian": 12, "Ubuntu": 24.04}
SEGMENT = "[A-Za-z0-9._-]+"
"""What ``*`` in a path stands for. Nothing in it has to be escaped again on its way to the upstream."""


def _host(address: str) -> str:
    return f"[{address}]" if ":" in address else address


def gateway_routes(routes: list[dict[str, Any]], body_megabytes: int) -> list[dict[str, Any]]:
    """Work out what nginx needs to know of each route. Routes without an upstream are left out.

    Args:
        routes: variable ``nginx_gateway_routes``.
        body_megabytes: limit for a request's body where a route has none of its own.

    Returns:
        For each route its ``name``, ``type``, ``servers``, ``auth``, ``body_megabytes``, ``keepalive`` and, for an API,
        its ``locations``: ``match`` (how nginx matches it), ``methods``, ``target`` (path at the upstream) or, where it
        has variable parts, ``rewrite``.
    """
    found = []
    for route in routes:
        if not route.get("upstreams"):
            continue
        ui = route.get("type", "api") == "ui"
        entry = {
            "name": route["name"],
            "type": "ui" if ui else "api",
            "servers": [f"{_host(server['address'])}:{server['port']}" for server in route["upstreams"]],
            "auth": route.get("auth") or ("none" if ui else "client_key"),
            "upstream_key": bool(route.get("upstream_key")),
            "upstream_name": route.get("upstream_name") or "",
            "keepalive": boolean(route.get("keepalive", True), strict=False),
            "body_megabytes": route.get("max_body_megabytes") or body_megabytes,
            "path": route["path"],
            "strip": boolean(route.get("strip_path", False), strict=False),
        }
        if not ui:
            prefix = route["path"].rstrip("/")
            entry["locations"] = [_location(prefix, allowed) for allowed in route.get("allowed") or []]
        found.append(entry)
    return found


def _location(prefix: str, allowed: dict[str, Any]) -> dict[str, Any]:
    path, methods = allowed["path"], list(allowed.get("methods") or ["GET"])
    if "GET" in methods:
        methods.append("HEAD")
    location = {"methods": methods, "path": prefix + path, "target": path, "rewrite": ""}
    if "*" not in path:
        return {**location, "match": f"= {prefix}{path}"}
    # Anchored at both ends, so that no two patterns of different routes can match the same request.
    pattern = "/".join(SEGMENT if part == "*" else re.escape(part) for part in path.split("/"))
    match = f"^{re.escape(prefix)}({pattern})$"
    return {**location, "match": f'~ "{match}"', "target": "", "rewrite": match}


def gateway_has_njs(distribution: str, version: str) -> bool:
    """Tell whether the distribution packages njs for its nginx.

    Args:
        distribution: fact ``distribution``.
        version: fact ``distribution_version``.
    """
    number = re.match(r"[0-9]+([.][0-9]+)?", version)
    return distribution in WITH_NJS and number is not None and float(number[0]) >= WITH_NJS[distribution]


def gateway_routing(routes: list[dict[str, Any]], clients: list[dict[str, Any]]) -> dict[str, Any]:
    """Work out what the gateway needs to bring requests to the route that serves their model.

    Args:
        routes: what ``gateway_routes`` gave.
        clients: variable ``nginx_gateway_clients``.

    Returns:
        ``paths`` that are brought to a route by the body's model, ``body_megabytes`` (the largest limit among the
        routes), ``table`` (``routes``, in order, with ``name``, ``paths`` and ``body_bytes``, and ``clients``: the
        models of each that may not use all), and ``match``, how nginx matches what is no route's own any more.
        ``paths`` and ``match`` are empty where no route has models.
    """
    table = []
    for route in routes:
        methods = {location["target"]: location["methods"] for location in route.get("locations", [])}
        paths = [path for path in MODEL_PATHS if "POST" in methods.get(path, [])]
        if route["auth"] == "client_key" and "GET" in methods.get("/v1/models", []) and paths:
            table.append({"name": route["name"], "paths": paths, "body_bytes": int(route["body_megabytes"]) << 20})
    names = {row["name"] for row in table}
    paths = [path for path in MODEL_PATHS if any(path in row["paths"] for row in table)]
    return {
        "paths": paths,
        "match": [f"= {path}" for path in ("/v1/models", *paths)] if table else [],
        "body_megabytes": max([route["body_megabytes"] for route in routes if route["name"] in names], default=0),
        "table": {
            "routes": table,
            "clients": {client["name"]: client["models"] for client in active_clients(clients) if client.get("models")},
        },
    }


def gateway_model_problems(clients: list[dict[str, Any]], routing: bool) -> list[str]:
    """Say what is wrong with the models of clients.

    Args:
        clients: variable ``nginx_gateway_clients``.
        routing: whether requests are brought to a route by their model.
    """
    if routing:
        return []
    return [
        f"nginx_gateway_clients ({client['name']}): models can't be held against what is asked, since requests are not "
        "brought to routes by their model here. It takes Debian 12, Ubuntu 24.04 or later, and nginx_gateway_routing "
        "auto."
        for client in active_clients(clients)
        if client.get("models")
    ]


def error_body(error: dict[str, Any], form: str) -> str:
    """Write an error of nginx's own as its clients read it, between single quotes of nginx's configuration.

    Args:
        error: ``status``, ``message``, and ``type`` and ``code`` of OpenAI's.
        form: ``openai`` or ``anthropic``.

    Returns:
        JSON.
    """
    message = error["message"].replace("'", "")
    if form == "anthropic":
        status = int(error["status"])
        kind = ANTHROPIC_TYPES.get(status, "api_error" if status >= 500 else "invalid_request_error")
        return json.dumps({"type": "error", "error": {"type": kind, "message": message}})
    return json.dumps({"error": {"message": message, "type": error["type"], "param": None, "code": error["code"]}})


def gateway_limits(clients: list[dict[str, Any]], defaults: dict[str, Any]) -> dict[str, Any]:
    """Sort the clients into classes of the same limits; revoked ones are left out.

    nginx knows a limit by its zone and refuses a zone whose key has changed, so the limits are in the zone's name.

    Args:
        clients: variable ``nginx_gateway_clients``.
        defaults: ``requests_per_second``, ``burst`` and ``connections`` where a client has none of its own.

    Returns:
        ``rates`` (each with ``zone``, ``per_minute``, ``burst``, ``clients``) and ``connections`` (each with ``zone``,
        ``limit``, ``clients``).
    """
    rates: dict[tuple[int, int], list[str]] = {}
    connections: dict[int, list[str]] = {}
    for client in active_clients(clients):
        limits = {**defaults, **{name: client[name] for name in defaults if client.get(name) is not None}}
        per_minute = max(1, round(float(limits["requests_per_second"]) * 60))
        rates.setdefault((per_minute, int(limits["burst"])), []).append(client["name"])
        connections.setdefault(int(limits["connections"]), []).append(client["name"])
    return {
        "rates": [
            {"zone": f"rate_{per_minute}_{burst}", "per_minute": per_minute, "burst": burst, "clients": sorted(names)}
            for (per_minute, burst), names in sorted(rates.items())
        ],
        "connections": [
            {"zone": f"connections_{limit}", "limit": limit, "clients": sorted(names)}
            for limit, names in sorted(connections.items())
        ],
    }


def active_clients(clients: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """List the clients that are let in, by name."""
    present = [client for client in clients if client.get("state", "present") == "present"]
    return sorted(present, key=lambda client: str(client["name"]))


def gateway_origins(clients: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """List the clients whose keys pages of other origins may use.

    Args:
        clients: variable ``nginx_gateway_clients``.

    Returns:
        ``name`` of each, and a regular expression for its ``origins``. A client without any is left out.
    """
    return [
        {"name": client["name"], "pattern": "|".join(_origin_pattern(origin) for origin in client["origins"])}
        for client in active_clients(clients)
        if client.get("origins")
    ]


def _origin_pattern(origin: str) -> str:
    # A browser leaves out the port that is a scheme's own.
    anywhere = origin.removesuffix(":*")
    return re.escape(anywhere) + ("" if anywhere == origin else "(?::[0-9]+)?")


def _quoted(text: str) -> str:
    """Write a text between double quotes of nginx's configuration, which has $dollar for what it can't escape."""
    return text.replace("\\", r"\\").replace('"', r"\"").replace("$", "${dollar}")


def gateway_upstream_keys(routes: list[dict[str, Any]]) -> dict[str, str]:
    """Write a file for each route whose upstream wants a key: the header that carries it.

    Args:
        routes: variable ``nginx_gateway_routes``.

    Returns:
        text by name of the file.
    """
    return {
        f"upstream_{route['name']}.conf": f'proxy_set_header Authorization "Bearer {_quoted(route["upstream_key"])}";\n'
        for route in routes
        if route.get("upstream_key")
    }


def gateway_ports(addresses: list[str], https_port: int, http_port: int, status_port: int) -> list[dict[str, Any]]:
    """List the ports that nginx must be able to have, as preflight_check takes them.

    Args:
        addresses: variable ``nginx_gateway_listen_addresses``.
        https_port: the door's.
        http_port: of the redirects, 0 for none.
        status_port: of the status on loopback.
    """
    ports = [("127.0.0.1", status_port, "nginx_gateway_status_port")]
    for address in addresses:
        ports.append((address, https_port, "nginx_gateway_https_port"))
        if http_port:
            ports.append((address, http_port, "nginx_gateway_http_port"))
    return [
        {"address": address, "port": port, "variable": variable, "owner_processes": ["nginx"]}
        for address, port, variable in ports
    ]


def gateway_doors(routes: list[dict[str, Any]], addresses: list[str], https_port: int) -> list[dict[str, Any]]:
    """List what to ask, without a key, at each address of the door, as http_answers takes it.

    Args:
        routes: what ``gateway_routes`` gave. The first that wants a client's key is asked; none where no route does.
        addresses: variable ``nginx_gateway_listen_addresses``.
        https_port: the door's.
    """
    guarded = [route["locations"][0] for route in routes if route["auth"] == "client_key"][:1]
    return [
        {
            "name": "without a key",
            "url": f"https://{_host(address)}:{https_port}{location['path'].replace('*', 'any')}",
            "method": location["methods"][0],
            "status": [401],
        }
        for address in addresses
        for location in guarded
    ]


def gateway_door_problems(addresses: list[str], read_timeout: int) -> list[str]:
    """Say what is wrong with where the door is and how long it waits.

    Args:
        addresses: variable ``nginx_gateway_listen_addresses``.
        read_timeout: variable ``nginx_gateway_read_timeout``, seconds.
    """
    problems = []
    if not addresses:
        problems.append(
            "nginx_gateway_listen_addresses is empty: name the addresses of the host that the door is on, such as "
            "[192.168.1.12]"
        )
    problems += [
        f"nginx_gateway_listen_addresses: '{address}' is every network of the host; name the addresses that the door "
        "is to be on"
        for address in addresses
        if not address.strip("0.:*")
    ]
    if read_timeout < 600:
        problems.append(
            f"nginx_gateway_read_timeout is {read_timeout}: less than 600 seconds cuts off long prompts; set 600 or "
            "more"
        )
    return problems


def gateway_problems(
    routes: list[dict[str, Any]],
    clients: list[dict[str, Any]],
    files: list[dict[str, Any]],
    users: list[dict[str, Any]],
    upstream_ca: str = "",
) -> list[str]:
    """Say everything that is wrong with the role's lists, each with where it stands. Keys are never shown.

    Args:
        routes: variable ``nginx_gateway_routes``.
        clients: variable ``nginx_gateway_clients``.
        files: variable ``nginx_gateway_files``.
        users: variable ``nginx_gateway_users``.
        upstream_ca: variable ``nginx_gateway_upstream_ca``.
    """
    return (
        _route_problems(routes, upstream_ca)
        + _client_problems(clients)
        + _user_problems(users, routes)
        + _path_problems(routes, files)
    )


def _name_problems(variable: str, entries: list[dict[str, Any]]) -> list[str]:
    problems = []
    names = [str(entry["name"]) for entry in entries]
    for index, name in enumerate(names):
        if not NAME.fullmatch(name):
            problems.append(
                f"{variable}[{index}].name is '{name}': a name begins with a small letter and goes on with small "
                "letters, digits, _ and - (31 at most)."
            )
        if names.index(name) != index:
            problems.append(f"{variable}[{index}].name '{name}' is there twice: give each its own.")
    return problems


def _route_problems(routes: list[dict[str, Any]], upstream_ca: str) -> list[str]:
    variable = "nginx_gateway_routes"
    problems = _name_problems(variable, routes)
    for index, route in enumerate(routes):
        where = f"{variable}[{index}] ({route['name']})"
        ui = route.get("type", "api") == "ui"
        path = route["path"]
        if "*" in path or not PATH.fullmatch(path) or not path.endswith("/"):
            problems.append(f"{where}: path '{path}' must begin and end with / and be plain, such as /llama/.")
        if ui and path == "/":
            problems.append(f"{where}: a user interface can't have the path /, which is the front page's.")
        if not ui and not route.get("allowed"):
            problems.append(f"{where}: allowed is empty, so nothing would be let through: list the API's paths.")
        if ui and route.get("auth") == "client_key":
            problems.append(f"{where}: browsers send no client key; auth of a user interface is none or basic.")
        if not ui and route.get("auth") == "basic":
            problems.append(f"{where}: auth of an API is client_key or none.")
        name = route.get("upstream_name") or ""
        if name and not HOST.fullmatch(name):
            problems.append(f"{where}: upstream_name '{name}' is no name such as engines.lan.")
        if name and not upstream_ca:
            problems.append(
                f"{where}: upstream_name asks over TLS, and nginx_gateway_upstream_ca names no authority to check by."
            )
        for allowed in route.get("allowed") or []:
            if not PATH.fullmatch(allowed["path"]):
                problems.append(f"{where}: allowed path '{allowed['path']}' is not like /v1/models or /v2/models/*.")
        for server in route.get("upstreams") or []:
            if not HOST.fullmatch(str(server["address"])) or not 1 <= int(server["port"]) <= 65535:
                problems.append(
                    f"{where}: upstream '{server['address']}:{server['port']}' is no address and port (1 to 65535)."
                )
        if route.get("upstream_key") and not UPSTREAM_KEY.fullmatch(str(route["upstream_key"])):
            problems.append(f"{where}: upstream_key must be 16 to 256 visible ASCII signs (it is not shown).")
    return problems


def _client_problems(clients: list[dict[str, Any]]) -> list[str]:
    variable = "nginx_gateway_clients"
    problems = _name_problems(variable, clients)
    seen: dict[str, str] = {}
    for index, client in enumerate(clients):
        where = f"{variable}[{index}] ({client['name']})"
        if client.get("state", "present") != "present":
            continue
        for option in ("key", "former_key") if client.get("former_key") else ("key",):
            key = str(client.get(option) or "")
            if not KEY.fullmatch(key):
                problems.append(
                    f"{where}: {option} must be 20 to 256 visible ASCII signs without a comma (it is not shown). "
                    "openssl rand -hex 32 makes a good one."
                )
            # nginx compares without regard to case.
            elif key.lower() in seen:
                problems.append(f"{where}: {option} is that of {seen[key.lower()]} too; each client has its own.")
            seen.setdefault(key.lower(), str(client["name"]))
        problems += [
            f"{where}: origins has '{origin}', which is not scheme://host in small letters, with a port or :* for any, "
            "such as app://obsidian.md or http://localhost:*."
            for origin in client.get("origins") or []
            if not ORIGIN.fullmatch(str(origin))
        ]
        for name, least in (("requests_per_second", 1 / 60), ("burst", 0), ("connections", 1)):
            if client.get(name) is not None and float(client[name]) < least:
                problems.append(f"{where}: {name} is {client[name]}, less than {least:g}.")
    return problems


def _user_problems(users: list[dict[str, Any]], routes: list[dict[str, Any]]) -> list[str]:
    variable = "nginx_gateway_users"
    problems = _name_problems(variable, users)
    problems += [
        f"{variable}[{index}] ({user['name']}): password must have 16 characters at least (it is not shown)."
        for index, user in enumerate(users)
        if len(str(user["password"])) < 16
    ]
    wanting = [route["name"] for route in routes if route.get("auth") == "basic" and route.get("upstreams")]
    if wanting and not users:
        problems.append(f"{variable} is empty, so nobody could use {', '.join(wanting)} (auth basic): name a user.")
    return problems


def _path_problems(routes: list[dict[str, Any]], files: list[dict[str, Any]]) -> list[str]:
    """Find paths that two want to have."""
    taken = {str(entry["path"]): f"nginx_gateway_files ({entry['file']})" for entry in files}
    problems = [
        f"nginx_gateway_files: path '{entry['path']}' is not like / or /ca.crt."
        for entry in files
        if not PATH.fullmatch(entry["path"]) or "*" in entry["path"]
    ]
    for route in routes:
        if not route.get("upstreams"):
            continue
        if route.get("type", "api") == "ui":
            paths = [route["path"]]
        else:
            prefix = route["path"].rstrip("/")
            paths = [prefix + allowed["path"] for allowed in route.get("allowed") or []]
        for path in paths:
            if path in taken:
                problems.append(
                    f"nginx_gateway_routes ({route['name']}): the path {path} is that of {taken[path]} already. "
                    "Give the route another path."
                )
            taken.setdefault(path, f"the route {route['name']}")
    return problems


class FilterModule:
    """Registers the filters."""

    def filters(self) -> dict[str, Any]:
        """Name each filter."""
        return {
            "gateway_routes": gateway_routes,
            "gateway_routing": gateway_routing,
            "gateway_has_njs": gateway_has_njs,
            "gateway_model_problems": gateway_model_problems,
            "error_body": error_body,
            "gateway_limits": gateway_limits,
            "gateway_origins": gateway_origins,
            "active_clients": active_clients,
            "gateway_problems": gateway_problems,
            "gateway_door_problems": gateway_door_problems,
            "gateway_doors": gateway_doors,
            "gateway_ports": gateway_ports,
            "gateway_upstream_keys": gateway_upstream_keys,
        }
