# Copyright: AI-IDP contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Asks programs of a host over HTTP until each answers as it must."""

from __future__ import annotations

import ssl
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ansible.module_utils.ai_idp.http_exchange import NoAnswer, exchange

ASK_TIMEOUT_SECONDS = 10.0
SHOWN_CHARACTERS = 120
READ_BYTES = 1 << 20
# How a module takes its asks.
ASKS_SPEC = {
    "type": "list",
    "elements": "dict",
    "default": [],
    "options": {
        "name": {"type": "str", "required": True},
        "url": {"type": "str", "required": True},
        "method": {"type": "str", "default": "GET"},
        "status": {"type": "list", "elements": "int", "default": [200]},
        "text": {"type": "str"},
    },
}


@dataclass(frozen=True)
class Ask:
    """One question.

    Attributes:
        name: what the answer shows, for the message.
        url: whom to ask.
        method: HTTP method.
        status: status codes that are right.
        text: what the whole answer must be; None takes any.
    """

    name: str
    url: str
    method: str = "GET"
    status: tuple[int, ...] = (200,)
    text: str | None = None


@dataclass(frozen=True)
class Said:
    """An answer; without a status ``text`` says why there is none."""

    status: int | None
    text: str


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect is an answer of its own."""

    def redirect_request(self, *_: object) -> None:
        return None


def fetch(ask: Ask) -> Said:
    """Ask once. No proxy is used, and no certificate checked: it is the host itself that is asked."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    opener = urllib.request.build_opener(
        urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context), _NoRedirect()
    )
    try:
        answer = exchange(
            lambda: opener.open(urllib.request.Request(ask.url, method=ask.method), timeout=ASK_TIMEOUT_SECONDS),
            READ_BYTES,
        )
    except NoAnswer as error:
        return Said(None, str(error))
    return Said(answer.status, answer.text)


def problem_of(ask: Ask, said: Said) -> str | None:
    """Say what is wrong with an answer.

    Returns:
        a sentence without its full stop, or None where the answer is right.
    """
    where = f"{ask.name}: {ask.url}"
    wanted = " or ".join(map(str, ask.status))
    if said.status is None:
        return f"{where} does not answer ({said.text})"
    if said.status not in ask.status:
        return f"{where} answers {said.status}, not {wanted}"
    if ask.text is not None and said.text != ask.text:
        return f"{where} answers '{said.text[:SHOWN_CHARACTERS]}', not '{ask.text[:SHOWN_CHARACTERS]}'"
    return None


def ask_until_right(
    asks: list[Ask],
    seconds: float,
    ask_once: Callable[[Ask], Said] = fetch,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> list[str]:
    """Ask all; what is not right is asked again until the time is over.

    Returns:
        what is still wrong, a sentence each.
    """
    until = clock() + seconds
    while True:
        found = [(ask, problem_of(ask, ask_once(ask))) for ask in asks]
        wrong = [(ask, problem) for ask, problem in found if problem is not None]
        if not wrong or clock() >= until:
            return [problem for _, problem in wrong]
        asks = [ask for ask, _ in wrong]
        sleep(0.5)


def asks_of(entries: list[dict[str, Any]]) -> list[Ask]:
    """What a module was given in the form of ``ASKS_SPEC``."""
    return [Ask(**{**entry, "status": tuple(entry["status"])}) for entry in entries]
