"""What happens when a service is killed or a release is broken."""

import ssl
import subprocess
import time
from typing import Any

import httpx
import pytest
from openai import OpenAI
from testinfra.host import Host

from .conftest import STACK, engine_client, extra, read_secrets, run_playbook
from .suite import FULL, ROOT

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


@pytest.mark.skipif(not FULL, reason="restarts every engine four times: the full profile runs it")
def test_a_release_that_was_healthy_is_had_back_with_the_keys_of_today(
    gpu_server: Host, endpoints: dict[str, Any], trust: ssl.SSLContext
) -> None:
    def current() -> str:
        return str(gpu_server.check_output(f"readlink {STACK}/current")).removeprefix("releases/")

    def back(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = ["ai-idp", "run", "rollback", *arguments]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)

    def serves() -> bool:
        vllm = endpoints["vllm"]
        answer = engine_client(vllm, read_secrets()[vllm["key"]], trust).chat.completions.create(
            model=vllm["model"], messages=[{"role": "user", "content": "Hello"}], max_tokens=4
        )
        return bool(answer.choices)

    ours = current()
    # Another release with other keys of the gate.
    run = run_playbook("playbooks/week2.yml", *extra(inference_stack_log_max_size="11m", rotate_keys=True))
    assert run.code == 0, run.output
    other, keys = current(), read_secrets()
    assert other != ours
    unknown = back("-e", "release=none-such")
    assert unknown.returncode != 0
    assert "none-such" in unknown.stdout + unknown.stderr
    assert ours in unknown.stdout + unknown.stderr
    assert current() == other
    for arguments, wanted in (((), ours), (("-e", f"release={other}"), other), (("-e", f"release={ours}"), ours)):
        done = back(*arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        assert current() == wanted
        assert ('max-size: "11m"' in gpu_server.file(f"{STACK}/current/compose.yml").content_string) == (
            wanted == other
        )
        assert serves()
    assert read_secrets() == keys
    # What the inventory says is the first again, with the keys of today.
    again = run_playbook("playbooks/week2.yml")
    assert set(again.changed.values()) == {0}, again.output
