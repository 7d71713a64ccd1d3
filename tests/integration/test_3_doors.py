"""The table of doors, held against what listens on each host and what other machines reach of it."""

import ipaddress
import json
import shlex
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from ansible.module_utils.ai_idp import rpc_latency

from .conftest import INVENTORY, lab_host
from .suite import ROOT, rotation

sys.path.insert(0, str(ROOT / "tools"))
import doors

HERE = Path(__file__).parent
HOSTS = {"schlimers-server": "10.77.0.11", "xps15": "10.77.0.12", "jetson": "10.77.0.13"}
OUTSIDE = {"registry": "10.77.0.5", "this machine": "10.77.0.1"}
SSH = 22
# Who scans, and whom; each scan is 65,535 ports.
SCANS = [(source, target) for source in (*HOSTS, *OUTSIDE) for target in HOSTS if source != target]
# Where each engine's gate is, and where the gateway leads to it.
GATES = {8000: ("schlimers-server", ""), 8080: ("schlimers-server", "/llama"), 8010: ("schlimers-server", "/triton"),
         9400: ("schlimers-server", ""), 8090: ("jetson", "/edge")}  # fmt: skip


@cache
def table() -> dict[str, list[dict[str, Any]]]:
    """The doors of the lab's hosts by the inventory and the wiring."""
    return doors.host_doors(INVENTORY)


def admits(row: dict[str, Any], source: str) -> bool:
    """Whether a door is for a machine."""
    address = ipaddress.ip_address(source)
    return any(address in ipaddress.ip_network(admitted) for admitted in row["sources"])


@cache
def listeners(host: str, protocol: str) -> set[int]:
    """Ports of a host at which somebody listens for other machines."""
    lines = lab_host(HOSTS[host]).check_output(f"ss --no-header --listening --numeric --{protocol}").splitlines()
    places = [line.split()[3].rpartition(":") for line in lines]
    outside = [(address.partition("%")[0].strip("[]"), int(port)) for address, _, port in places]
    return {port for address, port in outside if not address.startswith("127.") and address != "::1"}


@pytest.mark.parametrize("host", HOSTS)
def test_who_listens_is_in_the_table(host: str) -> None:
    assert listeners(host, "tcp") <= {SSH, *(int(row["port"]) for row in table()[host])}
    assert listeners(host, "udp") == set()


@pytest.mark.parametrize("host", HOSTS)
def test_every_address_of_the_table_is_the_host_s(host: str) -> None:
    assert {row["address"] for row in table()[host]} == {HOSTS[host]}


