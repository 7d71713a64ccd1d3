"""gpu_info: golden output of a real H100, and machines made from it or from what drivers are known to say.

Only ``golden/h100`` was captured. What is built here from it is labelled in each test: values of other cards
are put into the captured document, to see that fields which are not there become null.
"""

import copy
import json
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.ai_idp import gpu_info
from ansible.module_utils.ai_idp.gpu_info import Answer, Probe, Tools

MIB = 1024 * 1024
ROOT = Path(__file__).parent.parent.parent
H100 = (ROOT / "tests" / "golden" / "h100" / "nvidia-smi-q-x.xml").read_text()
PCI = ["0000:00:06.0"]
MISMATCH = "Failed to initialize NVML: Driver/library version mismatch\nNVML library version: 580.95"
NO_DRIVER = "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver."
LOST = "Unable to determine the device handle for GPU0: 0000:00:06.0: Unknown Error"


def describe(output: str = H100, rc: int | None = 0, pci: list[str] | None = PCI, **more: Any) -> dict[str, Any]:
    return gpu_info.describe(Probe(smi=Answer(rc, output), pci_devices=pci, **more))


def changed(**fields: str | None) -> str:
    """The captured document with other values; ``__`` stands for ``/``, None takes an element out."""
    root = gpu_info.parse_xml(H100)
    gpu = root.find("gpu")
    assert gpu is not None
    for path, value in fields.items():
        parent_path, _, tag = ("./" + path.replace("__", "/")).rpartition("/")
        parent = gpu.find(parent_path)
        assert parent is not None
        node = parent.find(tag)
        assert node is not None, path
        if value is None:
            parent.remove(node)
        else:
            node.text = value
            for child in list(node):
                node.remove(child)
    return ET.tostring(root, encoding="unicode")


def test_h100_golden() -> None:
    answer = describe(
        compute_capabilities=Answer(0, "GPU-00000000-0000-0000-0000-000000000000, 9.0\n"),
    )
    assert {key: answer[key] for key in ("backend", "status", "messages")} == {
        "backend": "nvidia-smi",
        "status": "ok",
        "messages": [],
    }
    [gpu] = answer["gpus"]
    fingerprint = gpu.pop("fingerprint")
    assert len(fingerprint) == 16
    assert gpu == {
        "index": 0,
        "name": "NVIDIA H100 80GB HBM3",
        "uuid": "GPU-00000000-0000-0000-0000-000000000000",
        "pci_id": "00000000:00:06.0",
        "architecture": "Hopper",
        "compute_capability": "9.0",
        "memory_total_bytes": 81_559 * MIB,
        "memory_reserved_bytes": 480 * MIB,
        "memory_used_bytes": 0,
        "memory_free_bytes": 81_079 * MIB,
        "memory_is_shared": False,
        "driver_version": "580.159.04",
        "cuda_version": "13.0",
        "vbios_version": "96.00.DA.00.0C",
        "virtualization": "Pass-Through",
        "power_limit_watts": 700.0,
        "power_limit_max_watts": 700.0,
        "power_draw_watts": 72.51,
        "temperature_celsius": 38,
        "clock_sm_mhz": 345,
        "clock_memory_mhz": 2619,
        "clock_sm_max_mhz": 1980,
        "clock_memory_max_mhz": 2619,
        "pcie_generation": 5,
        "pcie_generation_max": 5,
        "pcie_width": 16,
        "pcie_width_max": 16,
        "ecc_enabled": True,
        "mig_enabled": False,
        "mig_devices": [],
        "persistence_enabled": True,
        "throttle_reasons": [],
        "xid_errors": None,
        "processes": [],
    }


