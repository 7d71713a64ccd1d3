"""gpu_check: the messes people meet, each a constructed machine around the captured H100 answer.

Kernel lines and error texts are as the driver and its programs are known to print them; addresses and versions are
made. Nothing here was captured on a broken machine.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.ai_idp import gpu_check, gpu_environment, gpu_info
from ansible.module_utils.ai_idp.gpu_check import HostFacts, Requirements
from ansible.module_utils.ai_idp.gpu_environment import Environment, Traces
from ansible.module_utils.ai_idp.gpu_host import KernelLog, PciCard, xid_errors
from ansible.module_utils.ai_idp.gpu_info import Probe
from ansible.module_utils.ai_idp.gpu_remedies import PROBLEMS
from ansible.module_utils.ai_idp.programs import Answer

ROOT = Path(__file__).parent.parent.parent
H100 = (ROOT / "tests" / "golden" / "h100" / "nvidia-smi-q-x.xml").read_text()
METAL = Environment("bare_metal", False, "test")
LXC = Environment("lxc", True, "test")
VM = Environment("vm", None, "test")
DOCKER = Environment("docker", False, "test")
CARD = "0000:00:06.0"
DRIVER = "580.159.04"
NODES = ["nvidia-uvm", "nvidia0", "nvidiactl"]
NO_DRIVER = Answer(9, "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.")
NO_DEVICES = Answer(6, "No devices were found")
MISMATCH = Answer(18, "Failed to initialize NVML: Driver/library version mismatch")


def facts(**more: Any) -> HostFacts:
    """A host on which everything is well."""
    whole: dict[str, Any] = {
        "environment": METAL,
        "cards": [PciCard(CARD, "nvidia")],
        "nvidia_loaded": True,
        "nouveau_loaded": False,
        "loaded_version": DRIVER,
        "loaded_open": True,
        "library_versions": [DRIVER],
        "program_found": True,
        "secure_boot": False,
        "module_on_disk": DRIVER,
        "kernel": "6.8.0-31-generic",
        "device_nodes": NODES,
        "log": KernelLog([], complete=True),
    }
    return HostFacts(**{**whole, **more})


def judge(host: HostFacts, smi: Answer | None, wanted: Requirements | None = None, **more: Any) -> dict[str, Any]:
    addresses = None if host.cards is None else [card.address for card in host.cards]
    answer = gpu_info.describe(Probe(smi=smi, pci_devices=addresses, xids=xid_errors(host.log)))
    return gpu_check.judge(host, answer, wanted or Requirements(), **more)


def statuses(result: dict[str, Any]) -> dict[str, str]:
    return {check["name"]: check["status"] for check in result["checks"]}


def found(result: dict[str, Any], name: str) -> dict[str, Any]:
    return next(check for check in result["checks"] if check["name"] == name)


WAY = ["gpu_on_bus", "driver_installed", "module_loaded", "versions_match", "gpus_answer", "gpu_count"]


def test_a_gpu_that_works_is_ok() -> None:
    result = judge(facts(), Answer(0, H100))
    assert result["ok"] is True
    assert (result["status"], result["problems"]) == ("ok", [])
    assert list(statuses(result)) == WAY
    assert found(result, "module_loaded")["reason"] == f"The open kernel module {DRIVER} is loaded."


REFUSED = "Loading of module with unavailable key is rejected"
OPEN_ONLY = (
    "NVRM: The NVIDIA GPU 0000:00:06.0 (PCI ID: 10de:2c05) installed in this system requires use of the NVIDIA open "
    "kernel modules."
)
GONE = "NVRM: Xid (PCI:0000:00:06): 79, GPU has fallen off the bus."
UNLOADED = {"nvidia_loaded": False, "loaded_version": None, "loaded_open": None, "device_nodes": []}
BARE = {**UNLOADED, "library_versions": [], "program_found": False, "module_on_disk": ""}

MESSES: dict[str, tuple[dict[str, Any], Answer | None, str, str, str]] = {
    "no driver": (
        {**BARE, "cards": [PciCard(CARD)]}, None, "driver_installed", "no_driver", "nvidia-driver-580-open",
    ),
    "no driver in LXC": (
        {**BARE, "environment": LXC, "nvidia_loaded": True, "loaded_version": DRIVER}, None,
        "driver_installed", "no_driver", "without kernel modules",
    ),
    "no card": ({**BARE, "cards": []}, None, "gpu_on_bus", "no_card", "seat"),
    "no card in a VM": ({**BARE, "cards": [], "environment": VM}, None, "gpu_on_bus", "no_card", "qm set VMID"),
    "module missing for a new kernel": (
        {**UNLOADED, "module_on_disk": ""}, NO_DRIVER, "module_loaded", "module_not_loaded", "dkms status",
    ),
    "module not loaded on the host of an LXC container": (
        {**UNLOADED, "environment": LXC}, NO_DRIVER, "module_loaded", "module_not_loaded", "belongs to the host",
    ),
    "Secure Boot": (
        {**UNLOADED, "secure_boot": True, "log": KernelLog([REFUSED], True)}, NO_DRIVER,
        "module_loaded", "secure_boot", "mokutil --import",
    ),
    "nouveau holds the card": (
        {**UNLOADED, "nouveau_loaded": True, "cards": [PciCard(CARD, "nouveau")]}, NO_DRIVER,
        "module_loaded", "nouveau", "blacklist nouveau",
    ),
    "nouveau was faster than the driver": (
        {"cards": [PciCard(CARD, "nouveau")], "nouveau_loaded": True}, NO_DEVICES,
        "module_loaded", "nouveau", "blacklist nouveau",
    ),
    "nouveau is loaded": ({**UNLOADED, "nouveau_loaded": True}, NO_DRIVER, "module_loaded", "nouveau", "initramfs"),
    "card kept for a VM": (
        {**UNLOADED, "cards": [PciCard(CARD, "vfio-pci")]}, NO_DRIVER, "module_loaded", "vfio", "vfio-pci",
    ),
    "module older than the libraries": (
        {"library_versions": ["590.44.01"], "module_on_disk": "590.44.01"}, MISMATCH,
        "versions_match", "version_mismatch", "Restart the host",
    ),
    "LXC container with another driver than its host": (
        {"library_versions": ["590.44.01"], "environment": LXC}, MISMATCH,
        "versions_match", "version_mismatch", "always two updates",
    ),
    "mismatch that only the driver tells": (
        {"library_versions": [], "loaded_version": None}, MISMATCH, "versions_match", "version_mismatch", "modprobe",
    ),
    "zero GPUs": ({}, NO_DEVICES, "gpus_answer", "no_devices", "Above 4G"),
    "Blackwell under the proprietary modules": (
        {"log": KernelLog([OPEN_ONLY], True), "loaded_open": False}, NO_DEVICES,
        "gpus_answer", "open_modules", "nvidia-open",
    ),
    "fell off the bus": (
        {"log": KernelLog([GONE], True)}, Answer(15, "Unable to determine the device handle for GPU0: Unknown Error"),
        "gpus_answer", "fell_off_bus", "Restart the host",
    ),
    "fell off the bus in a VM": (
        {"log": KernelLog([GONE], True), "environment": VM}, NO_DEVICES, "gpus_answer", "fell_off_bus", "Stop the VM",
    ),
    "gone from the bus": (
        {"log": KernelLog([GONE], True), "cards": []}, NO_DEVICES, "gpu_on_bus", "fell_off_bus", "Restart the host",
    ),
    "hangs": ({}, Answer(None, ""), "gpus_answer", "hangs", "restart the host"),
    "no device nodes in LXC": (
        {"device_nodes": [], "environment": LXC}, Answer(255, "Failed to initialize NVML: Unknown Error"),
        "gpus_answer", "device_nodes", "pct set CTID -dev0",
    ),
    "blocked device nodes in Docker": (
        {"environment": DOCKER}, Answer(255, "Failed to initialize NVML: Unknown Error"),
        "gpus_answer", "device_nodes", "daemon-reload",
    ),
}  # fmt: skip


@pytest.mark.parametrize("mess", MESSES)
def test_messes_are_named_with_what_to_do(mess: str) -> None:
    changed, smi, name, problem, words = MESSES[mess]
    result = judge(facts(**changed), smi)
    check = found(result, name)
    assert (check["status"], check["problem"]) == ("fail", problem), result["checks"]
    assert words in check["remedy"]
    assert result["ok"] is False
    assert result["status"] == "fail"
    # The first thing that is wrong is what is named; nothing after it is ok.
    after = list(statuses(result).values())[WAY.index(name) + 1 :]
    assert "ok" not in after
    assert check["remedy"] in " ".join(result["problems"])


def test_a_module_older_than_userspace_says_whether_a_restart_helps() -> None:
    helps = judge(facts(library_versions=["590.44.01"], module_on_disk="590.44.01"), MISMATCH)
    reason = found(helps, "versions_match")["reason"]
    assert "580.159.04" in reason
    assert "not restarted" in reason
    assert "won't help" not in reason
    useless = judge(facts(library_versions=["590.44.01"], module_on_disk=""), MISMATCH)
    assert "a restart alone won't help" in found(useless, "versions_match")["reason"]


def test_one_of_two_cards_is_away() -> None:
    cards = [PciCard(CARD, "nvidia"), PciCard("0000:00:07.0", "nvidia")]
    log = KernelLog(["NVRM: Xid (PCI:0000:00:07): 79, GPU has fallen off the bus."], True)
    check = found(judge(facts(cards=cards, log=log), Answer(0, H100)), "gpus_answer")
    assert (check["status"], check["problem"]) == ("fail", "fell_off_bus")
    kept = [PciCard(CARD, "nvidia"), PciCard("0000:00:07.0", "vfio-pci")]
    assert judge(facts(cards=kept), Answer(0, H100))["ok"] is True


def test_what_cant_be_read_is_unknown_and_never_ok() -> None:
    blind = facts(cards=None, nvidia_loaded=None, nouveau_loaded=None, loaded_version=None, library_versions=[],
                  program_found=False, device_nodes=[], log=None)  # fmt: skip
    result = judge(blind, None)
    assert result["ok"] is False
    assert result["status"] == "fail"
    assert statuses(result)["gpu_on_bus"] == "unknown"
    assert "ok" not in statuses(result).values()


def test_no_gpu_is_fine_where_none_is_required() -> None:
    host = facts(cards=[], **{key: value for key, value in BARE.items() if key != "cards"})
    assert judge(host, None, Requirements(minimum_gpus=0))["ok"] is True
    assert judge(host, None, Requirements(minimum_gpus=1))["ok"] is False


REQUIRED: list[tuple[dict[str, Any], str, str, str]] = [
    ({"minimum_driver_version": "580"}, "driver_version", "ok", DRIVER),
    ({"minimum_driver_version": "580.159.4"}, "driver_version", "ok", DRIVER),
    ({"minimum_driver_version": "590"}, "driver_version", "fail", "590 or newer"),
    ({"minimum_cuda_version": "13.0"}, "cuda_version", "ok", "13.0"),
    ({"minimum_cuda_version": "13.10"}, "cuda_version", "fail", "13.10"),
    ({"minimum_compute_capability": "9.0"}, "compute_capability", "unknown", "does not tell"),
    ({"minimum_memory_bytes": 80 * 10**9}, "memory", "ok", "79.6 GiB"),
    ({"minimum_memory_bytes": 90 * 10**9}, "memory", "fail", "79.6 GiB"),
    ({"minimum_pcie_generation": 5}, "pcie_generation", "ok", "5"),
    ({"minimum_pcie_width": 16}, "pcie_width", "ok", "16 lanes"),
    ({"minimum_pcie_width": 32}, "pcie_width", "fail", "GPU 0 has 16 lanes"),
    ({"maximum_temperature_celsius": 85}, "temperature", "ok", "38"),
    ({"maximum_temperature_celsius": 30}, "temperature", "fail", "38"),
    ({"minimum_power_limit_watts": 700}, "power_limit", "ok", "700 W"),
    ({"minimum_power_limit_watts": 701}, "power_limit", "fail", "700 W"),
    ({"no_throttling": True}, "throttling", "ok", "none"),
    ({"no_xid_errors": True}, "xid_errors", "ok", "No Xid errors"),
    ({"minimum_gpus": 2}, "gpu_count", "fail", "1 answer"),
]


@pytest.mark.parametrize(("wanted", "name", "status", "words"), REQUIRED)
def test_requirements(wanted: dict[str, Any], name: str, status: str, words: str) -> None:
    result = judge(facts(), Answer(0, H100), Requirements(**wanted))
    check = found(result, name)
    assert check["status"] == status
    assert words in check["reason"]
    assert bool(check["remedy"]) is (status != "ok")
    assert result["ok"] is (status == "ok")


def test_requirements_of_a_card_that_does_not_tell_are_unknown() -> None:
    text = H100.replace("<gpu_temp>38 C</gpu_temp>", "<gpu_temp>N/A</gpu_temp>")
    result = judge(facts(), Answer(0, text), Requirements(maximum_temperature_celsius=85))
    assert found(result, "temperature")["status"] == "unknown"
    assert (result["ok"], result["status"]) == (False, "unknown")


def test_throttling_and_xid_errors_fail() -> None:
    text = H100.replace("_sw_power_cap>Not Active", "_sw_power_cap>Active")
    check = found(judge(facts(), Answer(0, text), Requirements(no_throttling=True)), "throttling")
    assert (check["status"], "sw_power_cap" in check["reason"]) == ("fail", True)
    lines = [f"NVRM: Xid (PCI:{CARD[:-2]}): {number}, pid=1" for number in (31, 48)]
    wanted = Requirements(no_xid_errors=True)
    check = found(judge(facts(log=KernelLog(lines, False)), Answer(0, H100), wanted), "xid_errors")
    assert check["status"] == "fail"
    assert "48 (1 times" in check["reason"]
    assert "31" not in check["reason"]
    harmless = found(judge(facts(log=KernelLog(lines[:1], True)), Answer(0, H100), wanted), "xid_errors")
    assert (harmless["status"], "programs' own: 31" in harmless["reason"]) == ("ok", True)
    unread = found(judge(facts(log=None), Answer(0, H100), wanted), "xid_errors")
    assert unread["status"] == "unknown"


@pytest.mark.parametrize(
    ("answer", "status", "problem"),
    [
        (Answer(0, "GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-0)\n"), "ok", None),
        (Answer(255, "Failed to initialize NVML: Unknown Error\n"), "fail", "container_lost_gpu"),
        (Answer(6, "No devices were found\n"), "fail", "container_lost_gpu"),
        (Answer(18, "Failed to initialize NVML: Driver/library version mismatch"), "fail", "version_mismatch"),
        (Answer(126, 'OCI runtime exec failed: exec: "nvidia-smi": executable file not found in $PATH'), "fail",
         "container_without_gpu"),
        (Answer(1, "Error response from daemon: No such container: vllm"), "fail", "container_not_running"),
        (Answer(1, "Error response from daemon: Container 1f is not running"), "fail", "container_not_running"),
        (Answer(1, "permission denied while trying to connect to the Docker daemon"), "unknown", "container_lost_gpu"),
        (Answer(None, ""), "unknown", "hangs"),
        (Answer(0, ""), "unknown", "container_lost_gpu"),
        (None, "unknown", None),
    ],
)  # fmt: skip
def test_a_container_is_asked_from_inside(answer: Answer | None, status: str, problem: str | None) -> None:
    result = judge(facts(), Answer(0, H100), container="vllm", container_answer=answer)
    check = found(result, "container")
    assert (check["status"], check["problem"]) == (status, problem)
    assert result["ok"] is (status == "ok")


def test_a_jetson_has_no_bus_to_look_at() -> None:
    jetson = gpu_info.JetsonProbe(model="NVIDIA Jetson Orin Nano Developer Kit", meminfo="MemTotal: 7802188 kB\n")
    answer = gpu_info.describe(Probe(jetson=jetson))
    wanted = Requirements(minimum_compute_capability="8.7", minimum_driver_version="580")
    result = gpu_check.judge(facts(cards=[]), answer, wanted)
    assert statuses(result) == {
        "gpus_answer": "ok",
        "gpu_count": "ok",
        "driver_version": "unknown",
        "compute_capability": "ok",
    }


@pytest.mark.parametrize(
    ("given", "words"),
    [({"minimum_driver_version": "new"}, 'minimum_driver_version is "new"'), ({"minimum_gpus": -1}, "Give 0 or more")],
)
def test_bad_requirements_are_refused(given: dict[str, Any], words: str) -> None:
    with pytest.raises(gpu_check.RequirementError, match=words):
        Requirements(**given).validated()


ENVIRONMENTS: dict[str, tuple[Traces, str, bool | None]] = {
    "bare metal": (
        Traces(cpu_flags=" fpu vme", dmi={"sys_vendor": "ASUS"}, detected_vm="none", detected_container="none",
               kernel="6.8.0-31-generic", cgroup="0::/init.scope\n"),
        "bare_metal", False,
    ),
    "Proxmox itself": (Traces(cpu_flags=" fpu", detected_vm="none", kernel="6.8.12-9-pve"), "bare_metal", True),
    "VM by systemd": (Traces(cpu_flags=" fpu hypervisor", detected_vm="kvm", kernel="6.12.1"), "vm", None),
    "VM under Proxmox with OVMF": (
        Traces(cpu_flags=" hypervisor", dmi={"sys_vendor": "QEMU", "bios_vendor": "Proxmox distribution of EDK II"}),
        "vm", True,
    ),
    "VM by its firmware": (Traces(dmi={"sys_vendor": "QEMU", "product_name": "Standard PC (Q35 + ICH9, 2009)"}), "vm",
                           None),
    "LXC under Proxmox": (
        Traces(init_environment="TERM=linux\x00container=lxc\x00", kernel="6.8.12-9-pve"), "lxc", True,
    ),
    "LXC, not root": (Traces(detected_container="lxc", kernel="6.8.12-9-pve"), "lxc", True),
    "LXC by its cgroup": (Traces(cgroup="12:cpuset:/lxc.payload.101\n", kernel="6.1.0"), "lxc", False),
    "Docker": (Traces(docker_file=True, kernel="6.8.0-31-generic"), "docker", False),
    "Docker in LXC": (Traces(docker_file=True, init_environment="container=lxc\x00", kernel="6.8.12-9-pve"), "docker",
                      True),
    "Docker by its cgroup": (Traces(cgroup="12:cpuset:/docker/ab12\n"), "docker", False),
    "WSL": (Traces(kernel="5.15.153.1-microsoft-standard-WSL2", cpu_flags=" hypervisor"), "wsl", False),
    "another manager": (Traces(systemd_container="systemd-nspawn", cpu_flags=" fpu"), "unknown", False),
    "nothing readable": (Traces(), "unknown", None),
}  # fmt: skip


@pytest.mark.parametrize("where", ENVIRONMENTS)
def test_where_a_host_runs(where: str) -> None:
    traces, kind, proxmox = ENVIRONMENTS[where]
    environment = gpu_environment.detect(traces)
    assert (environment.kind, environment.proxmox) == (kind, proxmox)
    assert environment.evidence


def test_the_troubleshooting_page_says_the_same() -> None:
    """Each problem has a heading with its name, and each remedy stands there word for word."""
    page = (ROOT / "docs" / "gpu-troubleshooting.md").read_text()
    flat = " ".join(page.split())
    for name, problem in PROBLEMS.items():
        assert f"## {problem.title} (`{name}`)" in page, name
        for remedy in (problem.remedy, *problem.by_environment.values()):
            assert remedy in flat, (name, remedy)


def module_run(tmp_path: Path, arguments: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    ansible = Path(sys.executable).parent / "ansible"
    done = subprocess.run(
        [ansible, "localhost", "-i", "localhost,", "-c", "local", "--check", "-m", "gpu_check", "-a",
         json.dumps(arguments), "-e", f"ansible_python_interpreter={sys.executable}"],
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "ANSIBLE_LOAD_CALLBACK_PLUGINS": "1",
             "ANSIBLE_STDOUT_CALLBACK": "ansible.builtin.json", "LC_ALL": "C.UTF-8"},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    # Callbacks of this project print after the document.
    answer, _ = json.JSONDecoder().raw_decode(done.stdout[done.stdout.index("{") :])
    return done.returncode, answer["plays"][0]["tasks"][0]["hosts"]["localhost"]


def test_the_module_itself_replays_a_mess(tmp_path: Path) -> None:
    """Constructed: a machine with a card that nouveau holds and a driver whose module is not loaded."""
    device = tmp_path / "sys/bus/pci/devices/0000:01:00.0"
    device.mkdir(parents=True)
    (device / "vendor").write_text("0x10de\n")
    (device / "class").write_text("0x030000\n")
    driver = tmp_path / "sys/bus/pci/drivers/nouveau"
    driver.mkdir(parents=True)
    (device / "driver").symlink_to(driver)
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/modules").write_text("nouveau 2306048 0 - Live 0x0\n")
    library = tmp_path / "usr/lib/x86_64-linux-gnu/libnvidia-ml.so.580.95.05"
    library.parent.mkdir(parents=True)
    library.touch()
    code, result = module_run(tmp_path, {"root": str(tmp_path)})
    assert code == 0, result
    assert {check["name"]: check["problem"] for check in result["checks"]}["module_loaded"] == "nouveau"
    assert (result["ok"], result["changed"]) == (False, False)
    code, result = module_run(tmp_path, {"root": str(tmp_path), "fail_on_problems": True})
    assert code != 0
    assert "blacklist nouveau" in result["msg"]
    code, result = module_run(tmp_path, {"root": str(tmp_path), "requirements": {"minimum_cuda_version": "x"}})
    assert 'minimum_cuda_version is "x"' in result["msg"]
