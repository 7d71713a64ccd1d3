"""What others see at the gate of a host: who is let in, where to, how fast, and what a change of the key costs."""

import http.client
import json
import os
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from shlex import quote
from typing import Any

import httpx
import pytest

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT))
from tests import converged_again  # noqa: E402
from tests.integration.suite import ALONE, FULL, write_proof  # noqa: E402

ADDRESS = os.environ["ROLE_TEST_ADDRESS"]
CONTAINER = f"ai-idp-lab-role-test-{ADDRESS.rpartition('.')[2]}"
CA = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"]) / "ca.crt"
KEY, NEXT = "key-of-the-platform-0123456789", "next-key-of-the-platform-0123456789"
ENGINE_KEY = "key-of-the-engine-$a'b\"c\\d"
CHAT = {"model": "m", "messages": [{"role": "user", "content": "hello"}], "stream": True, "max_tokens": 3}
# Says what arrived, whatever is asked, and breaks off over the model `broken`.
ECHO = """
import json, sys, threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
class Echo(BaseHTTPRequestHandler):
    def do_GET(self):
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if "/broken/" in self.path:
            self.close_connection = True
            return
        body = json.dumps({"path": self.path, "port": self.server.server_port, "headers": dict(self.headers)}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    do_POST = do_GET
    def log_message(self, *arguments):
        pass
for port in sys.argv[1:]:
    threading.Thread(target=ThreadingHTTPServer(("127.0.0.1", int(port)), Echo).serve_forever).start()
"""


def bearer(key: str = KEY) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


# The role, run once more with other variables.
converge = partial(converged_again.converge, "engine_gate", "--diff")


@pytest.fixture(scope="module", autouse=True)
def engines(host: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """An engine that wants its own key, and servers that say what arrived: on the host, on loopback."""
    echo = tmp_path_factory.mktemp("echo") / "echo.py"
    echo.write_text(ECHO)
    for file in (echo, ROOT / "tests" / "mock_openai.py", ROOT / "tests" / "stream_timing.py"):
        subprocess.run(["docker", "cp", str(file), f"{CONTAINER}:/opt/{file.name}"], check=True, capture_output=True)
    mock = f"/opt/mock_openai.py --port 18500 --key {quote(ENGINE_KEY)} --ttft-ms 30 --spacing-ms 20"
    with host.sudo():
        host.check_output(f"systemd-run --collect --expand-environment=no --unit=test-engine python3 {mock}")
        host.check_output("systemd-run --collect --unit=test-echo python3 /opt/echo.py 18502 18503")
        for place in ("127.0.0.1:18500", "127.0.0.1:18503"):
            host.check_output(f"timeout 20 sh -c 'until ss -ltn | grep -q {place}; do sleep .1; done'")
        yield
        host.check_output("systemctl stop test-engine test-echo")


@pytest.fixture(scope="module")
def trust() -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(CA))


@pytest.fixture(scope="module")
def web(trust: ssl.SSLContext) -> Iterator[httpx.Client]:
    with httpx.Client(verify=trust, timeout=20, trust_env=False) as client:
        yield client


def url(port: int, path: str) -> str:
    return f"https://{ADDRESS}:{port}{path}"


def release(host: Any) -> str:
    return str(host.check_output("curl -fsS http://127.0.0.1:8087/release"))


def test_with_the_platform_s_key_the_engine_sees_its_own(web: httpx.Client) -> None:
    answer = web.post(url(18500, "/v1/chat/completions"), headers=bearer(), json=CHAT)
    assert answer.status_code == 200, answer.text
    assert answer.text.rstrip().endswith("[DONE]")
    # One that wants no key is shown none.
    others = {"x-api-key": KEY, "api-key": KEY}
    told = web.get(url(18502, "/v2/models/a/ready"), headers={**bearer(), **others}).json()
    assert (told["path"], told["port"]) == ("/v2/models/a/ready", 18502)
    assert not {"authorization", "x-api-key", "api-key"} & {name.lower() for name in told["headers"]}


