"""Checks of endpoints, against a server that answers rightly and wrongly."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from ansible.module_utils.ai_idp.endpoint_check import check_endpoint

EVENTS = 'data: {"a": 1}\n\ndata: {"b": 2}\n\ndata: [DONE]\n\n'


class Engine(BaseHTTPRequestHandler):
    """An OpenAI-compatible server of one model, with faults that a test switches on."""

    fault = ""

    def log_message(self, *_arguments: Any) -> None:
        """Stay silent."""

    def answer(self, status: int, text: str) -> None:
        self.send_response(status)
        self.end_headers()
        self.wfile.write(text.encode())

    def do_GET(self) -> None:
        if self.path == "/health":
            self.answer(503 if self.fault == "ill" else 200, "")
        elif self.path == "/metrics":
            self.answer(200, "" if self.fault == "no samples" else '# HELP up\nup{replay="true"} 1\n')
        else:
            self.answer(200, json.dumps({"data": [{"id": "other" if self.fault == "other model" else "tiny"}]}))

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.headers["Authorization"] != "Bearer right" and self.fault != "open":
            self.answer(401, "{}")
        elif body.get("stream"):
            self.answer(200, "{}" if self.fault == "no stream" else EVENTS)
        elif self.fault == "not JSON":
            self.answer(200, "<html>")
        else:
            self.answer(200, json.dumps({"usage": {"completion_tokens": 3}}))


@pytest.fixture
def endpoint(request: pytest.FixtureRequest) -> Iterator[dict[str, Any]]:
    handler = type("FaultyEngine", (Engine,), {"fault": getattr(request, "param", "")})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    yield {"name": "vllm", "kind": "openai", "url": url, "health_path": "/health", "metrics_url": f"{url}/metrics",
           "api_key": "right", "model": "tiny", "models": None}  # fmt: skip
    server.shutdown()


def test_a_healthy_endpoint_passes_every_check(endpoint: dict[str, Any]) -> None:
    checks = check_endpoint(endpoint, timeout=5)
    assert [check["status"] for check in checks] == ["ok"] * 6
    assert checks[-1]["detail"] == "1 samples, replayed"


@pytest.mark.parametrize(
    ("endpoint", "failed"),
    [
        ("ill", "vllm: health"),
        ("other model", "vllm: models"),
        ("not JSON", "vllm: chat completion"),
        ("no stream", "vllm: streamed chat completion"),
        ("open", "vllm: wrong key"),
        ("no samples", "vllm: metrics"),
    ],
    indirect=["endpoint"],
)
def test_each_fault_is_found(endpoint: dict[str, Any], failed: str) -> None:
    assert [check["name"] for check in check_endpoint(endpoint, timeout=5) if check["status"] == "fail"] == [failed]


def test_a_dead_endpoint_fails_every_check(endpoint: dict[str, Any]) -> None:
    dead = {**endpoint, "url": "http://127.0.0.1:9", "metrics_url": "http://127.0.0.1:9/metrics"}
    checks = check_endpoint(dead, timeout=2)
    assert {check["status"] for check in checks} == {"fail"}
    assert "does not answer" in checks[0]["detail"]