def test_geforce_like_card_has_nulls_not_zeros() -> None:
    """Made: the fields that a GeForce does not tell, in the captured document."""
    [gpu] = describe(
        changed(
            product_name="NVIDIA GeForce RTX 5070 Ti",
            product_architecture="Blackwell",
            ecc_mode__current_ecc="N/A",
            mig_mode__current_mig="N/A",
            temperature__gpu_temp="[N/A]",
            gpu_power_readings__current_power_limit="[Not Supported]",
            gpu_power_readings__average_power_draw="N/A",
            gpu_power_readings__instant_power_draw="12.30 W",
            fb_memory_usage__total="16303 MiB",
            fb_memory_usage__reserved=None,
            clocks_event_reasons=None,
            compute_mode="Default",
        )
    )["gpus"]
    assert gpu["memory_total_bytes"] == 16_303 * MIB
    assert gpu["power_draw_watts"] == 12.3
    for key in (
        "ecc_enabled",
        "mig_enabled",
        "temperature_celsius",
        "power_limit_watts",
        "memory_reserved_bytes",
        "throttle_reasons",
        "compute_capability",
    ):
        assert gpu[key] is None, key


def test_two_cards_keep_their_order() -> None:
    """Made: the captured card twice, the second with another UUID and address."""
    root = gpu_info.parse_xml(H100)
    second = copy.deepcopy(root.find("gpu"))
    assert second is not None
    second.set("id", "00000000:00:07.0")
    uuid = second.find("uuid")
    assert uuid is not None
    uuid.text = "GPU-1"
    root.append(second)
    answer = describe(ET.tostring(root, encoding="unicode"), pci=[*PCI, "0000:00:07.0"])
    assert [(gpu["index"], gpu["pci_id"]) for gpu in answer["gpus"]] == [
        (0, "00000000:00:06.0"),
        (1, "00000000:00:07.0"),
    ]
    assert answer["gpus"][0]["fingerprint"] != answer["gpus"][1]["fingerprint"]
    assert answer["fingerprint"] != describe()["fingerprint"]


def test_mig_instances_are_listed() -> None:
    """Made: names and nesting as in the driver's document type, put into the captured document."""
    mig = (
        "<mig_devices><mig_device><index>0</index><gpu_instance_id>1</gpu_instance_id>"
        "<compute_instance_id>0</compute_instance_id><fb_memory_usage><total>9856 MiB</total>"
        "<used>12 MiB</used><free>9844 MiB</free></fb_memory_usage></mig_device></mig_devices>"
    )
    text = H100.replace("<current_mig>Disabled", "<current_mig>Enabled")
    start, end = text.index("<mig_devices>"), text.index("</mig_devices>") + len("</mig_devices>")
    [gpu] = describe(text[:start] + mig + text[end:])["gpus"]
    assert gpu["mig_enabled"] is True
    assert gpu["mig_devices"] == [
        {
            "index": 0,
            "gpu_instance_id": 1,
            "compute_instance_id": 0,
            "memory_total_bytes": 9856 * MIB,
            "memory_used_bytes": 12 * MIB,
            "memory_free_bytes": 9844 * MIB,
        }
    ]


@pytest.mark.parametrize("prefix", ["clocks_event_reason", "clocks_throttle_reason"])
def test_throttling_is_named_in_old_and_new_drivers(prefix: str) -> None:
    text = H100.replace("clocks_event_reason_", prefix + "_")
    text = text.replace("<clocks_event_reasons>", f"<{prefix}s>").replace("</clocks_event_reasons>", f"</{prefix}s>")
    text = text.replace(f"<{prefix}_sw_power_cap>Not Active", f"<{prefix}_sw_power_cap>Active")
    assert describe(text)["gpus"][0]["throttle_reasons"] == ["sw_power_cap"]


def test_fingerprint_follows_the_hardware_and_not_the_time() -> None:
    now = describe()["fingerprint"]
    later = changed(
        temperature__gpu_temp="80 C",
        fb_memory_usage__used="40000 MiB",
        fb_memory_usage__free="41079 MiB",
        persistence_mode="Disabled",
        clocks__sm_clock="1980 MHz",
    ).replace("580.159.04", "590.1.1")
    assert describe(later)["fingerprint"] == now
    for change in ({"uuid": "GPU-2"}, {"fb_memory_usage__total": "40960 MiB"}, {"product_name": "Other"}):
        assert describe(changed(**change))["fingerprint"] != now


def test_a_warning_before_the_document_does_no_harm() -> None:
    text = "WARNING: infoROM is corrupted at gpu 0000:00:06.0\n" + H100 + "\nWARNING: again\n"
    assert describe(text)["status"] == "ok"