@pytest.mark.parametrize(
    "headers", [{}, {"x-api-key": KEY}, bearer("wrong"), bearer(ENGINE_KEY), {"Authorization": KEY}, bearer(NEXT)]
)
def test_nobody_else_is_let_in(web: httpx.Client, headers: dict[str, str]) -> None:
    for port, path in ((18500, "/v1/chat/completions"), (18502, "/v2/models/a/infer")):
        answer = web.post(url(port, path), headers=headers, json=CHAT)
        assert (answer.status_code, answer.json()["error"]["code"]) == (401, "invalid_api_key")


@pytest.mark.parametrize(
    ("port", "path"),
    [
        *((18500, path) for path in ("/", "/invocations", "/detokenize", "/pause", "/v1/score", "/v1/../invocations")),
        *((18502, path) for path in ("/v2/repository/index", "/v2/repository/models/evil/load", "/v2/logging")),
        *((18502, path) for path in ("/v2/models/a/stats", "/v2/systemsharedmemory/status", "/v2/models/a%2fb/infer")),
    ],
)
def test_no_operator_s_path_is_let_through_even_with_the_key(web: httpx.Client, port: int, path: str) -> None:
    """Tried in the lab before there was a gate: the repository's API ran code, vLLM answered without a key."""
    for method in ("GET", "POST"):
        answer = web.request(method, url(port, path), headers=bearer())
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")


def test_anthropic_s_clients_get_their_own_form_of_errors(web: httpx.Client) -> None:
    for port, headers, status, kind in (
        (18500, {}, 401, "authentication_error"),
        (18509, bearer(), 502, "api_error"),
    ):
        answer = web.post(url(port, "/v1/messages"), headers=headers, json=CHAT)
        assert (answer.status_code, answer.json()["type"]) == (status, "error")
        assert answer.json()["error"]["type"] == kind


def test_a_method_that_is_not_listed_is_refused(web: httpx.Client) -> None:
    answer = web.delete(url(18500, "/v1/models"), headers=bearer())
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD")


def test_figures_are_for_who_has_the_key(web: httpx.Client) -> None:
    assert web.get(url(18502, "/metrics")).status_code == 401
    told = web.get(url(18502, "/metrics"), headers=bearer()).json()
    assert (told["path"], told["port"]) == ("/metrics", 18503)


def test_an_engine_that_is_down_is_told_in_the_form_that_clients_read(web: httpx.Client) -> None:
    answer = web.get(url(18509, "/v1/models"), headers=bearer())
    assert (answer.status_code, answer.json()["error"]["code"]) == (502, "upstream_unavailable")


@pytest.mark.parametrize(
    ("method", "port", "path", "status"),
    [
        # Gateways give to another host what is answered with 502.
        ("POST", 18509, "/v1/completions", 502),
        ("POST", 18502, "/v2/models/broken/infer", 500),
        ("GET", 18502, "/v2/models/broken/ready", 502),
    ],
)
def test_whether_the_engine_had_begun_is_told(
    web: httpx.Client, method: str, port: int, path: str, status: int
) -> None:
    # The second time on a connection that was kept.
    for _ in range(2):
        answer = web.request(method, url(port, path), headers=bearer(), json=CHAT if method == "POST" else None)
        code = {502: "upstream_unavailable", 500: "upstream_broke_off"}[status]
        assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)


def test_a_body_that_is_too_large_is_refused(web: httpx.Client) -> None:
    answer = web.post(url(18502, "/v2/models/a/infer"), headers=bearer(), content=b" " * (2 << 20))
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "request_too_large")


def test_nothing_crosses_the_network_in_the_clear(trust: ssl.SSLContext) -> None:
    plain = http.client.HTTPConnection(ADDRESS, 18500, timeout=5)
    plain.request("GET", "/v1/models", headers=bearer())
    # nginx' own word for plain HTTP where TLS is spoken.
    assert plain.getresponse().status == 400
    # The gateway knows every gate by one name, whichever host it is on.
    with (
        socket.create_connection((ADDRESS, 18500), timeout=5) as raw,
        trust.wrap_socket(raw, server_hostname="engines.ai-idp.internal") as secure,
    ):
        assert secure.version() == "TLSv1.3"


