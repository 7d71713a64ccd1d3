"""The link measurement: what goes over the wire, which paths there are, which is the best, and what is worth it."""

import contextlib
import json
import signal
import socket
import struct
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import rpc_latency as module
from ansible.module_utils.ai_idp import benchmark_measure, rpc_latency, rpc_link
from ansible.module_utils.ai_idp.benchmark_errors import MeasurementError
from ansible.module_utils.ai_idp.benchmark_tools import parse_llama_bench
from ansible.module_utils.ai_idp.sample_statistics import StatisticsError
from ansible.module_utils.testing import patch_module_args

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "benchmark"
PROGRAM = Path(rpc_link.__file__).read_text()
THROUGH = "10.77.0.13:50052"
SERVER = ("server", "--port", "0", "--allow", "127.0.0.1")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing waits for load, and the module's handlers of signals end with the test."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    monkeypatch.setattr(
        benchmark_measure, "cpu_conditions", lambda: {"load_before": 0.1, "cpu_count": 24, "cpu_busy_before": 0.02}
    )
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture
def server() -> int:
    """The server on loopback, open to 127.0.0.1 and 127.0.0.2; its port."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = int(probe.getsockname()[1])
    arguments = ("127.0.0.1", port, ["127.0.0.1", "127.0.0.2"], 5.0)
    thread = threading.Thread(target=rpc_link.serve, args=arguments, daemon=True)
    thread.start()
    until = time.monotonic() + 3
    while time.monotonic() < until:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=0.5).close()
            break
        except OSError:
            time.sleep(0.02)
    return port


def address(text: str, interface: str = "lo", kind: str = "ethernet", prefix: int = 8) -> dict[str, Any]:
    more = {"prefix": prefix, "kind": kind, "speed_mbit_per_second": 2500, "mtu": 1500}
    return {"address": text, "interface": interface, **more}


# --- what goes over the wire ----------------------------------------------------------------------------


def test_messages_have_the_sizes_of_llama_cpp() -> None:
    # struct rpc_tensor of ggml-rpc.cpp, build 11434, packed.
    assert struct.calcsize("<QIQ4I4II16iI10QQQQ64si") == rpc_link.TENSOR_BYTES
    sizes = {case.name: (sum(case.requests) + 9 * len(case.requests), case.answer + 8) for case in rpc_link.CASES}
    assert sizes["rtt"] == (13, 16)
    assert sizes["hello"] == (33, 36)
    assert sizes["allocate"] == (9 + 4 + 11 * 296, 16)
    # SET_TENSOR with 2,048 floats, GRAPH_RECOMPUTE, GET_TENSOR; 2,048 floats come back.
    assert sizes["rpc_latency"] == (9 + 305 + 8192 + 13 + 9 + 312, 8 + 8192)
    assert sizes["logits"][1] == 8 + 4 * 128_256
    assert max(max(case.requests) for case in rpc_link.CASES) < rpc_link.LARGEST


def test_client_and_server_measure_every_case(server: int, capsys: pytest.CaptureFixture[str]) -> None:
    where = ["--source", "127.0.0.1", "--interface", "lo", "--peer", "127.0.0.1", "--port", str(server)]
    assert rpc_link.main(["client", *where, "--seconds", "0.02"]) == 0
    text = capsys.readouterr().out
    told = json.loads(text)
    assert set(told["cases"]) == {case.name for case in rpc_link.CASES}
    assert all(len(case["milliseconds"]) >= rpc_link.LEAST_CALLS for case in told["cases"].values())
    parsed = rpc_latency.parse_client(text)
    metrics = parsed["metrics"]
    assert 0 < metrics["link_rtt_ms"] <= metrics["rtt_p50_ms"] < 5
    assert metrics["rtt_p5_ms"] <= metrics["rtt_p50_ms"] <= metrics["rtt_p95_ms"]
    assert metrics["throughput_gbit_per_second"] > 0
    assert metrics["throughput_back_gbit_per_second"] > 0
    assert set(parsed["samples"]) == {"rtt_ms", "rpc_latency_ms"}
    assert len(parsed["samples"]["rtt_ms"]) <= rpc_latency.KEPT_SAMPLES


def test_delay_on_one_side_is_in_the_latency_once(server: int, monkeypatch: pytest.MonkeyPatch) -> None:
    send = rpc_link.Conversation.handle

    def late(self: rpc_link.Conversation, command: int, size: int) -> bool:
        if command == rpc_link.CALL:
            time.sleep(0.004)
        answered: bool = send(self, command, size)
        return answered

    monkeypatch.setattr(rpc_link.Conversation, "handle", late)
    client = rpc_link.Client("127.0.0.1", "", "127.0.0.1", server, 5)
    with client.stream:
        client.greet()
        times = client.calls(rpc_link.CASES[0], 0.05)["milliseconds"]
    assert 4 <= min(times) < 6


def test_strangers_are_not_answered(server: int) -> None:
    with socket.create_connection(("127.0.0.1", server), timeout=2, source_address=("127.0.0.3", 0)) as stranger:
        assert stranger.recv(1) == b""


@pytest.mark.parametrize(
    "request_bytes",
    [
        pytest.param(struct.pack("<BQ", rpc_link.CALL, 4) + bytes(4), id="no greeting"),
        pytest.param(struct.pack("<BQ", rpc_link.GREET, 1 << 40), id="more than the largest"),
        pytest.param(struct.pack("<BQ", rpc_link.GREET, 0) + struct.pack("<BQ", 99, 0), id="no command"),
        pytest.param(
            struct.pack("<BQ", rpc_link.GREET, 0) + struct.pack("<BQQ", rpc_link.ASK, 8, 1 << 60),
            id="too long an answer",
        ),
    ],
)
def test_nonsense_ends_the_conversation_and_not_the_server(server: int, request_bytes: bytes) -> None:
    with socket.create_connection(("127.0.0.1", server), timeout=2) as stream:
        stream.sendall(request_bytes)
        got = b""
        # A server that hangs up on unread bytes resets the connection.
        with contextlib.suppress(ConnectionResetError):
            while part := stream.recv(100):
                got += part
        assert got in (b"", struct.pack("<Q", len(rpc_link.GREETING)) + rpc_link.GREETING)
    client = rpc_link.Client("", "", "127.0.0.1", server, 2)
    with client.stream:
        client.greet()


def test_another_program_at_the_port_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

        def greet() -> None:
            stream, _ = listener.accept()
            with stream:
                stream.recv(100)
                stream.sendall(struct.pack("<Q", 3) + b"hi\n")

        threading.Thread(target=greet, daemon=True).start()
        assert rpc_link.main(["client", "--peer", "127.0.0.1", "--port", str(port)]) == 1
    assert "not this program's server" in capsys.readouterr().err


def test_nobody_at_the_port_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert rpc_link.main(["client", "--peer", "127.0.0.1", "--port", "1"]) == 1
    assert capsys.readouterr().err == "127.0.0.1:1 can't be measured: Connection refused\n"


def test_a_server_ends_by_itself(capsys: pytest.CaptureFixture[str]) -> None:
    started = time.monotonic()
    assert rpc_link.main([*SERVER, "--bind", "127.0.0.1", "--lifetime", "0.1"]) == 0
    assert time.monotonic() - started < 1
    assert "for 0.1 s" in capsys.readouterr().out


def test_an_address_of_another_host_can_not_be_served(capsys: pytest.CaptureFixture[str]) -> None:
    assert rpc_link.main([*SERVER, "--bind", "192.0.2.1", "--lifetime", "1"]) == 1
    assert "192.0.2.1:0 can't be listened on" in capsys.readouterr().err


def test_garbage_of_the_client_is_no_measurement() -> None:
    for text in ("", "Killed", "[]", '{"cases": {}}', '{"cases": {"rtt": {"milliseconds": []}}}'):
        with pytest.raises(MeasurementError, match="told no measurement"):
            rpc_latency.parse_client(text)


def client_output(milliseconds: float = 0.3, interface: float = 1.0) -> str:
    sent = {"sent": 10_000_000, "received": 10_000_000}
    return json.dumps(
        {
            "cases": {case.name: {"milliseconds": [milliseconds] * 500} for case in rpc_link.CASES},
            "streams": {way: {"bytes": 125_000_000, "seconds": 1.0} for way in ("there", "back")},
            "kernel": {"retransmits": 3, "shortest_rtt_ms": 0.2},
            "program_bytes": sent,
            "interface_bytes": {way: int(interface * count) for way, count in sent.items()},
        }
    )


def test_figures_are_those_of_the_client() -> None:
    parsed = rpc_latency.parse_client(client_output())
    assert parsed["metrics"]["throughput_gbit_per_second"] == pytest.approx(1.0)
    assert parsed["metrics"]["link_rtt_ms"] == 0.2
    assert parsed["metrics"]["rpc_latency_p50_ms"] == 0.3
    assert len(parsed["samples"]["rtt_ms"]) == rpc_latency.KEPT_SAMPLES


def test_bytes_that_the_interface_did_not_see_went_another_way() -> None:
    rpc_latency.parse_client(client_output(interface=0.95))
    with pytest.raises(MeasurementError, match="they went another way"):
        rpc_latency.parse_client(client_output(interface=0.94))


def test_samples_are_thinned_evenly() -> None:
    assert rpc_latency.thinned([float(number) for number in range(10)], 5) == [0, 2, 4, 6, 8]
    assert rpc_latency.thinned([1.0, 2.0], 5) == [1.0, 2.0]


# --- addresses and paths --------------------------------------------------------------------------------


def interface(name: str, *addresses: str, **more: Any) -> dict[str, Any]:
    entries = [{"family": "inet", "local": entry, "prefixlen": 24, "scope": "global"} for entry in addresses]
    return {"ifname": name, "flags": ["UP"], "mtu": 1500, "addr_info": entries, **more}


def test_addresses_of_containers_and_loopback_are_left_out(tmp_path: Path) -> None:
    text = json.dumps(
        [
            interface("lo", "127.0.0.1", flags=["LOOPBACK", "UP"]),
            interface("enp5s0", "192.168.1.10"),
            interface("docker0", "172.17.0.1"),
            interface("br-08f6a62b2176", "172.30.0.1"),
            interface("veth5dd59c9", "169.254.9.9"),
            interface("virbr0", "192.168.122.1"),
            interface("br0", "192.168.7.1"),
            interface("thunderbolt0", "10.99.0.1"),
            interface("wlp4s0"),
        ]
    )
    found = rpc_latency.parse_addresses(text, str(tmp_path))
    assert [entry["address"] for entry in found] == ["192.168.1.10", "192.168.7.1", "10.99.0.1"]
    assert set(found[0]) == {"address", "prefix", "interface", "kind", "speed_mbit_per_second", "mtu"}


def test_garbage_of_ip_is_said() -> None:
    with pytest.raises(MeasurementError, match="ip told no addresses but: command not found"):
        rpc_latency.parse_addresses("command not found")


def test_kinds_of_interfaces_follow_from_their_drivers(tmp_path: Path) -> None:
    root = tmp_path / "net"
    devices = {
        "thunderbolt0": ("pci0000:00/0000:00:0d.2/domain0", "thunderbolt-net"),
        "wlp4s0": ("pci0000:00/0000:04:00.0", "iwlwifi"),
        "enx00e04c": ("pci0000:00/0000:00:14.0/usb2/2-1/2-1:1.0", "r8152"),
        "enp5s0": ("pci0000:00/0000:05:00.0", "r8169"),
    }
    for name, (device, driver) in devices.items():
        folder = tmp_path / "devices" / device
        folder.mkdir(parents=True)
        (tmp_path / "drivers" / driver).mkdir(parents=True)
        (folder / "driver").symlink_to(tmp_path / "drivers" / driver)
        (root / name).mkdir(parents=True)
        (root / name / "device").symlink_to(folder)
    (root / "wlp4s0" / "wireless").mkdir()
    (root / "br0").mkdir()
    (root / "enp5s0" / "speed").write_text("2500\n")
    (root / "wlp4s0" / "speed").write_text("-1\n")
    kinds = {name: rpc_latency.interface_kind(name, str(root)) for name in [*devices, "br0"]}
    assert kinds == {
        **{"thunderbolt0": "usb4", "wlp4s0": "wifi", "enx00e04c": "usb", "enp5s0": "ethernet"},
        "br0": "virtual",
    }
    assert rpc_latency.link_speed("enp5s0", str(root)) == 2500
    assert rpc_latency.link_speed("wlp4s0", str(root)) is None
    assert rpc_latency.link_speed("br0", str(root)) is None


def test_the_route_is_read() -> None:
    text = '[{"dst":"10.77.0.13","dev":"eth0","prefsrc":"10.77.0.11","flags":[],"uid":0,"cache":[]}]'
    assert rpc_latency.parse_route(text) == ("eth0", "10.77.0.11")
    assert rpc_latency.parse_route("RTNETLINK answers: Network is unreachable") == ("", "")
    assert rpc_latency.parse_route("[]") == ("", "")


OWN = [
    address("192.168.1.10", "enp5s0", prefix=24),
    address("192.168.1.20", "wlp4s0", "wifi", prefix=24),
    address("10.99.0.1", "thunderbolt0", "usb4", prefix=30),
]
PEERS = [
    address("192.168.1.11", "eth0", prefix=24),
    address("10.99.0.2", "thunderbolt0", "usb4", prefix=30),
]
ROUTES = {"192.168.1.11": ("enp5s0", "192.168.1.10"), "10.99.0.2": ("thunderbolt0", "10.99.0.1")}


def route(peer: str) -> tuple[str, str]:
    return ROUTES.get(peer, ("", ""))


def test_paths_are_pairs_that_share_a_network_or_a_route() -> None:
    paths, left_out = rpc_latency.paths_between(OWN, PEERS, route)
    assert [(path.name, path.chosen) for path in paths] == [
        ("enp5s0 192.168.1.10 to 192.168.1.11", True),
        ("wlp4s0 192.168.1.20 to 192.168.1.11", False),
        ("thunderbolt0 10.99.0.1 to 10.99.0.2", True),
    ]
    assert "enp5s0 192.168.1.10 has no route to 10.99.0.2" in left_out
    assert len(left_out) == 3


def test_a_path_through_a_router_is_one() -> None:
    paths, _ = rpc_latency.paths_between(
        OWN[:1], [address("172.20.0.5", "eth1")], lambda peer: ("enp5s0", "192.168.1.10")
    )
    assert [(path.same_network, path.chosen) for path in paths] == [(False, True)]


def test_an_address_of_both_hosts_is_no_path() -> None:
    paths, left_out = rpc_latency.paths_between(OWN[:1], [address("192.168.1.10")], route)
    assert paths == []
    assert left_out == ["192.168.1.10 is an address of both hosts"]


def measured(own: int, peer: int, latencies: list[float], gbit: float, chosen: bool = True) -> rpc_latency.Path:
    names = ("throughput_gbit_per_second", "throughput_back_gbit_per_second")
    runs = [{"metrics": {rpc_latency.METRIC: value, **dict.fromkeys(names, gbit)}} for value in latencies]
    return rpc_latency.Path(OWN[own], PEERS[peer], True, chosen, runs=runs)


def test_the_path_on_which_a_token_waits_least_is_the_best() -> None:
    ethernet = measured(0, 0, [0.50, 0.51, 0.52], 2.35)
    usb4 = measured(2, 1, [0.30, 0.31, 0.32], 1.0)
    best, reason = rpc_latency.best_path([ethernet, usb4])
    assert best is usb4
    assert reason.startswith(
        "thunderbolt0 10.99.0.1 to 10.99.0.2 (USB4): 0.31 ms for each token, 1 Gbit/s; next: enp5s0"
    )


def test_of_paths_that_can_not_be_told_apart_the_one_that_carries_more_is_the_best() -> None:
    ethernet = measured(0, 0, [0.30, 0.33, 0.36], 2.35)
    usb4 = measured(2, 1, [0.29, 0.34, 0.38], 9.4)
    assert rpc_latency.best_path([ethernet, usb4])[0] is usb4


def test_a_path_that_the_routes_do_not_use_is_named_and_not_chosen() -> None:
    ethernet = measured(0, 0, [0.50, 0.51, 0.52], 2.35)
    unused = measured(2, 1, [0.1, 0.1, 0.1], 9.4, chosen=False)
    best, reason = rpc_latency.best_path([ethernet, unused])
    assert best is ethernet
    assert "would be faster, but the routes do not use it" in reason
    assert rpc_latency.best_path([unused]) == (None, "")


def test_the_server_is_of_a_user_of_its_own_and_ends_by_itself() -> None:
    argv = rpc_latency.server_argv("/run/x/rpc_link.py", "10.99.0.2", 50053, ["10.99.0.1"], 60)
    assert argv[0] == "systemd-run"
    assert {"--collect", "--unit=ai-idp-rpc-link-10-99-0-2", "--property=DynamicUser=yes"} <= set(argv)
    assert "--property=RuntimeMaxSec=65" in argv
    assert argv[argv.index("--bind") + 1] == "10.99.0.2"
    assert argv[argv.index("--allow") + 1] == "10.99.0.1"
    assert {*rpc_latency.door_properties("10.99.0.2", 50053, ["10.99.0.1"], 65)} <= {*argv}


def test_the_firewall_admits_who_measures_as_long_as_the_server_runs() -> None:
    before, after = rpc_latency.door_properties("10.99.0.2", 50053, ["10.99.0.1", "10.77.0.1"], 65)
    # As root, and no matter whether there is a firewall.
    assert before == (
        "--property=ExecStartPre=+-/usr/sbin/nft add element inet ai_idp measuring "
        "{ 10.99.0.1 . 10.99.0.2 . 50053 timeout 65s , 10.77.0.1 . 10.99.0.2 . 50053 timeout 65s }"
    )
    assert after == (
        "--property=ExecStopPost=+-/usr/sbin/nft delete element inet ai_idp measuring "
        "{ 10.99.0.1 . 10.99.0.2 . 50053 , 10.77.0.1 . 10.99.0.2 . 50053 }"
    )


# --- the survey as one measurement ----------------------------------------------------------------------


class Lab:
    """The module, measuring loopback."""

    def __init__(self, folder: Path, port: int, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self.port, self.capsys = folder, port, capsys

    def run(self, check: bool = False, **more: Any) -> dict[str, Any]:
        arguments = {
            "step": "measure",
            "addresses": [address("127.0.0.2")],
            "peer_addresses": [address("127.0.0.1")],
            "results_dir": str(self.folder),
            "program": PROGRAM,
            "peer": "jetson",
            "host": "jetson",
            "environment": "lab",
            "port": self.port,
            "runs": 2,
            "warmup_runs": 0,
            "seconds": 0.01,
            "timeout": 5,
            **more,
        }
        arguments = {name: value for name, value in arguments.items() if value is not None}
        with patch_module_args({**arguments, "_ansible_check_mode": check}), pytest.raises(SystemExit):
            module.main()
        # The server of the test may say meanwhile that it listens.
        answer: dict[str, Any] = json.loads(self.capsys.readouterr().out.splitlines()[-1])
        return answer


@pytest.fixture
def lab(tmp_path: Path, server: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Lab:
    monkeypatch.setattr(rpc_latency, "read_route", lambda peer, program="ip": ("lo", "127.0.0.2"))
    return Lab(tmp_path / "links", server, capsys)


def test_a_survey_is_a_measurement_of_the_contract_and_kept(lab: Lab) -> None:
    answer = lab.run()
    result = answer["measurement"]
    assert (answer["changed"], result["status"], result["reason"]) == (True, "ok", None)
    assert set(result) == {
        *("schema", "id", "key", "status", "reason", "host", "environment", "tool", "method", "command", "parameters"),
        *("build", "model", "model_hash", "hardware_fingerprint", "hardware", "devices", "subject", "warmup_runs"),
        *("runs", "flags", "measured_at"),
    }
    assert (result["id"], len(result["runs"])) == ("rpc-latency", 2)
    assert result["runs"][0]["metrics"][rpc_latency.METRIC] > 0
    assert result["parameters"]["peer_address"] == "127.0.0.1"
    assert result["parameters"]["interface"] == "lo"
    (path,) = result["subject"]["paths"]
    assert (path["status"], path["metrics"]["link_rtt_ms"]["n"]) == ("ok", 2)
    again = lab.run()
    assert (again["changed"], again["kept"], again["measurement"]) == (False, True, result)
    # More than there is, and another cable, are measured; less is not.
    assert lab.run(runs=3)["kept"] is False
    assert lab.run(runs=2)["kept"] is True
    # Another board, or another network card in it, has another link.
    assert lab.run(hardware_profile={"fingerprint": "another"})["kept"] is False
    assert lab.run(hardware_profile={"fingerprint": "another"})["kept"] is True
    assert lab.run(addresses=[{**address("127.0.0.2"), "speed_mbit_per_second": 1000}])["kept"] is False


def test_check_mode_sends_no_load(lab: Lab) -> None:
    answer = lab.run(check=True)
    assert (answer["changed"], answer["measurement"]["status"]) == (True, "planned")
    assert "1 paths, 2 runs of each" in answer["plan"]
    assert not lab.folder.exists()


def test_a_peer_that_does_not_answer_is_a_failed_measurement(lab: Lab) -> None:
    answer = lab.run(port=1)
    assert (answer["changed"], answer["measurement"]["status"]) == (False, "failed")
    assert "no path to the peer can be used (jetson): lo 127.0.0.2 to 127.0.0.1" in answer["measurement"]["reason"]
    assert "Connection refused" in answer["measurement"]["reason"]
    assert not (lab.folder / "rpc-latency.json").exists()


def test_a_peer_without_a_path_is_skipped(lab: Lab) -> None:
    answer = lab.run(peer_addresses=[address("127.0.0.2")])
    assert answer["measurement"]["status"] == "skipped"
    assert "127.0.0.2 is an address of both hosts" in answer["measurement"]["reason"]


def test_one_path_that_fails_leaves_the_others(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        rpc_latency,
        "read_route",
        lambda peer, program="ip": ("lo", "127.0.0.2"),
    )
    # Nobody serves there.
    result = lab.run(peer_addresses=[address("127.0.0.9"), address("127.0.0.1")])["measurement"]
    assert result["status"] == "ok"
    assert [path["status"] for path in result["subject"]["paths"]] == ["failed", "ok"]
    assert "Connection refused" in result["subject"]["paths"][0]["reason"]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"runs": 1}, "runs is 1; an interval needs at least 2 independent runs: set it to 2 or more."),
        ({"warmup_runs": -1}, "warmup_runs is -1; it is 0 or more."),
        ({"seconds": 0}, "seconds is 0; it is a number between 0.01 and 60."),
        ({"port": 0}, "port is 0; it is a number between 1 and 65535."),
        ({"peer_addresses": None}, "step is measure but all of the following are missing: peer_addresses"),
    ],
)
def test_bad_settings_are_refused(lab: Lab, more: dict[str, Any], message: str) -> None:
    assert lab.run(**more)["msg"] == message


def test_the_program_runs_alone(tmp_path: Path) -> None:
    program = tmp_path / "rpc_link.py"
    program.write_text(PROGRAM)
    answer = benchmark_measure.execute(
        [sys.executable, "-I", str(program), "client", "--peer", "127.0.0.1", "--port", "1"], 10
    )
    assert (answer.rc, answer.stderr) == (1, "127.0.0.1:1 can't be measured: Connection refused\n")


# --- what is worth it -----------------------------------------------------------------------------------


def judge(local: list[float], remote: list[float], **more: Any) -> rpc_latency.Offload:
    return rpc_latency.judge_offload(rpc_latency.Rates(local), rpc_latency.Rates(remote), **more)


def test_the_whole_interval_decides() -> None:
    assert judge([100, 101, 102], [150, 151, 152]).verdict == "worth_it"
    assert judge([100, 101, 102], [58, 59, 60]).verdict == "not_worth_it"
    assert judge([90, 100, 110], [92, 101, 109]).verdict == "inconclusive"


def test_standing_exactly_on_the_figure_counts_as_reaching_it() -> None:
    # Without spread, the interval is the ratio alone.
    assert judge([100, 100], [100, 100]).verdict == "worth_it"
    assert judge([100, 100], [50, 50], minimum_ratio=0.5).verdict == "worth_it"
    below = judge([100, 100], [49.999, 49.999], minimum_ratio=0.5)
    assert below.verdict == "not_worth_it"
    found = judge([100, 101, 102], [110, 111, 112])
    assert found.ci95_low is not None
    assert judge([100, 101, 102], [110, 111, 112], minimum_ratio=found.ci95_low).verdict == "worth_it"
    assert judge([100, 101, 102], [110, 111, 112], minimum_ratio=found.ci95_low + 1e-6).verdict == "inconclusive"
    assert found.ci95_high is not None
    assert judge([100, 101, 102], [110, 111, 112], minimum_ratio=found.ci95_high).verdict == "inconclusive"
    assert judge([100, 101, 102], [110, 111, 112], minimum_ratio=found.ci95_high + 1e-6).verdict == "not_worth_it"


def test_the_reason_tells_ratio_interval_rates_and_cost() -> None:
    reason = judge([247, 248, 246], [146, 145, 147], round_trip_ms=0.9).reason
    assert reason.startswith("through RPC 0.591 times (0.58")
    assert "as many tokens per second: 146 in place of 247, 2.8 ms more for each token" in reason
    assert reason.endswith("(as much as 3.11 of the link's round trips of 0.9 ms); at least 1 times is asked for")


def test_more_than_the_link_allows_was_not_computed_by_the_peer() -> None:
    # 5 ms for each token allow 200, and 10 % are the limit's own error.
    assert judge([100, 101], [219, 220], round_trip_ms=5.0).verdict == "worth_it"
    found = judge([100, 101], [221, 222], round_trip_ms=5.0)
    assert found.verdict == "not_measured"
    assert "so the peer computed nothing of it" in found.reason


@pytest.mark.parametrize(("local", "remote"), [([100.0], [50.0, 51.0]), ([100.0, 101.0], [50.0]), ([], [50.0, 51.0])])
def test_fewer_than_two_runs_are_no_measurement(local: list[float], remote: list[float]) -> None:
    found = judge(local, remote)
    assert found.verdict == "not_measured"
    assert "an interval needs 2" in found.reason


def test_a_busy_machine_decides_only_against_itself() -> None:
    fast, slow = rpc_latency.Rates([100, 101, 102]), rpc_latency.Rates([50, 51, 52])
    busy_fast = rpc_latency.Rates(fast.values, disturbed="the machine was not at rest (busy)")
    busy_slow = rpc_latency.Rates(slow.values, disturbed="the machine was not at rest (busy)")
    assert rpc_latency.judge_offload(busy_slow, fast).verdict == "inconclusive"
    assert rpc_latency.judge_offload(fast, busy_slow).verdict == "inconclusive"
    assert rpc_latency.judge_offload(slow, busy_fast).verdict == "worth_it"
    assert rpc_latency.judge_offload(busy_fast, slow).verdict == "not_worth_it"


def test_a_ratio_of_nothing_is_refused() -> None:
    with pytest.raises(StatisticsError, match="minimum_ratio is 0"):
        judge([1, 2], [1, 2], minimum_ratio=0)


def bench(rates: list[float], through: str | None = None, **more: Any) -> dict[str, Any]:
    """A result of benchmark_measure's llama_bench."""
    return {
        "status": "ok",
        "command": ["llama-bench", "--output", "json", *(["--rpc", through] if through else [])],
        "parameters": {"prompt_tokens": 512, "output_tokens": 128},
        "devices": [through or "AMD Ryzen 9 9900X"],
        "build": "llama.cpp 11865 (abc)",
        "model": "llama-3.2-1b-q4",
        "model_hash": "sha256:1",
        "hardware_fingerprint": "f",
        "flags": [],
        "runs": [
            {"metrics": {"decode_tokens_per_second": rate, "prompt_tokens_per_second": 10 * rate}} for rate in rates
        ],
        **more,
    }


