# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What nvidia_container_toolkit reads from a PCI bus, and what it checks in its settings."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath

OLDEST = (1, 18, 0)


def nvidia_container_toolkit_gpus(paths: Iterable[str]) -> list[str]:
    """Addresses of the NVIDIA GPUs on a PCI bus, whether or not a driver is loaded.

    Args:
        paths: files ``vendor`` that say NVIDIA and files ``class`` that say display controller, in any order.

    Returns:
        names of the folders that have both, sorted.
    """
    files = [PurePosixPath(path) for path in paths]
    vendors = {file.parent.name for file in files if file.name == "vendor"}
    return sorted(vendors & {file.parent.name for file in files if file.name == "class"})


def nvidia_container_toolkit_problems(version: str, urls: Mapping[str, str]) -> list[str]:
    """Say what is wrong with the settings of nvidia_container_toolkit, each with what is allowed.

    Args:
        version: version of the toolkit; 1.18.0 is the first that describes GPUs anew by itself.
        urls: names of settings, and the addresses that they hold.

    Returns:
        a sentence for each problem.
    """
    problems = []
    if not re.fullmatch(r"\d+\.\d+\.\d+", version) or tuple(map(int, version.split("."))) < OLDEST:
        problems.append(f"nvidia_container_toolkit_version: '{version}' is no version such as 1.20.0, from 1.18.0 on")
    for name, url in urls.items():
        if not re.fullmatch(r"https?://[^/\s]+/\S*[^/\s]", url):
            problems.append(f"{name}: '{url}' is no URL (http or https, no slash at the end)")
    return problems


class FilterModule:
    """Filters by their names in templates."""

    def filters(self) -> dict[str, object]:
        return {
            "nvidia_container_toolkit_gpus": nvidia_container_toolkit_gpus,
            "nvidia_container_toolkit_problems": nvidia_container_toolkit_problems,
        }
