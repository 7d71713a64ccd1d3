"""Chromium without a window, in a container of the lab, and what it says of the pages that it opens.

The container shares this machine's network, so the platform sees the browser at the address of the tests, and a page
that a test serves on loopback is one of another origin. It trusts the lab's CA as the browser of an owner does who has
imported ``/ca.crt``: a certificate that is wrong is an error here, too.
"""

import re
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import (
    Browser,
    ConsoleMessage,
    HttpCredentials,
    Page,
    Request,
    Response,
    ViewportSize,
    sync_playwright,
)

from .suite import ROOT

IMAGE = "ai-idp-lab/browser:current"
PICTURES = ROOT / "artifacts" / "pages"
START_S = 20
# Seconds that a page may take to show what is looked for; the lab's n8n and MLflow share two cores with all the rest.
PATIENCE_S = 30
SIZE: ViewportSize = {"width": 1280, "height": 900}


@contextmanager
def chromium(ca: Path) -> Iterator[Browser]:
    """A browser, for as long as it is needed.

    Args:
        ca: certificate of the authority that it trusts besides the public ones.

    Raises:
        AssertionError: it does not start; the message has its log.
    """
    started = subprocess.run(
        [
            *("docker", "run", "--detach", "--rm", "--network", "host", "--label", "ai-idp.lab=browser"),
            *("--volume", f"{ca}:/ca.crt:ro", IMAGE),
        ],
        capture_output=True,
        text=True,
    )
    assert started.returncode == 0, f"{started.stderr}\nThe image is made by `ai-idp lab up`."
    container = started.stdout.strip()
    try:
        with sync_playwright() as playwright:
            browser = playwright.chromium.connect_over_cdp(devtools(container))
            yield browser
            browser.close()
    finally:
        subprocess.run(["docker", "kill", container], capture_output=True, check=False)


def devtools(container: str) -> str:
    """Where the browser is driven, as it says itself."""
    began = time.monotonic()
    while True:
        done = subprocess.run(["docker", "logs", container], capture_output=True, text=True)
        said = done.stdout + done.stderr
        found = re.search(r"DevTools listening on (ws://\S+)", said)
        if found:
            return found[1]
        assert time.monotonic() - began < START_S, f"Chromium did not start within {START_S} s: {said}"
        time.sleep(0.1)


class Watched:
    """A page, and what went wrong on it: errors of its console, and requests that failed or were refused.

    Args:
        page: an empty page.
        allowed: what may go wrong, as regular expressions, each with the reason. They are searched in ``wrong``'s
            lines.
    """

    def __init__(self, page: Page, allowed: Mapping[str, str]) -> None:
        self.page = page
        self.allowed = allowed
        self.told: list[str] = []
        page.set_default_timeout(1000 * PATIENCE_S)
        page.on("console", self._console)
        page.on("pageerror", lambda error: self.told.append(f"uncaught: {error}"))
        page.on("requestfailed", self._failed)
        page.on("response", self._response)

    def _console(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self.told.append(f"console: {message.text} ({message.location.get('url', '')})")

    def _failed(self, request: Request) -> None:
        self.told.append(f"failed: {request.method} {request.url}: {request.failure}")

    def _response(self, response: Response) -> None:
        if response.status >= 400:
            self.told.append(f"status {response.status}: {response.request.method} {response.url}")

    @property
    def wrong(self) -> list[str]:
        """What went wrong so far, without what may."""
        return [line for line in self.told if not any(re.search(pattern, line) for pattern in self.allowed)]

    def picture(self, name: str) -> None:
        """Keep what is seen now, for people to look at."""
        PICTURES.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=PICTURES / f"{name}.png")


@contextmanager
def watched(
    browser: Browser, *, login: tuple[str, str] | None = None, allowed: Mapping[str, str] | None = None
) -> Iterator[Watched]:
    """A page in a session of its own: no cookie and no password of another test.

    Args:
        browser: the browser.
        login: user and password for whoever asks by HTTP (Basic).
        allowed: what may go wrong, with the reasons.
    """
    credentials: HttpCredentials | None = {"username": login[0], "password": login[1]} if login else None
    context = browser.new_context(viewport=SIZE, locale="en-GB", http_credentials=credentials)
    try:
        yield Watched(context.new_page(), allowed or {})
    finally:
        context.close()
