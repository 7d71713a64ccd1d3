"""`ai-idp doctor` and `ai-idp lab` against servers that are well, ill, or not there, over real sockets."""

import asyncio
import json
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
from ansible.parsing.vault import VaultLib, VaultSecret
from typer.testing import CliRunner

from ai_idp.cli import app
from ai_idp.doctor import Check, Report, examine_hosts
from ai_idp.endpoints import Secrets
from ai_idp.errors import FrontError
from ai_idp.project import Host

KEY = "k" * 64
MODEL = "tiny-llama"
METRICS = '# HELP up It is up.\n# TYPE up gauge\nup 1\nvllm:num_requests_running{model="tiny"} 0\n'
REPLAYED = 'DCGM_FI_DEV_GPU_TEMP{gpu="0",replay="true"} 41\n'


@dataclass
class Behaviour:
    """How the fake platform behaves; a test spoils one thing."""

    healthy: bool = True
    models: list[str] = field(default_factory=lambda: [MODEL])
    tokens: int = 8
    stream_type: str = "text/event-stream; charset=utf-8"
    stream_ends: bool = True
    asks_for_key: bool = True
    metrics: str = METRICS
    triton: dict[str, Any] = field(default_factory=lambda: {"embedder": {"name": "embedder", "versions": ["1"]}})
    delay_s: float = 0.0


class Platform(BaseHTTPRequestHandler):
    """vLLM, Triton and exporters in one."""

    behaviour: ClassVar[Behaviour]

    def log_message(self, *_arguments: object) -> None:
        pass

    def reply(self, status: int, body: str, kind: str = "application/json") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body.encode())))
        self.end_headers()
        self.wfile.write(body.encode())

    def admitted(self) -> bool:
        if not self.behaviour.asks_for_key or self.headers.get("Authorization") == f"Bearer {KEY}":
            return True
        self.reply(401, '{"error": "Unauthorized"}')
        return False

    def do_GET(self) -> None:
        if self.path in ("/health", "/v2/health/ready"):
            self.reply(200 if self.behaviour.healthy else 503, "")
        elif self.path == "/v1/models":
            if self.admitted():
                self.reply(200, json.dumps({"data": [{"id": name} for name in self.behaviour.models]}))
        elif self.path == "/metrics":
            self.reply(200, self.behaviour.metrics, "text/plain")
        elif self.path == "/replayed":
            self.reply(200, REPLAYED, "text/plain")
        elif (name := self.path.removeprefix("/v2/models/")) in self.behaviour.triton:
            self.reply(200, json.dumps(self.behaviour.triton[name]))
        elif self.path.startswith("/v2/models/"):
            self.reply(400, json.dumps({"error": f"Request for unknown model: '{name}' is not found"}))
        else:
            self.reply(404, "not here")

    def do_POST(self) -> None:
        question = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if not self.admitted():
            return
        time.sleep(self.behaviour.delay_s)
        assert question["model"] == MODEL
        if question["stream"]:
            chunk = 'data: {"choices": [{"delta": {"content": "x"}}]}\n\n'
            end = "data: [DONE]\n\n" if self.behaviour.stream_ends else ""
            self.reply(200, chunk * 5 + end, self.behaviour.stream_type)
            return
        answer = {
            "choices": [{"message": {"content": "x" * self.behaviour.tokens}}],
            "usage": {"completion_tokens": self.behaviour.tokens},
        }
        self.reply(200, json.dumps(answer))


@pytest.fixture
def behaviour() -> Behaviour:
    return Behaviour()


@pytest.fixture
def port(behaviour: Behaviour) -> Iterator[int]:
    handler = type("Handler", (Platform,), {"behaviour": behaviour})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


