"""The platform's pages as a person sees them: Chromium opens them through the gateway, logs in, and nothing goes wrong.

What a page shows only after its scripts have run is looked for, so an empty frame is no page. The pictures are in
artifacts/pages/.
"""

import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from .browser import PATIENCE_S, watched

GATEWAY = "https://10.77.0.12"
# One of ours, and one that the log of findings makes.
WORKFLOW = "AI-IDP: a commit becomes a note"
EXPERIMENT = "ai-idp week 1"
expect.set_options(timeout=1000 * PATIENCE_S)

# What may go wrong, and why.
N8N_MAY = {
    r"\b401\b.*/n8n/rest/login\b": "the page asks who is logged in before anybody is",
}


def test_the_front_page_has_what_keeps_runs_and_notes(browser: Browser) -> None:
    with watched(browser) as seen:
        seen.page.goto(f"{GATEWAY}/")
        # What it says first depends on what other tests have stopped just before.
        expect(seen.page).to_have_title(re.compile(r".+ · AI-IDP$"))
        for name in ("MLflow", "n8n", "Commits to notes"):
            row = seen.page.locator("ul.rows li", has_text=name)
            expect(row).to_contain_text("up")
        for name in ("MLflow", "n8n"):
            expect(seen.page.get_by_role("navigation").get_by_role("link", name=name)).to_be_visible()
        seen.picture("front_page")
        assert seen.wrong == []


def test_n8n_lets_its_owner_in_and_shows_the_platforms_workflow(browser: Browser, secrets: dict[str, str]) -> None:
    with watched(browser, allowed=N8N_MAY) as seen:
        page = seen.page
        page.goto(f"{GATEWAY}/n8n/")
        button = page.get_by_role("button", name="Sign in")
        expect(button).to_be_visible()
        seen.picture("n8n_login")
        page.locator("input[name=emailOrLdapLoginId]").fill("owner@ai-idp.lan")
        page.locator("input[name=password]").fill(secrets["n8n_owner_password"])
        button.click()
        # In the list, and in what n8n says of it beside.
        expect(page.get_by_role("heading", name=WORKFLOW).first).to_be_visible()
        expect(page).to_have_title("Workflows - n8n")
        seen.picture("n8n_workflows")
        assert seen.wrong == []


def test_mlflow_shows_its_experiments_to_its_owner_alone(browser: Browser, secrets: dict[str, str]) -> None:
    with watched(browser, login=("owner", secrets["mlflow_admin_password"])) as seen:
        seen.page.goto(f"{GATEWAY}/mlflow/")
        seen.page.goto(f"{GATEWAY}/mlflow/#/experiments")
        expect(seen.page.get_by_role("link", name=EXPERIMENT)).to_be_visible()
        expect(seen.page).to_have_title("Experiments - MLflow")
        seen.picture("mlflow_experiments")
        assert seen.wrong == []
    with watched(browser, allowed={"401": "a stranger is refused"}) as seen:
        answer = seen.page.goto(f"{GATEWAY}/mlflow/")
        assert answer is not None
        assert answer.status == 401


class Empty(BaseHTTPRequestHandler):
    """A page of somebody else's, on this machine."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *arguments: Any) -> None:
        pass


@pytest.fixture
def elsewhere() -> Iterator[int]:
    """The port of a server on loopback, whose pages are of other origins than the gateway's."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Empty) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


# As an SDK in a page does: a stream by its parts, and the headers that make the browser ask first.
ASK = """async ([url, key]) => {
    const body = {model: "tiny-llama", max_tokens: 8, stream: true, messages: [{role: "user", content: "Say hello."}]};
    const headers = {"Content-Type": "application/json", "x-api-key": key, "X-Stainless-Lang": "js"};
    try {
        const answer = await fetch(url, {method: "POST", headers, body: JSON.stringify(body)});
        return [answer.status, await answer.text()];
    } catch (error) {
        return [0, String(error)];
    }
}"""


def asked(page: Page, key: str) -> tuple[int, str]:
    """What a page's script got: the status, 0 where the browser kept the answer from it, and the text."""
    status, text = page.evaluate(ASK, [f"{GATEWAY}/v1/chat/completions", key])
    return status, text


def test_a_page_uses_a_key_whose_entry_names_its_origin(
    browser: Browser, secrets: dict[str, str], elsewhere: int
) -> None:
    key = secrets["gateway_client_key_load"]
    with watched(browser, allowed={"401": "a wrong key", "403": "the owner's key is not for pages"}) as seen:
        seen.page.goto(f"http://localhost:{elsewhere}/")
        status, text = asked(seen.page, key)
        assert (status, text.rstrip().endswith("[DONE]")) == (200, True), text
        # A page can read what went wrong.
        status, text = asked(seen.page, "0" * 64)
        assert (status, "invalid_api_key" in text) == (401, True), text
        status, text = asked(seen.page, secrets["gateway_client_key"])
        assert (status, "origin_not_allowed" in text) == (403, True), text
        assert seen.wrong == []
    with watched(browser) as seen:
        # The same machine, by a name that no entry has.
        seen.page.goto(f"http://127.0.0.1:{elsewhere}/")
        assert asked(seen.page, key)[0] == 0
        assert any("CORS policy" in line for line in seen.wrong)
