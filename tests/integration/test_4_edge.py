"""Week 4: the edge through the gateway, its memory lent to one host alone, and what happens when that is lost.

That an edge which is down is told and shown is part of test_3_gateway, together with another engine.
"""

import csv
import json
import re
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator

import httpx
import pytest
import testinfra
from openai import DefaultHttpxClient, OpenAI

from .conftest import INVENTORY, extra, read_secrets, run_playbook
from .suite import ROOT

GATEWAY = "https://10.77.0.12"
JETSON = "10.77.0.13"
RPC_PORT = 50052
MODEL = "/home/ubuntu/ai-idp/models/tiny-llama-gguf/tiny-llama-f16.gguf"
BENCH = "/opt/llama.cpp/current/bin/llama-bench"


@pytest.fixture(scope="module")
def http(trust: ssl.SSLContext) -> Iterator[httpx.Client]:
    """A client of the gateway that trusts the CA alone."""
    with httpx.Client(base_url=GATEWAY, verify=trust, timeout=60, trust_env=False) as client:
        yield client


@pytest.fixture
def edge(trust: ssl.SSLContext, secrets: dict[str, str]) -> OpenAI:
    """The OpenAI client, pointed at the edge through the gateway."""
    transport = DefaultHttpxClient(verify=trust, timeout=60, trust_env=False)
    key = secrets["gateway_client_key"]
    return OpenAI(base_url=f"{GATEWAY}/edge/v1", api_key=key, max_retries=0, http_client=transport)


def seconds_until(true: Callable[[], bool], limit: float) -> float:
    """How long it took until something was so; the test fails when it takes longer."""
    began = time.monotonic()
    while not true():
        assert time.monotonic() - began < limit, f"not within {limit} s"
        time.sleep(0.5)
    return time.monotonic() - began


def bench(host: testinfra.host.Host, *more: str) -> testinfra.backend.base.CommandResult:
    """llama-bench on the GPU server, with the edge's memory."""
    return host.run(
        "timeout 120 %s --model %s --n-prompt 16 --n-gen 16 --repetitions 1 --rpc %s " + " ".join(more),
        BENCH,
        MODEL,
        f"{JETSON}:{RPC_PORT}",
    )


def test_the_edge_answers_through_the_gateway(edge: OpenAI) -> None:
    answer = edge.chat.completions.create(
        model="tiny-llama-gguf", messages=[{"role": "user", "content": "Say hello."}], max_tokens=8
    )
    assert answer.usage
    assert answer.usage.completion_tokens > 0
    chunks = edge.chat.completions.create(
        model="tiny-llama-gguf", messages=[{"role": "user", "content": "Count."}], max_tokens=16, stream=True
    )
    assert sum(1 for _ in chunks) > 2


def test_without_a_key_of_the_gateway_nobody_gets_there(http: httpx.Client, trust: ssl.SSLContext) -> None:
    assert http.get("/edge/v1/models").status_code == 401
    assert httpx.get(f"https://{JETSON}:8090/v1/models", verify=trust, trust_env=False).status_code == 401


def test_both_ends_were_built_from_one_source(gpu_server: testinfra.host.Host, jetson: testinfra.host.Host) -> None:
    ours, theirs = (
        json.loads(host.check_output("cat /opt/llama.cpp/current/release.json")) for host in (gpu_server, jetson)
    )
    assert (ours["build"], ours["commit"]) == (theirs["build"], theirs["commit"])
    assert ours["rpc"]
    assert not ours["rdma"]


def test_layers_are_placed_on_the_edge_s_device(gpu_server: testinfra.host.Host) -> None:
    done = bench(gpu_server, "--output json --verbose")
    assert done.rc == 0, done.stderr[-2000:]
    rows = json.loads(done.stdout)
    assert all(f"{JETSON}:{RPC_PORT}" in row["gpu_info"] for row in rows)
    placed = re.findall(r"layer +\d+ assigned to device (\S+?),", done.stderr)
    assert placed, done.stderr[-2000:]
    print(f"layers by device: { ({device: placed.count(device) for device in set(placed)}) }")
    assert any(device.startswith("RPC0") for device in placed)


