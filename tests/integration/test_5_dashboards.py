"""Every query of every panel of every dashboard, asked of a real Prometheus the way Grafana asks it.

AI_IDP_PROMETHEUS_URL names a Prometheus (its path prefix included); without it the lab's is reached through SSH, since
it listens on the gateway's loopback only.
"""

import json
import os
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import yaml
from dashboards import BOARDS
from dashboards.parts import Board
from dashboards.queries import Asked, Server, asked_by, resolve
from openai import DefaultHttpxClient, OpenAI

from .conftest import INVENTORY

GATEWAY = "10.77.0.12"
ROUNDS = 5


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@pytest.fixture(scope="session")
def prometheus() -> Iterator[Server]:
    """The Prometheus that the dashboards ask."""
    given = os.environ.get("AI_IDP_PROMETHEUS_URL")
    if given:
        with httpx.Client(base_url=given.rstrip("/") + "/", timeout=60) as client:
            yield Server(client)
        return
    port = free_port()
    tunnel = subprocess.Popen(
        [
            "ssh",
            "-N",
            *("-L", f"127.0.0.1:{port}:127.0.0.1:9090"),
            *("-i", str(INVENTORY / "state" / "id_ed25519")),
            *("-o", f"UserKnownHostsFile={INVENTORY / 'state' / 'known_hosts'}"),
            *("-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes", "-o", "ExitOnForwardFailure=yes"),
            f"ubuntu@{GATEWAY}",
        ]
    )
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}/prometheus/", timeout=60) as client:
            for _ in range(50):
                try:
                    client.get("-/ready").raise_for_status()
                    break
                except httpx.TransportError:
                    time.sleep(0.2)
            else:
                pytest.fail(f"no Prometheus answers on {GATEWAY}'s loopback: run ai-idp run week3")
            yield Server(client)
    finally:
        tunnel.terminate()
        tunnel.wait(timeout=10)


def scrape_interval(server: Server) -> float:
    """Seconds between two scrapes, as Prometheus says."""
    config = yaml.safe_load(server.get("status/config")["yaml"])
    text = config["global"]["scrape_interval"]
    return float(text.removesuffix("s")) if text.endswith("s") else 60 * float(text.removesuffix("m"))


@pytest.fixture(scope="session")
def traffic(prometheus: Server, endpoints: dict[str, dict[str, Any]]) -> None:
    """Requests to each engine, again after scrapes, until rates and latencies have something to tell of.

    A counter that appears with its first request has no rate before its second. Where tests of the gateway have just
    run, the first round is enough.
    """
    secrets = yaml.safe_load((INVENTORY / "secrets.yml").read_text(encoding="utf-8"))
    trust = ssl.create_default_context(cafile=str(INVENTORY / "state" / "ca.crt"))
    asked = [one for one in endpoints.values() if one["kind"] == "openai"]
    for turn in range(ROUNDS):
        for endpoint in asked:
            with OpenAI(
                base_url=f"{endpoint['url']}/v1",
                api_key=secrets[endpoint["key"]],
                timeout=120,
                http_client=DefaultHttpxClient(verify=trust, trust_env=False),
            ) as client:
                model = endpoint["model"] or client.models.list().data[0].id
                client.chat.completions.create(
                    model=model, messages=[{"role": "user", "content": f"Hello {turn}"}], max_tokens=8
                )
        inputs = [{"name": "TEXT", "datatype": "BYTES", "shape": [1, 1], "data": [f"words {turn}"]}]
        httpx.post(
            f"{endpoints['triton']['url']}/v2/models/text_embedder/infer",
            json={"inputs": inputs},
            headers={"Authorization": f"Bearer {secrets[endpoints['triton']['key']]}"},
            verify=trust,
            timeout=60,
            trust_env=False,
        ).raise_for_status()
        if not any(board_is_there(prometheus, board) and empty_queries(prometheus, board)[0] for board in BOARDS):
            return
        time.sleep(scrape_interval(prometheus) + 1)


def board_is_there(server: Server, board: Board) -> bool:
    """Whether what a dashboard is about has been deployed."""
    return not board.requires or bool(server.get("query", query=f'up{{job="{board.requires}"}}')["result"])


def empty_queries(server: Server, board: Board) -> tuple[list[str], list[str]]:
    """Queries of a dashboard without data: those that should have some, and those that lack the hardware."""
    dashboard = json.loads(board.render())
    now = time.time()
    hardware = board.hardware_only()
    empty, excused = [], []
    for written, asked in asked_by(dashboard, resolve(dashboard, server, now)):
        if server.has_data(asked, now):
            continue
        if written in hardware:
            excused.append(f"{asked.where}: {hardware[written]}")
        else:
            empty.append(f"{asked.where}\n    {asked.expr}")
    return empty, excused


@pytest.mark.usefixtures("traffic")
@pytest.mark.parametrize("board", BOARDS, ids=[board.name for board in BOARDS])
def test_every_query_brings_data(prometheus: Server, board: Board) -> None:
    if not board_is_there(prometheus, board):
        pytest.skip(f"Prometheus has no target of the job {board.requires}: its week has not run, and the role grafana"
                    " is told to leave this dashboard out")  # fmt: skip
    empty, excused = empty_queries(prometheus, board)
    print("\n".join(["without data, for lack of hardware:", *excused] if excused else ["every query has data"]))
    assert not empty, "queries without data:\n" + "\n".join(empty)


def test_a_query_without_data_is_noticed(prometheus: Server) -> None:
    for instant in (True, False):
        assert not prometheus.has_data(Asked("nowhere", "ai_idp_no_such_metric", instant), time.time())
        assert prometheus.has_data(Asked("nowhere", "up", instant), time.time())


def test_a_query_that_is_no_query_is_told(prometheus: Server) -> None:
    with pytest.raises(ValueError, match="bad_data"):
        prometheus.has_data(Asked("nowhere", "sum(", instant=True), time.time())
