"""GPUs through ``nvidia-smi -q -x``: the XML document and the compute capabilities, which it does not have."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from typing import Any

from ansible.module_utils.ai_idp.gpu_common import AnswerError, card_fingerprint, first, is_unified
from ansible.module_utils.ai_idp.programs import Answer

_NUMBER = re.compile(r"^-?\d+(?:\.\d+)?")
_SIZES = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}
# Words that nvidia-smi prints in place of a value when a GPU does not answer as it should.
_BROKEN = ("requires reset", "unknown error", "gpu is lost", "err!")


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
        "memory_is_shared": is_unified(name),
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
        "xid_errors": None,
        "processes": processes(gpu),
        "fingerprint": card_fingerprint(uuid, name, text_of(gpu, "pci/pci_device_id"), total),
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
