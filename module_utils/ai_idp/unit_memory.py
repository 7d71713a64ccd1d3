"""How much memory services may have: what is free now, and what they hold themselves, which a restart gives back.

A service's own part is memory of its own: its mapped files (a model's weights) are counted as available by the kernel
already. On a Jetson what it holds through NvMap belongs to no process and is read from the kernel's list of clients.
"""

from __future__ import annotations

import os
import re
from typing import Any

from ansible.module_utils.ai_idp.gpu_common import read_text
from ansible.module_utils.ai_idp.gpu_jetson import meminfo_bytes

NVMAP_CLIENTS = "sys/kernel/debug/nvmap/iovmm/clients"
_CLIENT = re.compile(r"^\S+\s+\S.*?\s+(\d+)\s+(\d+)([KMG]?)\s*$")
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


def unit_of(cgroup: str) -> str | None:
    """The service that a process belongs to, from ``/proc/PID/cgroup`` of either version of cgroups."""
    for line in cgroup.splitlines():
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if controllers in ("", "name=systemd"):
            services = [part for part in path.split("/") if part.endswith(".service")]
            if services:
                return services[-1]
    return None


def own_bytes(status: str) -> int:
    """Memory that belongs to the process alone or that it shares without a file: RssAnon and RssShmem."""
    sizes = meminfo_bytes(status)
    return sizes.get("RssAnon", 0) + sizes.get("RssShmem", 0)


def nvmap_bytes(clients: str | None) -> dict[int, int]:
    """Bytes by process id, of lines such as ``user  llama-server  4711  1843200K``."""
    held: dict[int, int] = {}
    for line in (clients or "").splitlines():
        found = _CLIENT.match(line)
        if found:
            pid, size, unit = int(found.group(1)), int(found.group(2)), found.group(3)
            held[pid] = held.get(pid, 0) + size * _UNITS[unit]
    return held


def processes_of(root: str, units: list[str]) -> dict[int, str]:
    """Process ids of these services."""
    found: dict[int, str] = {}
    for name in os.listdir(os.path.join(root, "proc")):
        unit = unit_of(read_text(os.path.join(root, "proc", name, "cgroup")) or "") if name.isdigit() else None
        if unit in units:
            found[int(name)] = str(unit)
    return found


def gpu_rows(gpus: list[dict[str, Any]], pids: set[int]) -> list[dict[str, Any]]:
    """The GPUs as model_fit takes them: ``other_processes_bytes`` is what others than these processes hold.

    What no process is told to hold is counted as of others, so that too little is promised, never too much.
    """
    rows = []
    for gpu in gpus:
        used = gpu.get("memory_used_bytes")
        own = sum(
            process.get("used_memory_bytes") or 0
            for process in gpu.get("processes") or []
            if process.get("pid") in pids
        )
        rows.append({**gpu, "other_processes_bytes": max(0, used - own) if used is not None else 0})
    return rows


def describe(root: str, units: list[str], gpus: list[dict[str, Any]]) -> dict[str, Any]:
    """Memory of host and GPUs that these services may have together.

    :param root: folder under which ``/proc`` and ``/sys`` are.
    :param units: names such as ``edge-inference.service``.
    :param gpus: as gpu_info gives them.
    """
    sizes = meminfo_bytes(read_text(os.path.join(root, "proc/meminfo")) or "")
    processes = processes_of(root, units)
    nvmap = nvmap_bytes(read_text(os.path.join(root, NVMAP_CLIENTS)))
    held = dict.fromkeys(units, 0)
    for pid, unit in processes.items():
        held[unit] += own_bytes(read_text(os.path.join(root, "proc", str(pid), "status")) or "") + nvmap.get(pid, 0)
    total, available = sizes.get("MemTotal"), sizes.get("MemAvailable")
    usable = None if total is None or available is None else min(total, available + sum(held.values()))
    rows = gpu_rows(gpus, set(processes))
    for row in rows:
        # One memory for both.
        if row.get("memory_is_shared") and usable is not None and total is not None:
            row["memory_total_bytes"] = total
            row["other_processes_bytes"] = total - usable
    return {
        "memory_total_bytes": total,
        "memory_available_bytes": available,
        "usable_bytes": usable,
        "held_bytes": held,
        "gpus": rows,
    }
