"""Readiness of one host: constructed machines, real sockets on the loopback, every judgement both ways."""

import json
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import readiness_info
from ansible.module_utils.ai_idp import gpu_info, readiness
from ansible.module_utils.ai_idp import readiness_network as network
from ansible.module_utils.ai_idp.preflight_check import Check
from ansible.module_utils.ai_idp.programs import Answer
from ansible.module_utils.ai_idp.readiness import GB, GIB, MISSING, OK, UNKNOWN, Expected, Model, Nas, Software
from ansible.module_utils.ai_idp.readiness_network import Link, Reached, Ups

ROOT = Path(__file__).parent.parent.parent
PLAN = Expected("RTX 5070 Ti", 16, "9900X", 128, 2500, 500, "localhost")
NOTHING = Expected()
# 10.77.0.11 behind eno1, a point-to-point link to 192.168.100.2, everything else over 10.77.0.1.
ROUTES = """Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
eno1\t00000000\t01004D0A\t0003\t0\t0\t100\t00000000\t0\t0\t0
wlan0\t00000000\t01004D0A\t0003\t0\t0\t600\t00000000\t0\t0\t0
eno1\t00004D0A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0
usb0\t0064A8C0\t00000000\t0001\t0\t0\t0\tFCFFFFFF\t0\t0\t0
down0\t0063A8C0\t00000000\t0000\t0\t0\t0\t00FFFFFF\t0\t0\t0
"""


def card(**more: Any) -> dict[str, Any]:
    whole = {
        "name": "NVIDIA GeForce RTX 5070 Ti",
        "memory_total_bytes": 16303 << 20,
        "memory_is_shared": False,
        "compute_capability": "12.0",
        "fingerprint": "x",
    }
    return {**whole, **more}


def only(rows: list[readiness.Row]) -> readiness.Row:
    assert len(rows) == 1
    return rows[0]


@pytest.mark.parametrize(
    ("wanted", "found", "same"),
    [
        ("9900X", "AMD Ryzen 9 9900X 12-Core Processor", True),
        ("9900X", "AMD Ryzen 9 9900X3D 12-Core Processor", False),
        ("ryzen 9 9900x", "AMD Ryzen 9 9900X 12-Core Processor", True),
        ("RTX 5070 Ti", "NVIDIA GeForce RTX 5070 Ti", True),
        ("RTX 5070", "NVIDIA GeForce RTX 5070 Ti", False),
        ("RTX 5070 Ti", "NVIDIA GeForce RTX 5070 Ti Laptop GPU", False),
        ("RTX 5070 Ti", "GB203 [GeForce RTX 5070 Ti]", True),
        ("Orin Nano", "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super", True),
        ("H100", "NVIDIA H100 80GB HBM3", True),
    ],
)
def test_a_model_is_not_its_sibling(wanted: str, found: str, same: bool) -> None:
    assert readiness.names_model(wanted, found) is same


def test_the_gpu_of_the_plan_is_there() -> None:
    row = only(readiness.judge_gpu(PLAN, [card()], ["0000:01:00.0"], {}, []))
    assert (row.status, row.needed) == (OK, True)
    assert "RTX 5070 Ti (15.9 GiB)" in row.detail


def test_a_real_h100_is_what_it_is() -> None:
    captured = (ROOT / "tests" / "golden" / "h100" / "nvidia-smi-q-x.xml").read_text()
    answer = gpu_info.describe(gpu_info.Probe(smi=Answer(0, captured), pci_devices=["0000:00:06.0"]))
    gpus = answer["gpus"]
    assert only(readiness.judge_gpu(Expected("H100", 80), gpus, ["0000:00:06.0"], {}, [])).status == OK
    other = only(readiness.judge_gpu(PLAN, gpus, ["0000:00:06.0"], {}, []))
    assert other.status == MISSING
    assert other.detail == "NVIDIA H100 80GB HBM3 (79.6 GiB), not RTX 5070 Ti"


