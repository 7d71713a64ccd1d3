"""A client of the platform as its users write one: the official library, the gateway's address, a key and the CA.

Runs in a container that knows nothing else of the platform; all it is told is in the environment. Prints what it found.
"""

import json
import os
import time

import httpx
import openai
from openai.types.chat import ChatCompletionMessageParam

URL = os.environ["GATEWAY_URL"]
HEADERS = {"Authorization": f"Bearer {os.environ['OPENAI_API_KEY']}"}


HELLO: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Say hello."}]


def completion_tokens(path: str, model: str) -> int:
    """How many tokens the answer of one chat has."""
    client = openai.OpenAI(base_url=URL + path, max_retries=2)
    usage = client.chat.completions.create(model=model, messages=HELLO, max_tokens=16).usage
    assert usage is not None
    return usage.completion_tokens


def arrivals(path: str, model: str) -> tuple[int, float]:
    """How many chunks a stream has, and which share of its time lies between the first and the last."""
    client = openai.OpenAI(base_url=URL + path, max_retries=2)
    began = time.monotonic()
    chunks = client.chat.completions.create(model=model, messages=HELLO, max_tokens=200, stream=True)
    times = [time.monotonic() for chunk in chunks if chunk.choices]
    return len(times), (times[-1] - times[0]) / (times[-1] - began)


found: dict[str, object] = {}
for name, path, model in (("vllm", "/v1", "tiny-llama"), ("llama_cpp", "/llama/v1", "tiny-llama-gguf")):
    found[f"{name} chat"] = completion_tokens(path, model)
    found[f"{name} stream"] = arrivals(path, model)
inputs = [{"name": "TEXT", "datatype": "BYTES", "shape": [2, 1], "data": ["same words", "same words"]}]
answer = httpx.post(f"{URL}/triton/v2/models/text_embedder/infer", headers=HEADERS, json={"inputs": inputs}, timeout=60)
found["triton infer"] = answer.raise_for_status().json()["outputs"][0]
try:
    openai.OpenAI(base_url=URL + "/v1", api_key="0" * 64, max_retries=0).models.list()
except openai.AuthenticationError as error:
    found["wrong key"] = error.code
print(json.dumps(found))
