"""Filters of the role jetson_platform: what is wrong with its settings."""

import re
from typing import Any

LIMITS_MIB = {"swap_size_mib": 262144, "cuda_test_mib": 131072}


def jetson_problems(settings: dict[str, Any]) -> list[str]:
    """Say what the argument spec can't.

    Args:
        settings: the role's variables by their names without ``jetson_platform_``.

    Returns:
        a sentence for each problem, without its full stop.
    """
    problems = []
    if not re.fullmatch(r"/[A-Za-z0-9._/-]+", settings["swap_file"]):
        problems.append(
            f"jetson_platform_swap_file is '{settings['swap_file']}'; name an absolute path of letters, digits and "
            ". _ / -"
        )
    problems += [
        f"jetson_platform_{name} is {settings[name]}; set 0 to {most} MiB"
        for name, most in LIMITS_MIB.items()
        if not 0 <= settings[name] <= most
    ]
    address = settings["stats_listen_address"]
    if settings["stats_enabled"] and not address.strip("0.:"):
        problems.append(
            f"jetson_platform_stats_listen_address is '{address}', which is every address; name the one in the "
            "platform's network"
        )
    problems += [
        f"jetson_platform_{name} is '{settings[name]}'; name one version, such as 4.3.2"
        for name in ("stats_version", "stats_exporter_version")
        if not re.fullmatch(r"\d+([.]\d+)+", settings[name])
    ]
    return problems


class FilterModule:
    """Registers the filters."""

    def filters(self) -> dict[str, Any]:
        """Name each filter."""
        return {"jetson_problems": jetson_problems}
