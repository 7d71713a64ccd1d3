"""What a host is made of (GPUs, CPU, memory, disks), in a form that changes with the hardware and nothing else.

Nothing that a restart, a kernel or a driver changes is kept: no dates, device names, slots or clocks, and no
serial number in clear text. Identities are keyed hashes (HMAC with the host's machine-id, as systemd advises), so
that they can't be looked up elsewhere. What can't be read this time is not held to be removed.
"""

from __future__ import annotations

import copy
import glob
import hashlib
import hmac
import json
import os
import re
import struct
from dataclasses import dataclass
from typing import Any

from ansible.module_utils.ai_idp.documents import WRONG_SHAPE, from_json
from ansible.module_utils.ai_idp.gpu_common import read_line, read_text
from ansible.module_utils.ai_idp.gpu_jetson import meminfo_bytes

FORMAT = 1
GIB = 1 << 30
PARTS = ("gpus", "cpu", "memory", "disks")
NEW, UNCHANGED, CHANGED = "new", "unchanged", "changed"
# The kernel keeps a little more or less of the memory with each release.
MEMORY_TOLERANCE = 0.06
# Whole disks that stay in the machine; loop, ram, zram, dm-, md, nbd, rbd, zd, sr and fd are none.
_DISK = re.compile(r"(sd[a-z]+|nvme\d+n\d+|vd[a-z]+|xvd[a-z]+|hd[a-z]+|mmcblk\d+)$")
# Disks that come over a wire: USB, iSCSI, Fibre Channel.
_WIRED = re.compile(r"/usb\d|/session\d|/rport-")

MEMORY_TYPES = {
    0x18: "DDR3", 0x1A: "DDR4", 0x1B: "LPDDR", 0x1C: "LPDDR2", 0x1D: "LPDDR3", 0x1E: "LPDDR4", 0x22: "DDR5",
    0x23: "LPDDR5",
}  # fmt: skip


@dataclass
class Part:
    """One thing that can be added, removed or replaced."""

    text: str
    identity: str
    # Things of the same looks: without a readable serial number this is all there is.
    looks: str


def size_text(size: int | None) -> str:
    if size is None:
        return "of unknown size"
    return f"{size / GIB:.1f} GiB" if size >= GIB else f"{size / (1 << 20):.0f} MiB"


def identity(key: bytes, *parts: str | None) -> str | None:
    """A keyed hash of a serial number; None where there is none."""
    if not any(parts):
        return None
    text = "\x1f".join(part or "" for part in parts)
    return hmac.new(b"ai-idp hardware profile\x00" + key, text.encode(), hashlib.sha256).hexdigest()[:16]


# --- CPU --------------------------------------------------------------------------------------------


def _range_length(text: str | None) -> int | None:
    """How many numbers ``0-11,16`` names."""
    if not text or not re.fullmatch(r"[\d,-]+", text):
        return None
    total = 0
    for part in text.split(","):
        low, _, high = part.partition("-")
        total += int(high or low) - int(low) + 1
    return total


def read_cpu(root: str) -> dict[str, Any] | None:
    """Model, sockets and hardware threads that are there, those switched off by a power mode included."""
    info = read_text(os.path.join(root, "proc/cpuinfo")) or ""
    names = re.findall(r"^model name\s*:\s*(.+)$", info, re.MULTILINE)
    if not names:
        # ARM has numbers in place of a name.
        parts = set(re.findall(r"^CPU part\s*:\s*(\S+)$", info, re.MULTILINE))
        makers = set(re.findall(r"^CPU implementer\s*:\s*(\S+)$", info, re.MULTILINE))
        names = [f"ARM {'/'.join(sorted(makers))} part {'/'.join(sorted(parts))}"] if parts else []
    threads = _range_length(read_line(os.path.join(root, "sys/devices/system/cpu/present")))
    if threads is None:
        threads = len(re.findall(r"^processor\s*:", info, re.MULTILINE)) or None
    if not names or threads is None:
        return None
    sockets = len(set(re.findall(r"^physical id\s*:\s*(\d+)$", info, re.MULTILINE))) or 1
    return {"model": " ".join(names[0].split()), "sockets": sockets, "threads": threads}


# --- memory -----------------------------------------------------------------------------------------


