# Copyright: AI-IDP contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Whether a Prometheus works with the settings that it was given."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable

from ansible.module_utils.ai_idp.documents import WRONG_SHAPE
from ansible.module_utils.ai_idp.http_ask import Reply, retried

TAKEN_OVER = re.compile(r"^prometheus_config_last_reload_success_timestamp_seconds (\S+)$", re.MULTILINE)


def newest(paths: list[str], now: float | None = None) -> float:
    """When the last of some files and folders, or of the files in these folders, was changed.

    Args:
        paths: those that do not exist count for nothing.
        now: a time that is later than this is the fault of a clock and counts for nothing.

    Returns:
        seconds since 1970; 0 where there is none.
    """
    limit = time.time() if now is None else now
    times = [0.0]
    for path in paths:
        inside = [os.path.join(path, name) for name in os.listdir(path)] if os.path.isdir(path) else []
        times += [os.stat(file).st_mtime for file in [path, *inside] if os.path.exists(file)]
    return max(when for when in times if when <= limit)


def not_taken_over(reply: Reply, since: float) -> str:
    """Say why settings that were written at a time are not in force; empty when they are.

    Args:
        reply: answer to /metrics.
        since: seconds since 1970.
    """
    if reply.status != 200:
        return f"it does not tell its own figures ({reply})"
    found = TAKEN_OVER.search(reply.text)
    try:
        taken_over = float(found[1]) if found else 0.0
    except ValueError:
        return f"it does not tell when it took its settings over ({found and found[1]})"
    if taken_over < since:
        return "it has not taken its new settings over; journalctl --unit prometheus says why"
    return ""


def wrong_targets(reply: Reply, wanted: int) -> str:
    """Say what is wrong with the number of targets; empty when nothing is.

    Args:
        reply: answer to /api/v1/targets?state=active.
        wanted: how many there must be.
    """
    try:
        found = len(reply.json()["data"]["activeTargets"])
    except WRONG_SHAPE:
        return f"it does not tell its targets ({reply})"
    return "" if found == wanted else f"it watches {found} targets instead of {wanted}"


def failing_rules(reply: Reply) -> str:
    """Name the rules that can't be computed, each with the reason; empty when all can.

    Args:
        reply: answer to /api/v1/rules.
    """
    try:
        rules = [rule for group in reply.json()["data"]["groups"] for rule in group["rules"]]
        failing = [f"{rule['name']} ({rule.get('lastError')})" for rule in rules if rule.get("health") == "err"]
    except WRONG_SHAPE:
        return f"it does not tell its rules ({reply})"
    return f"it can't compute {', '.join(failing)}" if failing else ""


def check(ask: Callable[[str], Reply], targets: int, since: float, seconds: float) -> str:
    """Ask a Prometheus for everything.

    Args:
        ask: sends a GET to a path below its address.
        targets: how many it must watch.
        since: settings that are older than this are not the wanted ones.
        seconds: how long settings, and then targets, may take. Targets come a few seconds after the settings.

    Returns:
        what is wrong first; empty when nothing is.
    """
    if since:
        problem = retried(lambda: not_taken_over(ask("/metrics"), since), seconds)
        if problem:
            return problem
    problem = retried(lambda: wrong_targets(ask("/api/v1/targets?state=active"), targets), seconds)
    return problem or failing_rules(ask("/api/v1/rules"))