def test_a_gpu_that_answers_in_part_is_kept_with_a_message() -> None:
    """Made: the words nvidia-smi prints in place of values."""
    answer = describe(changed(temperature__gpu_temp="GPU requires reset", fb_memory_usage__used="Unknown Error"))
    [gpu] = answer["gpus"]
    assert gpu["temperature_celsius"] is None
    assert gpu["memory_used_bytes"] is None
    assert "answers only in part" in answer["messages"][0]


def test_fewer_gpus_than_cards_is_told() -> None:
    answer = describe(pci=[*PCI, "0000:00:07.0"])
    assert answer["status"] == "ok"
    assert "2 NVIDIA GPUs are on the PCI bus, the driver answers for 1" in answer["messages"][0]


@pytest.mark.parametrize(
    ("rc", "output", "pci", "status", "words"),
    [
        (18, MISMATCH, PCI, "unknown", "different versions"),
        (9, NO_DRIVER, PCI, "unknown", "not loaded"),
        (9, NO_DRIVER, [], "none", "no NVIDIA GPU"),
        (9, NO_DRIVER, None, "unknown", "not readable"),
        (6, "No devices were found", PCI, "unknown", "finds no GPU"),
        (6, "No devices were found", [], "none", "no NVIDIA GPU"),
        (0, "<nvidia_smi_log><attached_gpus>0</attached_gpus></nvidia_smi_log>", PCI, "unknown", "finds no GPU"),
        (15, LOST, PCI, "unknown", "fallen off"),
        (255, "Failed to initialize NVML: Unknown Error", PCI, "unknown", "code 255"),
        (None, "", PCI, "unknown", "did not answer in time"),
        (0, "", PCI, "unknown", "did not print the XML"),
        (0, "<nvidia_smi_log><gpu></nvidia_smi_log>", PCI, "unknown", "broken"),
        (127, "Permission denied", PCI, "unknown", "Permission denied"),
    ],
)  # fmt: skip
def test_a_driver_that_does_not_answer(rc, output, pci, status: str, words: str) -> None:
    answer = describe(output, rc, pci)
    assert answer["gpus"] == []
    assert answer["backend"] == "none"
    assert answer["status"] == status
    assert len(answer["messages"]) == 1
    assert words in answer["messages"][0]


def test_entities_are_not_expanded() -> None:
    bomb = '<!DOCTYPE nvidia_smi_log [<!ENTITY a "aaaa">]><nvidia_smi_log><gpu><uuid>&a;</uuid></gpu></nvidia_smi_log>'
    assert describe(bomb)["status"] == "unknown"


def test_no_gpu_is_success_and_a_card_without_driver_is_not_none() -> None:
    assert gpu_info.describe(Probe(pci_devices=[]))["status"] == "none"
    assert gpu_info.describe(Probe(pci_devices=None)) == {
        "gpus": [],
        "backend": "none",
        "status": "none",
        "messages": [],
        "xid_errors": None,
        "fingerprint": gpu_info.fingerprint_of(),
    }
    answer = gpu_info.describe(Probe(pci_devices=PCI))
    assert answer["status"] == "unknown"
    assert "install the driver" in answer["messages"][0]


def test_jetson_shares_the_hosts_memory(tmp_path: Path) -> None:
    """Made: the files of an Orin Nano, values as its documentation gives them."""
    for path, text in {
        "proc/device-tree/model": "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super\x00",
        "proc/device-tree/serial-number": "1420000000000\x00",
        "proc/meminfo": "MemTotal:        7802188 kB\nMemFree:         1000 kB\nMemAvailable:    5400000 kB\n",
        "etc/nv_tegra_release": "# R36 (release), REVISION: 4.7, GCID: 1, BOARD: generic, EABI: aarch64\n",
    }.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    answer = gpu_info.describe(gpu_info.probe_machine(Tools(nvidia_smi="/bin/false"), str(tmp_path), 5))
    [gpu] = answer["gpus"]
    assert (answer["backend"], answer["status"]) == ("jetson", "ok")
    assert gpu["memory_is_shared"] is True
    assert gpu["memory_total_bytes"] == 7_802_188 * 1024
    assert gpu["memory_free_bytes"] == 5_400_000 * 1024
    assert gpu["driver_version"] == "L4T 36.4.7"
    assert (gpu["architecture"], gpu["compute_capability"]) == ("Ampere", "8.7")
    assert gpu["power_limit_watts"] is None
    assert set(gpu) == set(describe()["gpus"][0])