def link(milliseconds: float) -> dict[str, Any]:
    runs = [{"metrics": {"link_rtt_ms": milliseconds, "rtt_p50_ms": 2 * milliseconds}}] * 2
    return {"status": "ok", "runs": runs, "subject": {"best": {"reason": "thunderbolt0: 0.3 ms"}}}


def test_results_of_llama_bench_get_a_verdict() -> None:
    found = rpc_latency.offload_of(bench([100, 101]), bench([58, 59], THROUGH), link(0.4), THROUGH, 1.0)
    assert (found["verdict"], found["decode"]["verdict"], found["prompt"]["verdict"]) == ("not_worth_it",) * 3
    assert found["reason"] == found["decode"]["reason"]
    assert (found["round_trip_ms"], found["link"]) == (0.4, "thunderbolt0: 0.3 ms")
    assert found["decode"]["local"]["n"] == 2


def test_the_verdict_follows_the_link() -> None:
    """A model that takes 5 ms per token here and 1 ms on the peer, plus the round trip."""
    verdicts = {}
    for delay in (0.4, 2.0, 5.0):
        rate = 1000 / (1.0 + delay)
        remote = bench([rate * 0.99, rate, rate * 1.01], THROUGH)
        found = rpc_latency.offload_of(bench([198, 200, 202]), remote, link(delay), THROUGH, 1.0)
        verdicts[delay] = found["verdict"]
    assert verdicts == {0.4: "worth_it", 2.0: "worth_it", 5.0: "not_worth_it"}


