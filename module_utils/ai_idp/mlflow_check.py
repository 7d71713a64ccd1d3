# Copyright: AI-IDP contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Whether an MLflow works: its health, its administrator's password, and whom it keeps out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol
from urllib.parse import quote

from ansible.module_utils.ai_idp.http_ask import Reply, retried

HEALTH_SECONDS = 30.0
EXPERIMENTS = "api/2.0/mlflow/experiments/search?max_results=1"
STRANGE_HOST = "mlflow.example.com"
"""A name that is reserved for examples is nobody's."""


class Ask(Protocol):
    """Sends a GET to a path below MLflow's address, as the administrator or as nobody, by its own name or another."""

    def __call__(self, path: str, login: bool = True, host: str = "") -> Reply: ...


@dataclass(frozen=True)
class Finding:
    """What is wrong first (empty when nothing is), and whether it is the password."""

    problem: str
    refused: bool = False


def unhealthy(reply: Reply) -> str:
    """Say what is wrong with an answer to health; empty when nothing is."""
    return "" if reply.status == 200 else f"it is not healthy ({reply})"


def check(ask: Ask, username: str, patience: float = 1.0) -> Finding:
    """Ask an MLflow for everything. Where it refuses the password, what needs it is not asked.

    Args:
        ask: sends a GET.
        username: the administrator's name.
        patience: factor on the time that it is given to be healthy.
    """
    problem = retried(lambda: unhealthy(ask("health", login=False)), HEALTH_SECONDS * patience)
    if problem:
        return Finding(problem)
    anonymous = ask(EXPERIMENTS, login=False)
    if anonymous.status != 401:
        return Finding(f"it does not ask somebody without a password for one ({anonymous})")
    login = ask(f"api/2.0/mlflow/users/get?username={quote(username, safe='')}")
    if login.status == 401:
        return Finding(f"it refuses the password of {username}", refused=True)
    if login.status != 200:
        return Finding(f"it does not know {username} as its administrator ({login})")
    known = ask(EXPERIMENTS)
    if known.status != 200:
        return Finding(f"it does not tell {username} its experiments ({known})")
    stranger = ask(EXPERIMENTS, host=STRANGE_HOST)
    if stranger.status != 403:
        return Finding(f"it answers by a name that is not its own ({stranger})")
    return Finding("")
