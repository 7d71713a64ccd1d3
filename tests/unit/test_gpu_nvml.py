"""The NVML backend against a constructed library (``fake_nvml.c``), held against the captured nvidia-smi output.

What the library is like on a real GPU is shown by ``tools/gpu_proof.py``; here the interface, the failures and
the agreement of both backends are tested.
"""

import json
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.ai_idp import gpu_host, gpu_info, gpu_nvml
from ansible.module_utils.ai_idp.gpu_info import Answer, Probe, Tools

HERE = Path(__file__).parent
H100 = (HERE.parent / "golden" / "h100" / "nvidia-smi-q-x.xml").read_text()
MIB = 1 << 20
PCI = ["0000:00:06.0"]
COMPILER = shutil.which("cc") or shutil.which("gcc")

pytestmark = pytest.mark.skipif(COMPILER is None, reason="no C compiler to build the constructed NVML with")


@pytest.fixture(scope="session")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("nvml")
    built = {}
    for name, flags in (("new", []), ("old", ["-DOLD"])):
        built[name] = str(folder / f"libfake-{name}.so")
        command = [COMPILER, "-shared", "-fPIC", "-Wall", "-Wextra", "-Werror", *flags, "-o", built[name]]
        subprocess.run([*command, str(HERE / "fake_nvml.c")], check=True, timeout=60)
    return built


@pytest.fixture
def ask(libraries: dict[str, str], monkeypatch: pytest.MonkeyPatch):
    def asking(mode: str = "", library: str = "new", timeout: float = 10) -> dict[str, Any]:
        monkeypatch.setenv("FAKE_NVML", mode)
        return gpu_nvml.ask(libraries[library], timeout)

    return asking


def describe(answer: dict[str, Any], pci: list[str] | None = PCI, **more: Any) -> dict[str, Any]:
    return gpu_info.describe(Probe(nvml=answer, pci_devices=pci, **more))


def from_smi() -> dict[str, Any]:
    capabilities = Answer(0, "GPU-00000000-0000-0000-0000-000000000000, 9.0\n")
    return gpu_info.describe(Probe(smi=Answer(0, H100), compute_capabilities=capabilities, pci_devices=PCI))


def test_both_backends_say_the_same_of_the_same_card(ask) -> None:
    nvml, smi = describe(ask()), from_smi()
    assert nvml["backend"] == "nvml"
    assert nvml["gpus"] == smi["gpus"]
    assert nvml["fingerprint"] == smi["fingerprint"]
    assert (nvml["status"], nvml["messages"]) == ("ok", [])


def test_a_geforce_has_nulls_for_what_it_does_not_support(ask) -> None:
    """Constructed: NVML_ERROR_NOT_SUPPORTED for ECC and MIG."""
    [gpu] = describe(ask("geforce"))["gpus"]
    assert (gpu["name"], gpu["architecture"], gpu["compute_capability"]) == (
        "NVIDIA GeForce RTX 5070 Ti",
        "Blackwell",
        "12.0",
    )
    assert gpu["memory_total_bytes"] == 16_303 * MIB
    assert (gpu["ecc_enabled"], gpu["mig_enabled"], gpu["virtualization"]) == (None, None, None)
    assert gpu["mig_devices"] == []
    # Zero is a value: what is off is not what is unknown.
    assert (gpu["persistence_enabled"], gpu["memory_used_bytes"]) == (False, 0)


def test_two_gpus_with_a_throttle_reason_and_a_process(ask) -> None:
    gpus = describe(ask("two"), [*PCI, "0000:00:07.0"])["gpus"]
    assert [gpu["pci_id"] for gpu in gpus] == ["00000000:00:06.0", "00000000:00:07.0"]
    assert gpus[0]["fingerprint"] != gpus[1]["fingerprint"]
    assert gpus[0]["throttle_reasons"] == ["sw_power_cap", "sw_thermal_slowdown"]
    assert gpus[0]["processes"] == [
        {"pid": 4242, "type": "C", "name": "/usr/bin/llama-server", "used_memory_bytes": 1024 * MIB}
    ]


def test_mig_instances_are_listed_without_the_free_places(ask) -> None:
    [gpu] = describe(ask("mig"))["gpus"]
    assert gpu["mig_enabled"] is True
    assert gpu["mig_devices"][0] == {
        "index": 0,
        "gpu_instance_id": 7,
        "compute_instance_id": 0,
        "memory_total_bytes": 9856 * MIB,
        "memory_used_bytes": 12 * MIB,
        "memory_free_bytes": 9844 * MIB,
    }
    assert [device["index"] for device in gpu["mig_devices"]] == [0, 2]


def test_an_older_driver_lacks_functions_and_gives_what_it_has(ask) -> None:
    [gpu] = describe(ask(library="old"))["gpus"]
    assert gpu["pci_id"] == "00000000:00:06.0"
    assert gpu["memory_total_bytes"] == 81_559 * MIB
    # Its memory call counts what the driver keeps as used and can't tell it apart.
    assert (gpu["memory_reserved_bytes"], gpu["memory_used_bytes"]) == (None, 480 * MIB)
    assert gpu["architecture"] is None
    assert gpu["throttle_reasons"] == []
    assert gpu["cuda_version"] == "13.0"
    assert gpu["fingerprint"] == from_smi()["gpus"][0]["fingerprint"]


