# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What docker_engine checks in its settings before it changes anything."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from typing import Any

OLDEST = {"Debian": (13,), "Ubuntu": (22, 4)}
LARGEST_PREFIX = 30
SMALLEST_PREFIX = 8


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", text))


def is_network(text: str) -> bool:
    """Whether a text is an IPv4 address with a prefix that leaves room for containers (8 to 30)."""
    _, _, prefix = text.partition("/")
    if not re.fullmatch(r"\d{1,2}", prefix) or not SMALLEST_PREFIX <= int(prefix) <= LARGEST_PREFIX:
        return False
    try:
        ipaddress.IPv4Interface(text)
    except ValueError:
        return False
    return True


def _pool_problem(pool: Mapping[str, Any]) -> str | None:
    base, size = str(pool.get("base", "")), str(pool.get("size", ""))
    if is_network(base) and size.isdigit() and int(base.split("/")[1]) <= int(size) <= LARGEST_PREFIX:
        return None
    return (
        f"docker_engine_address_pools: '{base}' cut into /{size} is no network with a size between its own prefix "
        f"and {LARGEST_PREFIX}"
    )


def docker_engine_problems(
    pools: list[Mapping[str, Any]],
    distribution: str,
    distribution_version: str,
    log_max_size: str,
    log_max_file: int | str,
    bip: str,
    registry_mirrors: list[str],
    insecure_registries: list[str],
    data_root: str,
) -> list[str]:
    """Say what is wrong with the settings of docker_engine, each with what is allowed.

    Args:
        pools: docker_engine_address_pools, each with ``base`` and ``size``.
        distribution: what the host runs.
        distribution_version: its version.
        log_max_size: size at which a log is rotated.
        log_max_file: how many logs of a container are kept.
        bip: address of the default bridge with its prefix, or empty.
        registry_mirrors: URLs of mirrors.
        insecure_registries: registries that are spoken to without TLS.
        data_root: the engine's data folder, or empty.

    Returns:
        a sentence for each problem.
    """
    problems = []
    if distribution not in OLDEST or _version(distribution_version) < OLDEST[distribution]:
        problems.append(f"the host runs {distribution} {distribution_version}, not Debian 13 or Ubuntu 22.04 or later")
    if not re.fullmatch(r"[1-9]\d*[kmg]", log_max_size):
        problems.append(f"docker_engine_log_max_size: '{log_max_size}' is no size such as 10m (k, m or g)")
    if not str(log_max_file).isdigit() or int(log_max_file) < 1:
        problems.append(f"docker_engine_log_max_file: '{log_max_file}' is less than 1")
    if bip and not is_network(bip):
        problems.append(f"docker_engine_bip: '{bip}' is no address with prefix such as 172.29.0.1/24")
    problems += [problem for problem in map(_pool_problem, pools) if problem]
    for mirror in registry_mirrors:
        if not re.fullmatch(r"https?://[^/\s]+/?", mirror):
            problems.append(
                f"docker_engine_registry_mirrors: '{mirror}' is no URL such as https://mirror.example (no path)"
            )
    for registry in insecure_registries:
        if not re.fullmatch(r"[\w.:\[\]-]+(/\d{1,3})?", registry):
            problems.append(f"docker_engine_insecure_registries: '{registry}' is no host:port or network (no http://)")
    if data_root and not re.match(r"/[^/]", data_root):
        problems.append(f"docker_engine_data_root: '{data_root}' is no absolute path")
    return problems


def docker_engine_accounts(users: list[str]) -> list[dict[str, Any]]:
    """Accounts for host_state: each must be there, and be in the group docker."""
    return [{"name": user, "groups": ["docker"], "named_by": "docker_engine_users"} for user in users]


class FilterModule:
    """Filters by their names in templates."""

    def filters(self) -> dict[str, object]:
        return {"docker_engine_problems": docker_engine_problems, "docker_engine_accounts": docker_engine_accounts}
