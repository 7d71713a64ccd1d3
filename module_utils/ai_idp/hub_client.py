# Copyright: AI-IDP contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""HTTP with a model hub: redirects, tokens, pages, and what its failures mean.

Everything here is the standard library of Python 3.10, because it runs on the target.
"""

from __future__ import annotations

import http.client
import re
import socket
import ssl
import urllib.error
import urllib.parse
import urllib.request
from email.message import Message
from typing import Any

from ansible.module_utils.ai_idp.documents import from_json
from ansible.module_utils.ai_idp.files import CHUNK_BYTES
from ansible.module_utils.ai_idp.http_exchange import ProxyForOthers
from ansible.module_utils.ai_idp.messages import display_url, exact_bytes

ANSWER_MAX_BYTES = 32 * CHUNK_BYTES
BACKOFF_MAX_S = 30.0
TRANSIENT_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})
NETWORK_ERRORS = (urllib.error.URLError, http.client.HTTPException, OSError, OverflowError)


class DownloadError(Exception):
    """Something the user must settle; its text says what and how."""


class EndpointUnreachable(DownloadError):
    """The source did not answer; nothing is known to be wrong with the request itself."""


def origin(url: str) -> tuple[str, str, int]:
    """(scheme, host, port): a token made for one origin is never sent to another."""
    parts = urllib.parse.urlsplit(url)
    default = 443 if parts.scheme == "https" else 80
    return parts.scheme.lower(), (parts.hostname or "").lower(), parts.port or default


def joined(url: str, target: str) -> str:
    """Where a link of an answer leads. DownloadError for one that is no URL."""
    try:
        found = urllib.parse.urljoin(url, target)
        urllib.parse.urlsplit(found)
    except ValueError:
        raise DownloadError(
            f"{display_url(url)} leads to {target[:100]!r}, which is no URL. Check the source."
        ) from None
    return found


def next_page(link_header: str | None) -> str | None:
    """The URL of rel="next" in an RFC 8288 Link header."""
    for match in re.finditer(r'<([^>]*)>((?:\s*;\s*[\w!#$&+.^`|~-]+\s*=\s*(?:"[^"]*"|[^",;\s]+))*)', link_header or ""):
        if re.search(r';\s*rel\s*=\s*"?next"?(?:\s|;|$)', match.group(2)):
            return match.group(1)
    return None


class _Redirect(urllib.request.HTTPRedirectHandler):
    """Follows redirects; the token goes along only when the target is the endpoint itself."""

    def __init__(self, web: Web) -> None:
        self.web = web

    def redirect_request(self, req, fp, code, msg, headers, newurl):  # type: ignore[no-untyped-def]
        if urllib.parse.urlsplit(newurl).scheme not in ("http", "https"):
            raise urllib.error.HTTPError(newurl, code, "redirect to another protocol", headers, fp)
        new = super().redirect_request(req, fp, 307 if code == 308 else code, msg, headers, newurl)
        if new is not None:
            # Python before 3.13 turns a redirected HEAD into a GET.
            new.method = req.get_method()
            self.web.authorise(new)
        return new

    http_error_308 = urllib.request.HTTPRedirectHandler.http_error_302


class _Stay(urllib.request.HTTPRedirectHandler):
    """Follows nothing: the hub tells size and hash in the headers of the redirect itself."""

    def redirect_request(self, req, fp, code, msg, headers, newurl):  # type: ignore[no-untyped-def]
        return None


class Web:
    """HTTP with one rule: the token is for the endpoint's origin and for no other."""

    def __init__(self, endpoint: str, token: str | None, timeout: float) -> None:
        self.endpoint = endpoint.rstrip("/")
        self.timeout = timeout
        self._token = token or None
        self._opener = urllib.request.build_opener(ProxyForOthers(), _Redirect(self))
        self._stay = urllib.request.build_opener(ProxyForOthers(), _Stay())

    @property
    def has_token(self) -> bool:
        return self._token is not None

    def authorise(self, request: urllib.request.Request) -> None:
        request.remove_header("Authorization")
        if self._token and origin(request.full_url) == origin(self.endpoint):
            # "Unredirected": urllib does not copy it to the next request by itself.
            request.add_unredirected_header("Authorization", f"Bearer {self._token}")

    def open(
        self, url: str, headers: dict[str, str] | None = None, method: str = "GET", follow: bool = True
    ) -> http.client.HTTPResponse:
        """Raises urllib.error.HTTPError for every status from 300 on that was not followed."""
        opener = self._opener if follow else self._stay
        try:
            request = urllib.request.Request(
                url, headers={"User-Agent": "ai-idp-model-download", **(headers or {})}, method=method
            )
            self.authorise(request)
            return opener.open(request, timeout=self.timeout)  # type: ignore[no-any-return]
        except ValueError:
            # The error itself may quote the token.
            raise DownloadError(
                f"{display_url(url)} can't be asked: it, or what it leads to, is no URL with a host and a port from "
                "1 to 65535, or the token holds what no header can. Correct source, endpoint or token."
            ) from None

    def head(self, url: str) -> Message:
        """Headers of the answer that speaks of the file: the first one that is the hub's own word."""
        for _ in range(6):
            try:
                with self.open(url, method="HEAD", follow=False) as answer:
                    return answer.headers
            except urllib.error.HTTPError as error:
                target = error.headers.get("Location")
                if error.code not in (301, 302, 303, 307, 308) or not target:
                    raise
                if error.headers.get("X-Linked-ETag") or error.headers.get("X-Linked-Size"):
                    return error.headers
                url = joined(url, target)
                if urllib.parse.urlsplit(url).scheme not in ("http", "https"):
                    raise
        raise DownloadError(f"{display_url(url)} redirects in a circle")


class NoJson(DownloadError):
    """What answers sends something else than JSON."""


def read_json(web: Web, url: str) -> tuple[Any, http.client.HTTPMessage]:
    with web.open(url, headers={"Accept": "application/json"}) as answer:
        body = answer.read(ANSWER_MAX_BYTES + 1)
        if len(body) > ANSWER_MAX_BYTES:
            raise DownloadError(f"{display_url(url)} answered more than {exact_bytes(ANSWER_MAX_BYTES)}")
        try:
            return from_json(body), answer.headers
        except ValueError:
            raise NoJson(f"{display_url(url)} does not answer with JSON") from None


def size_from(headers: Message) -> int | None:
    for key in ("X-Linked-Size", "Content-Length"):
        value = headers.get(key, "")
        if value.isdigit():
            return int(value)
    return None


def etag_hash(value: str | None) -> str:
    return (value or "").removeprefix("W/").strip('"').lower()


def explain_network_error(error: BaseException) -> str:
    """Names the layer that failed: name, connection, certificate or time."""
    reason: Any = error
    while isinstance(reason, urllib.error.URLError) and not isinstance(reason, urllib.error.HTTPError):
        if not isinstance(reason.reason, BaseException):
            return str(reason.reason)
        reason = reason.reason
    if isinstance(reason, socket.gaierror):
        return f"the host name cannot be resolved ({reason.strerror or reason})"
    if isinstance(reason, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted ({reason.verify_message})"
    if isinstance(reason, ssl.SSLError):
        return f"TLS failed ({reason.reason or reason})"
    if isinstance(reason, TimeoutError):
        return "no answer in time"
    if isinstance(reason, ConnectionRefusedError):
        return "the connection was refused"
    if isinstance(reason, OverflowError):
        return "its port is none: 1 to 65535 are possible"
    return str(reason) or type(reason).__name__
