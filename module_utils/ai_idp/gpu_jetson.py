"""The GPU of a Jetson: device tree, ``/proc``, ``/sys`` and one line of tegrastats. NVML is not there."""

from __future__ import annotations

import glob
import os
import re
from dataclasses import dataclass
from typing import Any

from ansible.module_utils.ai_idp.gpu_common import empty_gpu, fingerprint_of, read_line, read_text
from ansible.module_utils.ai_idp.programs import run

# Part of the device tree's model: (architecture, compute capability), from NVIDIA's list of CUDA GPUs.
_JETSONS = {"Orin": ("Ampere", "8.7"), "Xavier": ("Volta", "7.2"), "Thor": ("Blackwell", "11.0")}


@dataclass
class JetsonProbe:
    """What was read from a Jetson; None is what is not there."""

    model: str = ""
    serial: str | None = None
    meminfo: str | None = None
    release: str | None = None
    tegrastats: str | None = None
    power_mode: str | None = None
    gpu_temperature: str | None = None
    gpu_clock: str | None = None
    gpu_clock_max: str | None = None


def meminfo_bytes(meminfo: str) -> dict[str, int]:
    sizes = {}
    for line in meminfo.splitlines():
        key, _, rest = line.partition(":")
        parts = rest.split()
        if len(parts) == 2 and parts[0].isdigit() and parts[1] == "kB":
            sizes[key.strip()] = int(parts[0]) * 1024
    return sizes


def parse_tegrastats(line: str) -> dict[str, Any]:
    """Temperature, clock and power draw of one line.

    Such as ``GR3D_FREQ 0%@[305] ... gpu@45.5C ... VDD_IN 4808mW/4808mW``: clock in MHz, and the board's power now
    before its mean.
    """
    clock = re.search(r"GR3D_FREQ \d+%@\[?(\d+)", line)
    heat = re.search(r"\bgpu@(-?\d+(?:\.\d+)?)C", line, re.IGNORECASE)
    power = re.search(r"\b(?:VDD_IN|POM_5V_IN) (\d+)(?:mW)?/", line)
    return {
        "clock_sm_mhz": int(clock.group(1)) if clock else None,
        # A sensor that is off shows -256.
        "temperature_celsius": int(float(heat.group(1))) if heat and float(heat.group(1)) > -200 else None,
        "power_draw_watts": int(power.group(1)) / 1000 if power else None,
    }


def power_limit(nvpmodel: str) -> float | None:
    """The watts in the name of the power mode (``NV Power Mode: 25W``); MAXN has no limit of its own."""
    mode = re.search(r"NV Power Mode:\s*(?:MODE_)?(\d+)W", nvpmodel)
    return float(mode.group(1)) if mode else None


def _scaled(text: str | None, divisor: int) -> int | None:
    return int(text) // divisor if text and text.lstrip("-").isdigit() else None


def parse_jetson(probe: JetsonProbe) -> dict[str, Any]:
    """A Jetson's GPU: it has no memory of its own, so the host's counts."""
    model = probe.model.replace("\x00", "").strip()
    sizes = meminfo_bytes(probe.meminfo or "")
    total, free = sizes.get("MemTotal"), sizes.get("MemAvailable")
    architecture, capability = next((found for part, found in _JETSONS.items() if part in model), (None, None))
    release = re.search(r"R(\d+)\D+REVISION:\s*([\d.]+)", probe.release or "")
    serial = (probe.serial or "").replace("\x00", "").strip() or None
    # The kernel's own needs change MemTotal a little from release to release; the module's size does not.
    size = None if total is None else round(total / (1 << 30))
    stats = parse_tegrastats(probe.tegrastats or "")
    heat, clock = _scaled(probe.gpu_temperature, 1000), _scaled(probe.gpu_clock, 1_000_000)
    return {
        **empty_gpu(),
        "index": 0,
        "name": model,
        "architecture": architecture,
        "compute_capability": capability,
        "memory_total_bytes": total,
        "memory_used_bytes": None if total is None or free is None else total - free,
        "memory_free_bytes": free,
        "memory_is_shared": True,
        "driver_version": f"L4T {release.group(1)}.{release.group(2)}" if release else None,
        "power_limit_watts": power_limit(probe.power_mode or ""),
        "power_draw_watts": stats["power_draw_watts"],
        "temperature_celsius": stats["temperature_celsius"] if heat is None else heat,
        "clock_sm_mhz": stats["clock_sm_mhz"] if clock is None else clock,
        "clock_sm_max_mhz": _scaled(probe.gpu_clock_max, 1_000_000),
        "fingerprint": fingerprint_of(model, serial, size),
    }


def is_jetson(model: str | None) -> bool:
    return "jetson" in (model or "").lower()


def _thermal_zone(root: str) -> str | None:
    """Millidegrees of the zone that JetPack calls gpu-thermal (6) or GPU-therm (5)."""
    for zone in sorted(glob.glob(os.path.join(root, "sys/class/thermal/thermal_zone*"))):
        if (read_line(os.path.join(zone, "type")) or "").lower() in ("gpu-thermal", "gpu-therm"):
            return read_line(os.path.join(zone, "temp"))
    return None


def _devfreq(root: str) -> str | None:
    """The folder of the GPU's clocks, ``17000000.gpu`` or ``17000000.ga10b``."""
    for pattern in ("*.gpu", "*.ga10b", "*.gv11b", "*.gpusysfs"):
        found = sorted(glob.glob(os.path.join(root, "sys/class/devfreq", pattern)))
        if found:
            return found[0]
    return None


def _first_line(program: str, timeout: float) -> str | None:
    """One line of tegrastats, which prints for ever: it is stopped after the time it needs for one."""
    answer = run([program, "--interval", "100"], min(timeout, 1.0))
    lines = answer.output.splitlines()
    return lines[0] if lines and answer.rc in (None, 0) else None


def probe_jetson(root: str, timeout: float, tegrastats: str | None = None, nvpmodel: str | None = None) -> JetsonProbe:
    """Reads a Jetson; the programs' paths are None where they are not installed."""
    clocks = _devfreq(root)
    mode = run([nvpmodel, "-q"], timeout) if nvpmodel else None
    return JetsonProbe(
        model=read_text(os.path.join(root, "proc/device-tree/model")) or "",
        serial=read_text(os.path.join(root, "proc/device-tree/serial-number")),
        meminfo=read_text(os.path.join(root, "proc/meminfo")),
        release=read_text(os.path.join(root, "etc/nv_tegra_release")),
        tegrastats=_first_line(tegrastats, timeout) if tegrastats else None,
        power_mode=mode.output if mode and mode.rc == 0 else None,
        gpu_temperature=_thermal_zone(root),
        gpu_clock=read_line(os.path.join(clocks, "cur_freq")) if clocks else None,
        gpu_clock_max=read_line(os.path.join(clocks, "max_freq")) if clocks else None,
    )