@pytest.mark.parametrize(
    ("code", "pci", "status", "words"),
    [
        (18, PCI, "unknown", "different versions"),
        (18, [], "unknown", "different versions"),
        (9, PCI, "unknown", "not loaded"),
        (9, [], "none", "no NVIDIA GPU is on the PCI bus"),
        (15, PCI, "unknown", "fallen off the bus"),
        (4, PCI, "unknown", "may not be used from here"),
        (17, PCI, "unknown", "device nodes"),
        (10, PCI, "unknown", "in time"),
        (999, PCI, "unknown", "UNKNOWN (999)"),
        (77, PCI, "unknown", "77"),
    ],
)
def test_an_initialisation_that_fails_is_explained(ask, code: int, pci: list[str], status: str, words: str) -> None:
    answer = describe(ask(str(code)), pci)
    assert (answer["status"], answer["backend"], answer["gpus"]) == (status, "none", [])
    assert len(answer["messages"]) == 1
    assert words in answer["messages"][0]


def test_no_gpu_and_a_lost_one(ask) -> None:
    assert describe(ask("none"), [])["status"] == "none"
    assert "finds no GPU" in describe(ask("none"))["messages"][0]
    lost = describe(ask("lost"), [*PCI, "0000:00:07.0"])
    assert len(lost["gpus"]) == 1
    assert "GPU 1 does not answer any more: NVML says GPU_IS_LOST (15)" in lost["messages"][0]
    assert "2 NVIDIA GPUs are on the PCI bus, the driver answers for 1" in lost["messages"][1]


def test_a_gpu_that_breaks_while_it_is_read_is_kept_with_a_message(ask) -> None:
    answer = describe(ask("broken"))
    [gpu] = answer["gpus"]
    assert gpu["temperature_celsius"] is None
    assert "answers only in part: NVML says GPU_IS_LOST, UNKNOWN" in answer["messages"][0]


def test_a_driver_that_hangs_is_left_behind(ask) -> None:
    started = time.monotonic()
    answer = describe(ask("hang", timeout=0.5))
    assert time.monotonic() - started < 5
    assert (answer["status"], len(answer["gpus"])) == ("unknown", 0)
    assert "did not answer in time" in answer["messages"][0]


def test_a_library_that_crashes_does_not_take_the_module_along(ask) -> None:
    answer = describe(ask("crash"))
    assert answer["status"] == "unknown"
    assert "signal 9" in answer["messages"][0]


def test_without_the_library_nvidia_smi_is_asked(tmp_path: Path) -> None:
    missing = gpu_nvml.ask(str(tmp_path / "libnvidia-ml.so.1"), 5)
    assert missing["error"][0] == gpu_nvml.NOT_LOADED
    both = gpu_info.describe(Probe(nvml=missing, smi=Answer(0, H100), pci_devices=PCI))
    assert both["backend"] == "nvidia-smi"
    only = gpu_info.describe(Probe(backend="nvml", nvml=missing, pci_devices=PCI))
    assert only["status"] == "unknown"
    assert "can't be loaded" in only["messages"][0]
    assert "install the driver" in gpu_info.describe(Probe(nvml=missing, pci_devices=PCI))["messages"][0]
    assert gpu_info.describe(Probe(nvml=missing, pci_devices=[]))["status"] == "none"


def test_nvml_that_fails_where_nvidia_smi_answers_gives_way(ask) -> None:
    answer = gpu_info.describe(Probe(nvml=ask("999"), smi=Answer(0, H100), pci_devices=PCI))
    assert (answer["backend"], answer["status"]) == ("nvidia-smi", "ok")


def test_each_backend_can_be_asked_alone(libraries: dict[str, str], tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("FAKE_NVML", "")
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\ncat {HERE.parent / 'golden' / 'h100' / 'nvidia-smi-q-x.xml'}\n")
    program.chmod(0o755)
    tools = Tools(nvidia_smi=str(program), nvml_library=libraries["new"])
    for backend, expected in (("auto", "nvml"), ("nvml", "nvml"), ("nvidia-smi", "nvidia-smi")):
        probe = gpu_info.probe_machine(tools, str(tmp_path), 10, backend)
        assert gpu_info.describe(probe)["backend"] == expected
    none = gpu_info.describe(gpu_info.probe_machine(tools, str(tmp_path), 10, "jetson"))
    assert (none["status"], none["messages"]) == ("none", ["This is no Jetson: its device tree names none."])


def test_an_answer_can_be_replayed_from_json(ask) -> None:
    answer = ask()
    assert describe(json.loads(json.dumps(answer)))["gpus"] == describe(answer)["gpus"]


# Lines as the driver writes them; addresses constructed.
LOG = [
    "NVRM: loading NVIDIA UNIX Open Kernel Module for x86_64  580.159.04  Release Build",
    "NVRM: Xid (PCI:0000:00:06): 31, pid=77, name=python3, Ch 00000008, MMU Fault",
    "NVRM: Xid (PCI:0000:00:06): 31, pid=78, name=python3, Ch 00000008, MMU Fault",
    "NVRM: Xid (PCI:0000:00:07): 79, GPU has fallen off the bus.",
]


def test_xid_errors_are_read_and_unknown_is_not_none() -> None:
    log = gpu_host.KernelLog(LOG, complete=False)
    found = gpu_host.xid_errors(log)
    assert found is not None
    assert [(entry["xid"], entry["count"]) for entry in found] == [(31, 2), (79, 1)]
    assert found[1]["text"] == "GPU has fallen off the bus."
    assert gpu_host.xid_errors(gpu_host.KernelLog(LOG[:1], complete=True)) == []
    assert gpu_host.xid_errors(gpu_host.KernelLog(LOG[:1], complete=False)) is None
    assert gpu_host.xid_errors(None) is None
    answer = gpu_info.describe(Probe(smi=Answer(0, H100), pci_devices=PCI, xids=found))
    assert [entry["xid"] for entry in answer["gpus"][0]["xid_errors"]] == [31]
    assert [entry["xid"] for entry in answer["xid_errors"]] == [31, 79]
