"""GPUs of a host: parsers for what ``nvidia-smi`` and a Jetson's files say, and the answer made of them.

``Probe`` holds everything that is read from the machine, so that tests replay captured outputs.
"""

from __future__ import annotations

import glob
import hashlib
import os
import re
import subprocess
import tempfile
import xml.etree.ElementTree as ET
from dataclasses import dataclass, field
from typing import Any

OK, NONE, UNKNOWN = "ok", "none", "unknown"

NVIDIA_VENDOR = "0x10de"
DISPLAY_CLASS = "0x03"

_NUMBER = re.compile(r"^-?\d+(?:\.\d+)?")
_SIZES = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}
# Words that nvidia-smi prints in place of a value when a GPU does not answer as it should.
_BROKEN = ("requires reset", "unknown error", "gpu is lost", "err!")


class AnswerError(ValueError):
    """The output can't be read, with a sentence that says why."""


@dataclass(frozen=True)
class Answer:
    """What one call of a program gave; ``rc`` is None when it did not end in time."""

    rc: int | None
    output: str


@dataclass
class Probe:
    """What was read from the machine. ``None`` means that it is not there."""

    smi: Answer | None = None
    compute_capabilities: Answer | None = None
    # PCI addresses of NVIDIA display devices; None where the bus can't be read.
    pci_devices: list[str] | None = None
    device_tree_model: str | None = None
    device_tree_serial: str | None = None
    meminfo: str | None = None
    tegra_release: str | None = None
    notes: list[str] = field(default_factory=list)


# --- values -----------------------------------------------------------------------------------------


def text_of(node: ET.Element | None, path: str) -> str | None:
    """A field's text; None for what is missing, empty or not supported (``N/A``)."""
    found = node.find(path) if node is not None else None
    value = (found.text or "").strip() if found is not None else ""
    if not value or value.strip("[]").lower() in ("n/a", "not supported", "none", "unknown"):
        return None
    return value


def number_of(node: ET.Element | None, path: str) -> float | None:
    """The number at the start of ``700.00 W``, ``38 C`` or ``16x``."""
    value = text_of(node, path)
    match = _NUMBER.match(value) if value else None
    return float(match.group()) if match else None


def whole_of(node: ET.Element | None, path: str) -> int | None:
    number = number_of(node, path)
    return None if number is None else int(number)


def bytes_of(node: ET.Element | None, path: str) -> int | None:
    """``81559 MiB`` in bytes."""
    value = text_of(node, path)
    parts = value.split() if value else []
    if len(parts) != 2 or not _NUMBER.match(parts[0]) or parts[1] not in _SIZES:
        return None
    return int(float(parts[0]) * _SIZES[parts[1]])


def enabled(node: ET.Element | None, path: str) -> bool | None:
    value = text_of(node, path)
    return {"Enabled": True, "Disabled": False}.get(value or "")


def first(*values: Any) -> Any:
    """The first value that is known: fields were renamed between driver branches."""
    return next((value for value in values if value is not None), None)


def fingerprint_of(*parts: object) -> str:
    """A short hash of what makes a piece of hardware this one."""
    joined = "\x1f".join("" if part is None else str(part) for part in parts)
    return hashlib.sha256(joined.encode()).hexdigest()[:16]


# --- nvidia-smi -q -x -------------------------------------------------------------------------------


def parse_xml(text: str) -> ET.Element:
    """The root of ``nvidia-smi -q -x``. Warnings that the driver prints around the document are dropped."""
    start, end = text.find("<nvidia_smi_log"), text.rfind("</nvidia_smi_log>")
    if start < 0 or end < 0:
        raise AnswerError("nvidia-smi did not print the XML document it was asked for")
    parser: Any = ET.XMLPullParser(events=("start",))
    try:
        # Without its DOCTYPE the document can bring no entities of its own.
        parser.feed(text[start : end + len("</nvidia_smi_log>")])
        parser.close()
        _, root = next(iter(parser.read_events()))
    except (ET.ParseError, StopIteration) as error:
        raise AnswerError(f"the XML of nvidia-smi is broken: {error}") from error
    if not isinstance(root, ET.Element):
        raise AnswerError("the XML of nvidia-smi has no root")
    return root


def throttle_reasons(gpu: ET.Element) -> list[str] | None:
    """Names of the active reasons for lower clocks, idleness left out; None when they are not told."""
    node = gpu.find("clocks_event_reasons")
    prefix = "clocks_event_reason_"
    if node is None:
        node, prefix = gpu.find("clocks_throttle_reasons"), "clocks_throttle_reason_"
    if node is None or not len(node):
        return None
    known = [entry for entry in node if text_of(node, entry.tag)]
    if not known:
        return None
    active = [entry.tag.removeprefix(prefix) for entry in known if (entry.text or "").strip() == "Active"]
    return [reason for reason in active if reason != "gpu_idle"]


