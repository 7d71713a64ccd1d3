# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the role alertmanager checks of its receivers, and where their secrets lie."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

SECRETS = ("webhook_url", "smtp_password")


def alertmanager_secret_files(receivers: list[dict[str, Any]], folder: str, group: str) -> list[dict[str, Any]]:
    """Give each secret of the receivers a file that root writes and Alertmanager reads.

    Args:
        receivers: as in ``alertmanager_receivers``.
        folder: where the files lie; each is called RECEIVER.KIND.
        group: Alertmanager's group.

    Returns:
        files, as host_state takes them.
    """
    return [
        {
            "path": f"{folder}/{receiver['name']}.{kind}",
            "content": str(receiver[kind]),
            "group": group,
            "mode": "0640",
            "secret": True,
        }
        for receiver in receivers
        for kind in SECRETS
        if receiver.get(kind)
    ]


def alertmanager_problems(receivers: list[dict[str, Any]], external_url: str, repeat_hours: int | str) -> list[str]:
    """Say what Alertmanager could not work with.

    Args:
        receivers: as in ``alertmanager_receivers``.
        external_url: the address under which people see it.
        repeat_hours: after how many hours an alert is told again.

    Returns:
        a sentence for each problem.
    """
    problems = []
    if not re.match(r"https?://[^/\s]+(/\S*)?$", external_url):
        problems.append(
            f"alertmanager_external_url: '{external_url}' is no address such as https://gateway.example/alertmanager/"
        )
    if int(repeat_hours) < 1:
        problems.append(f"alertmanager_repeat_hours: '{repeat_hours}' is less than 1")
    names = Counter(str(receiver.get("name")) for receiver in receivers)
    if any(count > 1 for count in names.values()):
        problems.append("alertmanager_receivers names a receiver twice")
    for receiver in receivers:
        problems += [
            f"alertmanager_receivers: '{receiver.get('name')}' {problem}" for problem in _receiver_problems(receiver)
        ]
    return problems


def _receiver_problems(receiver: dict[str, Any]) -> list[str]:
    given = {key: str(value) for key, value in receiver.items() if value}
    problems = []
    if not re.match(r"[a-z][a-z0-9-]*$", given.get("name", "")):
        problems.append("is no name of lower case letters, digits and -")
    if "webhook_url" not in given and "email_to" not in given:
        problems.append("has neither webhook_url nor email_to")
    # Its address may hold a token, so it is not shown.
    if "webhook_url" in given and not re.match(r"https?://[^/\s]+\S*$", given["webhook_url"]):
        problems.append("has a webhook_url that does not begin with http:// or https://")
    if "email_to" in given:
        if "email_from" not in given:
            problems.append("has email_to, but no email_from")
        if not re.match(r"[^:\s/]+:\d{1,5}$", given.get("smtp_server", "")):
            problems.append("has email_to, but no smtp_server such as mail.example:587")
        if "smtp_user" in given and "smtp_password" not in given:
            problems.append("has an smtp_user without smtp_password")
    return problems


class FilterModule:
    """Filters by their names in templates."""

    def filters(self) -> dict[str, object]:
        return {"alertmanager_secret_files": alertmanager_secret_files, "alertmanager_problems": alertmanager_problems}
