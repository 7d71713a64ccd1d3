"""What happens when a service is killed or a release is broken."""

import time
from typing import Any

import httpx
import pytest
from openai import OpenAI
from testinfra.host import Host

from .conftest import extra, read_secrets, run_playbook

# Every file and link of the stack's releases, and what its containers are.
WHOLE = """
cd /home/ubuntu/ai-idp/inference
find . -type f -exec sha256sum {} + | sort -k 2; find . -printf '%p %y %m %u %g %l\\n' | sort
docker ps --filter label=com.docker.compose.project=ai-idp-inference --quiet | sort \
  | xargs docker inspect --format '{{.Name}} {{.Image}} {{json .Config.Cmd}}
{{range .HostConfig.Mounts}}{{$.Name}} {{.Source}} {{.Target}}{{println}}{{end}}' | sort
"""


def answers(gates: httpx.Client, endpoint: dict[str, Any]) -> bool:
    """Whether an endpoint is healthy right now."""
    try:
        return gates.get(endpoint["url"] + endpoint["health_path"], timeout=5).status_code == 200
    except httpx.HTTPError:
        return False


def test_a_killed_vllm_comes_back(gpu_server: Host, gates: httpx.Client, endpoints: dict[str, Any]) -> None:
    gpu_server.check_output("docker kill ai-idp-inference-vllm-1")
    assert not answers(gates, endpoints["vllm"])
    deadline = time.monotonic() + 180
    while not answers(gates, endpoints["vllm"]) and time.monotonic() < deadline:
        time.sleep(2)
    assert answers(gates, endpoints["vllm"])


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        (
            {"inference_stack_vllm_image": "docker.io/vllm/vllm-openai:v0.0.0-missing"},
            ["v0.0.0-missing", "versions.yml"],
        ),
        (
            {"inference_stack_vllm_extra_args": ["--no-such-argument"], "rotate_keys": True},
            ["was undone", "--no-such-argument"],
        ),
    ],
    ids=["an image tag that does not exist", "a setting that vLLM rejects, with new keys"],
)
def test_a_broken_release_is_undone_to_the_byte(
    gpu_server: Host, client: OpenAI, endpoints: dict[str, Any], variables: dict[str, Any], words: list[str]
) -> None:
    keys, before = read_secrets(), gpu_server.check_output(WHOLE)
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
    assert gpu_server.check_output(WHOLE) == before
    assert read_secrets() == keys, "a key was replaced for a release that does not run"
    assert gpu_server.service("ai-idp-inference-watch.timer").is_running
