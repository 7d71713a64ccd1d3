# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What roles that run a program of the monitoring check before they change anything."""

from __future__ import annotations

import ipaddress
import re


def archive_problems(source: str, role: str, url: str, checksum: str) -> list[str]:
    """Say what is wrong with where a program comes from.

    Args:
        source: ``package`` or ``archive``.
        role: name of the role whose variables ROLE_archive_url and ROLE_archive_checksum these are.
        url: address of the archive.
        checksum: its checksum as ``sha256:...`` or ``sha512:...``.

    Returns:
        a sentence for each problem.
    """
    if source != "archive":
        return []
    problems = []
    if not re.match(r"(https?|file)://", url):
        problems.append(f"{role}_archive_url is '{url}'; give an address that begins with https://")
    if not re.fullmatch(r"sha(256:[0-9a-f]{64}|512:[0-9a-f]{128})", checksum):
        problems.append(
            f"{role}_archive_checksum is '{checksum}'; take it from the publisher's page and write it as sha256:..."
        )
    return problems


def _every(address: str) -> bool:
    """Whether a program that is given this address listens on all of the host's."""
    try:
        return ipaddress.ip_address(address).is_unspecified
    except ValueError:
        return not address


def listen_problems(address: str, role: str, port: int | str, lowest: int = 1) -> list[str]:
    """Say what is wrong with where a program listens.

    Args:
        address: the one address; every address at once is refused.
        role: name of the role whose variables ROLE_listen_address and ROLE_port these are.
        port: the port.
        lowest: the lowest that it may be; a program that is not root has none below 1024.

    Returns:
        a sentence for each problem.
    """
    problems = []
    if _every(address):
        problems.append(f"{role}_listen_address: '{address}' is every address; name one, such as 127.0.0.1")
    if not lowest <= int(port) <= 65535:
        problems.append(f"{role}_port: '{port}' is no port from {lowest} to 65535")
    return problems


class FilterModule:
    """Filters by their names in templates."""

    def filters(self) -> dict[str, object]:
        return {"archive_problems": archive_problems, "listen_problems": listen_problems}
