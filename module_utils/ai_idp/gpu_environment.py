"""Where a host runs: on the machine itself, in a VM, in an LXC or a Docker container. Remedies differ by it."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

from ansible.module_utils.ai_idp.gpu_common import read_line, read_text
from ansible.module_utils.ai_idp.programs import run

BARE_METAL, VM, LXC, DOCKER, WSL, UNKNOWN = "bare_metal", "vm", "lxc", "docker", "wsl", "unknown"
NAMES = {
    BARE_METAL: "bare metal",
    VM: "a virtual machine",
    LXC: "an LXC container",
    DOCKER: "a Docker container",
    WSL: "WSL",
    UNKNOWN: "an unknown place",
}
# What systemd and container managers call themselves.
_CONTAINERS = {"lxc": LXC, "lxc-libvirt": LXC, "docker": DOCKER, "podman": DOCKER, "oci": DOCKER, "wsl": WSL}
_VM_VENDORS = re.compile(
    r"QEMU|KVM|VMware|VirtualBox|innotek|Xen|Parallels|Hyper-V|Google Compute|Amazon EC2|OpenStack"
)


@dataclass
class Traces:
    """What was read; None is what is not there or may not be read (``/proc/1/environ`` is root's)."""

    init_environment: str | None = None
    systemd_container: str | None = None
    docker_file: bool = False
    podman_file: bool = False
    cgroup: str | None = None
    detected_container: str | None = None
    detected_vm: str | None = None
    cpu_flags: str | None = None
    dmi: dict[str, str | None] | None = None
    kernel: str | None = None
    proxmox_config: bool = False


@dataclass(frozen=True)
class Environment:
    """``proxmox`` is None where a VM does not show who runs it."""

    kind: str
    proxmox: bool | None
    evidence: str

    @property
    def text(self) -> str:
        under = {
            True: " on a Proxmox host" if self.kind in (LXC, DOCKER) else " under Proxmox" if self.kind == VM else ""
        }
        return NAMES[self.kind] + under.get(bool(self.proxmox), "")


def _container_of(traces: Traces) -> tuple[str, str] | None:
    """Kind and evidence of a container. A Docker container in an LXC one is found as what is innermost."""
    if traces.docker_file:
        return DOCKER, "/.dockerenv"
    if traces.podman_file:
        return DOCKER, "/run/.containerenv"
    match = re.search(r"(?:^|\x00)container=([^\x00]*)", traces.init_environment or "")
    for name, evidence in (
        (match.group(1) if match else None, "/proc/1/environ"),
        (traces.systemd_container, "/run/systemd/container"),
        (traces.detected_container, "systemd-detect-virt"),
    ):
        if name in _CONTAINERS:
            return _CONTAINERS[name], f"{evidence} says {name}"
        if name and name != "none":
            return UNKNOWN, f"{evidence} says {name}"
    cgroup = traces.cgroup or ""
    if re.search(r"/docker[/-]|/kubepods|/libpod-|/containerd", cgroup):
        return DOCKER, "/proc/self/cgroup"
    if re.search(r"/lxc(?:\.payload)?[./]", cgroup):
        return LXC, "/proc/self/cgroup"
    return None


def detect(traces: Traces) -> Environment:
    """The environment that the traces show; what nothing speaks against is bare metal."""
    kernel = traces.kernel or ""
    if "microsoft" in kernel.lower():
        return Environment(WSL, False, f"the kernel is {kernel}")
    # Containers have their host's kernel, and Proxmox builds its own.
    proxmox_kernel = kernel.endswith("-pve")
    container = _container_of(traces)
    if container:
        return Environment(container[0], proxmox_kernel, container[1])
    dmi = traces.dmi or {}
    firmware = " ".join(value for value in dmi.values() if value)
    if (
        traces.detected_vm not in (None, "none")
        or _VM_VENDORS.search(firmware)
        or " hypervisor" in (traces.cpu_flags or "")
    ):
        evidence = traces.detected_vm if traces.detected_vm not in (None, "none") else firmware or "CPU flag hypervisor"
        return Environment(VM, True if "Proxmox" in firmware else None, f"{evidence}")
    if traces.cpu_flags is None and traces.dmi is None and traces.detected_vm is None:
        return Environment(UNKNOWN, None, "neither CPU, firmware nor systemd tell")
    return Environment(BARE_METAL, proxmox_kernel or traces.proxmox_config, "no container and no hypervisor shows")


def _detected(program: str | None, what: str, timeout: float) -> str | None:
    """systemd-detect-virt ends with 1 and prints none when it finds nothing."""
    if not program:
        return None
    answer = run([program, what], timeout)
    return answer.output.strip() or None if answer.rc in (0, 1) else None


def read_traces(root: str, timeout: float, detect_virt: str | None = None) -> Traces:
    def path(name: str) -> str:
        return os.path.join(root, name)

    flags = re.search(r"^(?:flags|Features)\s*:(.*)$", read_text(path("proc/cpuinfo")) or "", re.MULTILINE)
    names = ("sys_vendor", "product_name", "bios_vendor")
    folder = path("sys/class/dmi/id")
    return Traces(
        init_environment=read_text(path("proc/1/environ")),
        systemd_container=read_line(path("run/systemd/container")),
        docker_file=os.path.exists(path(".dockerenv")),
        podman_file=os.path.exists(path("run/.containerenv")),
        cgroup=read_text(path("proc/self/cgroup")),
        detected_container=_detected(detect_virt, "--container", timeout),
        detected_vm=_detected(detect_virt, "--vm", timeout),
        cpu_flags=flags.group(1) if flags else None,
        dmi={name: read_line(os.path.join(folder, name)) for name in names} if os.path.isdir(folder) else None,
        kernel=read_line(path("proc/sys/kernel/osrelease")),
        proxmox_config=os.path.isdir(path("etc/pve")),
    )
