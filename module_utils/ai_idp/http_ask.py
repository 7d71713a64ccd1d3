# Copyright: AI-IDP contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Questions to a program on the host itself, asked until the answer is the right one."""

from __future__ import annotations

import base64
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ansible.module_utils.ai_idp.documents import from_json
from ansible.module_utils.ai_idp.http_exchange import NoAnswer, direct, exchange

ASK_TIMEOUT_SECONDS = 20.0


@dataclass(frozen=True)
class Reply:
    """An answer; status 0 where there was none, with the reason as its text."""

    status: int
    text: str

    def json(self) -> Any:
        """The text read as JSON; None where it is none."""
        try:
            return from_json(self.text)
        except ValueError:
            return None

    def __str__(self) -> str:
        return f"status {self.status}" if self.status else self.text


def ask(url: str, user: str = "", password: str = "", timeout: float = ASK_TIMEOUT_SECONDS, *, host: str = "") -> Reply:
    """Send one GET, past any proxy. An answer of 400 and above is one, too.

    Args:
        url: the address.
        user: who asks, by basic authentication; empty for nobody.
        password: that user's.
        timeout: seconds without an answer after which there is none.
        host: the header Host, where it is to be another than the address says.
    """
    headers = {"Host": host} if host else {}
    if user:
        login = base64.b64encode(f"{user}:{password}".encode()).decode()
        headers["Authorization"] = f"Basic {login}"
    try:
        answer = exchange(lambda: direct().open(urllib.request.Request(url, headers=headers), timeout=timeout))
    except NoAnswer as error:
        return Reply(0, str(error))
    return Reply(answer.status, answer.text)


def retried(
    problem: Callable[[], str],
    seconds: float,
    pause: float = 1.0,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> str:
    """Look for a problem again and again until there is none or the time is up.

    Args:
        problem: says what is wrong; an empty text when nothing is.
        seconds: how long it may take. It is looked for once at least.
        pause: seconds between two looks.

    Returns:
        what was wrong last; an empty text when nothing is.
    """
    until = clock() + seconds
    while True:
        found = problem()
        if not found or clock() >= until:
            return found
        sleep(pause)
