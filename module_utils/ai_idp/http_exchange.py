# Copyright: AI-IDP contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""One request and its answer, or one sentence about why there is none, whatever is at the other end."""

from __future__ import annotations

import http.client
import ipaddress
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

ANSWER_MAX_BYTES = 64 * 1024 * 1024
BROKE_OFF = "the answer broke off"

NO_HTTP = (OSError, http.client.HTTPException, OverflowError, ValueError)
"""What the standard library raises when nobody answers, when what answers speaks no HTTP or breaks off, when the port
is out of range (OverflowError), and when the address or a header can't be written (ValueError)."""


def direct() -> urllib.request.OpenerDirector:
    """Open addresses of the platform itself: a proxy of the environment would get what is sent, keys included."""
    return urllib.request.build_opener(urllib.request.ProxyHandler({}))


class ProxyForOthers(urllib.request.ProxyHandler):
    """The environment's proxies, which get no request to this host itself."""

    def proxy_open(self, req: urllib.request.Request, proxy: str, type: str) -> Any:
        """Leave requests to this host to who sends them directly."""
        host = urllib.parse.urlsplit(f"//{req.host}").hostname or ""
        try:
            here = ipaddress.ip_address(host).is_loopback
        except ValueError:
            here = host == "localhost"
        return None if here else super().proxy_open(req, proxy, type)


class NoAnswer(Exception):
    """There was no answer; the text says why, and never quotes what was sent."""


@dataclass(frozen=True)
class Exchange:
    """An answer, a refusal included."""

    status: int
    body: bytes
    headers: Any

    @property
    def text(self) -> str:
        """The body as text."""
        return self.body.decode("utf-8", "replace")


def reason_of(error: BaseException) -> str:
    """Say why there was no answer, without what was sent: a header may hold a key."""
    if isinstance(error, urllib.error.URLError) and isinstance(error.reason, BaseException):
        return reason_of(error.reason)
    if isinstance(error, http.client.InvalidURL):
        return "the address is no URL that can be asked: correct host and port"
    if isinstance(error, http.client.IncompleteRead):
        return BROKE_OFF
    if isinstance(error, http.client.HTTPException) and not isinstance(error, OSError):
        return f"what answers speaks no HTTP ({type(error).__name__}): check port and scheme of the address"
    if isinstance(error, (OverflowError, ValueError)) and not isinstance(error, OSError):
        return "address or key can't be sent: correct host, port (1 to 65535) and characters beyond ASCII"
    return str(error) or type(error).__name__


def exchange(send: Callable[[], Any], most: int = ANSWER_MAX_BYTES) -> Exchange:
    """Send a request and read its answer; one of 400 and above is one, too.

    Args:
        send: opens the request, as ``urllib.request.urlopen`` does.
        most: bytes of the answer that are read; the rest is left.

    Raises:
        NoAnswer: there was none.
    """
    try:
        try:
            answer = send()
        except urllib.error.HTTPError as refusal:
            answer = refusal
        # A refusal may break off, too.
        with answer:
            body = answer.read(most)
            # Of a length that was announced, read() with a limit does not miss what is lacking.
            if len(body) < most and getattr(answer, "length", None):
                raise NoAnswer(BROKE_OFF)
            return Exchange(int(answer.status), body, answer.headers)
    except NO_HTTP as error:
        raise NoAnswer(reason_of(error)) from error
