"""What the host itself says about its NVIDIA GPUs: PCI bus, kernel modules, kernel log, versions, Secure Boot.

Everything is read under ``root``, so that a recorded machine can be replayed; None is always "can't tell".
"""

from __future__ import annotations

import errno
import glob
import os
import re
from dataclasses import dataclass, field
from typing import Any

from ansible.module_utils.ai_idp.gpu_common import read_bytes, read_line, read_text
from ansible.module_utils.ai_idp.programs import run

NVIDIA_VENDOR = "0x10de"
DISPLAY_CLASS = "0x03"
SECURE_BOOT = "sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"
LIBRARY_FOLDERS = (
    "usr/lib/x86_64-linux-gnu",
    "usr/lib/aarch64-linux-gnu",
    "usr/lib64",
    "usr/lib",
    "usr/local/nvidia/lib64",
    "usr/lib/wsl/lib",
)
MAX_LOG_BYTES = 16 << 20
LOG_PATTERN = "NVRM|nouveau|nvidia|[Ll]ockdown|[Ll]oading of .*module"

_XID = re.compile(r"NVRM: Xid \((?:PCI:)?([0-9a-fA-F:.]+)\): (\d+)(?:, (.*))?")
_MODULE = re.compile(r"NVRM version:\s+(NVIDIA UNIX .*?Module\b.*?)\s+(\d+\.\d+(?:\.\d+)?)\b")


@dataclass
class PciCard:
    """An NVIDIA display device on the bus; ``driver`` is the kernel driver bound to it, None without one."""

    address: str
    driver: str | None = None


@dataclass
class KernelLog:
    """Lines of this boot; ``complete`` is False where older lines may have been dropped."""

    lines: list[str] = field(default_factory=list)
    complete: bool = False


def nvidia_cards(root: str) -> list[PciCard] | None:
    """NVIDIA's display devices; None where sysfs does not show the bus."""
    folder = os.path.join(root, "sys/bus/pci/devices")
    if not os.path.isdir(folder):
        return None
    found = []
    for device in sorted(glob.glob(os.path.join(folder, "*"))):
        vendor, kind = read_line(os.path.join(device, "vendor")), read_line(os.path.join(device, "class"))
        if vendor == NVIDIA_VENDOR and (kind or "").startswith(DISPLAY_CLASS):
            link = os.path.join(device, "driver")
            driver = os.path.basename(os.path.realpath(link)) if os.path.islink(link) else None
            found.append(PciCard(os.path.basename(device), driver))
    return found


def nvidia_pci_devices(root: str) -> list[str] | None:
    """Addresses of the NVIDIA cards that are this host's to use; None where sysfs does not show the bus.

    A card that vfio-pci holds belongs to a virtual machine.
    """
    cards = nvidia_cards(root)
    return None if cards is None else [card.address for card in cards if card.driver != "vfio-pci"]


def module_loaded(root: str, name: str) -> bool | None:
    """Whether a kernel module is loaded; in a container the kernel is the host's."""
    text = read_text(os.path.join(root, "proc/modules"))
    if text is not None:
        return any(line.split(" ", 1)[0] == name for line in text.splitlines())
    return True if os.path.isdir(os.path.join(root, "sys/module", name)) else None


def loaded_driver(root: str) -> tuple[str | None, bool | None]:
    """Version of the loaded kernel module, and whether it is the open one; None when none is loaded."""
    found = _MODULE.search(read_text(os.path.join(root, "proc/driver/nvidia/version")) or "")
    if found:
        return found.group(2), "open" in found.group(1).lower()
    return read_line(os.path.join(root, "sys/module/nvidia/version")), None


def library_versions(root: str) -> list[str]:
    """Versions of the driver's libraries that are installed, from their file names (``libnvidia-ml.so.580.95.05``)."""
    found = set()
    for folder in LIBRARY_FOLDERS:
        for pattern in ("libnvidia-ml.so.*", "nvidia/current/libnvidia-ml.so.*", "nvidia/libnvidia-ml.so.*"):
            for path in glob.glob(os.path.join(root, folder, pattern)):
                version = os.path.basename(os.path.realpath(path)).removeprefix("libnvidia-ml.so.")
                if re.fullmatch(r"\d+\.\d+(\.\d+)?", version):
                    found.add(version)
    return sorted(found, key=version_key)


