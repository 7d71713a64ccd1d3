# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What nvidia_driver checks in its settings before it looks at the host."""

from __future__ import annotations

import re
from collections.abc import Mapping

DISTRIBUTIONS = ("Debian", "Ubuntu")
SHORTEST_REBOOT_SECONDS = 60
PATTERNS = {
    "nvidia_driver_branch": (r"\d{3}", "no branch such as '580'"),
    "nvidia_driver_version": (
        r"(\d{3}\.\d+(\.\d+)?)?",
        "no version such as 580.126.09 (without what the distribution adds after a dash)",
    ),
    "nvidia_driver_kernel_flavour": (r"[a-z0-9.+-]*", "no flavour such as generic, generic-hwe-24.04 or amd64"),
    "nvidia_driver_cuda_toolkit_version": (r"\d+\.\d+\.\d+", "no version such as 13.0.2"),
    "nvidia_driver_cudnn_version": (r"\d+(\.\d+){3}", "no version such as 9.20.0.48"),
    "nvidia_driver_repository_url": (r"https?://[^/\s]+/\S*[^/\s]", "no URL (http or https, no slash at the end)"),
}


def nvidia_driver_problems(settings: Mapping[str, str], distribution: str, reboot_timeout: int | str) -> list[str]:
    """Say what is wrong with the settings of nvidia_driver, each with what is allowed.

    Args:
        settings: the settings that are texts, by the names of their variables.
        distribution: what the host runs.
        reboot_timeout: seconds that a reboot may take.

    Returns:
        a sentence for each problem.
    """
    problems = []
    if distribution not in DISTRIBUTIONS:
        problems.append(f"the host runs {distribution}, not {' or '.join(DISTRIBUTIONS)}")
    for name, (pattern, why) in PATTERNS.items():
        if not re.fullmatch(pattern, str(settings[name])):
            problems.append(f"{name}: '{settings[name]}' is {why}")
    if str(reboot_timeout).isdigit() and int(reboot_timeout) < SHORTEST_REBOOT_SECONDS:
        problems.append(
            f"nvidia_driver_reboot_timeout: '{reboot_timeout}' is less than the {SHORTEST_REBOOT_SECONDS} seconds that "
            "a reboot takes at least"
        )
    return problems


class FilterModule:
    """Filters by their names in templates."""

    def filters(self) -> dict[str, object]:
        return {"nvidia_driver_problems": nvidia_driver_problems}