def parse_dimm(raw: bytes, key: bytes) -> dict[str, Any] | None:
    """One SMBIOS structure of type 17 (memory device); None for an empty slot or what is none."""
    if len(raw) < 0x1B or raw[0] != 17 or len(raw) < raw[1]:
        return None
    length = raw[1]
    strings = raw[length:].split(b"\x00")

    def text(offset: int) -> str | None:
        number = raw[offset] if offset < length else 0
        value = strings[number - 1].decode("ascii", "replace").strip() if 0 < number <= len(strings) else ""
        return None if value.lower() in ("", "unknown", "not specified", "none", "no dimm", "00000000") else value

    size = struct.unpack_from("<H", raw, 0x0C)[0]
    if size in (0, 0xFFFF):
        return None
    size_bytes = size << 20
    if size == 0x7FFF and length >= 0x20:
        size_bytes = (struct.unpack_from("<I", raw, 0x1C)[0] & 0x7FFFFFFF) << 20
    elif size & 0x8000:
        size_bytes = (size & 0x7FFF) << 10
    rated = struct.unpack_from("<H", raw, 0x15)[0] if length >= 0x17 else 0
    speed = struct.unpack_from("<H", raw, 0x20)[0] if length >= 0x22 else 0
    return {
        "size_bytes": size_bytes,
        "type": MEMORY_TYPES.get(raw[0x12]),
        # What it runs at: four modules often run slower than they are sold for.
        "speed_mts": next((value for value in (speed, rated) if value not in (0, 0xFFFF)), None),
        "model": text(0x1A),
        "id": identity(key, text(0x17), text(0x18), text(0x1A)) if text(0x18) else None,
    }


def _read_bytes(path: str) -> bytes:
    try:
        with open(path, "rb") as stream:
            return stream.read(4096)
    except OSError:
        return b""


def read_memory(root: str, key: bytes, shared: bool) -> dict[str, Any] | None:
    """Total and modules. ``shared`` is a container, whose memory is a limit and not the machine's modules.

    The total is the modules', which is exact, else that of the memory blocks, which count what the kernel keeps
    too, else MemTotal.
    """
    total = meminfo_bytes(read_text(os.path.join(root, "proc/meminfo")) or "").get("MemTotal")
    modules: list[dict[str, Any]] = []
    if not shared:
        for path in glob.glob(os.path.join(root, "sys/firmware/dmi/entries/17-*/raw")):
            module = parse_dimm(_read_bytes(path), key)
            if module:
                modules.append(module)
    modules.sort(key=lambda module: (module["size_bytes"], module["model"] or "", module["id"] or ""))
    installed = sum(module["size_bytes"] for module in modules)
    # A VM's firmware describes one large module; what is shown must hold what the kernel has.
    if modules and installed >= (total or 0):
        return {"total_bytes": installed, "modules": modules}
    block = read_line(os.path.join(root, "sys/devices/system/memory/block_size_bytes"))
    if not shared and block and re.fullmatch(r"[0-9a-f]+", block):
        blocks = glob.glob(os.path.join(root, "sys/devices/system/memory/memory[0-9]*"))
        online = [path for path in blocks if read_line(os.path.join(path, "online")) != "0"]
        if online:
            return {"total_bytes": len(online) * int(block, 16), "modules": None}
    return None if total is None else {"total_bytes": total, "modules": None}


# --- disks ------------------------------------------------------------------------------------------


def _disk(folder: str, name: str, key: bytes) -> dict[str, Any] | None:
    def line(path: str) -> str | None:
        return read_line(os.path.join(folder, path))

    sectors = line("size")
    size = int(sectors) * 512 if sectors and sectors.isdigit() else 0
    kind = "hdd" if line("queue/rotational") == "1" else "nvme" if name.startswith("nvme") else "ssd"
    if size == 0 or line("removable") == "1" or line("hidden") == "1" or line("device/type") == "SD":
        return None
    if _WIRED.search(os.path.realpath(folder)) or line("device/transport") in ("tcp", "rdma", "fc", "loop"):
        return None
    # NVMe's wwid is not used first: which of a disk's names it is built from differs between kernels.
    serial = line("device/serial") or line("serial")
    if not serial:
        # SCSI page 0x80: four bytes of head, then the serial number.
        serial = _read_bytes(os.path.join(folder, "device/vpd_pg80"))[4:].decode("ascii", "replace").strip("\x00 ")
    serial = serial or line("device/cid") or line("device/wwid") or line("wwid")
    namespace = re.search(r"^nvme\d+n(\d+)$", name)
    model = line("device/model") or line("device/name")
    return {
        "model": " ".join(model.split()) if model else None,
        "size_bytes": size,
        "kind": kind,
        "id": identity(key, serial, namespace.group(1) if namespace else None) if serial else None,
    }