@pytest.mark.parametrize(
    ("gpus", "said"),
    [
        ([card(name="NVIDIA GeForce RTX 5060 Ti")], "ai_idp_expected_hardware.gpu "),
        ([card(memory_total_bytes=8 * GIB)], "ai_idp_expected_hardware.gpu_memory_gib"),
    ],
)
def test_another_gpu_is_not_that_of_the_plan(gpus: list[dict[str, Any]], said: str) -> None:
    row = only(readiness.judge_gpu(PLAN, gpus, ["0000:01:00.0"], {}, []))
    assert (row.status, row.needed) == (MISSING, True)
    assert said in row.remedy


def test_a_jetson_has_no_memory_of_its_own() -> None:
    expected = Expected(gpu="Orin Nano", gpu_memory_gib=8)
    gpu = card(name="NVIDIA Jetson Orin Nano Super", memory_total_bytes=7 * GIB, memory_is_shared=True)
    assert only(readiness.judge_gpu(expected, [gpu], [], {}, [])).status == OK


def test_a_card_without_a_driver_is_known_by_its_number(tmp_path: Path) -> None:
    device = tmp_path / "sys/bus/pci/devices/0000:01:00.0"
    device.mkdir(parents=True)
    (device / "device").write_text("0x2c05\n")
    assert readiness.pci_names(str(tmp_path), ["0000:01:00.0"]) == {}
    unknown = only(readiness.judge_gpu(PLAN, [], ["0000:01:00.0"], {}, []))
    assert (unknown.status, unknown.needed) == (UNKNOWN, False)
    assert "week 1" in unknown.remedy
    (tmp_path / "usr/share/misc").mkdir(parents=True)
    (tmp_path / "usr/share/misc/pci.ids").write_text(
        "# a comment\n10dd  Another\n\t2c05  Not this\n10de  NVIDIA Corporation\n"
        "\t2c05  GB203 [GeForce RTX 5070 Ti]\n\t\t1234 5678  A board\n10df  Emulex\n\t2c05  Nor this\n"
    )
    names = readiness.pci_names(str(tmp_path), ["0000:01:00.0"])
    assert names == {"0000:01:00.0": "GB203 [GeForce RTX 5070 Ti]"}
    assert only(readiness.judge_gpu(PLAN, [], list(names), names, [])).status == OK
    other = only(readiness.judge_gpu(Expected(gpu="RTX 5090"), [], list(names), names, []))
    assert (other.status, other.needed) == (MISSING, True)


def test_no_gpu() -> None:
    gone = only(readiness.judge_gpu(PLAN, [], [], {}, []))
    assert (gone.status, gone.needed) == (MISSING, True)
    assert "gpu in the inventory: none" in gone.remedy
    hidden = only(readiness.judge_gpu(PLAN, [], None, {}, []))
    assert (hidden.status, hidden.needed) == (UNKNOWN, True)
    assert only(readiness.judge_gpu(Expected(gpu="none"), [], [], {}, [])).status == OK
    assert readiness.judge_gpu(NOTHING, [], [], {}, []) == []


def test_cpu_and_memory() -> None:
    ryzen = {"model": "AMD Ryzen 9 9900X 12-Core Processor", "sockets": 1, "threads": 24}
    assert only(readiness.judge_cpu(PLAN, ryzen)).status == OK
    assert only(readiness.judge_cpu(Expected(cpu="9950X"), ryzen)).status == MISSING
    assert only(readiness.judge_cpu(NOTHING, ryzen)).status == OK
    assert only(readiness.judge_cpu(PLAN, None)).status == UNKNOWN
    # What Linux shows of 128 GiB, and of the next smaller size that is sold.
    assert only(readiness.judge_memory(PLAN, {"total_bytes": int(125.4 * GIB)}, False)).status == OK
    small = only(readiness.judge_memory(PLAN, {"total_bytes": 96 * GIB}, True))
    assert (small.status, small.needed) == (MISSING, True)
    assert "container" in small.detail
    assert only(readiness.judge_memory(NOTHING, {"total_bytes": GIB}, False)).needed is False


