"""The stack on the test host, asked as its clients would ask it."""

import json
import os

from testinfra.host import Host

ADDRESS = os.environ["ROLE_TEST_ADDRESS"]

URL = f"http://{ADDRESS}:18080"
KEY = "not-a-secret-of-the-role-test"


def ask(host: Host, path: str, *arguments: str) -> tuple[int, str]:
    """Ask llama.cpp from the host itself; return status and text."""
    done = host.run(f"curl -s -m 60 -w '\\n%{{http_code}}' {' '.join(arguments)} {URL}{path}")
    text, _newline, status = done.stdout.rpartition("\n")
    return int(status), text


def test_llama_cpp_answers_a_chat(host: Host) -> None:
    body = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 4}
    status, text = ask(host, "/v1/chat/completions", f"-H 'Authorization: Bearer {KEY}'", f"-d '{json.dumps(body)}'")
    assert status == 200, text
    assert json.loads(text)["usage"]["completion_tokens"] >= 1


def test_it_runs_with_what_was_planned(host: Host) -> None:
    # The tiny model was trained for 4,096 tokens, and two slots of 2,048 find room in them.
    with host.sudo():
        command = json.loads(host.check_output("docker inspect --format '{{json .Config.Cmd}}' role-test-llama-cpp-1"))
    assert command[command.index("--ctx-size") + 1] == "4096"
    assert command[command.index("--parallel") + 1] == "2"


def test_no_key_no_answer(host: Host) -> None:
    assert ask(host, "/v1/models")[0] in (200, 401)
    assert ask(host, "/v1/chat/completions", "-d '{}'")[0] == 401


def test_only_what_is_enabled_runs(host: Host) -> None:
    with host.sudo():
        names = host.check_output("docker ps --format '{{.Names}}'").split()
    assert {*names} == {"role-test-llama-cpp-1", "role-test-triton-1", "role-test-dcgm-exporter-1"}


def test_the_watch_is_on(host: Host) -> None:
    timer = host.service("role-test-watch.timer")
    assert timer.is_enabled
    assert timer.is_running