def read_disks(root: str, key: bytes) -> list[dict[str, Any]] | None:
    folder = os.path.join(root, "sys/block")
    if not os.path.isdir(folder):
        return None
    found = []
    for name in sorted(os.listdir(folder)):
        if _DISK.match(name):
            disk = _disk(os.path.join(folder, name), name, key)
            if disk:
                found.append(disk)
    return sorted(found, key=lambda disk: (disk["model"] or "", disk["size_bytes"], disk["id"] or ""))


# --- the profile ------------------------------------------------------------------------------------


def gpu_rows(gpu_info: dict[str, Any]) -> list[dict[str, Any]] | None:
    """The GPUs of gpu_info's answer; None when it could not tell."""
    if gpu_info.get("status") == "unknown":
        return None
    rows = [
        {
            "name": gpu.get("name"),
            # A Jetson's is the host's, which the kernel takes a little of; elsewhere it is the card's.
            "memory_bytes": None if gpu.get("memory_is_shared") else gpu.get("memory_total_bytes"),
            "compute_capability": gpu.get("compute_capability"),
            "id": gpu.get("fingerprint"),
        }
        for gpu in gpu_info.get("gpus") or []
    ]
    return sorted(rows, key=lambda row: (row["name"] or "", row["id"] or ""))


def read_profile(root: str, gpu_info: dict[str, Any], container: bool = False) -> dict[str, Any]:
    """The host as it is now; a part that can't be read is None."""
    key = (read_line(os.path.join(root, "etc/machine-id")) or "").encode()
    return {
        "format": FORMAT,
        "gpus": gpu_rows(gpu_info),
        "cpu": read_cpu(root),
        "memory": read_memory(root, key, container),
        "disks": read_disks(root, key),
    }


def gpu_text(row: dict[str, Any]) -> str:
    name = row["name"] or "a GPU without a name"
    return f"{name} ({size_text(row['memory_bytes'])})" if row["memory_bytes"] else str(name)


def _gpu_part(row: dict[str, Any]) -> Part:
    looks = f"{row['name']}|{row['memory_bytes']}"
    return Part(gpu_text(row), row["id"] or looks, looks)


def _disk_part(row: dict[str, Any]) -> Part:
    looks = f"{row['model']}|{row['size_bytes']}|{row['kind']}"
    return Part(f"{row['model'] or row['kind']} ({size_text(row['size_bytes'])})", row["id"] or looks, looks)


def _module_part(row: dict[str, Any]) -> Part:
    looks = f"{row['model']}|{row['size_bytes']}|{row['type']}"
    words = " ".join(word for word in (row["type"], row["model"]) if word)
    return Part(f"{size_text(row['size_bytes'])} {words}".strip(), row["id"] or looks, looks)


def compare_parts(kind: str, before: list[Part], after: list[Part]) -> list[str]:
    """Sentences for what was added, removed or replaced; order says nothing."""
    gone, come = list(before), list(after)
    # Things without a serial number may appear several times: one takes one away.
    for part in list(come):
        same = next((other for other in gone if other.identity == part.identity), None)
        if same:
            gone.remove(same)
            come.remove(part)
    sentences = []
    # What looks the same was swapped for its like, and is named first so that others don't take its place.
    for same_looks in (True, False):
        for part in list(come):
            old = next((other for other in gone if not same_looks or other.looks == part.looks), None)
            if old is None:
                continue
            gone.remove(old)
            come.remove(part)
            other = f"another {part.text}" if old.looks == part.looks else part.text
            sentences.append(f"{kind} replaced: {old.text} by {other}.")
    sentences += [f"{kind} removed: {part.text}." for part in gone]
    return sentences + [f"{kind} added: {part.text}." for part in come]


def cpu_text(cpu: dict[str, Any]) -> str:
    sockets = f"{cpu['sockets']} x " if cpu["sockets"] > 1 else ""
    return f"{sockets}{cpu['model']} ({cpu['threads']} threads)"


