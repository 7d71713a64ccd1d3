"""The edge on the test host, asked as its clients would ask it, with the real llama.cpp (Debian's build).

The GPU server at the other end of the link is a network namespace.
"""

import json
import time

import pytest
from testinfra.host import Host

PORT, RPC, LINK, PEER = 18090, 50055, "10.66.0.2", "10.66.0.1"
KEY = "not-a-secret-of-the-role-test"
UNITS = ["edge-inference.service", "edge-rpc.service"]
CONNECT = (
    "python3 -c 'import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 2, (sys.argv[3], 0))'"
)


@pytest.fixture(scope="module")
def address(host: Host) -> str:
    """The test host's own address in the lab's network."""
    line = host.check_output("ip -4 -oneline address show eth0")
    return line.split()[3].partition("/")[0]


def ask(host: Host, address: str, path: str, *arguments: str) -> tuple[int, str]:
    done = host.run(f"curl -s -m 60 -w '\\n%{{http_code}}' {' '.join(arguments)} http://{address}:{PORT}{path}")
    text, _newline, status = done.stdout.rpartition("\n")
    return int(status), text


def test_it_answers_a_chat(host: Host, address: str) -> None:
    body = {"model": "tiny", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 4}
    key = f"-H 'Authorization: Bearer {KEY}'"
    status, text = ask(host, address, "/v1/chat/completions", key, f"-d '{json.dumps(body)}'")
    assert status == 200, text
    assert json.loads(text)["usage"]["completion_tokens"] >= 1


def test_metrics_are_told_to_who_has_the_key(host: Host, address: str) -> None:
    status, text = ask(host, address, "/metrics", f"-H 'Authorization: Bearer {KEY}'")
    assert status == 200
    assert "llamacpp:predicted_tokens_seconds" in text


@pytest.mark.parametrize("path", ["/v1/models", "/v1/chat/completions", "/metrics", "/slots", "/props"])
def test_no_key_no_answer(host: Host, address: str, path: str) -> None:
    assert ask(host, address, path)[0] == 401


def test_each_listens_on_its_address_and_nowhere_else(host: Host, address: str) -> None:
    lines = host.check_output("ss --no-header --listening --numeric --tcp").splitlines()
    listening = [line.split()[3] for line in lines]
    assert [place for place in listening if place.endswith((f":{PORT}", f":{RPC}"))] == [
        place for place in listening if place in (f"{address}:{PORT}", f"{LINK}:{RPC}")
    ]
    assert {f"{address}:{PORT}", f"{LINK}:{RPC}"} <= set(listening)


@pytest.mark.parametrize("unit", UNITS)
def test_exposure_is_at_most_two(host: Host, unit: str) -> None:
    with host.sudo():
        answer = host.run(f"systemd-analyze security --threshold=20 {unit}")
    assert answer.rc == 0, answer.stdout


@pytest.mark.parametrize("unit", UNITS)
def test_exposure_with_a_gpu_is_at_most_two(host: Host, unit: str) -> None:
    """How the units would be on a Jetson, judged from the file."""
    path = f"/var/tmp/gpu/{unit}"
    answer = host.run(f"systemd-analyze security --offline=true --threshold=20 {path}")
    assert answer.rc == 0, answer.stdout
    unit_text = host.file(path).content_string
    assert "DeviceAllow=/dev/nvmap rw" in unit_text
    assert "PrivateDevices" not in unit_text


@pytest.mark.parametrize("unit", UNITS)
def test_it_runs_as_an_account_of_its_own_without_capabilities(host: Host, unit: str) -> None:
    with host.sudo():
        pid = host.check_output(f"systemctl show {unit} --property=MainPID --value")
        status = host.file(f"/proc/{pid}/status").content_string
        user = "edge-test-rpc" if "rpc" in unit else "edge-test"
        uid = host.check_output(f"id --user {user}")
        assert f"Uid:\t{uid}\t" in status
        for line in ("CapBnd:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"):
            assert line in status
        assert host.file(f"/proc/{pid}/cmdline").content_string.find(KEY) == -1