def version_key(version: str) -> tuple[int, ...]:
    """Dotted numbers for comparison; trailing words are left out."""
    found = re.match(r"\d+(?:\.\d+)*", version.strip())
    return tuple(int(part) for part in found.group().split(".")) if found else ()


def secure_boot(root: str) -> bool | None:
    """Whether the firmware checks signatures. False on machines without EFI."""
    if not os.path.isdir(os.path.join(root, "sys/firmware/efi")):
        return False if os.path.isdir(os.path.join(root, "sys/firmware")) else None
    data = read_bytes(os.path.join(root, SECURE_BOOT)) or b""
    # Four bytes of attributes, then the value.
    return data[4] == 1 if len(data) >= 5 else None


def _read_kmsg(path: str) -> KernelLog | None:
    """The kernel's ring buffer, one record a read; its sequence numbers tell whether the start is still there."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return None
    log, first_number, size = KernelLog(), None, 0
    try:
        while size < MAX_LOG_BYTES:
            try:
                record = os.read(descriptor, 1 << 16)
            except OSError as error:
                if error.errno == errno.EPIPE:  # Overwritten while it was read: the next read goes on after it.
                    continue
                if error.errno == errno.EAGAIN:
                    break
                return None
            if not record:
                break
            size += len(record)
            head, _, text = record.decode("utf-8", "replace").partition(";")
            number = head.split(",")[1] if head.count(",") >= 2 else ""
            if first_number is None and number.isdigit():
                first_number = int(number)
            log.lines.append(text.split("\n", 1)[0])
    finally:
        os.close(descriptor)
    log.complete = first_number == 0
    return log


def kernel_log(root: str, timeout: float, journalctl: str | None = None) -> KernelLog | None:
    """This boot's kernel log; None where nobody lets it be read.

    A recorded machine has it as ``var/log/kernel.log``, which counts as complete.
    """
    if os.path.realpath(root) != "/":
        recorded = read_text(os.path.join(root, "var/log/kernel.log"))
        return None if recorded is None else KernelLog(recorded.splitlines(), complete=True)
    log = _read_kmsg("/dev/kmsg")
    if log is not None and log.complete:
        return log
    if journalctl:
        # The journal keeps what the ring buffer lost, when it was running from the start of this boot.
        query = ["-k", "-b", "0", "-o", "cat", "--no-pager", "-q", "--grep", LOG_PATTERN]
        answer = run([journalctl, *query], timeout)
        # No match is exit code 1 with no output; no permission says so.
        if answer.rc == 0 or (answer.rc == 1 and not answer.output.strip()):
            lines = answer.output.splitlines()
            readable = os.path.isdir("/run/log/journal") or os.path.isdir("/var/log/journal")
            return KernelLog(lines + (log.lines if log else []), complete=readable and os.geteuid() == 0)
    return log


def pci_key(address: str) -> str:
    """``00000000:00:06.0`` and ``0000:00:06`` are one device: domain, bus and device as numbers."""
    parts = address.lower().partition(".")[0].split(":")
    if len(parts) == 2:
        parts = ["0", *parts]
    try:
        return ":".join(f"{int(part, 16):x}" for part in parts)
    except ValueError:
        return address.lower()


def xid_errors(log: KernelLog | None) -> list[dict[str, Any]] | None:
    """Xid errors of this boot by device and number; None when their absence can't be told."""
    if log is None:
        return None
    found: dict[tuple[str, int], dict[str, Any]] = {}
    for line in log.lines:
        match = _XID.search(line)
        if not match:
            continue
        address, number, text = match.group(1), int(match.group(2)), (match.group(3) or "").strip()
        entry = found.setdefault((pci_key(address), number), {"pci_id": address, "xid": number, "count": 0})
        entry["count"] += 1
        entry["text"] = text
    if not found and not log.complete:
        return None
    return [found[key] for key in sorted(found)]