def scanned(source: str, target: str, protocol: str, *ports: int) -> list[int]:
    """Ports of a host that another machine reaches; of UDP's the well-known ones and those that are named."""
    program = (HERE / "port_scan.py").read_text(encoding="utf-8")
    wanted = ["-", protocol, HOSTS[target], *map(str, ports)]
    if source == "this machine":
        command = [sys.executable, *wanted]
    elif source == "registry":
        images = yaml.safe_load((ROOT / "playbooks/group_vars/all/versions.yml").read_text(encoding="utf-8"))
        image = "127.0.0.1:15000/" + images["ai_idp_images"]["vllm"]
        # It has no Python of its own, so another container looks out of its network.
        command = [*("docker", "run", "--rm", "--interactive", "--network", "container:ai-idp-lab-registry"),
                   *("--ulimit", "nofile=8192", "--entrypoint", "python3", image, *wanted)]  # fmt: skip
    else:
        command = ["docker", "exec", "--interactive", f"ai-idp-lab-{source}", "python3", *wanted]
    done = subprocess.run(command, input=program, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    found: list[int] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize(("source", "target"), rotation("scans of all ports", SCANS, 4))
def test_other_machines_reach_what_the_table_says_and_nothing_else(source: str, target: str) -> None:
    address = {**HOSTS, **OUTSIDE}[source]
    for_them = {SSH, *(int(row["port"]) for row in table()[target] if admits(row, address))}
    assert {*scanned(source, target, "tcp")} == for_them & listeners(target, "tcp")


@pytest.mark.parametrize("target", HOSTS)
def test_no_datagram_gets_through_from_another_machine(target: str) -> None:
    """All doors are TCP's. Who listens for datagrams here is one that the test starts, since nobody else does."""
    host, port, unit = lab_host(HOSTS[target]), 5353, "ai-idp-test-datagrams"
    listening = listeners(target, "udp")
    echo = (
        f"import socket; s = socket.socket(type=socket.SOCK_DGRAM); s.bind(('{HOSTS[target]}', {port}));"
        " exec('while True: s.sendto(*s.recvfrom(9))')"
    )
    host.check_output(f"systemd-run --quiet --collect --unit={unit} python3 -c {shlex.quote(echo)}")
    try:
        # The host itself gets through to everything, so the scan finds what there is to find.
        own = scanned(target, target, "udp")
        assert port in own
        assert len(own) > 1
        for source in (name for name, scanned_host in SCANS if scanned_host == target):
            assert scanned(source, target, "udp", *listening) == [], source
    finally:
        host.check_output(f"systemctl stop {unit}")


def reached(source: str, port: int) -> bool:
    """Whether a host gets through to a port of the GPU server."""
    return bool(lab_host(HOSTS[source]).run(f"curl -fsS --max-time 3 -o /dev/null http://10.77.0.11:{port}/").rc == 0)


@pytest.mark.parametrize("port", [5201, 11111])
def test_a_port_of_a_measurement_admits_who_measures_and_only_then(port: int) -> None:
    gpu_server = lab_host(HOSTS["schlimers-server"])
    unit, server = "ai-idp-test-measured", f"python3 -m http.server --bind 10.77.0.11 {port}"
    doors = shlex.join(rpc_latency.door_properties("10.77.0.11", port, ["10.77.0.13"], 60))
    for options, admitted in (("", False), (doors, True), ("", False)):
        gpu_server.check_output(f"systemd-run --quiet --collect --unit={unit} {options} {server}")
        try:
            gpu_server.check_output(f"curl -fsS --retry 9 --retry-connrefused -o /dev/null http://10.77.0.11:{port}/")
            assert reached("jetson", port) is admitted
            assert not reached("xps15", port)
        finally:
            gpu_server.check_output(f"systemctl stop {unit}")


# Tried before there was a gate: the first ran code in Triton's container, the others answered without a key.
EXPLOITS = [
    (8010, "/v2/repository/models/evil/load", {"parameters": {"config": "{}", "file:1/model.py": "cHJpbnQoMSk="}}),
    (8010, "/v2/repository/index", {}),
    (8010, "/v2/systemsharedmemory/region/a/register", {"key": "/a", "offset": 0, "byte_size": 1}),
    (8000, "/invocations", {"model": "tiny-llama", "prompt": "a", "max_tokens": 1}),
    (8000, "/detokenize", {"model": "tiny-llama", "tokens": [1]}),
    (8000, "/v1/score", {"model": "tiny-llama", "text_1": "a", "text_2": "b"}),
    (8080, "/slots", {}),
    (8090, "/slots", {}),
    (8090, "/props", {}),
    (8090, "/lora-adapters", {}),
]


def asked(host: str, url: str, body: dict[str, Any], key: str) -> str:
    """The status that a host gets; 000 where nobody answers it. The key is in no argument and in no log there."""
    quiet = ("--silent", "--insecure", "--max-time", "4", "--output", "/dev/null", "--write-out", "%{http_code}")
    done = subprocess.run(
        [
            *("docker", "exec", "--interactive", f"ai-idp-lab-{host}", "curl", *quiet),
            *("--header", "@-", "--json", json.dumps(body), url),
        ],
        input=f"Authorization: Bearer {key}\n",
        capture_output=True,
        text=True,
    )
    return done.stdout


@pytest.mark.parametrize(("port", "path", "body"), EXPLOITS)
def test_what_is_for_an_operator_is_refused_everywhere(
    secrets: dict[str, str], gates: httpx.Client, port: int, path: str, body: dict[str, Any]
) -> None:
    key, (host, prefix) = secrets["engine_gate_key"], GATES[port]
    place = f"{HOSTS[host]}:{port}{path}"
    # From the LAN nobody answers at all, from the gateway's host not even with the platform's key.
    neighbour = next(name for name in ("jetson", "schlimers-server") if name != host)
    assert asked(neighbour, f"https://{place}", body, key) == "000"
    assert asked(neighbour, f"http://{place}", body, key) == "000"
    assert asked("xps15", f"https://{place}", body, key) == "404"
    assert gates.post(f"https://{place}", json=body).status_code == 404
    # Through the gateway, as its client.
    url = f"https://10.77.0.12{prefix}{path}"
    assert asked(neighbour, url, body, secrets["gateway_client_key"]) == "404"


@pytest.mark.parametrize(
    ("port", "path"),
    [(8000, "/v1/models"), (8080, "/v1/models"), (8010, "/v2"), (9400, "/metrics"), (8090, "/v1/models")],
)
def test_the_gateway_s_host_needs_the_key(secrets: dict[str, str], port: int, path: str) -> None:
    quiet = "curl --silent --cacert /etc/ai-idp/tls/ca.crt --max-time 4 --output /dev/null --write-out '%{http_code}'"
    xps15, place = lab_host(HOSTS["xps15"]), f"{HOSTS[GATES[port][0]]}:{port}{path}"
    key = secrets["engine_gate_key"]
    assert xps15.run(f"{quiet} https://{place}").stdout == "401"
    assert xps15.run(f"{quiet} --header 'Authorization: Bearer {key}' https://{place}").stdout == "200"
    # And nothing crosses the network in the clear.
    assert xps15.run(f"{quiet} http://{place}").stdout == "400"


def test_engines_are_on_loopback_alone() -> None:
    for host, ports in (("schlimers-server", (8000, 8080, 8010, 8012, 9400)), ("jetson", (8090,))):
        lines = (
            lab_host(HOSTS[host]).check_output("ss --no-header --listening --numeric --tcp --processes").splitlines()
        )
        for port in ports:
            owners = {
                line.split()[3].rpartition(":")[0]: line for line in lines if line.split()[3].endswith(f":{port}")
            }
            assert "127.0.0.1" in owners, port
            outside = {address: line for address, line in owners.items() if address != "127.0.0.1"}
            assert all("nginx" in line for line in outside.values()), outside
            assert {*outside} <= {HOSTS[host]}
    assert not [port for port in listeners("schlimers-server", "tcp") if port in (8011, 8012)]
