"""How the role edge_inference shares memory out, what it refuses, and its guard of the RPC server."""

import runpy
import socket
from pathlib import Path
from typing import Any

import pytest

from filter_plugins import edge_inference as edge

GUARD = Path(__file__).resolve().parents[2] / "roles" / "edge_inference" / "files" / "edge_rpc_guard.py"
MIB = 1 << 20
GIB = 1 << 30
SETTINGS = {
    "address": "10.66.0.2",
    "port": 50052,
    "peers": ["10.66.0.1"],
    "memory": "up to 4096",
    "http": ["192.168.1.13", 8090],
}
ADDRESSES = ["192.168.1.13", "10.66.0.2"]


def service(**other: Any) -> dict[str, Any]:
    """What model_fit says of a 1B model on a board with 5 GiB for the edge."""
    return {
        "device": "gpu",
        "model": "llama-3.2-1b-q4",
        "required_bytes": 1300 * MIB,
        "host_bytes": 500 * MIB,
        "available_bytes": 5 * GIB,
        "breakdown": {"margin": 150 * MIB},
        **other,
    }


def plan(**other: Any) -> dict[str, Any]:
    arguments: dict[str, Any] = {
        "service": service(),
        "is_shared": True,
        "rpc_enabled": True,
        "rpc_memory": "auto",
        "running": {},
        **other,
    }
    return edge.edge_memory_plan(**arguments)


def test_model_and_clients_share_one_memory() -> None:
    found = plan()
    assert found["problems"] == []
    assert found["server_bytes"] == (1300 + 150 + 500) * MIB
    assert found["left_bytes"] == 5 * GIB - 1950 * MIB
    # In whole steps, so that a page more or less restarts nothing.
    assert found["rpc_bytes"] == 3136 * MIB
    assert found["server_bytes"] + found["rpc_bytes"] <= 5 * GIB
    assert found["text"] == (
        "llama-3.2-1b-q4 takes 2.0 GB of the 5.4 GB that the edge may have. 3.3 GB are left for RPC clients, who get "
        "3.3 GB."
    )


def test_a_card_of_its_own_keeps_the_hosts_part_out() -> None:
    assert plan(is_shared=False)["left_bytes"] == 5 * GIB - 1450 * MIB


def test_limits_of_the_units_hold_what_is_planned() -> None:
    on_gpu, on_cpu = plan(), plan(service=service(device="cpu", host_bytes=0))
    assert on_gpu["server_memory_max"] >= 1950 * MIB * 1.1
    assert on_gpu["rpc_memory_max"] == on_gpu["rpc_bytes"] + edge.RPC_OVERHEAD
    assert on_cpu["rpc_memory_max"] == on_cpu["rpc_bytes"]


@pytest.mark.parametrize(
    ("wish", "running_mib", "expected_mib"),
    [
        ("up to 2048", 0, 2048),
        ("up to 2048", 1600, 1600),  # less than a quarter would be gained
        ("up to 2048", 1024, 2048),
        ("up to 2048", 3000, 2048),  # no longer wanted
        ("auto", 3200, 3136),  # no longer there
        (1024, 2048, 1024),
        ("1024", 0, 1024),
    ],
)
def test_clients_keep_what_they_have_while_little_is_gained(wish: Any, running_mib: int, expected_mib: int) -> None:
    found = plan(rpc_memory=wish, running={"rpc_memory_bytes": running_mib * MIB})
    assert found["rpc_bytes"] == expected_mib * MIB


@pytest.mark.parametrize("wish", [4096, "auto"])
def test_what_does_not_fit_beside_the_model_is_refused(wish: Any) -> None:
    tight = service(available_bytes=5 * GIB if wish == 4096 else 2100 * MIB)
    (problem,) = plan(service=tight, rpc_memory=wish)["problems"]
    assert "are left for RPC clients, not the" in problem
    assert "edge_inference_rpc_enabled: false" in problem


def test_without_rpc_nothing_is_lent() -> None:
    found = plan(rpc_enabled=False, service=service(available_bytes=1500 * MIB))
    assert (found["rpc_bytes"], found["problems"]) == (0, [])