def make_interface(root: Path, name: str, *, speed: str = "", lower: tuple[str, ...] = (), real: bool = True) -> None:
    folder = root / "sys/class/net" / name
    folder.mkdir(parents=True)
    (folder / "carrier").write_text("1\n")
    if speed:
        (folder / "speed").write_text(f"{speed}\n")
        (folder / "duplex").write_text("full\n")
    if real:
        (folder / "device").mkdir()
    for member in lower:
        (folder / f"lower_{member}").mkdir()


def test_the_way_to_the_others_is_found(tmp_path: Path) -> None:
    routes = network.parse_routes(ROUTES)
    assert network.interface_to("10.77.0.12", routes) == "eno1"
    assert network.interface_to("192.168.100.2", routes) == "usb0"
    assert network.interface_to("192.168.99.2", routes) == "eno1"
    assert network.interface_to(None, routes) == "eno1"
    assert network.interface_to("fe80::1", routes) is None
    (tmp_path / "proc/net").mkdir(parents=True)
    (tmp_path / "proc/net/route").write_text(ROUTES)
    make_interface(tmp_path, "eno1", speed="2500")
    make_interface(tmp_path, "usb0", speed="-1")
    found = network.read_links(str(tmp_path), ["10.77.0.12", "192.168.100.2", "10.77.0.13"])
    assert [(link.name, link.speed_mbit, link.carrier) for link in found] == [
        ("eno1", 2500, True),
        ("usb0", None, True),
    ]
    assert [link.name for link in network.read_links(str(tmp_path), [])] == ["eno1"]
    assert network.read_links(str(tmp_path / "bare"), ["10.77.0.12"]) == []


def test_a_bridge_has_the_speed_of_its_card(tmp_path: Path) -> None:
    (tmp_path / "proc/net").mkdir(parents=True)
    (tmp_path / "proc/net/route").write_text(ROUTES.replace("eno1", "vmbr0"))
    make_interface(tmp_path, "vmbr0", speed="10000", lower=("enp5s0", "veth1"), real=False)
    make_interface(tmp_path, "enp5s0", speed="2500")
    make_interface(tmp_path, "veth1", speed="10000", real=False)
    link = network.read_links(str(tmp_path), ["10.77.0.12"])[0]
    assert (link.cards, link.speed_mbit) == (["enp5s0"], 2500)
    row = only(readiness.judge_links(PLAN, [link]))
    assert (row.name, row.status) == ("link vmbr0", OK)


@pytest.mark.parametrize(
    ("link", "status", "needed", "said"),
    [
        (Link("eno1", 2500, "full", ["eno1"]), OK, True, "2500 Mbit/s, full duplex"),
        (Link("eno1", 10000, "full", ["eno1"]), OK, True, "10000"),
        (Link("eno1", 1000, "full", ["eno1"]), MISSING, True, "1000"),
        (Link("eno1", 2500, "half", ["eno1"]), MISSING, True, "half"),
        (Link("wlp1", 2500, None, ["wlp1"], wireless=True), MISSING, True, "Wi-Fi"),
        (Link("eno1", None, None, ["eno1"], carrier=False), MISSING, True, "no cable"),
        (Link("ens18", None, None, ["ens18"], carrier=True), UNKNOWN, False, "virtual machine"),
        # A container's interface claims 10 Gbit/s whatever the cable does.
        (Link("eth0", None, None, []), UNKNOWN, False, "virtual interface"),
    ],
)
def test_links_are_judged(link: Link, status: str, needed: bool, said: str) -> None:
    row = only(readiness.judge_links(PLAN, [link]))
    assert (row.status, row.needed) == (status, needed)
    assert said in row.detail
    assert only(readiness.judge_links(NOTHING, [link])).needed is False


def test_no_route_is_unknown() -> None:
    assert only(readiness.judge_links(PLAN, [])).status == UNKNOWN


@pytest.fixture
def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def test_another_host_answers(ssh_port: int) -> None:
    reached = network.reach("127.0.0.1", ssh_port, 2)
    assert reached.ok
    assert f"127.0.0.1:{ssh_port} answers in" in reached.detail


