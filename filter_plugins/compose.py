"""What Docker Compose says of a project's containers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any


def unsettled_services(containers: Iterable[Mapping[str, Any]]) -> list[str]:
    """Name the services that are yet to run, or to become healthy.

    Args:
        containers: as ``docker_compose_v2`` returns them; ``Health`` is empty where an image has no health check.

    Returns:
        names of services, sorted.
    """
    settled = ("", "healthy")
    return sorted(
        {
            str(container.get("Service"))
            for container in containers
            if container.get("State") != "running" or container.get("Health", "") not in settled
        }
    )


class FilterModule:
    """Registers the filter."""

    def filters(self) -> dict[str, Any]:
        """Name it."""
        return {"unsettled_services": unsettled_services}