def test_nothing_else_listens_on_the_network(host: Any) -> None:
    lines = host.check_output("ss -ltnH").splitlines()
    places = {line.split()[3] for line in lines}
    outside = {place for place in places if not place.startswith(("127.", "[::1]"))}
    assert {place for place in outside if not place.endswith(":22")} == {
        f"{ADDRESS}:{port}" for port in (18500, 18502, 18509)
    }
    with host.sudo():
        # After the next boot, too.
        assert host.run("systemctl is-enabled nginx.service").stdout.strip() == "disabled"


def test_keys_are_for_root_and_in_no_process_list(host: Any) -> None:
    with host.sudo():
        for name in ("keys.map", "upstream_vllm.conf"):
            file = host.file(f"/etc/ai-idp/gate/current/{name}")
            assert (file.user, file.mode & 0o007) == ("root", 0), name
        shown = host.check_output("ps -eww -o args | grep -v test-engine | grep -v mock_openai")
        shown += host.check_output("journalctl --no-pager --unit=ai-idp-gate.service")
    for key in (KEY, ENGINE_KEY):
        assert key not in shown


def test_the_unit_is_confined(host: Any) -> None:
    with host.sudo():
        told = host.check_output("systemd-analyze security --no-pager ai-idp-gate.service").splitlines()[-1]
    assert float(told.split(":")[1].split()[0]) < 5.0, told


class Running(threading.Thread):
    """Asks for one stream that outlasts a run, and request after request, with keys that may change meanwhile."""

    def __init__(self, trust: ssl.SSLContext) -> None:
        super().__init__(daemon=True)
        self.trust, self.over, self.codes, self.key = trust, threading.Event(), [], KEY

    def run(self) -> None:
        with httpx.Client(verify=self.trust, timeout=20, trust_env=False, limits=ALONE) as client:
            while not self.over.is_set():
                self.codes.append(client.get(url(18502, "/v2/models/a/ready"), headers=bearer(self.key)).status_code)
                time.sleep(0.02)


def test_a_key_is_replaced_without_a_request_that_fails(host: Any, trust: ssl.SSLContext, web: httpx.Client) -> None:
    """Both are good while it is under way; nginx reloads, a stream goes on, and no engine is restarted."""
    with host.sudo():
        pids = host.check_output("systemctl show --property=MainPID --value ai-idp-gate test-engine")
    requests = Running(trust)
    requests.start()

    arrived: list[float] = []

    def stream() -> None:
        # It would go on for a quarter of an hour.
        body = {**CHAT, "max_tokens": 45000}
        with (
            httpx.Client(verify=trust, timeout=20, trust_env=False) as client,
            client.stream("POST", url(18500, "/v1/chat/completions"), headers=bearer(), json=body) as answer,
        ):
            for _ in answer.iter_lines():
                arrived.append(time.monotonic())
                if requests.over.is_set():
                    return
        pytest.fail("the stream was cut")

    with ThreadPoolExecutor(1) as pool:
        streaming = pool.submit(stream)
        try:
            both = converge(engine_gate_keys=[NEXT, KEY])
            assert both.returncode == 0, both.stdout
            assert KEY not in both.stdout
            assert NEXT not in both.stdout
            for key in (KEY, NEXT):
                assert web.get(url(18502, "/v2/models/a/ready"), headers=bearer(key)).status_code == 200
            requests.key = NEXT
            time.sleep(0.2)
            new = converge(engine_gate_keys=[NEXT])
            assert new.returncode == 0, new.stdout
            time.sleep(1)
        finally:
            requests.over.set()
        requests.join()
        streaming.result()
    assert time.monotonic() - arrived[-1] < 10
    assert len(arrived) > 200
    assert {*requests.codes} == {200}
    assert len(requests.codes) > 200
    assert web.get(url(18502, "/v2/models/a/ready"), headers=bearer(KEY)).status_code == 401
    with host.sudo():
        assert host.check_output("systemctl show --property=MainPID --value ai-idp-gate test-engine") == pids
    assert converge().returncode == 0