@pytest.fixture
def checkout(tmp_path: Path, port: int, ssh_port: int, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "checkout"
    (root / "playbooks").mkdir(parents=True)
    (root / "inventory" / "lab" / "state").mkdir(parents=True)
    (root / "ansible.cfg").write_text("[inventory]\nignore_patterns = secrets\\.yml, ^state$\n")
    (root / "inventory" / "lab" / "hosts.yml").write_text(
        "all:\n  hosts:\n"
        f"    schlimers-server: {{ansible_host: 127.0.0.1, ansible_port: {ssh_port}}}\n"
        "    here: {ansible_connection: local}\n"
    )
    url = f"http://127.0.0.1:{port}"
    common = {"host": "schlimers-server", "url": url, "key": None, "model": None, "metrics_url": None}
    write_endpoints(
        root,
        [
            {
                **common,
                "name": "vllm",
                "kind": "openai",
                "key": "vllm_key",
                "model": MODEL,
                "health_path": "/health",
                "metrics_path": "/metrics",
                "replay": False,
            },
            {
                **common,
                "name": "triton",
                "kind": "triton",
                "models": ["embedder"],
                "health_path": None,
                "metrics_url": f"{url}/metrics",
            },
            {**common, "name": "dcgm", "kind": "metrics", "metrics_path": "/replayed", "replay": True},
        ],
    )
    (root / "inventory" / "lab" / "secrets.yml").write_text(f"---\nvllm_key: {KEY}\n")
    monkeypatch.setenv("AI_IDP_HOME", str(root))
    # A proxy for the internet must not stand between the doctor and the local network.
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.delenv("ANSIBLE_VAULT_PASSWORD_FILE", raising=False)
    return root


def write_endpoints(root: Path, endpoints: list[dict[str, Any]], schema: int = 1) -> None:
    path = root / "inventory" / "lab" / "state" / "endpoints.json"
    path.write_text(json.dumps({"schema": schema, "environment": "lab", "endpoints": endpoints}))


def doctor(root: Path, timeout_s: float = 10.0, port: int | None = None) -> tuple[Report, dict[str, Check]]:
    """The checks without starting Ansible to read the inventory."""
    hosts = [Host("h", "127.0.0.1", port, "ssh")] if port else [Host("here", "here", 22, "local")]
    report = asyncio.run(examine_hosts(root / "inventory" / "lab", hosts, timeout_s))
    checks = {f"{check.name}@{check.host}" if check.name == "ssh" else check.name: check for check in report.checks}
    assert len(checks) == len(report.checks)
    return report, checks


@pytest.mark.parametrize(("options", "port"), [("-o Port={port}", None), ("", "{port}")])
def test_a_host_may_have_a_name_that_only_ssh_knows(
    checkout: Path, ssh_port: int, tmp_path: Path, options: str, port: str | None
) -> None:
    settings = tmp_path / "ssh_config"
    settings.write_text("Host board\n  HostName 127.0.0.1\n")
    number = int(port.format(port=ssh_port)) if port else None
    host = Host("board", "board", number, "ssh", ssh_args=f"-F {settings} {options.format(port=ssh_port)}")
    report = asyncio.run(examine_hosts(checkout / "inventory" / "lab", [host], 10))
    (check,) = (check for check in report.checks if check.name == "ssh")
    assert (check.status, check.detail.partition(" ")[0]) == ("ok", f"127.0.0.1:{ssh_port}")


def test_a_host_behind_another_is_unknown(checkout: Path) -> None:
    host = Host("board", "board", None, "ssh", ssh_args="-F none -J door.example")
    report = asyncio.run(examine_hosts(checkout / "inventory" / "lab", [host], 10))
    (check,) = (check for check in report.checks if check.name == "ssh")
    assert check.status == "unknown"
    assert "through another host (proxyjump door.example)" in check.detail


def test_all_is_well(checkout: Path) -> None:
    result = CliRunner().invoke(app, ["doctor", "--json"])
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert set(report) == {"ok", "checks"}
    assert report["ok"] is True
    assert all(set(check) == {"name", "host", "status", "detail"} for check in report["checks"])
    found = {(check["name"], check["host"]): (check["status"], check["detail"]) for check in report["checks"]}
    server = "schlimers-server"
    assert found["ssh", server][0] == "ok"
    assert "SSH-2.0-OpenSSH_10.0" in found["ssh", server][1]
    assert found["ssh", "here"] == ("skipped", "reached by local, not by SSH")
    assert found["endpoints", "controller"] == ("ok", "3 recorded")
    assert found["vllm: models", server] == ("ok", MODEL)
    assert found["vllm: chat", server][1].startswith("8 tokens in ")
    assert found["vllm: stream", server][1].startswith("5 chunks in ")
    assert found["vllm: wrong key", server] == ("ok", "refused with 401")
    assert found["vllm: metrics", server] == ("ok", "2 samples")
    assert found["triton: ready", server][0] == "ok"
    assert found["triton: model embedder", server] == ("ok", "ready, version 1")
    assert found["dcgm: metrics", server] == ("ok", "1 samples (replay)")


def test_the_table_says_it_in_words(checkout: Path, behaviour: Behaviour) -> None:
    behaviour.metrics = "# nothing\n"
    result = CliRunner().invoke(app, ["doctor"])
    assert result.exit_code == 1
    header = result.stdout.splitlines()[0].split()
    assert header == ["check", "host", "status", "detail"]
    assert "lab is not well:" in result.stdout
    assert "2 fail" in result.stdout
    assert KEY not in result.output


@pytest.mark.parametrize(
    ("spoiled", "check", "said"),
    [
        ({"healthy": False}, "vllm: health", "/health answers 503"),
        ({"healthy": False}, "triton: ready", "answers 503"),
        ({"models": ["other"]}, "vllm: models", f"lists other, not {MODEL}"),
        ({"models": []}, "vllm: models", "lists no model"),
        ({"tokens": 0}, "vllm: chat", "the answer is empty"),
        ({"stream_type": "application/json"}, "vllm: stream", "arrives as application/json"),
        ({"stream_ends": False}, "vllm: stream", "broke off after 5 chunks"),
        ({"asks_for_key": False}, "vllm: wrong key", "a wrong key is let in"),
        ({"metrics": "# TYPE up gauge\n"}, "vllm: metrics", "holds no samples"),
        ({"triton": {}}, "triton: model embedder", "'embedder' is not found"),
        ({"triton": {"embedder": []}}, "triton: model embedder", "JSON of another shape"),
    ],
)
def test_what_is_ill_fails(
    checkout: Path, behaviour: Behaviour, spoiled: dict[str, Any], check: str, said: str
) -> None:
    for name, value in spoiled.items():
        setattr(behaviour, name, value)
    report, checks = doctor(checkout)
    assert not report.ok
    assert checks[check].status == "fail"
    assert said in checks[check].detail


def test_a_slow_answer_is_given_up(checkout: Path, behaviour: Behaviour) -> None:
    behaviour.delay_s = 3.0
    began = time.monotonic()
    _, checks = doctor(checkout, timeout_s=0.5)
    assert time.monotonic() - began < 8
    assert checks["vllm: chat"].status == "fail"
    assert "within 0.5 s" in checks["vllm: chat"].detail or "in time" in checks["vllm: chat"].detail


def test_nobody_there(checkout: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        free = server.getsockname()[1]
    write_endpoints(checkout, [{"name": "web", "host": "h", "kind": "http", "url": f"http://127.0.0.1:{free}"}])
    report, checks = doctor(checkout, port=free)
    assert not report.ok
    assert checks["ssh@h"].status == "fail"
    assert checks["web: health"].status == "fail"
    assert f"http://127.0.0.1:{free}/" in checks["web: health"].detail


def test_something_else_than_ssh(checkout: Path, port: int) -> None:
    _, checks = doctor(checkout, timeout_s=2, port=port)
    assert checks["ssh@h"].status == "fail"


def test_unknown_is_never_ok(checkout: Path) -> None:
    (checkout / "inventory" / "lab" / "state" / "endpoints.json").unlink()
    result = CliRunner().invoke(app, ["doctor", "--json"])
    assert result.exit_code == 1
    report = json.loads(result.stdout)
    assert report["ok"] is False
    told = next(check for check in report["checks"] if check["name"] == "endpoints")
    assert told["status"] == "unknown"
    assert "run `ai-idp lab up`" in told["detail"]


def test_a_missing_key_is_unknown(checkout: Path) -> None:
    (checkout / "inventory" / "lab" / "secrets.yml").unlink()
    report, checks = doctor(checkout)
    assert not report.ok
    assert checks["vllm: chat"].status == "unknown"
    assert "inventory/lab/secrets.yml is not there" in checks["vllm: chat"].detail
    assert checks["vllm: wrong key"].status == "ok"


def test_a_senseless_endpoints_file_fails(checkout: Path) -> None:
    write_endpoints(checkout, [], schema=2)
    report, checks = doctor(checkout)
    assert not report.ok
    assert checks["endpoints"].status == "fail"
    assert "makes no sense at schema" in checks["endpoints"].detail


def test_nothing_but_skipped_is_not_ok() -> None:
    assert not Report.of([]).ok
    assert not Report.of([Check(name="x", host="h", status="skipped", detail="why")]).ok


@pytest.fixture
def vault_password(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> VaultLib:
    path = tmp_path / "vault-password"
    path.write_text("open sesame\n")
    monkeypatch.setenv("ANSIBLE_VAULT_PASSWORD_FILE", str(path))
    return VaultLib([("default", VaultSecret(b"open sesame"))])


def test_an_encrypted_secrets_file_is_read(checkout: Path, vault_password: VaultLib) -> None:
    path = checkout / "inventory" / "lab" / "secrets.yml"
    path.write_bytes(vault_password.encrypt(f"---\nvllm_key: {KEY}\n"))
    assert Secrets(path.parent).get("vllm_key") == KEY


def test_an_encrypted_value_is_read(checkout: Path, vault_password: VaultLib) -> None:
    path = checkout / "inventory" / "lab" / "secrets.yml"
    cipher = vault_password.encrypt(KEY).decode().replace("\n", "\n  ")
    path.write_text(f"---\nvllm_key: !vault |\n  {cipher}\nother: plain\n")
    assert Secrets(path.parent).get("vllm_key") == KEY
    assert Secrets(path.parent).get("other") == "plain"


def test_an_encrypted_file_without_its_password_says_what_to_set(
    checkout: Path, vault_password: VaultLib, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = checkout / "inventory" / "lab" / "secrets.yml"
    path.write_bytes(vault_password.encrypt("a: b\n"))
    wrong = tmp_path / "wrong"
    wrong.write_text("close sesame\n")
    monkeypatch.setenv("ANSIBLE_VAULT_PASSWORD_FILE", str(wrong))
    with pytest.raises(FrontError, match="can't be decrypted"):
        Secrets(path.parent).get("a")
    monkeypatch.delenv("ANSIBLE_VAULT_PASSWORD_FILE")
    with pytest.raises(FrontError, match="set ANSIBLE_VAULT_PASSWORD_FILE"):
        Secrets(path.parent).get("a")


def test_a_damaged_secrets_file_is_not_quoted(checkout: Path) -> None:
    path = checkout / "inventory" / "lab" / "secrets.yml"
    path.write_text('a: "s3cret\nb: [\n')
    with pytest.raises(FrontError) as caught:
        Secrets(path.parent).get("a")
    assert "s3cret" not in str(caught.value)


def test_lab_env_is_what_eval_takes(checkout: Path, port: int) -> None:
    result = CliRunner().invoke(app, ["lab", "env"])
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        f"export AI_IDP_BASE_URL=http://127.0.0.1:{port}/v1",
        f"export AI_IDP_API_KEY={KEY}",
    ]


def test_lab_env_without_a_lab_prints_nothing_to_eval(checkout: Path) -> None:
    (checkout / "inventory" / "lab" / "state" / "endpoints.json").unlink()
    result = CliRunner().invoke(app, ["lab", "env"])
    assert result.exit_code == 2
    assert result.stdout == ""
    assert "nothing has been deployed" in result.stderr
