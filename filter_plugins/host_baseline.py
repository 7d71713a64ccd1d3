# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What host_baseline checks in its settings before it changes anything."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping
from typing import Any

DISTRIBUTIONS = ("Debian", "Ubuntu")
LAST_PORT = 65535


def is_source(source: str) -> bool:
    """Whether nft takes a text as an address or network: no netmask, no name of an interface in it."""
    if not re.fullmatch(r"[0-9a-fA-F:.]+(/(0|[1-9]\d{0,2}))?", source):
        return False
    try:
        ipaddress.ip_interface(source)
    except ValueError:
        return False
    return True


def is_port(port: str) -> bool:
    """Whether a text is a port, or a range of ports as first-last."""
    if not re.fullmatch(r"\d{1,5}(-\d{1,5})?", port):
        return False
    ends = [int(end) for end in port.split("-")]
    return 1 <= ends[0] <= ends[-1] <= LAST_PORT


def rule_problems(rule: Mapping[str, Any], where: str) -> list[str]:
    """Say what is wrong with one entry of host_baseline_firewall_allow.

    Args:
        rule: the entry; what the argument spec refuses (a key that is missing) is not told again.
        where: where it stands, such as ``host_baseline_firewall_allow[0]``.

    Returns:
        a sentence for each problem.
    """
    problems = []
    port = str(rule.get("port", ""))
    if not is_port(port):
        problems.append(f"{where}.port: '{port}' is no port (1 to {LAST_PORT}) or range (first-last)")
    sources = rule.get("sources") or []
    if not sources:
        problems.append(f"{where}.sources is empty; 0.0.0.0/0 would be everybody")
    problems += [f"{where}.sources: '{source}' is no address or network" for source in sources if not is_source(source)]
    if not re.fullmatch(r"[\w .,:;/()+-]{0,100}", str(rule.get("comment", ""))):
        problems.append(f"{where}.comment may hold letters, digits, spaces and .,:;/()+- (100 at most)")
    return problems


def host_baseline_problems(
    allow: Iterable[Mapping[str, Any]],
    distribution: str,
    user: str,
    directory: str,
    ssh_port: int | str,
    ssh_sources: list[str],
) -> list[str]:
    """Say what is wrong with the settings of host_baseline, each with where it stands.

    Args:
        allow: host_baseline_firewall_allow, what the firewall admits beside SSH.
        distribution: what the host runs.
        user: owner of the working folder.
        directory: the working folder.
        ssh_port: port of the SSH server.
        ssh_sources: addresses and networks that SSH is admitted from.

    Returns:
        a sentence for each problem.
    """
    problems = []
    if distribution not in DISTRIBUTIONS:
        problems.append(f"the host runs {distribution}, not {' or '.join(DISTRIBUTIONS)}")
    if not re.match(r"/[^/]", directory):
        problems.append(f"host_baseline_dir: '{directory}' is no absolute path below /")
    if not re.fullmatch(r"[a-z_][a-z0-9_-]{0,31}", user):
        problems.append(f"host_baseline_user: '{user}' is no plain account name")
    problems += [
        f"host_baseline_firewall_ssh_sources: '{source}' is no address or network"
        for source in ssh_sources
        if not is_source(source)
    ]
    if not ssh_sources:
        problems.append("host_baseline_firewall_ssh_sources is empty, nobody could connect any more")
    if "-" in str(ssh_port) or not is_port(str(ssh_port)):
        problems.append(f"host_baseline_firewall_ssh_port: '{ssh_port}' is no port")
    for index, rule in enumerate(allow):
        problems += rule_problems(rule, f"host_baseline_firewall_allow[{index}]")
    return problems


class FilterModule:
    """Filters by their names in templates."""

    def filters(self) -> dict[str, object]:
        return {"host_baseline_problems": host_baseline_problems}