def test_the_rpc_port_is_closed_to_everybody_else(
    gateway: testinfra.host.Host, gpu_server: testinfra.host.Host
) -> None:
    attempt = f"python3 -c 'import socket; socket.create_connection((\"{JETSON}\", {RPC_PORT}), 3)'"
    assert gpu_server.run(attempt).rc == 0
    refused = gateway.run(attempt)
    assert refused.rc != 0
    assert "timed out" in refused.stderr
    with pytest.raises(TimeoutError):
        socket.create_connection((JETSON, RPC_PORT), 3)
    registry = subprocess.run(
        ["docker", "exec", "ai-idp-lab-registry", "curl", "-sS", "--max-time", "3", f"telnet://{JETSON}:{RPC_PORT}"],
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert registry.returncode == 28, registry.stderr


@pytest.mark.parametrize("unit", ["edge-inference", "edge-rpc"])
def test_the_units_are_hardened(jetson: testinfra.host.Host, unit: str) -> None:
    shown = jetson.check_output(f"systemd-analyze security --no-pager {unit}.service | tail -1")
    print(shown)
    exposure = re.search(r"exposure level for \S+: ([\d.]+)", shown)
    assert exposure
    assert float(exposure.group(1)) <= 2.0


def test_the_findings_have_the_link_and_what_rpc_costs() -> None:
    with (ROOT / "benchmarks" / "week1_findings.csv").open(encoding="utf-8") as stream:
        rows = {(row["claim_id"], row["host"]): row for row in csv.DictReader(stream)}
    link = rows["usb4-rpc-latency", "jetson"]
    assert float(link["ci95_low"]) < float(link["measured_mean"]) < float(link["ci95_high"])
    assert float(rows["jetson-llama-3.2-1b", "jetson"]["measured_mean"]) > 0
    history = [json.loads(line) for line in (ROOT / "benchmarks" / "history.jsonl").read_text().splitlines()]
    assert {"rpc-latency", "edge-llama-bench", "rpc-bench-local", "rpc-bench-remote"} <= {row["id"] for row in history}


def test_a_peer_that_dies_costs_its_own_request_and_comes_back(
    gpu_server: testinfra.host.Host, jetson: testinfra.host.Host, client: OpenAI
) -> None:
    pid = jetson.check_output("systemctl show edge-rpc.service --property=MainPID --value")
    # A load that lasts: the peer is killed in the middle of it.
    running = "systemd-run --quiet --collect --unit=rpc-victim --property=StandardError=file:/tmp/rpc-victim.log"
    many = f"{BENCH} --model {MODEL} --n-prompt 0 --n-gen 512 --repetitions 50 --rpc {JETSON}:{RPC_PORT}"
    gpu_server.check_output(f"{running} {many}")
    seconds_until(lambda: "Accepted" in jetson.check_output(
        f"journalctl --unit=edge-rpc.service --since=-30s --output=cat --no-pager _PID={pid} || true"
    ) or gpu_server.run("systemctl is-active rpc-victim").stdout.strip() == "active", 20)  # fmt: skip
    time.sleep(2)
    jetson.check_output("systemctl kill --signal=KILL edge-rpc.service")
    ended = seconds_until(lambda: gpu_server.run("systemctl is-active rpc-victim").stdout.strip() != "active", 60)
    print(f"the program that used the peer ended {ended:.1f} s after it")
    assert client.chat.completions.create(
        model="tiny-llama", messages=[{"role": "user", "content": "Are you there?"}], max_tokens=4
    )
    back = seconds_until(lambda: bench(gpu_server, "--output json").rc == 0, 60)
    print(f"lent again after {back:.1f} s")


def test_a_link_that_is_cut_heals_by_itself(
    gpu_server: testinfra.host.Host, jetson: testinfra.host.Host, client: OpenAI, edge: OpenAI
) -> None:
    many = f"{BENCH} --model {MODEL} --n-prompt 0 --n-gen 512 --repetitions 50 --rpc {JETSON}:{RPC_PORT}"
    gpu_server.check_output(f"systemd-run --quiet --collect --unit=rpc-cut {many}")
    time.sleep(3)
    cut = "nft add table inet cut && nft add chain inet cut in '{ type filter hook input priority -300; }' && "
    cut += "nft add rule inet cut in ip saddr 10.77.0.11 drop"
    try:
        jetson.check_output(cut)
        assert client.chat.completions.create(
            model="tiny-llama", messages=[{"role": "user", "content": "Are you there?"}], max_tokens=4
        )
        # The edge's own model is not on that link.
        assert edge.models.list().data
        time.sleep(5)
    finally:
        jetson.check_output("nft delete table inet cut")
        gpu_server.run("systemctl stop rpc-cut")
    back = seconds_until(lambda: bench(gpu_server, "--output json").rc == 0, 90)
    print(f"lent again {back:.1f} s after the link was back")


def test_another_build_at_one_end_is_refused_before_anything_is_changed() -> None:
    keys = read_secrets()
    # A variable of the GPU server alone, as an owner would set it by mistake.
    folder = INVENTORY / "host_vars"
    assert not folder.exists()
    folder.mkdir()
    try:
        (folder / "schlimers-server.yml").write_text("llama_cpp_build: 11435\n", encoding="utf-8")
        run = run_playbook("playbooks/week4.yml", *extra(rotate_keys=True))
    finally:
        (folder / "schlimers-server.yml").unlink()
        folder.rmdir()
    assert run.code != 0
    assert "jetson llama.cpp 11434" in run.output
    assert "and schlimers-server llama.cpp 11435" in " ".join(run.output.split())
    assert not any(run.changed.values())
    # A plan that is refused replaces no key, though it was to.
    assert read_secrets() == keys


def test_a_model_that_is_too_large_for_the_edge_is_refused_with_the_figures() -> None:
    run = run_playbook("playbooks/week4.yml", *extra(edge_inference_model_name="llama-3.3-70b-q4"))
    assert run.code != 0
    assert "weights 42.5 GB" in run.output
    assert not any(run.changed.values())
