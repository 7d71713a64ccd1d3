"""The platform's pages as a person sees them: Chromium opens them through the gateway, logs in, and nothing goes wrong.

What a page shows only after its scripts have run is looked for, so an empty frame is no page. The pictures are in
artifacts/pages/.
"""

import re

from playwright.sync_api import Browser, expect

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
