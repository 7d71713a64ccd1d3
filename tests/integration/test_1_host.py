"""What the GPU server of the lab shows to its network and to its own users."""

import json
import socket
from typing import Any
from urllib.parse import urlsplit

import pytest
from testinfra.host import Host

from .conftest import STACK


def test_nothing_but_ssh_listens_everywhere(gpu_server: Host) -> None:
    lines = gpu_server.check_output("ss -ltnH").splitlines()
    everywhere = {line.split()[3] for line in lines if line.split()[3].startswith(("0.0.0.0:", "[::]:", "*:"))}
    assert everywhere <= {"0.0.0.0:22", "[::]:22"}


def test_no_key_in_process_lists_or_docker_inspect(gpu_server: Host, secrets: dict[str, str]) -> None:
    shown = gpu_server.check_output("ps -eww -o args")
    shown += gpu_server.check_output("docker ps -aq | xargs docker inspect")
    shown += gpu_server.check_output("journalctl --no-pager")
    for name, key in secrets.items():
        assert key not in shown, name


def test_keys_are_for_their_service_alone(gpu_server: Host) -> None:
    for name, owner in (("vllm.key", "root"), ("llama_cpp.key", "ubuntu")):
        file = gpu_server.file(gpu_server.check_output(f"readlink -f {STACK}/current/{name}"))
        assert (file.mode, file.user) == (0o600, owner)


def test_containers_are_confined(gpu_server: Host) -> None:
    containers = json.loads(gpu_server.check_output("docker ps -q | xargs docker inspect"))
    assert len(containers) == 4
    for container in containers:
        host = container["HostConfig"]
        assert host["ReadonlyRootfs"], container["Name"]
        assert host["CapDrop"] == ["ALL"], container["Name"]
        assert not host["Privileged"], container["Name"]
        assert "no-new-privileges:true" in host["SecurityOpt"], container["Name"]
        assert host["LogConfig"]["Config"]["max-size"], container["Name"]


def test_images_are_pinned_by_digest(gpu_server: Host) -> None:
    images = gpu_server.check_output("docker ps -q | xargs docker inspect --format '{{.Config.Image}}'").splitlines()
    assert all("@sha256:" in image for image in images)


def test_corrected_limits_reach_vllm(gpu_server: Host) -> None:
    arguments = gpu_server.check_output("docker inspect ai-idp-inference-vllm-1 --format '{{json .Config.Cmd}}'")
    for limit in ("--gpu-memory-utilization=0.8", "--max-num-seqs=32", "--max-num-batched-tokens=4096"):
        assert limit in arguments


def test_the_firewall_drops_what_no_role_declares(gpu_server: Host, endpoints: dict[str, Any]) -> None:
    address = urlsplit(endpoints["vllm"]["url"]).hostname
    gpu_server.check_output(f"systemd-run --unit=stray-listener python3 -m http.server 9999 --bind {address}")
    try:
        with pytest.raises(TimeoutError):
            socket.create_connection((address, 9999), timeout=3)
    finally:
        gpu_server.check_output("systemctl stop stray-listener")
