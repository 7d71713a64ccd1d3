"""How services of the platform are asked."""

from __future__ import annotations

import ssl
import urllib.request
from typing import Any


def send(request: urllib.request.Request, timeout: float, ca_file: str = "") -> Any:
    """Send a request past any proxy of the environment, which would get all of it, passwords included.

    Args:
        request: to one of the owner's own addresses.
        timeout: seconds without an answer after which there is none.
        ca_file: certificates to trust by HTTPS, in place of the system's.

    Returns:
        the answer, which the caller closes.

    Raises:
        OSError, ValueError: there is none, or it is a refusal.
    """
    handlers: list[urllib.request.BaseHandler] = [urllib.request.ProxyHandler({})]
    if request.type == "https":
        handlers.append(urllib.request.HTTPSHandler(context=ssl.create_default_context(cafile=ca_file or None)))
    return urllib.request.build_opener(*handlers).open(request, timeout=timeout)