def mig_devices(gpu: ET.Element) -> list[dict[str, Any]]:
    return [
        {
            "index": whole_of(device, "index"),
            "gpu_instance_id": whole_of(device, "gpu_instance_id"),
            "compute_instance_id": whole_of(device, "compute_instance_id"),
            "memory_total_bytes": bytes_of(device, "fb_memory_usage/total"),
            "memory_used_bytes": bytes_of(device, "fb_memory_usage/used"),
            "memory_free_bytes": bytes_of(device, "fb_memory_usage/free"),
        }
        for device in gpu.findall("mig_devices/mig_device")
    ]


def processes(gpu: ET.Element) -> list[dict[str, Any]]:
    return [
        {
            "pid": whole_of(process, "pid"),
            "type": text_of(process, "type"),
            "name": text_of(process, "process_name"),
            "used_memory_bytes": bytes_of(process, "used_memory"),
        }
        for process in gpu.findall("processes/process_info")
    ]


def parse_gpu(root: ET.Element, gpu: ET.Element, index: int) -> dict[str, Any]:
    """One GPU; ``index`` is its place in the list, which is what CUDA_DEVICE_ORDER=PCI_BUS_ID counts."""
    name, uuid = text_of(gpu, "product_name"), text_of(gpu, "uuid")
    total = bytes_of(gpu, "fb_memory_usage/total")
    power = gpu.find("gpu_power_readings")
    power = power if power is not None else gpu.find("power_readings")
    link = gpu.find("pci/pci_gpu_link_info")
    return {
        "index": index,
        "name": name,
        "uuid": uuid,
        "pci_id": gpu.get("id") or text_of(gpu, "pci/pci_bus_id"),
        "architecture": text_of(gpu, "product_architecture"),
        "compute_capability": None,
        "memory_total_bytes": total,
        "memory_reserved_bytes": bytes_of(gpu, "fb_memory_usage/reserved"),
        "memory_used_bytes": bytes_of(gpu, "fb_memory_usage/used"),
        "memory_free_bytes": bytes_of(gpu, "fb_memory_usage/free"),
        "memory_is_shared": False,
        "driver_version": text_of(root, "driver_version"),
        "cuda_version": text_of(root, "cuda_version"),
        "vbios_version": text_of(gpu, "vbios_version"),
        "virtualization": text_of(gpu, "gpu_virtualization_mode/virtualization_mode"),
        "power_limit_watts": first(
            number_of(power, "current_power_limit"),
            number_of(power, "enforced_power_limit"),
            number_of(power, "power_limit"),
        ),
        "power_limit_max_watts": number_of(power, "max_power_limit"),
        "power_draw_watts": first(
            number_of(power, "average_power_draw"),
            number_of(power, "instant_power_draw"),
            number_of(power, "power_draw"),
        ),
        "temperature_celsius": whole_of(gpu, "temperature/gpu_temp"),
        "clock_sm_mhz": whole_of(gpu, "clocks/sm_clock"),
        "clock_memory_mhz": whole_of(gpu, "clocks/mem_clock"),
        "clock_sm_max_mhz": whole_of(gpu, "max_clocks/sm_clock"),
        "clock_memory_max_mhz": whole_of(gpu, "max_clocks/mem_clock"),
        "pcie_generation": whole_of(link, "pcie_gen/current_link_gen"),
        "pcie_generation_max": whole_of(link, "pcie_gen/max_link_gen"),
        "pcie_width": whole_of(link, "link_widths/current_link_width"),
        "pcie_width_max": whole_of(link, "link_widths/max_link_width"),
        "ecc_enabled": enabled(gpu, "ecc_mode/current_ecc"),
        "mig_enabled": enabled(gpu, "mig_mode/current_mig"),
        "mig_devices": mig_devices(gpu),
        "persistence_enabled": enabled(gpu, "persistence_mode"),
        "throttle_reasons": throttle_reasons(gpu),
        "processes": processes(gpu),
        # Slot, driver and settings may change while the card stays; the UUID is the card's own.
        "fingerprint": fingerprint_of(uuid, name, text_of(gpu, "pci/pci_device_id"), total),
    }


def broken_fields(gpu: ET.Element) -> list[str]:
    """What nvidia-smi says instead of values when a GPU does not answer."""
    found = {
        (node.text or "").strip() for node in gpu.iter() if any(word in (node.text or "").lower() for word in _BROKEN)
    }
    return sorted(found)


