"""A proxy of the environment gets no request to the platform itself, nor the password in it."""

import importlib.util
import json
import re
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible.module_utils.ai_idp import (
    benchmark_measure,
    endpoint_check,
    hub_client,
    mlflow_runs,
    n8n,
    preflight_check,
)
from ansible.module_utils.ai_idp.http_ask import ask

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "roles" / "knowledge_vault" / "files"))

from knowledge_vault import events, mlflow  # type: ignore[import-not-found]  # noqa: E402

SPEC = importlib.util.spec_from_file_location("status_page", ROOT / "roles/status_page/files/status_page.py")
assert SPEC
assert SPEC.loader
page = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(page)

ANSWER = {"status": "success", "data": {}, "experiments": [], "version": "1", "headers": "none"}


class Answering(BaseHTTPRequestHandler):
    """Writes down what it is asked, and answers with a bit of everything."""

    asked: list[str]

    def do_GET(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        self.rfile.read(length)
        self.asked.append(self.path)
        body = json.dumps({**ANSWER, "status": "new" if self.path == "/webhook" else "success"}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_HEAD = do_GET

    def log_message(self, *_: Any) -> None:
        pass


def serving() -> tuple[ThreadingHTTPServer, list[str]]:
    """A server, and what it was asked."""
    asked: list[str] = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (Answering,), {"asked": asked}))
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    return server, asked


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """What the proxy was asked that /etc/environment names."""
    server, asked = serving()
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{server.server_address[1]}")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    yield asked
    server.shutdown()
    server.server_close()


@pytest.fixture
def here() -> Iterator[tuple[str, list[str]]]:
    """A service of this host: its address, and what it was asked."""
    server, asked = serving()
    yield f"http://127.0.0.1:{server.server_address[1]}", asked
    server.shutdown()
    server.server_close()


ASKING: dict[str, Callable[[str], object]] = {
    "mlflow_runs": lambda url: mlflow_runs.sender(url, "owner", "hidden")("POST", "api", b"{}"),
    "n8n": lambda url: n8n.Client(url, 5).ask("GET", "/rest/settings"),
    "http_ask": lambda url: ask(f"{url}/health", "owner", "hidden"),
    "endpoint_check": lambda url: endpoint_check.request(f"{url}/health", key="hidden"),
    "benchmark": lambda url: benchmark_measure.probe_endpoint(url, "hidden", None),
    "preflight": lambda url: preflight_check.check_url({"url": f"{url}/v2/"}, 5),
    "hub": lambda url: hub_client.read_json(hub_client.Web(url, "hidden", 5), f"{url}/api/models/x"),
    "vault's runs": lambda url: mlflow.runs_of("2026-03-01", {"url": url, "user": "owner", "password": "hidden"}),
    "vault's events": lambda url: events._post(
        SimpleNamespace(webhook_url=f"{url}/webhook", webhook_secret="s" * 64, ca_file=""), b"{}"
    ),
    "status page": lambda url: page.fetch(f"{url}/api/v1/query?query=1"),
}


@pytest.mark.parametrize("who", ASKING)
def test_a_proxy_gets_nothing_that_is_for_this_host(who: str, proxy: list[str], here: tuple[str, list[str]]) -> None:
    url, asked = here
    ASKING[who](url)
    assert proxy == []
    assert asked


@pytest.mark.parametrize("who", ["preflight", "hub"])
def test_what_is_elsewhere_is_asked_by_the_proxy(who: str, proxy: list[str]) -> None:
    """A registry or a hub of models may be reached by no other way."""
    ASKING[who]("http://models.invalid")
    assert [path.startswith("http://models.invalid/") for path in proxy] == [True]


def test_this_host_has_several_names(proxy: list[str], here: tuple[str, list[str]]) -> None:
    url = here[0].replace("127.0.0.1", "localhost")
    assert preflight_check.check_url({"url": url}, 5).status == "ok"
    assert proxy == []


def test_nothing_that_runs_on_hosts_leaves_the_choice_to_the_environment() -> None:
    """urlopen takes the environment's proxies, and so does an opener without a handler of its own for them."""
    files = [
        *(ROOT / "module_utils").rglob("*.py"),
        *(ROOT / "library").glob("*.py"),
        *ROOT.glob("roles/*/files/**/*.py"),
        *ROOT.glob("roles/*/templates/**/*.j2"),
    ]
    openers = r"\burlopen\(|build_opener\((?!.*Prox|\*handlers|$)"
    wrong = re.compile(rf"{openers}|^import requests|curl, (?!.*--noproxy)", re.MULTILINE)
    found = {str(path.relative_to(ROOT)): wrong.findall(path.read_text(encoding="utf-8")) for path in files}
    assert {name: places for name, places in found.items() if places} == {}