def test_a_host_with_a_closed_port_may_answer_pings(free_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "ping", lambda *_: 0.4)
    reached = network.reach("127.0.0.1", free_port, 2)
    assert reached == Reached(True, f"127.0.0.1 answers pings in 0.4 ms (127.0.0.1:{free_port}: connection refused)")
    monkeypatch.setattr(network, "ping", lambda *_: None)
    reached = network.reach("127.0.0.1", free_port, 2)
    assert not reached.ok
    row = readiness.judge_peer("xps15", reached)
    assert (row.name, row.status, row.needed) == ("reaches xps15", MISSING, True)


def test_a_ping_is_what_other_hosts_understand() -> None:
    # RFC 1071: the sum over a message with its own checksum is 0.
    assert network._checksum(b"\x08\x00" + b"\xf7\xfe" + b"\x00\x00\x00\x01") == 0
    assert network._checksum(b"\x08\x00\x00\x00\x00\x00\x00\x01") == 0xF7FE


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("localhost", ("", "localhost", 3493)),
        ("ups@192.168.1.5", ("ups", "192.168.1.5", 3493)),
        ("apc@nas:3494", ("apc", "nas", 3494)),
        ("[fe80::1]", ("", "fe80::1", 3493)),
    ],
)
def test_a_ups_is_named_as_by_nuts_own_tools(text: str, parts: tuple[str, str, int]) -> None:
    assert network.parse_ups(text) == parts


@pytest.mark.parametrize("text", ["", "ups@", "ups@host:", "ups@host:port", "host:70000"])
def test_what_is_no_ups(text: str) -> None:
    with pytest.raises(ValueError, match=r".*"):
        network.parse_ups(text)


class Upsd:
    """A NUT server that gives what it was told to."""

    def __init__(self, answers: dict[str, str]) -> None:
        self.answers = answers
        self.server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.server.getsockname()[1]
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()

    def serve(self) -> None:
        try:
            connection, _ = self.server.accept()
        except OSError:
            return
        with connection, connection.makefile("rw") as stream:
            for line in stream:
                stream.write(self.answers.get(line.strip(), "ERR UNKNOWN-COMMAND\n"))
                stream.flush()


def ask(answers: dict[str, str], name: str = "") -> Ups:
    upsd = Upsd(answers)
    try:
        return network.ask_ups(name, "127.0.0.1", upsd.port, 2)
    finally:
        upsd.server.close()
        upsd.thread.join(timeout=5)


LISTED = 'BEGIN LIST UPS\nUPS myups "the desk\'s UPS"\nEND LIST UPS\n'
FIGURES = (
    'BEGIN LIST VAR myups\nVAR myups battery.charge "100"\nVAR myups battery.runtime "2040"\n'
    'VAR myups ups.mfr "APC"\nVAR myups ups.model "Back-UPS \\"Pro\\" 900"\nVAR myups ups.status "{status}"\n'
    "END LIST VAR myups\n"
)


@pytest.mark.parametrize(
    ("status", "judged"), [("OL", OK), ("OL CHRG", OK), ("OB DISCHRG", MISSING), ("OL RB", MISSING), ("WAIT", UNKNOWN)]
)
def test_a_ups_says_how_it_is(status: str, judged: str) -> None:
    ups = ask({"LIST UPS": LISTED, "LIST VAR myups": FIGURES.format(status=status)}, "myups")
    row = readiness.judge_ups(PLAN, ups)
    assert (row.status, row.needed) == (judged, True)
    assert row.detail == f'myups (APC Back-UPS "Pro" 900): {status}, 100 % charged, 34 min at the present load'


@pytest.mark.parametrize(
    ("answers", "name", "problem"),
    [
        ({"LIST UPS": LISTED}, "other", "has myups, not other"),
        ({"LIST UPS": "BEGIN LIST UPS\nEND LIST UPS\n"}, "", "has no UPS"),
        ({"LIST UPS": LISTED, "LIST VAR myups": "ERR DATA-STALE\n"}, "", "DATA-STALE"),
        ({"LIST UPS": "SSH-2.0-OpenSSH\n"}, "", "not as a NUT server"),
        ({"LIST UPS": 'UPS "half\n'}, "", "not as a NUT server"),
    ],
)
def test_a_ups_that_does_not_tell(answers: dict[str, str], name: str, problem: str) -> None:
    ups = ask(answers, name)
    assert problem in ups.problem
    assert readiness.judge_ups(PLAN, ups).status == MISSING
    assert readiness.judge_ups(NOTHING, ups).needed is False


