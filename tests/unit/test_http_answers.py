"""Programs are asked until each answers as it must, or it is said what is wrong."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from ansible.module_utils.ai_idp.http_answers import Ask, Said, ask_until_right, fetch, problem_of


class Door(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        status, text = {"/release": (200, "abc"), "/moved": (302, "")}.get(self.path, (401, "no key"))
        self.send_response(status)
        self.send_header("Location", "/release")
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def url() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Door)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_what_answers_as_it_must_is_asked_once(url: str) -> None:
    asks = [Ask("release", f"{url}/release", text="abc"), Ask("no key", f"{url}/v1", status=(401,))]
    asked: list[str] = []

    def counting(ask: Ask) -> Said:
        asked.append(ask.name)
        return fetch(ask)

    assert ask_until_right(asks, 5, counting) == []
    assert asked == ["release", "no key"]


def test_a_redirect_is_no_answer_of_where_it_leads(url: str) -> None:
    assert fetch(Ask("moved", f"{url}/moved")).status == 302


def test_who_does_not_answer_is_named() -> None:
    said = fetch(Ask("release", "http://127.0.0.1:9/release"))
    assert said.status is None
    assert "does not answer" in (problem_of(Ask("release", "http://127.0.0.1:9/release"), said) or "")


@pytest.mark.parametrize(
    ("said", "problem"),
    [
        (Said(200, "abc"), None),
        (Said(200, "old"), "door: http://x answers 'old', not 'abc'"),
        (Said(404, "abc"), "door: http://x answers 404, not 200"),
        (Said(None, "refused"), "door: http://x does not answer (refused)"),
    ],
)
def test_each_wrong_answer_has_its_sentence(said: Said, problem: str | None) -> None:
    assert problem_of(Ask("door", "http://x", text="abc"), said) == problem


def test_only_what_is_wrong_is_asked_again() -> None:
    asked: list[str] = []
    now = [0.0]

    def once(ask: Ask) -> Said:
        asked.append(ask.name)
        return Said(200 if ask.name == "right" or len(asked) > 3 else 502, "")

    def sleep(seconds: float) -> None:
        now[0] += seconds

    asks = [Ask("right", "http://x"), Ask("late", "http://y")]
    assert ask_until_right(asks, 10, once, sleep, lambda: now[0]) == []
    assert asked == ["right", "late", "late", "late"]


def test_the_time_ends() -> None:
    now = [0.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    problems = ask_until_right([Ask("a", "http://x")], 2, lambda _: Said(500, ""), sleep, lambda: now[0])
    assert problems == ["a: http://x answers 500, not 200"]
    assert now[0] == 2