def _compare_cpu(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    if before == after:
        return []
    if before["model"] == after["model"] and before["sockets"] == after["sockets"]:
        return [f"CPU: {after['threads']} threads in place of {before['threads']}."]
    return [f"CPU replaced: {cpu_text(before)} by {cpu_text(after)}."]


def _compare_memory(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    old, new = before["total_bytes"], after["total_bytes"]
    if before["modules"] and after["modules"]:
        parts = [[_module_part(row) for row in memory["modules"]] for memory in (before, after)]
        sentences = compare_parts("Memory module", *parts)
        if sentences and old != new:
            sentences.append(f"Memory: {size_text(new)} in place of {size_text(old)}.")
        speeds = [min((row["speed_mts"] or 0 for row in memory["modules"]), default=0) for memory in (before, after)]
        if not sentences and speeds[0] != speeds[1] and all(speeds):
            sentences.append(f"Memory now runs at {speeds[1]} MT/s in place of {speeds[0]} MT/s.")
        return sentences
    # Without modules on both sides the totals differ by what firmware and kernel keep.
    if abs(old - new) <= MEMORY_TOLERANCE * max(old, new):
        return []
    return [f"Memory: {size_text(new)} in place of {size_text(old)}."]


def compare(before: dict[str, Any], after: dict[str, Any]) -> dict[str, list[str]]:
    """Sentences by part. A part that can't be read now, or could not be read before, has not changed."""
    changes: dict[str, list[str]] = {}
    if before["gpus"] is not None and after["gpus"] is not None:
        changes["gpus"] = compare_parts(
            "GPU", [_gpu_part(row) for row in before["gpus"]], [_gpu_part(row) for row in after["gpus"]]
        )
    if before["cpu"] and after["cpu"]:
        changes["cpu"] = _compare_cpu(before["cpu"], after["cpu"])
    if before["memory"] and after["memory"]:
        changes["memory"] = _compare_memory(before["memory"], after["memory"])
    if before["disks"] is not None and after["disks"] is not None:
        changes["disks"] = compare_parts(
            "Disk", [_disk_part(row) for row in before["disks"]], [_disk_part(row) for row in after["disks"]]
        )
    return {part: sentences for part, sentences in changes.items() if sentences}


def fingerprint(profile: dict[str, Any]) -> str:
    """Of everything that makes the host this one. What a newer driver may tell more of is left out."""
    kept = copy.deepcopy({part: profile[part] for part in PARTS})
    for gpu in kept["gpus"] or []:
        gpu.pop("compute_capability")
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:16]


def merge(before: dict[str, Any] | None, after: dict[str, Any], changes: dict[str, list[str]]) -> dict[str, Any]:
    """What is kept: a part without changes stays as it was, so that tolerances do not add up."""
    kept = dict(after)
    for part in PARTS:
        if before is None or part in changes or before[part] is None:
            continue
        kept[part] = before[part]
    return {**kept, "fingerprint": fingerprint(kept)}


def parse_stored(text: str | None) -> dict[str, Any] | None:
    """The kept profile; None where there is none, or none of this format."""
    if not text:
        return None
    try:
        stored = from_json(text)
    except ValueError:
        return None
    if not isinstance(stored, dict) or stored.get("format") != FORMAT or not all(part in stored for part in PARTS):
        return None
    return stored if _can_be_compared(stored) else None


def _can_be_compared(stored: dict[str, Any]) -> bool:
    """Whether a profile has the form that comparing takes: all that it takes is taken out once."""
    try:
        compare(stored, stored)
        if stored["cpu"]:
            cpu_text(stored["cpu"])
        if stored["memory"]:
            size_text(stored["memory"]["total_bytes"] + 0)
    except WRONG_SHAPE:
        return False
    return True


def dump(profile: dict[str, Any]) -> str:
    return json.dumps(profile, indent=2, sort_keys=True) + "\n"


def decide(stored: dict[str, Any] | None, now: dict[str, Any]) -> dict[str, Any]:
    """status, changes (sentences), changed_parts, unknown_parts and the profile to keep."""
    changes = compare(stored, now) if stored else {}
    profile = merge(stored, now, changes)
    status = NEW if stored is None else CHANGED if changes else UNCHANGED
    return {
        "status": status,
        "changes": [sentence for part in PARTS for sentence in changes.get(part, [])],
        "changed_parts": [part for part in PARTS if part in changes],
        "unknown_parts": [part for part in PARTS if now[part] is None],
        "profile": profile,
        "fingerprint": profile["fingerprint"],
    }
