#!/usr/bin/python3
"""Tells load, power and temperatures of a Jetson to the node exporter. Made by Ansible (role jetson_platform).

    jetson_metrics.py ROOT RECORD TEXTFILE SECONDS    writes TEXTFILE again and again; SECONDS 0 writes it once

Everything is read from the kernel's own files under ROOT/sys; a sensor that is not there or is off is left out.
"""

import json
import sys
import time
from pathlib import Path

GPU_CLOCKS = ("*.gpu", "*.ga10b", "*.gv11b")
# A sensor that is off shows -256.
OFF_BELOW_CELSIUS = -200
HELP = {
    "ai_idp_jetson_info": "What the board is and how it is set, as recorded by the last run.",
    "ai_idp_jetson_gpu_utilization_ratio": "Load of the GPU, from 0 to 1.",
    "ai_idp_jetson_gpu_clock_hertz": "Clock of the GPU now.",
    "ai_idp_jetson_power_watts": "Power that a rail takes; VDD_IN is the whole board.",
    "ai_idp_jetson_temperature_celsius": "Temperature of a part of the chip.",
}


def number(path):
    """Return the whole number in a file; None where there is none or it can't be read."""
    try:
        return int(path.read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return None


def text(path):
    """Return the first line of a file without its end; empty where it can't be read."""
    try:
        return path.read_text(errors="replace").replace("\x00", "").strip()
    except OSError:
        return ""


def gpu(root):
    """Yield load and clock of the GPU; the kernel gives the load in thousandths."""
    for pattern in GPU_CLOCKS:
        for folder in sorted((root / "sys/class/devfreq").glob(pattern)):
            load, clock = number(folder / "device/load"), number(folder / "cur_freq")
            if load is not None:
                yield "ai_idp_jetson_gpu_utilization_ratio", {}, load / 1000
            if clock is not None:
                yield "ai_idp_jetson_gpu_clock_hertz", {}, clock


def power(root):
    """Yield the power of each rail of the board's INA3221, from millivolt and milliampere."""
    for label in sorted((root / "sys/bus/i2c/drivers/ina3221").glob("*/hwmon/hwmon*/in*_label")):
        rail, channel = text(label), label.name.removeprefix("in").removesuffix("_label")
        volts, amperes = number(label.with_name(f"in{channel}_input")), number(label.with_name(f"curr{channel}_input"))
        # NC is not connected, and the seventh a sum of other things.
        if rail and rail != "NC" and "sum" not in rail and volts is not None and amperes is not None:
            yield "ai_idp_jetson_power_watts", {"rail": rail}, volts * amperes / 1_000_000


def temperatures(root):
    """Yield the temperature of each zone."""
    for zone in sorted((root / "sys/class/thermal").glob("thermal_zone*")):
        name, millidegrees = text(zone / "type"), number(zone / "temp")
        if name and millidegrees is not None and millidegrees > OFF_BELOW_CELSIUS * 1000:
            yield "ai_idp_jetson_temperature_celsius", {"zone": name}, millidegrees / 1000


def board(record):
    """Yield what the last run recorded."""
    try:
        known = json.loads(record.read_text())
    except (OSError, ValueError, RecursionError):
        return
    if not isinstance(known, dict):
        return
    names = ("model", "release", "release_verdict", "power_mode", "clocks_locked")
    yield "ai_idp_jetson_info", {name: str(known.get(name)) for name in names}, 1


def escaped(value):
    """Return a label's value as the format wants it."""
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def exposition(root, record):
    """Return all figures in Prometheus' text format."""
    lines, told = [], set()
    for source in (board(record), gpu(root), power(root), temperatures(root)):
        for name, labels, value in source:
            if name not in told:
                told.add(name)
                lines += [f"# HELP {name} {HELP[name]}", f"# TYPE {name} gauge"]
            inside = ",".join(f'{key}="{escaped(label)}"' for key, label in labels.items())
            lines.append(f"{name}{{{inside}}} {value:g}" if inside else f"{name} {value:.10g}")
    return "\n".join([*lines, ""])


def main():
    """Write the figures, beside the file first: half a file is never read."""
    root, record, target, seconds = Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), float(sys.argv[4])
    beside = target.with_suffix(".tmp")
    while True:
        # Half a character in the record is none in a text.
        beside.write_text(exposition(root, record), encoding="utf-8", errors="replace")
        beside.chmod(0o644)
        beside.replace(target)
        if not seconds:
            return
        time.sleep(seconds)


if __name__ == "__main__":
    main()
