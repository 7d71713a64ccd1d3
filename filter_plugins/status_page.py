# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the role status_page checks of its settings."""

from __future__ import annotations

import re


def status_page_problems(folder: str, prometheus_url: str, interval: int | str) -> list[str]:
    """Say what the page could not work with.

    Args:
        folder: where the page lies.
        prometheus_url: whom it asks.
        interval: seconds between two pages.

    Returns:
        a sentence for each problem.
    """
    problems = []
    if not re.match(r"https?://[^/]", prometheus_url):
        problems.append(
            f"status_page_prometheus_url: '{prometheus_url}' is no address; write it like "
            "http://127.0.0.1:9090/prometheus"
        )
    if int(interval) < 5:
        problems.append(f"status_page_interval is {interval}: 5 seconds at least, or the page keeps a core busy")
    if not re.match(r"/[^/]+/.", folder):
        problems.append(f"status_page_dir: '{folder}' is no folder of its own; write it like /var/lib/ai-idp-status")
    return problems


class FilterModule:
    """Filters by their names in templates."""

    def filters(self) -> dict[str, object]:
        return {"status_page_problems": status_page_problems}