def parse_smi(text: str) -> tuple[list[dict[str, Any]], list[str]]:
    """All GPUs of ``nvidia-smi -q -x`` and messages about those that answer only in part."""
    root = parse_xml(text)
    gpus, messages = [], []
    for index, node in enumerate(root.findall("gpu")):
        gpu = parse_gpu(root, node, index)
        gpus.append(gpu)
        broken = broken_fields(node)
        if broken:
            messages.append(
                f"GPU {index} ({gpu['name'] or gpu['pci_id']}) answers only in part: nvidia-smi says "
                f"{', '.join(repr(text) for text in broken[:3])}. Look for Xid errors in `journalctl -k`, "
                "then reset the GPU or restart the host."
            )
    return gpus, messages


def add_compute_capabilities(gpus: list[dict[str, Any]], answer: Answer | None) -> None:
    """Fills in ``uuid, compute_cap`` lines, which the XML does not have."""
    if answer is None or answer.rc != 0:
        return
    found = {}
    for line in answer.output.splitlines():
        uuid, _, capability = (part.strip() for part in line.partition(","))
        if re.fullmatch(r"\d+\.\d+", capability):
            found[uuid] = capability
    for gpu in gpus:
        gpu["compute_capability"] = found.get(gpu["uuid"])


# --- Jetson -----------------------------------------------------------------------------------------

# Part of the device tree's model: (architecture, compute capability), from NVIDIA's list of CUDA GPUs.
_JETSONS = {"Orin": ("Ampere", "8.7"), "Xavier": ("Volta", "7.2"), "Thor": ("Blackwell", "11.0")}


def meminfo_bytes(meminfo: str) -> dict[str, int]:
    sizes = {}
    for line in meminfo.splitlines():
        key, _, rest = line.partition(":")
        parts = rest.split()
        if len(parts) == 2 and parts[0].isdigit() and parts[1] == "kB":
            sizes[key.strip()] = int(parts[0]) * 1024
    return sizes


def parse_jetson(probe: Probe) -> dict[str, Any]:
    """A Jetson's GPU: it has no memory of its own, so the host's counts."""
    model = (probe.device_tree_model or "").replace("\x00", "").strip()
    sizes = meminfo_bytes(probe.meminfo or "")
    total, free = sizes.get("MemTotal"), sizes.get("MemAvailable")
    architecture, capability = next((found for part, found in _JETSONS.items() if part in model), (None, None))
    release = re.search(r"R(\d+)\D+REVISION:\s*([\d.]+)", probe.tegra_release or "")
    serial = (probe.device_tree_serial or "").replace("\x00", "").strip() or None
    # The kernel's own needs change MemTotal a little from release to release; the module's size does not.
    size = None if total is None else round(total / (1 << 30))
    gpu = dict.fromkeys(GPU_KEYS)
    gpu.update(
        {
            "index": 0,
            "name": model,
            "architecture": architecture,
            "compute_capability": capability,
            "memory_total_bytes": total,
            "memory_used_bytes": None if total is None or free is None else total - free,
            "memory_free_bytes": free,
            "memory_is_shared": True,
            "driver_version": f"L4T {release.group(1)}.{release.group(2)}" if release else None,
            "mig_devices": [],
            "processes": [],
            "fingerprint": fingerprint_of(model, serial, size),
        }
    )
    return gpu


GPU_KEYS = tuple(parse_gpu(ET.Element("nvidia_smi_log"), ET.Element("gpu"), 0))


# --- the answer -------------------------------------------------------------------------------------


def _failure(probe: Probe, answer: Answer) -> tuple[str, str]:
    """Status and message for an nvidia-smi that gave no list of GPUs."""
    said = " ".join(answer.output.split())[:300]
    cards = probe.pci_devices
    on_bus = f"{len(cards)} NVIDIA GPU(s) on the PCI bus ({', '.join(cards)})" if cards else ""
    if answer.rc is None:
        return UNKNOWN, (
            "nvidia-smi did not answer in time: the driver or a GPU hangs. "
            "Look for Xid errors in `journalctl -k` and restart the host."
        )
    if "version mismatch" in said.lower():
        return UNKNOWN, (
            f"The loaded kernel module and the driver's libraries are of different versions ({said}). "
            "Restart the host, or unload and load the nvidia modules while nothing uses them."
        )
    if cards == []:
        return NONE, f"nvidia-smi is installed, but no NVIDIA GPU is on the PCI bus ({said or 'no output'})."
    if "no devices were found" in said.lower():
        there = on_bus or "the PCI bus can't be read"
        return UNKNOWN, (
            f"The driver is loaded but finds no GPU; {there}. A card may have fallen off the bus or need the "
            "open kernel modules (Blackwell): see `journalctl -k` for lines with NVRM."
        )
    if "communicate with the nvidia driver" in said.lower():
        return UNKNOWN, (
            f"nvidia-smi can't reach the driver; {on_bus or 'the PCI bus is not readable'}. The kernel module is "
            "not loaded: see `lsmod | grep -e nvidia -e nouveau` and `dkms status`, and restart after a kernel "
            "update."
        )
    if "unable to determine the device handle" in said.lower():
        return UNKNOWN, (
            f"A GPU does not answer any more ({said}). It has fallen off the bus: look for Xid 79 in "
            "`journalctl -k`, check its power and seat, and restart the host."
        )
    return UNKNOWN, f"nvidia-smi failed with code {answer.rc}: {said or 'no output'}."