def test_unknown_memory_is_not_lent() -> None:
    assert "can't be told" in plan(service=service(available_bytes=None))["problems"][0]


def test_good_settings_pass() -> None:
    assert edge.edge_rpc_errors(SETTINGS, ADDRESSES) == []
    assert edge.edge_rpc_errors({**SETTINGS, "address": "127.0.0.1", "peers": []}, ADDRESSES) == []


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"address": "0.0.0.0"}, "name the one IPv4 address of the link"),
        ({"address": ""}, "name the one IPv4 address of the link"),
        ({"address": "fd00::2"}, "name the one IPv4 address of the link"),
        ({"address": "jetson"}, "name the one IPv4 address of the link"),
        ({"address": "10.66.0.9"}, "which this host does not have (it has 192.168.1.13, 10.66.0.2)"),
        ({"peers": []}, "edge_inference_rpc_peers is empty"),
        ({"peers": ["10.66.0.0/24"]}, "'10.66.0.0/24', which is no IPv4 address of one host"),
        ({"peers": ["0.0.0.0"]}, "which is no IPv4 address of one host"),
        ({"peers": ["schlimers-server"]}, "which is no IPv4 address of one host"),
        ({"memory": "lots"}, "edge_inference_rpc_memory_mib is 'lots'"),
        ({"memory": 100}, "from 256 on"),
        ({"memory": True}, "from 256 on"),
        ({"http": ["10.66.0.2", 50052]}, "are both 50052"),
    ],
)
def test_each_wrong_setting_is_said_once(changed: dict[str, Any], said: str) -> None:
    (error,) = edge.edge_rpc_errors({**SETTINGS, **changed}, ADDRESSES)
    assert said in error


@pytest.mark.parametrize(
    ("release", "rpc", "said"),
    [
        ({}, True, "the build of the programs in /bin is not known"),
        ({"build": "11434"}, False, "is not known"),
        ({"build": 0}, False, "is not known"),
        ({"build": 12000}, True, "was made without RPC"),
        ({"build": 11434, "rpc": True}, True, "CVE-2026-118375"),
        ({"build": 11434, "rpc": True, "rdma": True}, True, "CVE-2026-118375"),
        ({"build": 11434, "rpc": True, "rdma": False}, True, ""),
        ({"build": 11865, "rpc": True, "rdma": True}, True, ""),
        ({"build": 11434}, False, ""),
    ],
)
def test_builds_are_judged(release: dict[str, Any], rpc: bool, said: str) -> None:
    errors = edge.edge_release_errors(release, 11865, rpc, "/bin")
    assert len(errors) == (1 if said else 0)
    assert all(said in error for error in errors)


def test_what_runs_is_read_from_its_units() -> None:
    server, rpc = "ExecStart=x \\\n  --ctx-size 8192 \\\n  --parallel 2\n", "# for clients: 1073741824 bytes\n"
    assert edge.edge_running(server, rpc) == {"context_length": 8192, "sequences": 2, "rpc_memory_bytes": GIB}
    assert edge.edge_running("", "") == {}


SERVED: dict[str, Any] = {
    "user": "edge-inference",
    "rpc_user": "edge-rpc",
    "listen_address": "10.0.0.3",
    "port": 8090,
    "rpc_port": 50052,
    "client_networks": ["10.0.0.0/24", "fd00::/64", "10.0.0.9"],
    "api_key": "0123456789abcdef",
    "model_file": "/srv/models/m@1/m.gguf",
    "model_name": "org/model:q4",
    **edge.LEAST,
}


