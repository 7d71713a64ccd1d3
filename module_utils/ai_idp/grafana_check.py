# Copyright: AI-IDP contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Whether a Grafana works: its health, its password, its datasource and its dashboards."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from ansible.module_utils.ai_idp.documents import WRONG_SHAPE
from ansible.module_utils.ai_idp.http_ask import Reply, retried

HEALTH_SECONDS = 90.0
DATASOURCE_SECONDS = 20.0
DASHBOARDS_SECONDS = 30.0
SEARCH = "api/search?type=dash-db&folderUIDs=ai-idp&limit=1000"


class Ask(Protocol):
    """Sends a GET to a path below Grafana's address, as the user admin or as nobody."""

    def __call__(self, path: str, login: bool = True) -> Reply: ...


@dataclass(frozen=True)
class Finding:
    """What is wrong first (empty when nothing is), and whether it is the password."""

    problem: str
    refused: bool = False


def unhealthy(reply: Reply) -> str:
    """Say what is wrong with an answer to api/health; empty when nothing is."""
    return "" if reply.status == 200 else f"it is not healthy ({reply})"


def unreached(reply: Reply) -> str:
    """Say what is wrong with an answer about a datasource's health; empty when nothing is."""
    data = reply.json()
    if reply.status == 200 and isinstance(data, dict) and data.get("status") == "OK":
        return ""
    told = data.get("message") if isinstance(data, dict) else None
    return f"its datasource does not reach Prometheus ({told or reply})"


def missing(reply: Reply, dashboards: list[str]) -> str:
    """Name the dashboards that an answer to a search lacks; others may be there. Empty when none is missing."""
    try:
        found = {entry["uid"] for entry in reply.json()}
    except WRONG_SHAPE:
        return f"it does not tell its dashboards ({reply})"
    lacking = [uid for uid in dashboards if uid not in found]
    return f"it does not show {', '.join(lacking)}" if lacking else ""


def check(ask: Ask, datasource_uid: str, dashboards: list[str], patience: float = 1.0) -> Finding:
    """Ask a Grafana for everything. Where it refuses the password, what needs it is not asked.

    Args:
        ask: sends a GET.
        datasource_uid: uid of the datasource that must reach Prometheus.
        dashboards: uids of dashboards that must be there.
        patience: factor on the times that it is given.
    """
    # The first start makes the database.
    problem = retried(lambda: unhealthy(ask("api/health", login=False)), HEALTH_SECONDS * patience)
    if problem:
        return Finding(problem)
    # Once only: after some wrong passwords Grafana locks the user out.
    login = ask("api/user")
    if login.status == 401:
        return Finding("it refuses the password of the user admin", refused=True)
    if login.status != 200:
        return Finding(f"it does not say whether the password of the user admin is right ({login})")
    anonymous = ask("api/search", login=False)
    if anonymous.status not in (401, 403):
        return Finding(f"it answers somebody without a password ({anonymous})")
    problem = retried(
        lambda: unreached(ask(f"api/datasources/uid/{datasource_uid}/health")), DATASOURCE_SECONDS * patience
    )
    if not problem:
        problem = retried(lambda: missing(ask(SEARCH), dashboards), DASHBOARDS_SECONDS * patience)
    return Finding(problem)