@pytest.mark.parametrize(
    ("local", "remote", "reason"),
    [
        (None, bench([1, 2], THROUGH), "without RPC are not known: it was not measured"),
        (bench([1, 2]), bench([], THROUGH, status="failed", reason="it hangs"), "through RPC are not known: it hangs"),
        (bench([1, 2]), bench([], THROUGH, status="planned"), "the measurement is planned"),
        (bench([1, 2], THROUGH), bench([1, 2], THROUGH), "the one without RPC went through 10.77.0.13:50052"),
        (bench([1, 2]), bench([1, 2]), "llama-bench was not called with --rpc 10.77.0.13:50052"),
        (bench([1, 2]), bench([1, 2], "10.0.0.9:50052"), "llama-bench was not called with --rpc 10.77.0.13:50052"),
        (bench([1, 2]), bench([1, 2], THROUGH, devices=["AMD"]), "did not compute on 10.77.0.13:50052 but on AMD"),
        (bench([1, 2]), bench([1, 2], THROUGH, build="llama.cpp 1 (x)"), "the two measurements differ in build"),
        (bench([1, 2]), bench([1, 2], THROUGH, model_hash=None), "the two measurements differ in model_hash"),
        (bench([1, 2]), bench([1, 2], THROUGH, parameters={}), "the two measurements differ in prompt_tokens"),
        (bench([1, 2]), bench([1, 0], THROUGH), "decode_tokens_per_second is 0, which no measurement gives"),
        (bench([1, 2]), bench([1, 2], THROUGH, runs=[{"metrics": {}}]), "1 is None, which is not a finite number"),
    ],
)
def test_what_can_not_be_compared_is_not_measured(local: Any, remote: Any, reason: str) -> None:
    found = rpc_latency.offload_of(local, remote, None, THROUGH, 1.0)
    assert found["verdict"] == "not_measured"
    assert reason in found["reason"]