def test_what_nginx_refuses_changes_nothing(host: Any, web: httpx.Client) -> None:
    before = release(host)
    run = converge(engine_gate_worker_connections="many")
    assert run.returncode != 0
    assert release(host) == before
    assert web.get(url(18502, "/v2/models/a/ready"), headers=bearer()).status_code == 200


def test_a_configuration_that_the_running_nginx_can_not_take_is_undone(host: Any, web: httpx.Client) -> None:
    """nginx's own test knows nothing of a port that somebody else has. A new key that came with it goes, too."""
    files = (
        "cd /etc/ai-idp/gate && find . -type f -exec sha256sum {} + | sort -k 2; find . -printf '%p %y %m %l\n' | sort"
    )
    with host.sudo():
        before, pid = host.check_output(files), host.check_output("systemctl show --property=MainPID ai-idp-gate")
        host.check_output("systemd-run --quiet --collect --unit=test-squatter python3 -m http.server 8999 -b 127.0.0.1")
        try:
            host.check_output("timeout 10 sh -c 'until ss -ltn | grep -q :8999; do sleep .1; done'")
            refused = converge(engine_gate_status_port=8999, engine_gate_keys=[NEXT], __engine_gate_preflight={})
        finally:
            host.check_output("systemctl stop test-squatter")
    assert refused.returncode != 0
    assert "The one before is in place again" in refused.stdout
    with host.sudo():
        assert host.check_output(files) == before
        assert host.check_output("systemctl show --property=MainPID ai-idp-gate") == pid
    for key, status in ((KEY, 200), (NEXT, 401)):
        assert web.get(url(18502, "/v2/models/a/ready"), headers=bearer(key)).status_code == status
    again = converge()
    assert again.returncode == 0
    assert " changed=0 " in again.stdout


def test_a_door_whose_port_somebody_else_has_is_refused_by_name(host: Any) -> None:
    doors = [{"name": "taken", "port": 18777, "upstream_port": 18500, "metrics": {"path": "/metrics"}}]
    with host.sudo():
        host.check_output(f"systemd-run --collect --unit=test-squatter python3 -m http.server 18777 --bind {ADDRESS}")
        try:
            host.check_output("timeout 10 sh -c 'until ss -ltn | grep -q :18777; do sleep .1; done'")
            run = converge(engine_gate_doors=doors)
        finally:
            host.check_output("systemctl stop test-squatter")
    assert run.returncode != 0
    assert "engine_gate_doors (taken): 18777" in run.stdout


def test_the_first_token_comes_as_soon(host: Any) -> None:
    """Paired, on the host itself: with the gate and without it in turn. The goal on a quiet machine is 0.3 ms."""
    subprocess.run(["docker", "cp", str(CA), f"{CONTAINER}:/opt/ca.crt"], check=True, capture_output=True)
    found: list[float] = []
    # What else this machine does in these seconds can only add: the best of five is the gate's own part.
    for _ in range(5):
        done = host.run(
            f"AI_IDP_DIRECT_KEY={quote(ENGINE_KEY)} AI_IDP_API_KEY={KEY} python3 /opt/stream_timing.py --limit-ms 0.3"
            f" --direct http://127.0.0.1:18500 --gateway https://{ADDRESS}:18500 --ca /opt/ca.crt"
            " --runs 60 --tokens 3 --concurrency 0"
        )
        told = json.loads(done.stdout)["compare"]
        assert told["problems"] == []
        found.append(told["first_added"]["p50"])
        if done.rc == 0 and not FULL:
            break
    if FULL:
        write_proof("gate_first_token", [{"pairs": 60, "added_p50_ms": one} for one in found])
    print(f"the gate adds {min(found):.3f} ms to the first token (median of pairs); all: {found}")
    # Other scenarios run beside this one, and the client's own TLS counts as well.
    assert min(found) <= (1.0 if FULL else 2.0), found