def test_cards_are_found_on_the_bus(tmp_path: Path) -> None:
    devices = tmp_path / "sys/bus/pci/devices"
    for name, vendor, kind in (
        ("0000:01:00.0", "0x10de", "0x030000"),
        ("0000:01:00.1", "0x10de", "0x040300"),
        ("0000:02:00.0", "0x1002", "0x030000"),
    ):
        (devices / name).mkdir(parents=True)
        (devices / name / "vendor").write_text(vendor + "\n")
        (devices / name / "class").write_text(kind + "\n")
    assert gpu_info.nvidia_pci_devices(str(tmp_path)) == ["0000:01:00.0"]
    # One that is kept for a virtual machine is not this host's.
    (tmp_path / "sys/bus/pci/drivers/vfio-pci").mkdir(parents=True)
    (devices / "0000:01:00.0" / "driver").symlink_to(tmp_path / "sys/bus/pci/drivers/vfio-pci")
    assert gpu_info.nvidia_pci_devices(str(tmp_path)) == []
    assert gpu_info.nvidia_pci_devices(str(tmp_path / "nothing")) is None


def script(path: Path, body: str) -> str:
    path.write_text("#!/bin/sh\n" + body)
    path.chmod(0o755)
    return str(path)


def test_a_program_that_hangs_is_left_behind() -> None:
    started = time.monotonic()
    assert gpu_info.run(["/bin/sleep", "30"], 0.2).rc is None
    assert time.monotonic() - started < 5
    assert gpu_info.run(["/nowhere/nvidia-smi"], 1).rc == 127


def test_the_module_itself_replays_a_machine(tmp_path: Path) -> None:
    """The whole module as a target runs it, with a program that prints the captured output."""
    golden = ROOT / "tests" / "golden" / "h100" / "nvidia-smi-q-x.xml"
    program = script(
        tmp_path / "nvidia-smi",
        f'case "$1" in -q) cat {golden};; *) echo "GPU-00000000-0000-0000-0000-000000000000, 9.0";; esac\n',
    )
    ansible = Path(sys.executable).parent / "ansible"
    done = subprocess.run(
        [ansible, "localhost", "-i", "localhost,", "-c", "local", "--check", "-m", "gpu_info",
         "-a", json.dumps({"nvidia_smi": program, "root": str(tmp_path)}), "-e",
         f"ansible_python_interpreter={sys.executable}"],
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "ANSIBLE_LOAD_CALLBACK_PLUGINS": "1",
             "ANSIBLE_STDOUT_CALLBACK": "ansible.builtin.json", "LC_ALL": "C.UTF-8"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert '"compute_capability": "9.0"' in done.stdout or "compute_capability: '9.0'" in done.stdout


def test_a_recorded_answer_is_given_back_and_marked() -> None:
    golden = json.loads((ROOT / "tests" / "golden" / "gpu" / "constructed-rtx5070ti.json").read_text())
    assert gpu_info.replay(golden) == {**golden, "replayed": True}
    short = gpu_info.replay({"status": "ok", "gpus": [{"index": 0, "name": "Card"}]})
    assert set(short["gpus"][0]) == set(gpu_info.GPU_KEYS)
    assert short["gpus"][0]["driver_version"] is None


@pytest.mark.parametrize(
    "capture", [{}, {"status": "ok"}, {"status": "fine", "gpus": []}, {"status": "ok", "gpus": [1]}]
)
def test_what_is_no_recorded_answer_is_refused(capture: dict[str, Any]) -> None:
    with pytest.raises(gpu_info.AnswerError, match="status and the list gpus"):
        gpu_info.replay(capture)
