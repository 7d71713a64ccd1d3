"""What happens when a service is killed, a release is broken, or keys are replaced."""

import subprocess
import time
from typing import Any

import httpx
import openai
import pytest
from openai import OpenAI
from testinfra.host import Host

from .conftest import ROOT, extra, run_playbook


def answers(endpoint: dict[str, Any]) -> bool:
    """Whether an endpoint is healthy right now."""
    try:
        return httpx.get(endpoint["url"] + endpoint["health_path"], timeout=5).status_code == 200
    except httpx.HTTPError:
        return False


def test_a_killed_vllm_comes_back(gpu_server: Host, endpoints: dict[str, Any]) -> None:
    gpu_server.check_output("docker kill ai-idp-inference-vllm-1")
    assert not answers(endpoints["vllm"])
    deadline = time.monotonic() + 180
    while not answers(endpoints["vllm"]) and time.monotonic() < deadline:
        time.sleep(2)
    assert answers(endpoints["vllm"])


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        (
            {"inference_stack_vllm_image": "docker.io/vllm/vllm-openai:v0.0.0-missing"},
            ["v0.0.0-missing", "versions.yml"],
        ),
        ({"inference_stack_vllm_extra_args": ["--no-such-argument"]}, ["was undone", "--no-such-argument"]),
    ],
    ids=["an image tag that does not exist", "a setting that vLLM rejects"],
)
def test_a_broken_release_is_undone(
    client: OpenAI, endpoints: dict[str, Any], variables: dict, words: list[str]
) -> None:
    started = time.monotonic()
    run = run_playbook("playbooks/week2.yml", *extra(inference_stack_start_timeout=240, **variables))
    assert run.code != 0, run.output
    assert time.monotonic() - started < 2 * 240
    for word in words:
        assert word in run.output, f"{word!r} is not in:\n{run.output}"
    answer = client.chat.completions.create(
        model=endpoints["vllm"]["model"], messages=[{"role": "user", "content": "Hello"}], max_tokens=4
    )
    assert answer.choices


def test_rotated_keys_replace_the_old_ones(client: OpenAI, endpoints: dict[str, Any], secrets: dict[str, str]) -> None:
    run = run_playbook("playbooks/week2.yml", *extra(rotate_keys=True))
    assert run.code == 0, run.output
    assert not any(key in run.output for key in secrets.values())
    with pytest.raises(openai.AuthenticationError):
        client.models.list()
    # Clients of the gateway have keys of their own and notice nothing.
    well = subprocess.run(["ai-idp", "doctor"], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert well.returncode == 0, well.stdout
    assert run_playbook("playbooks/week2.yml").changed["schlimers-server"] == 0