def _read_smi(answer: Answer) -> tuple[list[dict[str, Any]], list[str], Answer | None]:
    """GPUs and messages of an answer, and the answer to explain when there are none."""
    if answer.rc != 0:
        return [], [], answer
    try:
        gpus, messages = parse_smi(answer.output)
    except AnswerError as error:
        return [], [], Answer(0, str(error))
    return gpus, messages, None if gpus else Answer(0, "No devices were found")


def describe(probe: Probe) -> dict[str, Any]:
    """gpus, backend, status (ok, none or unknown), messages and the fingerprint of all GPUs."""
    gpus: list[dict[str, Any]] = []
    backend, status, messages = "none", NONE, list(probe.notes)
    if "jetson" in (probe.device_tree_model or "").lower():
        # JetPack's nvidia-smi knows neither memory nor power: the device tree comes first there.
        gpus, backend, status = [parse_jetson(probe)], "jetson", OK
    elif probe.smi is not None:
        gpus, found, failure = _read_smi(probe.smi)
        messages += found
        if gpus:
            backend, status = "nvidia-smi", OK
            add_compute_capabilities(gpus, probe.compute_capabilities)
            on_bus = probe.pci_devices or []
            if len(on_bus) > len(gpus):
                messages.append(
                    f"{len(on_bus)} NVIDIA GPUs are on the PCI bus, the driver answers for {len(gpus)}: "
                    "see `journalctl -k` for lines with NVRM or Xid."
                )
        elif failure is not None:
            status, message = _failure(probe, failure)
            messages.append(message)
    elif probe.pci_devices:
        status = UNKNOWN
        messages.append(
            f"{len(probe.pci_devices)} NVIDIA GPU(s) on the PCI bus ({', '.join(probe.pci_devices)}), but there is "
            "no nvidia-smi: install the driver."
        )
    return {
        "gpus": gpus,
        "backend": backend,
        "status": status,
        "messages": messages,
        "fingerprint": fingerprint_of(*sorted(gpu["fingerprint"] for gpu in gpus)),
    }


# --- reading the machine ----------------------------------------------------------------------------


def run(arguments: list[str], timeout: float) -> Answer:
    """Runs a program. One that hangs in the driver can't be killed, so nobody waits for it to end."""
    environment = {**os.environ, "LC_ALL": "C"}
    with tempfile.TemporaryFile() as output:
        try:
            process = subprocess.Popen(
                arguments,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,
            )
        except OSError as error:
            return Answer(127, str(error))
        try:
            code: int | None = process.wait(timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            code = None
        output.seek(0)
        return Answer(code, output.read(16 << 20).decode("utf-8", "replace"))


def read_text(path: str) -> str | None:
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            return stream.read(1 << 20)
    except OSError:
        return None


def nvidia_pci_devices(root: str) -> list[str] | None:
    """PCI addresses of NVIDIA's display devices; None where sysfs does not show the bus."""
    folder = os.path.join(root, "sys/bus/pci/devices")
    if not os.path.isdir(folder):
        return None
    found = []
    for device in sorted(glob.glob(os.path.join(folder, "*"))):
        vendor = (read_text(os.path.join(device, "vendor")) or "").strip()
        kind = (read_text(os.path.join(device, "class")) or "").strip()
        if vendor == NVIDIA_VENDOR and kind.startswith(DISPLAY_CLASS):
            found.append(os.path.basename(device))
    return found


def probe_machine(nvidia_smi: str | None, root: str, timeout: float) -> Probe:
    """Reads everything that ``describe`` needs; ``nvidia_smi`` is the program's path, None without one."""
    probe = Probe(
        pci_devices=nvidia_pci_devices(root),
        device_tree_model=read_text(os.path.join(root, "proc/device-tree/model")),
    )
    if "jetson" in (probe.device_tree_model or "").lower():
        probe.device_tree_serial = read_text(os.path.join(root, "proc/device-tree/serial-number"))
        probe.meminfo = read_text(os.path.join(root, "proc/meminfo"))
        probe.tegra_release = read_text(os.path.join(root, "etc/nv_tegra_release"))
        return probe
    if nvidia_smi:
        probe.smi = run([nvidia_smi, "-q", "-x"], timeout)
        if probe.smi.rc == 0:
            query = ["--query-gpu=uuid,compute_cap", "--format=csv,noheader,nounits"]
            probe.compute_capabilities = run([nvidia_smi, *query], timeout)
    return probe