def test_flags_of_a_busy_machine_are_heeded() -> None:
    remote = bench([50, 51], THROUGH, flags=["busy: load 3.1 on 2 CPUs before run 2"])
    found = rpc_latency.offload_of(bench([100, 101]), remote, link(0.4), THROUGH, 1.0)
    assert found["verdict"] == "inconclusive"
    assert "busy: load 3.1 on 2 CPUs" in found["reason"]


def test_llama_bench_names_the_peer_as_its_device() -> None:
    """Captured with --rpc 127.0.0.1:50052 of Debian's build 11669."""
    parsed = parse_llama_bench((GOLDEN / "llama-bench-11669-rpc.json").read_text(), "")
    assert parsed.devices == ["127.0.0.1:50052"]
    assert parsed.subject["backends"] == "RPC"


def test_a_link_that_was_not_measured_says_why() -> None:
    assert rpc_latency.round_trip_of(None) == (None, "the link was not measured")
    failed = {"status": "failed", "reason": "no path to the peer can be used"}
    assert rpc_latency.round_trip_of(failed) == (None, "no path to the peer can be used")
    only_programs = {"status": "ok", "runs": [{"metrics": {"rtt_p50_ms": 0.5}}]}
    assert rpc_latency.round_trip_of(only_programs) == (0.5, "")


def test_the_module_judges(lab: Lab) -> None:
    answer = lab.run(
        step="judge", local=bench([100, 101]), remote=bench([150, 151], THROUGH), link=link(0.4), through=THROUGH
    )
    assert (answer["changed"], answer["offload"]["verdict"]) == (False, "worth_it")


def test_the_module_reads_addresses(lab: Lab) -> None:
    answer = lab.run(step="addresses")
    assert answer["changed"] is False
    assert all(entry["address"] != "127.0.0.1" for entry in answer["addresses"])
