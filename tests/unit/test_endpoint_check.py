"""Checks of endpoints, against a server that answers rightly and wrongly."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from ansible.module_utils.ai_idp.endpoint_check import addresses_of, check_endpoint, check_listeners

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
        key = self.headers["Authorization"]
        let_in = {"open": True, "open without a key": key is None}.get(self.fault, False)
        if key != "Bearer right" and not let_in:
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
        ("open without a key", "vllm: wrong key"),
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


class Triton(BaseHTTPRequestHandler):
    """Has one model, and refuses what is for its operator."""

    def log_message(self, *_arguments: Any) -> None:
        """Stay silent."""

    def do_GET(self) -> None:
        there = self.path in ("/v2/health/ready", "/v2/models/whole/ready")
        self.send_response(200 if there else 400)
        self.end_headers()

    def do_POST(self) -> None:
        self.send_response(403)
        self.end_headers()


def test_models_of_triton_are_asked_one_by_one() -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Triton)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    try:
        rows = {
            name: check_endpoint(
                {"name": "triton", "kind": "triton", "url": url, "health_path": "/v2/health/ready", "models": models,
                 "metrics_url": f"{url}/metrics", "api_key": None, "model": None},
                timeout=5,
            )[1]
            for name, models in (("there", ["whole"]), ("gone", ["whole", "br/oken"]))
        }  # fmt: skip
    finally:
        server.shutdown()
    assert (rows["there"]["status"], rows["there"]["detail"]) == ("ok", "ready: whole")
    assert (rows["gone"]["status"], rows["gone"]["detail"]) == ("fail", f"{url}: not ready: br/oken")


LISTENING = """\
LISTEN 0 1    10.66.0.2:50052 0.0.0.0:*
LISTEN 0 4096 0.0.0.0%eth0:8090 0.0.0.0:*
LISTEN 0 4096 [::]:8090 [::]:*
LISTEN 0 128 127.0.0.1:150052 0.0.0.0:*
LISTEN 0 511 10.66.0.2:8091 0.0.0.0:* users:(("nginx",pid=7,fd=5),("nginx",pid=6,fd=5))
LISTEN 0 512 127.0.0.1:8091 0.0.0.0:* users:(("llama-server",pid=8,fd=3))
"""


def test_a_port_listens_on_its_address_alone() -> None:
    assert addresses_of(LISTENING, 50052) == ["10.66.0.2"]
    assert addresses_of(LISTENING, 8090) == ["0.0.0.0", "::"]
    rpc = {"name": "edge-rpc", "address": "10.66.0.2", "port": 50052}
    http = {"name": "edge", "address": "10.66.0.2", "port": 8090}
    gone = {"name": "gone", "address": "10.66.0.2", "port": 1}
    checks = check_listeners([rpc, http, gone], LISTENING)
    assert [check["status"] for check in checks] == ["ok", "fail", "fail"]
    # The gate before an engine has its port on another address.
    behind = {"name": "edge", "address": "127.0.0.1", "port": 8091}
    assert [check["status"] for check in check_listeners([behind, {**behind, "beside": "nginx"}], LISTENING)] == [
        "fail",
        "ok",
    ]
    assert checks[1]["detail"] == "port 8090 listens on 0.0.0.0, ::, not on 10.66.0.2 alone"
    assert checks[2]["detail"] == "port 1 listens on nothing, not on 10.66.0.2 alone"
