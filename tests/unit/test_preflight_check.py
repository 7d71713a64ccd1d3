"""preflight_check against captured /proc texts, `docker ps` lines and real sockets of this machine."""

import json
import os
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import preflight_check as module_under_test
import pytest
from ansible.module_utils.ai_idp import preflight_check as pc

LIBRARY = Path(module_under_test.__file__)

# Captured on x86_64, cut after the inode: dockerd on 0.0.0.0:2024, a docker-proxy on 127.0.0.1:18080, one connection.
PROC_TCP = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000:07E8 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 228
   1: 0100007F:46A0 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 184467
   2: 0100007F:8CA7 0100007F:46A0 01 00000000:00000000 00:00000000 00000000     0        0 194746
   3: 0B004D0A:1F40 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 777
"""
PROC_TCP6 = "\n".join(
    (
        "  sl  local_address  remote_address  st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode",
        "   0: 00000000000000000000000000000000:0050 00000000000000000000000000000000:0000 0A "
        "00000000:00000000 00:00000000 00000000     0        0 900",
        "   1: 0000000000000000FFFF00000100007F:0051 00000000000000000000000000000000:0000 0A "
        "00000000:00000000 00:00000000 00000000     0        0 901",
    )
)
# Captured from docker 20.10 and 26.1, shortened.
DOCKER_PS = "\n".join(
    (
        '{"ID":"eda698d77979e3301fdd1285e7781c5398a79dd3c61ac7d421ca072c19968a1e","Labels":"com.docker.compose.depends_on='
        'a:service_healthy:false,b:service_started:false,com.docker.compose.project=ai-idp","Names":"ai-idp-vllm-1",'
        '"Ports":"10.77.0.11:8000-\\u003e8000/tcp, :::9000-9001-\\u003e9000-9001/tcp, 8002/tcp","State":"running"}',
        '{"ID":"2e086cc596842a8858b08909978dfe6a79960f9cbc112e793c68fae095ca4532","Labels":"","Names":"stranger",'
        '"Ports":"127.0.0.1:18080-\\u003e8080/tcp","State":"running"}',
    )
)
MOUNTINFO = """\
27 1 8:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw
40 27 0:40 / /mnt/nas\\040one rw,relatime shared:5 - nfs4 10.0.0.5:/models rw,vers=4.2
41 27 0:41 / /mnt/disk rw,relatime - ext4 /dev/sdb1 rw
42 41 0:42 / /mnt/disk rw,relatime - xfs /dev/sdc1 rw
"""


class FakeHost(pc.Host):
    """Answers from captures instead of from this machine."""

    def __init__(
        self, holders: dict[int, pc.Holder] | None = None, containers: list[pc.Container] | None = None
    ) -> None:
        super().__init__()
        self._fake_holders = holders or {}
        self._fake_containers = containers

    def listeners(self) -> list[pc.Listener]:
        return pc.parse_proc_net(PROC_TCP, "tcp") + pc.parse_proc_net(PROC_TCP6, "tcp")

    def holders(self, inodes: set[int]) -> dict[int, pc.Holder]:
        return {inode: holder for inode, holder in self._fake_holders.items() if inode in inodes}

    def containers(self) -> list[pc.Container] | None:
        return self._fake_containers


def port(number: int, address: str = "10.77.0.11", **changes: Any) -> dict[str, Any]:
    return {"address": address, "port": number, "protocol": "tcp", "variable": "some_port", **changes}


# -- parsers -------------------------------------------------------------------------------------------------


@pytest.mark.skipif(sys.byteorder != "little", reason="the capture is of a little-endian machine")
def test_listeners_of_proc_net() -> None:
    found = [(one.address, one.port, one.inode) for one in pc.parse_proc_net(PROC_TCP, "tcp")]
    assert found == [("0.0.0.0", 2024, 228), ("127.0.0.1", 18080, 184467), ("10.77.0.11", 8000, 777)]
    assert [(one.address, one.port) for one in pc.parse_proc_net(PROC_TCP6, "tcp")] == [("::", 80), ("127.0.0.1", 81)]


def test_docker_ps_lines() -> None:
    first, second = pc.parse_docker_ps(DOCKER_PS)
    assert first.project == "ai-idp"
    assert first.ports == [("10.77.0.11", 8000, "tcp"), ("::", 9000, "tcp"), ("::", 9001, "tcp")]
    assert second.project == ""


def test_published_port_on_every_address() -> None:
    assert pc.parse_published_ports("0.0.0.0:53->53/udp, [::]:53->53/udp") == [
        ("0.0.0.0", 53, "udp"),
        ("::", 53, "udp"),
    ]


@pytest.mark.parametrize(
    ("one", "other", "clash"),
    [
        ("0.0.0.0", "10.77.0.11", True),
        ("10.77.0.11", "0.0.0.0", True),
        ("::", "10.77.0.11", True),
        ("::1", "127.0.0.1", False),
        ("127.0.0.1", "10.77.0.11", False),
        ("0.0.0.0", "::1", False),
    ],
)
def test_addresses_that_collide(one: str, other: str, clash: bool) -> None:
    assert pc.overlaps(one, other) is clash


# -- ports ---------------------------------------------------------------------------------------------------


def test_free_port() -> None:
    (check,) = pc.check_ports([port(8001)], FakeHost())
    assert (check.status, check.detail) == ("ok", "free")


def test_port_of_a_stranger_is_named() -> None:
    host = FakeHost({777: pc.Holder(812, "nginx", "0::/system.slice/nginx.service")})
    (check,) = pc.check_ports([port(8000, owner_compose_project="ai-idp")], host)
    assert check.status == "fail"
    assert "some_port: 8000 on 10.77.0.11 (tcp) is already taken by nginx (process 812)" in check.problem


def test_port_of_our_compose_project_is_ours() -> None:
    proxy = pc.Holder(900, "docker-proxy", "0::/system.slice/docker.service")
    host = FakeHost({777: proxy, 184467: proxy}, pc.parse_docker_ps(DOCKER_PS))
    ours, other = pc.check_ports(
        [port(8000, owner_compose_project="ai-idp"), port(18080, "0.0.0.0", owner_compose_project="ai-idp")], host
    )
    assert ours.status == "ok"
    assert "ai-idp-vllm-1" in ours.detail
    assert other.status == "fail"
    assert "container stranger" in other.problem


def test_a_process_beside_our_published_port_is_not_ours() -> None:
    """Only Docker's own socket counts as the container's, not whoever else listens on that number."""
    host = FakeHost({777: pc.Holder(812, "nginx", "")}, pc.parse_docker_ps(DOCKER_PS))
    (check,) = pc.check_ports([port(8000, owner_compose_project="ai-idp")], host)
    assert check.status == "fail"


def test_container_on_the_host_network_is_known_by_its_cgroup() -> None:
    containers = pc.parse_docker_ps(DOCKER_PS)
    host = FakeHost({777: pc.Holder(5, "vllm", f"0::/system.slice/docker-{containers[0].id}.scope")}, containers)
    (check,) = pc.check_ports([port(8000, owner_compose_project="ai-idp")], host)
    assert check.status == "ok"


def test_unit_and_process_may_own_a_port() -> None:
    host = FakeHost({777: pc.Holder(5, "nginx", "0::/system.slice/nginx.service")})
    checks = pc.check_ports(
        [port(8000, owner_unit="nginx.service"), port(8000, "10.77.0.11", owner_processes=["nginx"])], host
    )
    assert [check.status for check in checks] == ["ok", "ok", "fail"], "both are ours, but they want the same port"
    assert "both want port 8000" in checks[2].problem


def test_holder_that_cannot_be_seen() -> None:
    (check,) = pc.check_ports([port(80)], FakeHost())
    assert check.status == "fail"
    assert "could not be named" in check.problem


def test_real_listener_of_this_machine() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        (check,) = pc.check_ports([port(listener.getsockname()[1], "127.0.0.1")], pc.Host())
        assert check.status == "fail"
        assert f"(process {os.getpid()})" in check.problem


# -- disks, mounts, memory -----------------------------------------------------------------------------------


def test_disk(tmp_path: Path) -> None:
    assert pc.check_disk({"path": str(tmp_path / "not" / "yet"), "min_free_bytes": 1}).status == "ok"
    check = pc.check_disk({"path": str(tmp_path), "min_free_bytes": 10**18, "variable": "some_dir"})
    assert check.status == "fail"
    assert check.problem.startswith(f"some_dir: {tmp_path} lies on a file system with")


@pytest.mark.parametrize(
    ("item", "status", "words"),
    [
        ({"path": "/mnt/nas one"}, "ok", ""),
        ({"path": "/mnt/nas one/", "fstype": "nfs", "source": "10.0.0.5:/models/"}, "ok", ""),
        ({"path": "/mnt/nas one", "fstype": "cifs"}, "fail", "has a nfs4 file system mounted, cifs is expected"),
        ({"path": "/mnt/nas one", "source": "10.0.0.6:/models"}, "fail", "has 10.0.0.5:/models mounted"),
        (
            {"path": "/mnt/other", "variable": "model_store_mount"},
            "fail",
            "model_store_mount: /mnt/other is not a mount",
        ),
        ({"path": "/mnt/disk", "fstype": "xfs"}, "ok", ""),
    ],
)
def test_mounts(item: dict[str, Any], status: str, words: str) -> None:
    check = pc.check_mount(item, MOUNTINFO, lambda path: True)
    assert check.status == status
    assert words in check.problem


def test_mount_that_does_not_answer() -> None:
    check = pc.check_mount({"path": "/mnt/nas one"}, MOUNTINFO, lambda path: False)
    assert "which does not answer" in check.problem
    assert pc.check_mount({"path": "/mnt/disk"}, MOUNTINFO, lambda path: False).status == "ok", (
        "only networks are asked"
    )
    assert pc.answers("/")
    assert not pc.answers("/no/such/path")


def test_memory() -> None:
    text = "MemTotal:       16384 kB\nMemAvailable:    1024 kB\n"
    checks = pc.check_memory({"min_total_bytes": 16 * 2**20, "min_available_bytes": 2 * 2**20}, text)
    assert [check.status for check in checks] == ["ok", "fail"]
    assert [check.status for check in pc.check_memory({"min_total_bytes": 1}, "")] == ["unknown"]


# -- URLs ----------------------------------------------------------------------------------------------------


class Answers(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(int(self.path.strip("/").split("?")[0]))
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        return


@pytest.fixture
def server() -> Iterator[str]:
    running = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    threading.Thread(target=running.serve_forever, args=(0.05,), daemon=True).start()
    yield f"127.0.0.1:{running.server_port}"
    running.shutdown()
    running.server_close()


@pytest.mark.parametrize(
    ("url", "accept", "status", "words"),
    [
        ("http://{}/200", None, "ok", ""),
        ("http://{}/401", [200, 401], "ok", ""),
        ("http://{}/401", None, "fail", "answered HTTP 401, expected 200 to 399"),
        ("http://{}/500", [200, 401], "fail", "answered HTTP 500, expected 200 or 401"),
        ("https://{}/200", None, "fail", "TLS failed"),
        ("tcp://{}", None, "ok", ""),
        ("tcp://127.0.0.1:9", None, "fail", "the connection was refused"),
        ("http://127.0.0.1:9/", None, "fail", "the connection was refused"),
        ("http://no-such-host.invalid/", None, "fail", "the name no-such-host.invalid cannot be resolved"),
        ("ftp://{}/", None, "fail", "is not a usable URL"),
        ("tcp://127.0.0.1", None, "fail", "is not a usable URL"),
    ],
)
def test_urls(server: str, url: str, accept: list[int] | None, status: str, words: str) -> None:
    item = {"url": url.format(server), "accept_status": accept, "variable": "some_url", "purpose": "testing"}
    check = pc.check_url(item, 5)
    assert check.status == status
    assert words in check.problem
    assert not check.problem or check.problem.startswith("some_url: ")


def test_certificate_that_is_not_trusted(tmp_path: Path) -> None:
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", "key.pem", "-out", "cert.pem"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    running = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    running.socket = context.wrap_socket(running.socket, server_side=True)
    threading.Thread(target=running.serve_forever, args=(0.05,), daemon=True).start()
    check = pc.check_url({"url": f"https://127.0.0.1:{running.server_port}/200"}, 5)
    running.shutdown()
    running.server_close()
    assert "its TLS certificate is not trusted" in check.problem


def test_secrets_of_a_url_are_not_shown(server: str) -> None:
    check = pc.check_url({"url": f"http://user:hunter2@{server}/500?token=hunter2"}, 5)
    assert "hunter2" not in check.problem + check.name + check.detail


# -- the module itself ---------------------------------------------------------------------------------------


def run_module(arguments: dict[str, Any]) -> dict[str, Any]:
    code = (
        "import runpy, sys; import ansible.module_utils as u; u.__path__.append(sys.argv[1])\n"
        "import ansible.module_utils.testing as t, json\n"
        "with t.patch_module_args(json.load(sys.stdin)):\n"
        "    runpy.run_path(sys.argv[2], run_name='__main__')\n"
    )
    command = [sys.executable, "-c", code, str(LIBRARY.parent.parent / "module_utils"), str(LIBRARY)]
    done = subprocess.run(command, input=json.dumps(arguments), capture_output=True, text=True, timeout=60)
    assert done.stdout, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def test_module_reports_and_fails_only_when_asked(server: str) -> None:
    arguments = {"urls": [{"url": f"http://{server}/500"}], "disk": [{"path": "/", "min_free_bytes": 1}]}
    answer = run_module(arguments)
    assert not answer["changed"]
    assert len(answer["problems"]) == 1
    assert {check["status"] for check in answer["checks"]} == {"ok", "fail"}
    failed = run_module({**arguments, "fail_on_problems": True})
    assert failed["failed"]
    assert failed["msg"] == answer["problems"][0]


@pytest.mark.parametrize(
    ("item", "words"),
    [
        ({"address": "10.0.0.1", "port": 70000, "variable": "some_port"}, "some_port is 70000"),
        ({"address": "localhost", "port": 80}, "it must be an IP address"),
    ],
)
def test_bad_input_is_named(item: dict[str, Any], words: str) -> None:
    answer = run_module({"ports": [item]})
    assert answer["failed"]
    assert words in answer["msg"]


# -- accounts ------------------------------------------------------------------------------------------------


def test_an_account_must_be_there_with_a_group_of_its_name() -> None:
    found, lost = pc.run_checks({"accounts": [{"name": "root"}, {"name": "no-such-one", "variable": "toy_user"}]})
    assert (found.status, found.problem) == (pc.OK, "")
    assert lost.status == pc.FAIL
    assert lost.problem.startswith("toy_user: this host has no account and no group 'no-such-one': make what")
