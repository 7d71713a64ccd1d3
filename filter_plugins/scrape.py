"""Scrape targets of Prometheus, derived from the inventory's groups."""

from typing import Any


def scrape_targets(addresses: dict[str, str], port: int) -> list[dict[str, str]]:
    """Name each host with its address and port.

    Args:
        addresses: address of each host by its name in the inventory.
        port: port of the exporter.
    """
    return [{"host": host, "address": f"{address}:{port}"} for host, address in addresses.items()]


class FilterModule:
    """Registers the filter."""

    def filters(self) -> dict[str, Any]:
        """Name each filter."""
        return {"scrape_targets": scrape_targets}
