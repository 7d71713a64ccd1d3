"""Real clients against the real engines of the lab."""

import json
import re
import ssl
import subprocess
from typing import Any

import httpx
import openai
import pytest
import testinfra
from openai import OpenAI

from .conftest import engine_client
from .suite import ROOT


def test_chat_completion(client: OpenAI, endpoints: dict[str, Any]) -> None:
    answer = client.chat.completions.create(
        model=endpoints["vllm"]["model"], messages=[{"role": "user", "content": "Hello"}], max_tokens=8
    )
    assert answer.usage is not None
    assert 1 <= answer.usage.completion_tokens <= 8


def test_streaming_streams(client: OpenAI, endpoints: dict[str, Any]) -> None:
    stream = client.chat.completions.create(
        model=endpoints["vllm"]["model"],
        messages=[{"role": "user", "content": "Hello"}],
        max_tokens=16,
        stream=True,
        extra_body={"min_tokens": 8},
    )
    assert len(list(stream)) >= 8


@pytest.mark.parametrize("name", ["vllm", "llama.cpp"])
@pytest.mark.parametrize("wrong", ["wrong", "the engine's own"])
def test_a_wrong_key_is_refused(
    endpoints: dict[str, Any], secrets: dict[str, str], trust: ssl.SSLContext, name: str, wrong: str
) -> None:
    key = secrets[endpoints[name]["own"]["key"]] if "own" in wrong else wrong
    with pytest.raises(openai.AuthenticationError):
        engine_client(endpoints[name], key, trust).chat.completions.create(
            model=endpoints[name]["model"], messages=[{"role": "user", "content": "Hello"}]
        )


def test_llama_cpp_obeys_a_schema(endpoints: dict[str, Any], secrets: dict[str, str], trust: ssl.SSLContext) -> None:
    llama_cpp = endpoints["llama.cpp"]
    client = engine_client(llama_cpp, secrets[llama_cpp["key"]], trust)
    schema = {
        "type": "object",
        "properties": {"tag": {"enum": ["gpu", "edge"]}},
        "required": ["tag"],
        "additionalProperties": False,
    }
    answer = client.chat.completions.create(
        model=llama_cpp["model"],
        messages=[{"role": "user", "content": "Tag this."}],
        max_tokens=64,
        response_format={"type": "json_schema", "json_schema": {"name": "tag", "schema": schema}},
    )
    assert json.loads(answer.choices[0].message.content or "")["tag"] in ("gpu", "edge")


def test_triton_embeds(gates: httpx.Client, endpoints: dict[str, Any]) -> None:
    inputs = [{"name": "TEXT", "datatype": "BYTES", "shape": [2, 1], "data": ["same words", "same words"]}]
    answer = gates.post(f"{endpoints['triton']['url']}/v2/models/text_embedder/infer", json={"inputs": inputs})
    output = answer.raise_for_status().json()["outputs"][0]
    width = output["shape"][1]
    assert output["data"][:width] == output["data"][width:]


def test_doctor_asks_what_keeps_runs_and_notes() -> None:
    asked = subprocess.run(["ai-idp", "doctor", "--json"], cwd=ROOT, capture_output=True, text=True, timeout=120)
    told = {check["name"]: check["status"] for check in json.loads(asked.stdout)["checks"] if check["host"] == "xps15"}
    for name in ("MLflow: health", "n8n: health", "vault: metrics"):
        assert told.get(name) == "ok", asked.stdout
    assert asked.returncode == 0, asked.stdout


# What NVIDIA warns of: the second one made Triton run what the request brought.
OPERATED = [
    ("POST", "/v2/repository/index", {}),
    ("POST", "/v2/repository/models/evil/load", {"parameters": {"config": "{}", "file:1/model.py": "cHJpbnQoMSk="}}),
    ("POST", "/v2/repository/models/text_embedder/unload", {}),
    ("GET", "/v2/systemsharedmemory/status", None),
    ("GET", "/v2/cudasharedmemory/status", None),
    ("GET", "/v2/logging", None),
    ("GET", "/v2/trace/setting", None),
    ("GET", "/v2/models/text_embedder/trace/setting", None),
    ("GET", "/v2/models/text_embedder/stats", None),
]


@pytest.mark.parametrize(("method", "path", "body"), OPERATED)
def test_nobody_operates_triton(
    gpu_server: testinfra.host.Host, endpoints: dict[str, Any], method: str, path: str, body: dict[str, Any] | None
) -> None:
    """Asked on its own host, beside every door."""
    data = f" --data '{json.dumps(body)}'" if body is not None else ""
    url = endpoints["triton"]["own"]["url"] + path
    status = gpu_server.check_output(
        f"curl --silent --output /dev/null --write-out '%{{http_code}}' -X {method}{data} {url}"
    )
    assert status == "403"


@pytest.mark.parametrize(
    ("name", "metric"),
    [
        ("vllm", "vllm:num_requests_running"),
        ("llama.cpp", "llamacpp:requests_processing"),
        ("triton", "nv_inference_request_success"),
        ("dcgm-exporter", "DCGM_FI_DEV_FB_USED"),
    ],
)
def test_metrics_flow(
    gates: httpx.Client, endpoints: dict[str, Any], trust: ssl.SSLContext, name: str, metric: str
) -> None:
    url = endpoints[name]["metrics_url"]
    assert metric in gates.get(url).raise_for_status().text
    assert httpx.get(url, verify=trust, trust_env=False).status_code == 401


def test_replayed_gpu_metrics_say_so(gates: httpx.Client, endpoints: dict[str, Any]) -> None:
    text = gates.get(endpoints["dcgm-exporter"]["metrics_url"]).text
    samples = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert samples
    assert all('replay="true"' in sample for sample in samples)
    assert endpoints["dcgm-exporter"]["replay"] is True


def test_the_gateway_knows_every_mean_that_was_measured(gateway: testinfra.host.Host) -> None:
    """Also those of the edge, which the first run of the site measures last."""
    rows = json.loads((ROOT / "benchmarks" / "week1_findings.json").read_text())["findings"]
    measured = {(row["claim_id"], row["host"]) for row in rows if row["measured_mean"] is not None}
    text = gateway.file("/var/lib/node_exporter/textfile/ai_idp_benchmark.prom").content_string
    assert set(re.findall(r'^ai_idp_benchmark_mean\{claim_id="(.+?)",host="(.+?)"', text, re.M)) == measured