def test_only_the_api_can_read_its_key(host: Host) -> None:
    with host.sudo():
        key = host.file("/etc/edge-inference/api-key")
        assert (key.user, key.mode) == ("edge-test", 0o600)
        assert host.run("runuser -u edge-test-rpc -- cat /etc/edge-inference/api-key").rc != 0


def test_memory_is_limited(host: Host) -> None:
    shown = host.check_output("systemctl show edge-rpc --property=MemoryMax --value")
    assert int(shown) == 512 << 20
    assert int(host.check_output("systemctl show edge-inference --property=MemoryMax --value")) < 1 << 30


def test_a_gpu_server_computes_on_this_host(host: Host) -> None:
    with host.sudo():
        done = host.run(
            f"ip netns exec gpu /opt/llama/current/bin/llama-bench -m /home/ubuntu/models/tiny/tiny.gguf "
            f"--rpc {LINK}:{RPC} -ngl 99 -p 16 -n 8 -r 1 -t 1 -o json"
        )
        log = host.check_output("journalctl --unit edge-rpc --output cat --no-pager")
    assert done.rc == 0, done.stderr
    rows = json.loads(done.stdout[done.stdout.index("[") :])
    assert {row["backends"] for row in rows} == {"RPC"}
    assert all(row["avg_ts"] > 0 for row in rows)
    assert "Accepted client connection" in log


def test_others_are_refused_by_the_service_itself(host: Host, address: str) -> None:
    """Without any firewall: the test host has none."""
    assert host.run(f"{CONNECT} {LINK} {RPC} {LINK}").rc == 0
    refused = host.run(f"{CONNECT} {LINK} {RPC} {address}")
    assert "timed out" in refused.stderr


def test_a_cut_link_does_not_keep_the_next_one_out(host: Host) -> None:
    """The server waits for its peer without end; the socket's probes notice that it is gone."""
    hold = f"import socket, time; s = socket.create_connection(('{LINK}', {RPC})); time.sleep(90)"
    with host.sudo():
        host.check_output(f'systemd-run --unit hold ip netns exec gpu python3 -c "{hold}"')
        held = f'ss --no-header --numeric --tcp state established "( sport = :{RPC} )"'
        host.check_output(f"timeout 10 sh -c 'until {held} | grep -q .; do sleep 0.2; done'")
        host.check_output("ip link set link0 down")
        begun = time.monotonic()
        while host.check_output(held) and time.monotonic() - begun < 60:
            time.sleep(1)
        took = time.monotonic() - begun
        host.check_output("ip link set link0 up")
        host.run("systemctl stop hold")
    assert took < 30
    test_a_gpu_server_computes_on_this_host(host)


def test_what_was_half_written_is_not_kept(host: Host) -> None:
    """A server that was killed may have cut a tensor off, which would be loaded as if it were whole."""
    with host.sudo():
        host.check_output("touch --date '2 days ago' /var/cache/edge-rpc/rpc/0123456789abcdef")
        host.check_output("systemctl restart edge-rpc")
        assert host.file("/var/cache/edge-rpc/rpc/0123456789abcdef").exists
        host.check_output("touch /var/cache/edge-rpc/rpc/fedcba9876543210")
        host.check_output("systemctl kill --signal=KILL edge-rpc")
        host.check_output("timeout 30 sh -c 'sleep 1; until systemctl is-active edge-rpc; do sleep 1; done'")
        assert host.file("/var/cache/edge-rpc/rpc/0123456789abcdef").exists
        assert not host.file("/var/cache/edge-rpc/rpc/fedcba9876543210").exists


def test_no_unit_has_failed(host: Host) -> None:
    assert host.check_output("systemctl --failed --no-legend --plain") == ""