def test_no_nut_server(free_port: int) -> None:
    ups = network.ask_ups("", "127.0.0.1", free_port, 2)
    assert ups.problem == f"no NUT server at 127.0.0.1:{free_port}: connection refused"


def test_a_server_without_tls_serves_no_certificate(ssh_port: int, free_port: int) -> None:
    assert network.serves_tls("127.0.0.1", ssh_port, 1) is None
    assert network.serves_tls("127.0.0.1", free_port, 1) is None
    assert network.connects("127.0.0.1", ssh_port, 1)
    assert not network.connects("127.0.0.1", free_port, 1)


@pytest.fixture
def tls_port(tmp_path: Path) -> Iterator[int]:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj",
         "/CN=test", "-days", "1", "-keyout", str(key), "-out", str(certificate)],
        check=True, capture_output=True,
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection, context.wrap_socket(connection, server_side=True):
                pass

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield server.getsockname()[1]
        thread.join(timeout=5)


def test_a_self_made_certificate_is_one(tls_port: int) -> None:
    assert (network.serves_tls("127.0.0.1", tls_port, 2) or "").startswith("TLS")


@pytest.mark.parametrize(
    ("seen", "status", "needed", "said"),
    [
        (Software(), MISSING, False, "Week 1 installs 580"),
        (Software("580.95.05", "580.95.05"), OK, False, ""),
        (Software("570.10.01", "570.10.01"), MISSING, False, "Week 1 installs 580"),
        (Software("580.95.05", None), MISSING, True, "Restart"),
        (Software("580.95.05", "575.1.2"), MISSING, True, "Restart"),
        (Software("L4T 36.4.7"), OK, False, ""),
    ],
)
def test_the_driver(seen: Software, status: str, needed: bool, said: str) -> None:
    row = only(readiness.judge_driver(seen, "580", True))
    assert (row.status, row.needed) == (status, needed)
    assert said in row.remedy


def test_what_later_weeks_install_is_not_needed_now() -> None:
    assert readiness.judge_driver(Software(), "580", False) == []
    rows = readiness.judge_software(Software(), has_gpu=True)
    assert [(row.name, row.status, row.needed) for row in rows] == [
        ("cuda", MISSING, False),
        ("cudnn", MISSING, False),
        ("docker", MISSING, False),
    ]
    assert rows[-1].remedy == "Week 2 installs it."
    there = readiness.judge_software(Software(cuda="13.0.2", cudnn="9.20.0", docker="28.1", compose="2.40"), True)
    assert [row.status for row in there] == [OK, OK, OK]
    assert only(readiness.judge_software(Software(docker="28.1"), False)).status == MISSING
    assert readiness.judge_service("nginx", 3, False, "installed", "not installed").remedy == "Week 3 installs it."


def test_versions_are_read(tmp_path: Path) -> None:
    for version in ("13.0.2", "12.9.1"):
        folder = tmp_path / f"usr/local/cuda-{version[:4]}"
        folder.mkdir(parents=True)
        (folder / "version.json").write_text(json.dumps({"cuda": {"name": "CUDA SDK", "version": version}}))
    (tmp_path / "usr/local/cuda-broken").mkdir()
    (tmp_path / "usr/local/cuda-broken/version.json").write_text("[]")
    assert readiness.read_cuda(str(tmp_path), None, 5) == "13.0.2"
    library = tmp_path / "usr/lib/x86_64-linux-gnu"
    library.mkdir(parents=True)
    assert readiness.read_cudnn(str(tmp_path)) is None
    (library / "libcudnn.so.9.20.0").touch()
    (library / "libcudnn.so.9").symlink_to("libcudnn.so.9.20.0")
    assert readiness.read_cudnn(str(tmp_path)) == "9.20.0"


