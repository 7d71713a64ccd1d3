"""The platform through its one door, and what Prometheus sees of it: asked by real clients with the CA alone."""

import json
import ssl
import time
from collections.abc import Iterator

import httpx
import openai
import pytest
import testinfra
from openai import OpenAI

from .conftest import INVENTORY, extra, run_playbook

GATEWAY = "https://10.77.0.12"


@pytest.fixture(scope="module")
def trust() -> ssl.SSLContext:
    """The CA that week 3 handed out, and no other."""
    return ssl.create_default_context(cafile=str(INVENTORY / "state" / "ca.crt"))


@pytest.fixture(scope="module")
def http(trust: ssl.SSLContext) -> Iterator[httpx.Client]:
    """A client without a key."""
    with httpx.Client(base_url=GATEWAY, verify=trust, timeout=60, trust_env=False) as client:
        yield client


def openai_client(trust: ssl.SSLContext, key: str, path: str = "/v1") -> OpenAI:
    """The OpenAI client, pointed at the gateway."""
    transport = httpx.Client(verify=trust, timeout=120, trust_env=False)
    return OpenAI(base_url=GATEWAY + path, api_key=key, max_retries=0, http_client=transport)


@pytest.mark.parametrize(("path", "model"), [("/v1", "tiny-llama"), ("/llama/v1", "tiny-llama-gguf")])
def test_chat_and_stream(trust: ssl.SSLContext, secrets: dict[str, str], path: str, model: str) -> None:
    client = openai_client(trust, secrets["gateway_client_key"], path)
    question = {"model": model, "messages": [{"role": "user", "content": "Say hello."}], "max_tokens": 16}
    assert client.chat.completions.create(**question).usage.completion_tokens > 0
    question["max_tokens"], began = 200, time.monotonic()
    arrived = [time.monotonic() for chunk in client.chat.completions.create(**question, stream=True) if chunk.choices]
    assert len(arrived) > 3
    # A stream that somebody held back would come in one moment, at its end.
    assert arrived[-1] - arrived[0] > 0.1 * (arrived[-1] - began)


def test_a_wrong_key_is_refused(trust: ssl.SSLContext) -> None:
    with pytest.raises(openai.AuthenticationError):
        openai_client(trust, "0" * 64).models.list()


def test_the_engine_s_own_key_opens_nothing(trust: ssl.SSLContext, secrets: dict[str, str]) -> None:
    with pytest.raises(openai.AuthenticationError):
        openai_client(trust, secrets["inference_stack_vllm_api_key"]).models.list()


def test_what_is_not_listed_is_not_there(http: httpx.Client, secrets: dict[str, str]) -> None:
    headers = {"Authorization": f"Bearer {secrets['gateway_client_key']}"}
    for path in ("/invocations", "/v1/load_lora_adapter", "/metrics", "/llama/slots", "/v1/../metrics"):
        assert http.get(path, headers=headers).status_code == 404, path


def test_a_body_that_is_too_large_is_refused(http: httpx.Client, secrets: dict[str, str]) -> None:
    headers = {"Authorization": f"Bearer {secrets['gateway_client_key']}", "Content-Type": "application/json"}
    answer = http.post("/v1/chat/completions", headers=headers, content=b" " * (21 << 20))
    assert answer.status_code == 413


def test_one_client_can_not_take_everything(http: httpx.Client, secrets: dict[str, str]) -> None:
    headers = {"Authorization": f"Bearer {secrets['gateway_client_key']}"}
    codes = {http.get("/v1/models", headers=headers).status_code for _ in range(80)}
    assert codes == {200, 429}
    time.sleep(3)


def test_plain_http_only_redirects() -> None:
    answer = httpx.get("http://10.77.0.12/v1/models", follow_redirects=False, trust_env=False)
    assert answer.status_code in (301, 308)
    assert answer.headers["location"].startswith("https://10.77.0.12/")


def test_triton_infers(http: httpx.Client, secrets: dict[str, str]) -> None:
    headers = {"Authorization": f"Bearer {secrets['gateway_client_key']}"}
    assert http.get("/triton/v2/models/text_embedder/ready", headers=headers).status_code == 200


def test_the_front_page_needs_no_key(http: httpx.Client) -> None:
    page = http.get("/")
    assert page.status_code == 200
    assert "schlimers-server" in page.text


def prometheus(http: httpx.Client, secrets: dict[str, str], path: str) -> dict[str, object]:
    """An answer of Prometheus, through the gateway."""
    answer = http.get(f"/prometheus/api/v1/{path}", auth=("owner", secrets["gateway_password"]))
    assert answer.status_code == 200
    data: dict[str, object] = json.loads(answer.text)["data"]
    return data


def test_every_target_is_up(http: httpx.Client, secrets: dict[str, str]) -> None:
    assert http.get("/prometheus/api/v1/targets").status_code == 401
    until = time.monotonic() + 90
    while True:
        targets = prometheus(http, secrets, "targets")["activeTargets"]
        down = {f"{target['labels']['job']} {target['scrapeUrl']}: {target['lastError']}"
                for target in targets if target["health"] != "up"}  # fmt: skip
        if not down or time.monotonic() > until:
            break
        time.sleep(5)
    assert not down
    jobs = {target["labels"]["job"] for target in targets}
    assert {"node", "vllm", "llama_cpp", "triton", "dcgm", "nginx", "gateway", "blackbox", "prometheus"} <= jobs


def test_a_dead_service_raises_its_alert_and_clears_it(
    http: httpx.Client, secrets: dict[str, str], gateway: testinfra.host.Host
) -> None:
    gateway.run_test("systemctl stop prometheus-nginx-exporter.service")

    def firing() -> set[str]:
        alerts = prometheus(http, secrets, "alerts")["alerts"]
        return {alert["labels"]["job"] for alert in alerts
                if alert["state"] == "firing" and "job" in alert["labels"]}  # fmt: skip

    until = time.monotonic() + 90
    while "nginx" not in firing() and time.monotonic() < until:
        time.sleep(2)
    assert "nginx" in firing()
    gateway.run_test("systemctl start prometheus-nginx-exporter.service")
    until = time.monotonic() + 90
    while "nginx" in firing() and time.monotonic() < until:
        time.sleep(2)
    assert "nginx" not in firing()


def test_a_second_run_changes_nothing() -> None:
    run = run_playbook("playbooks/week3.yml")
    assert run.code == 0, run.output
    assert set(run.changed.values()) == {0}, run.output


def test_a_client_is_added_and_revoked_without_a_restart(
    trust: ssl.SSLContext, gateway: testinfra.host.Host, secrets: dict[str, str]
) -> None:
    before = gateway.check_output("systemctl show --property=MainPID nginx.service")
    key = "ab" * 32
    run = run_playbook("playbooks/week3.yml", *extra(ai_idp_gateway_clients=[{"name": "guest", "key": key}]))
    assert run.code == 0, run.output
    assert openai_client(trust, key).models.list().data
    assert key not in run.output
    again = run_playbook("playbooks/week3.yml")
    assert again.code == 0, again.output
    with pytest.raises(openai.AuthenticationError):
        openai_client(trust, key).models.list()
    assert openai_client(trust, secrets["gateway_client_key"]).models.list().data
    assert gateway.check_output("systemctl show --property=MainPID nginx.service") == before
