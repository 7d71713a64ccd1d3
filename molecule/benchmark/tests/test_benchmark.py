"""What the role measured is kept as the contract says, and nothing that it needed for it is left."""

import json
import os

import pytest

ADDRESS = os.environ["ROLE_TEST_ADDRESS"]

RESULTS = "/home/ubuntu/ai-idp/benchmark/results"


@pytest.mark.parametrize(
    ("name", "metric"),
    [
        ("cpu-events", "cpu_events_per_second"),
        ("memory-bandwidth", "memory_bandwidth_gb_per_second"),
        ("model-store-read", "disk_read_mb_per_second"),
        ("network-throughput", "network_gbit_per_second"),
        ("network-latency", "network_rtt_p50_ms"),
    ],
)
def test_results_have_their_runs(host, name, metric):
    result = json.loads(host.file(f"{RESULTS}/{name}.json").content_string)
    assert result["status"] == "ok"
    assert result["environment"] == "lab"
    assert result["host"] == "role-test"
    assert (len(result["runs"]), result["rounds"]) == (2, 2)
    assert all(run["metrics"][metric] > 0 for run in result["runs"])
    assert result["hardware_fingerprint"]
    assert any(character.isdigit() for character in result["build"])


def test_what_failed_is_not_kept(host):
    assert not host.file(f"{RESULTS}/triton-infer.json").exists
    assert not host.file(f"{RESULTS}/llama-bench-gpu.json").exists


def test_results_belong_to_the_user(host):
    assert host.file(RESULTS).user == "ubuntu"


@pytest.mark.parametrize("port", [5201, 11111])
def test_the_firewall_admits_who_measures_while_it_measures(host, port):
    seen = host.file("/run/doors-of-measurements").content_string.splitlines()
    element = f"element inet ai_idp measuring {{ {ADDRESS} . {ADDRESS} . {port} timeout"
    kinds = [line.split()[0] for line in seen if element in line]
    # Two rounds of each.
    assert kinds == ["add", "delete"] * 2
    assert "elements" not in host.check_output("nft list set inet ai_idp measuring")


def test_nothing_is_left_behind(host):
    assert host.run("find /var/tmp /tmp -name '.ai-idp-benchmark-*' -o -name 'ai-idp-benchmark-*'").stdout == ""
    for tool in ("iperf3", "sockperf"):
        assert not host.process.filter(comm=tool)
    for port in (5201, 11111):
        assert not host.socket(f"tcp://{ADDRESS}:{port}").is_listening