def test_docker_is_asked_without_its_daemon(tmp_path: Path) -> None:
    docker = tmp_path / "docker"
    docker.write_text(
        "#!/bin/sh\n[ $1 = --version ] && echo 'Docker version 28.5.1, build e180ab8' && exit\n"
        "[ \"$1 $2\" = 'compose version' ] && echo 2.40.0 && exit\necho asked the daemon >&2; exit 1\n"
    )
    docker.chmod(0o755)
    assert readiness.read_docker(str(docker), 5) == ("28.5.1", "2.40.0")
    assert readiness.read_docker(None, 5) == (None, None)


def test_sudo() -> None:
    assert readiness.judge_sudo(0, True, "ubuntu").status == OK
    refused = readiness.judge_sudo(1, True, "ubuntu")
    assert (refused.status, refused.needed) == (MISSING, True)
    assert "/etc/sudoers.d/ubuntu" in refused.remedy
    assert readiness.judge_sudo(None, False, "ubuntu").detail == "not installed"


def test_models_that_are_there_and_to_come(tmp_path: Path) -> None:
    whole, half = tmp_path / "whole", tmp_path / "half"
    for folder in (whole, half):
        folder.mkdir()
        (folder / "weights").write_bytes(b"x" * 10)
        entry = {"path": "weights", "size_bytes": 10 if folder is whole else 11, "mtime_ns": 1}
        (folder / ".ai-idp-model.json").write_text(json.dumps({"files": [entry]}))
    models = [Model("whole", str(whole)), Model("half", str(half), 5 * GB), Model("none", str(tmp_path / "no"))]
    held = {model.name: readiness.held_bytes(model) for model in models}
    assert held == {"whole": 10, "half": None, "none": None}
    rows = readiness.judge_models(models, held, 30 * GB, "/models", 20 * GB)
    assert [(row.status, row.needed) for row in rows] == [(OK, False), (MISSING, False), (MISSING, False), (OK, True)]
    assert rows[2].detail == "to be downloaded, size not known"
    assert "5.00 GB to come, 1 of unknown size, 20.00 GB stay free" in rows[3].detail
    full = readiness.judge_models(models, held, 24 * GB, "/models", 20 * GB)[-1]
    assert (full.status, full.needed) == (MISSING, True)
    assert "Free 1.00 GB" in full.remedy
    assert readiness.judge_models(models, held, None, "/mnt/nas", 0)[-1].status == UNKNOWN
    # Nothing more is to come: a disk that is nearly full is not asked for anything.
    assert readiness.judge_models(models[:1], held, GB, "/models", 20 * GB)[-1].status == OK


NAS = Nas("/mnt/nas", "192.168.1.5:/volume1/models")
MOUNTED = Check("mount /mnt/nas", "ok", "192.168.1.5:/volume1/models (nfs4)")
UNMOUNTED = Check("mount /mnt/nas", "fail", "nothing is mounted there", "mount it")


@pytest.mark.parametrize(
    ("expected", "nas", "mount", "free", "held", "server", "status", "needed"),
    [
        (PLAN, NAS, MOUNTED, 600 * GB, 0, None, OK, True),
        (PLAN, NAS, MOUNTED, 400 * GB, 0, None, MISSING, True),
        # Models that are on it already have the room that was asked for.
        (PLAN, NAS, MOUNTED, 400 * GB, 120 * GB, None, OK, True),
        (PLAN, NAS, MOUNTED, None, 0, None, UNKNOWN, True),
        (PLAN, NAS, UNMOUNTED, None, 0, "192.168.1.5:2049 answers", MISSING, False),
        (PLAN, NAS, UNMOUNTED, None, 0, None, MISSING, True),
        (PLAN, Nas(), None, None, 0, None, MISSING, True),
        (NOTHING, Nas(), None, None, 0, None, MISSING, False),
        (NOTHING, NAS, MOUNTED, GB, 0, None, OK, True),
    ],
)
def test_the_nas(
    expected: Expected,
    nas: Nas,
    mount: Check | None,
    free: int | None,
    held: int,
    server: str | None,
    status: str,
    needed: bool,
) -> None:
    row = only(readiness.judge_nas(expected, nas, mount, free, held, server))
    assert (row.status, row.needed) == (status, needed)
    assert row.remedy or status == OK