def test_settings_that_work_have_no_error() -> None:
    assert edge.edge_errors(SERVED, ["10.0.0.3"]) == []
    assert edge.edge_errors({**SERVED, "listen_address": "127.0.0.1"}, []) == []


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"user": "root"}, "edge_inference_user is 'root'"),
        ({"rpc_user": "A b"}, "edge_inference_rpc_user is 'A b'"),
        ({"rpc_user": "edge-inference"}, "edge_inference_user and edge_inference_rpc_user are both"),
        ({"listen_address": "0.0.0.0"}, "edge_inference_listen_address is '0.0.0.0'; name one"),
        ({"listen_address": "10.0.0.4"}, "which this host does not have (it has 10.0.0.3)"),
        ({"port": 80}, "edge_inference_port is 80"),
        ({"client_networks": ["lan"]}, "edge_inference_client_networks has 'lan'"),
        ({"api_key": ""}, "edge_inference_api_key is empty"),
        ({"api_key": "tooshort"}, "edge_inference_api_key is too short"),
        ({"model_file": "m.gguf"}, "edge_inference_model_file is 'm.gguf'"),
        ({"model_name": "-x"}, "edge_inference_model_name is '-x'"),
        ({"start_timeout": 0}, "edge_inference_start_timeout is 0; set 1 or more"),
    ],
)
def test_each_wrong_setting_is_told_once_and_no_key(wrong: dict[str, Any], said: str) -> None:
    (error,) = edge.edge_errors({**SERVED, **wrong}, ["10.0.0.3"])
    assert said in error
    assert "tooshort" not in error


def test_a_model_that_can_not_be_read_is_told() -> None:
    assert edge.edge_model_errors({"size": 1, "mtime": 1, "everybody_reads": True}, "/m.gguf") == []
    assert "no such file" in edge.edge_model_errors(None, "/m.gguf")[0]
    assert "chmod o+r" in edge.edge_model_errors({"size": 1, "mtime": 1, "everybody_reads": False}, "/m.gguf")[0]


def test_memory_that_is_kept_is_taken_off_where_gpu_and_host_share_it() -> None:
    gpus = [
        {"index": 0, "memory_is_shared": True, "other_processes_bytes": 5},
        {"index": 1, "memory_is_shared": False, "other_processes_bytes": 5},
    ]
    assert [gpu["other_processes_bytes"] for gpu in edge.edge_fit_gpus(gpus, GIB)] == [5 + GIB, 5]


def test_the_guard_finds_the_socket_and_has_it_probe_its_peers() -> None:
    """On this test's own listening socket, with a connection that inherits the probes."""
    guard = runpy.run_path(str(GUARD))
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        inode = guard["listening_inode"](Path("/proc/self/net/tcp").read_text("ascii"), "127.0.0.1", port)
        assert inode
        assert guard["descriptor_of"]("self", inode) == server.fileno()
        assert guard["listening_inode"](Path("/proc/self/net/tcp").read_text("ascii"), "127.0.0.2", port) is None
        guard["probe_peers"](server)
        with socket.create_connection(("127.0.0.1", port)), server.accept()[0] as accepted:
            assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 10
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT) == 3


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    (tmp_path / "rpc").mkdir()
    (tmp_path / "rpc" / "0123456789abcdef").write_bytes(b"a tensor")
    return tmp_path


def tensors(cache: Path) -> list[str]:
    return [file.name for file in (cache / "rpc").iterdir()]


def test_a_whole_cache_is_kept(cache: Path) -> None:
    guard = runpy.run_path(str(GUARD))
    guard["prepare"](cache, 1)
    assert len(tensors(cache)) == 1


def test_a_cache_in_use_when_the_host_went_down_is_dropped(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    guard = runpy.run_path(str(GUARD))
    guard["prepare"](cache, 1)
    guard["prepare"](cache, 1)
    assert tensors(cache) == []
    assert "1 cached tensors were dropped" in capsys.readouterr().out


def test_a_full_disk_drops_the_cache(cache: Path) -> None:
    runpy.run_path(str(GUARD))["prepare"](cache, 1 << 40)
    assert tensors(cache) == []


def test_what_may_be_half_written_is_dropped_at_the_end(cache: Path) -> None:
    guard = runpy.run_path(str(GUARD))
    guard["prepare"](cache, 1)
    guard["ended"](cache)
    assert tensors(cache) == []
    guard["prepare"](cache, 1)
