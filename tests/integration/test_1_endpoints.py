"""Real clients against the real engines of the lab."""

import json
from typing import Any

import httpx
import openai
import pytest
from openai import OpenAI


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
def test_a_wrong_key_is_refused(endpoints: dict[str, Any], name: str) -> None:
    wrong = OpenAI(base_url=f"{endpoints[name]['url']}/v1", api_key="wrong", max_retries=0)
    with pytest.raises(openai.AuthenticationError):
        wrong.chat.completions.create(model=endpoints[name]["model"], messages=[{"role": "user", "content": "Hello"}])


def test_llama_cpp_obeys_a_schema(endpoints: dict[str, Any], secrets: dict[str, str]) -> None:
    llama_cpp = endpoints["llama.cpp"]
    client = OpenAI(base_url=f"{llama_cpp['url']}/v1", api_key=secrets[llama_cpp["key"]], max_retries=0)
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


def test_triton_embeds(endpoints: dict[str, Any]) -> None:
    inputs = [{"name": "TEXT", "datatype": "BYTES", "shape": [2, 1], "data": ["same words", "same words"]}]
    answer = httpx.post(f"{endpoints['triton']['url']}/v2/models/text_embedder/infer", json={"inputs": inputs})
    output = answer.raise_for_status().json()["outputs"][0]
    width = output["shape"][1]
    assert output["data"][:width] == output["data"][width:]


@pytest.mark.parametrize(
    ("name", "metric"),
    [
        ("vllm", "vllm:num_requests_running"),
        ("llama.cpp", "llamacpp:requests_processing"),
        ("triton", "nv_inference_request_success"),
        ("dcgm-exporter", "DCGM_FI_DEV_FB_USED"),
    ],
)
def test_metrics_flow(endpoints: dict[str, Any], secrets: dict[str, str], name: str, metric: str) -> None:
    endpoint = endpoints[name]
    headers = {"Authorization": f"Bearer {secrets[endpoint['key']]}"} if endpoint["key"] else {}
    assert metric in httpx.get(endpoint["metrics_url"], headers=headers).raise_for_status().text


def test_replayed_gpu_metrics_say_so(endpoints: dict[str, Any]) -> None:
    text = httpx.get(endpoints["dcgm-exporter"]["metrics_url"]).text
    samples = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert samples
    assert all('replay="true"' in sample for sample in samples)
    assert endpoints["dcgm-exporter"]["replay"] is True