@pytest.mark.parametrize(
    ("source", "server"),
    [("nas:/models", "nas"), ("[fe80::1]:/models", "fe80::1"), ("//nas.lan/share", "nas.lan"), ("", "")],
)
def test_the_server_of_a_nas(source: str, server: str) -> None:
    assert readiness.nas_server(source) == server


def test_a_nas_that_is_off_says_so(free_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readiness, "NFS_PORT", free_port)
    mount, free, server = readiness.read_nas(Nas("/mnt/nas", "127.0.0.1:/models"), "", 1)
    assert (free, server) == (None, None)
    row = only(readiness.judge_nas(PLAN, Nas("/mnt/nas", "127.0.0.1:/models"), mount, free, 0, server))
    assert row.needed
    assert "Switch 127.0.0.1 on" in row.remedy
    assert "connection refused" in row.remedy


def run_module(**options: Any) -> tuple[int, dict[str, Any]]:
    code = (
        "import sys, runpy; sys.path[:0] = sys.argv[1:2]; import ansible.module_utils as u; "
        "u.__path__.append(sys.argv[2]); sys.argv = ['readiness_info']; "
        "runpy.run_path('library/readiness_info.py', run_name='__main__')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(ROOT / "library"), str(ROOT / "module_utils")],
        input=json.dumps({"ANSIBLE_MODULE_ARGS": {"_ansible_remote_tmp": "/tmp", **options}}),
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
        timeout=60,
    )
    return done.returncode, json.loads(done.stdout)


def test_the_module_answers_on_a_bare_machine(tmp_path: Path, ssh_port: int) -> None:
    """A recorded machine with nothing in it: every question has an answer, and nobody is root."""
    code, answer = run_module(
        host="bare",
        root=str(tmp_path),
        expected={"gpu": "RTX 5070 Ti", "cpu": "9900X", "memory_gib": 128, "link_mbit": 2500, "ups": "127.0.0.1:1"},
        peers=[{"name": "xps15", "address": "127.0.0.1", "port": ssh_port}],
        serves_models=True,
        models=[{"name": "m", "size_bytes": 1}],
        models_dir=str(tmp_path / "models"),
        software=[{"name": "nginx", "week": 3}, {"name": "vllm", "week": 2, "port": 1}],
        serves_https=True,
        driver_branch="580",
        timeout=2,
    )
    assert code == 0
    assert answer["changed"] is False
    assert answer["ready"] is False
    rows = {row["name"]: row for row in answer["checks"]}
    assert all(set(row) == {"name", "host", "status", "detail", "remedy", "needed"} for row in rows.values())
    assert all(row["host"] == "bare" for row in rows.values())
    assert all((row["remedy"] == "") == (row["status"] == "ok") for row in rows.values())
    assert rows["reaches xps15"]["status"] == "ok"
    assert rows["disk for models"]["status"] == "ok"
    assert {name for name, row in rows.items() if row["status"] != "ok" and row["needed"]} == {
        "gpu", "cpu", "memory", "link", "ups",
    }  # fmt: skip
    assert {"driver", "cuda", "cudnn", "docker", "nas", "model m", "nginx", "vllm", "tls certificate"} < set(rows)


@pytest.mark.parametrize(
    ("expected", "said"),
    [
        ({"memory_gib": 0}, "ai_idp_expected_hardware.memory_gib is 0"),
        ({"ups": "a@"}, "ai_idp_expected_hardware.ups is 'a@'. Give [NAME@]HOST[:PORT]"),
        ({"gpus": "x"}, "gpus"),
    ],
)
def test_bad_expectations_are_named(expected: dict[str, Any], said: str) -> None:
    code, answer = run_module(host="h", expected=expected, root="/nowhere")
    assert code == 1
    assert said in answer["msg"]


def test_the_documentation_has_every_option() -> None:
    import yaml

    documented = yaml.safe_load(readiness_info.DOCUMENTATION)["options"]
    spec = readiness_info.argument_spec()
    assert set(documented) == set(spec)
    for name, option in spec.items():
        assert set(documented[name].get("suboptions", {})) == set(option.get("options", {}))
        assert documented[name].get("default") == option.get("default")
