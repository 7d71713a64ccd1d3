"""A Jetson as a platform: L4T release and what is known about it, power modes, clocks, swap.

Its GPU is read by ``gpu_jetson``. Everything is read under ``root``, so that a recorded machine can be replayed; None
is always "can't tell".
"""

from __future__ import annotations

import glob
import os
import re
from dataclasses import asdict, dataclass, field
from typing import Any

from ansible.module_utils.ai_idp.gpu_common import read_line, read_text
from ansible.module_utils.ai_idp.gpu_jetson import is_jetson, meminfo_bytes, parse_jetson, probe_jetson
from ansible.module_utils.ai_idp.programs import run

KNOWN_BAD, OLD, NO_KNOWN_PROBLEM, UNKNOWN = "known_bad", "old", "no_known_problem", "unknown"

# Releases that were seen to fail, why, and what to do. A release that is not here was not shown to be good: the real
# allocation tells.
BAD_RELEASES = {
    "36.4.7": (
        "its fix of CVE-2025-33177 caps what NvMap gives: CUDA is refused blocks with "
        '"NvMapMemAllocInternalTagged ... error 12" long before memory is full (llama.cpp discussion 16706)',
        "Upgrade to L4T 36.5 (JetPack 6.2.2) or later; until then a restart of the board gives the largest blocks.",
    ),
}
# JetPack 6.2, the first with the 25 W and MAXN_SUPER modes of the Orin Nano.
FIRST_SUPER_RELEASE = "36.4.3"
OLDEST_RELEASE = "36"

CONFIGURATION = "etc/nvpmodel.conf"
_MODE = re.compile(r"^<\s*POWER_MODEL\s+ID=(\d+)\s+NAME=(\S+)\s*>", re.MULTILINE)
_DEFAULT = re.compile(r"^<\s*PM_CONFIG\s+DEFAULT=(\d+)\s*>", re.MULTILINE)
_CURRENT = re.compile(r"NV Power Mode:\s*(\S+)\s+(\d+)")
REBOOT_NEEDED = re.compile(r"reboot required", re.IGNORECASE)


@dataclass(frozen=True)
class PowerMode:
    """A mode of nvpmodel. Numbers differ between boards and releases, so users name modes."""

    id: int
    name: str


@dataclass(frozen=True)
class Judgement:
    """What is known about a release."""

    verdict: str
    reason: str
    remedy: str = ""


@dataclass
class ClockRange:
    """What a clock may do now; jetson_clocks sets both ends to the same."""

    name: str
    least: int
    most: int


@dataclass
class State:
    """Power mode, clocks and swap as they are; None is what can't be told."""

    modes: list[PowerMode] = field(default_factory=list)
    mode: PowerMode | None = None
    boot_mode: PowerMode | None = None
    clocks: list[ClockRange] = field(default_factory=list)

    @property
    def clocks_locked(self) -> bool | None:
        """All clocks stand at their highest; None where none can be read."""
        return all(clock.least == clock.most for clock in self.clocks) if self.clocks else None


# --- L4T release ------------------------------------------------------------------------------------


def version_key(release: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", release))


def file_release(text: str | None) -> str | None:
    """``# R36 (release), REVISION: 4.7, ...`` is 36.4.7."""
    found = re.search(r"R(\d+)\D+REVISION:\s*(\d+(?:\.\d+)*)", text or "")
    return f"{found.group(1)}.{found.group(2)}" if found else None


def package_release(version: str | None) -> str | None:
    """``36.4.7-20250918154033`` of nvidia-l4t-core is 36.4.7."""
    found = re.match(r"\d+(?:\.\d+)+", version or "")
    return found.group(0) if found else None


def judge_release(release: str | None) -> Judgement:
    """What is known about an L4T release."""
    if release is None:
        return Judgement(
            UNKNOWN,
            "neither /etc/nv_tegra_release nor the package nvidia-l4t-core tells the L4T release",
            "Flash the board with JetPack 6.2 or later.",
        )
    if release in BAD_RELEASES:
        return Judgement(KNOWN_BAD, *BAD_RELEASES[release])
    if version_key(release) < version_key(OLDEST_RELEASE):
        return Judgement(OLD, "it is older than JetPack 6 (L4T 36)", "Flash the board with JetPack 6.2 or later.")
    if version_key(release) < version_key(FIRST_SUPER_RELEASE):
        return Judgement(
            OLD,
            f"it is older than JetPack 6.2 (L4T {FIRST_SUPER_RELEASE}), which brought the faster Super modes",
            "Upgrade to L4T 36.5 (JetPack 6.2.2) or later.",
        )
    return Judgement(NO_KNOWN_PROBLEM, "nothing is known against it; the real allocation tells")


def release_of(root: str, package: str | None) -> tuple[str | None, list[str]]:
    """The release by file and package, and what is odd about it. A half-done upgrade shows in their difference."""
    by_file = file_release(read_text(os.path.join(root, "etc/nv_tegra_release")))
    by_package = package_release(package)
    if by_file and by_package and version_key(by_file) != version_key(by_package):
        return by_package, [
            f"/etc/nv_tegra_release says L4T {by_file}, the package nvidia-l4t-core {by_package}: an upgrade was not "
            "finished. Run `apt-get dist-upgrade` and restart the board."
        ]
    return by_file or by_package, []


# --- power modes and clocks -------------------------------------------------------------------------


def parse_modes(text: str | None) -> tuple[list[PowerMode], int | None]:
    """The modes of nvpmodel.conf and the number of the one that the board boots into first."""
    modes = [PowerMode(int(number), name) for number, name in _MODE.findall(text or "")]
    default = _DEFAULT.search(text or "")
    return modes, int(default.group(1)) if default else None


def parse_current(text: str | None) -> PowerMode | None:
    """``nvpmodel -q``: the name behind ``NV Power Mode:`` and the number in the next line."""
    found = _CURRENT.search(text or "")
    return PowerMode(int(found.group(2)), found.group(1)) if found else None


def plain_name(name: str) -> str:
    """``MODE_25W``, ``25w`` and ``25W`` are one mode, ``MAXN SUPER`` and ``MAXN_SUPER`` another."""
    return "_".join(name.upper().split()).removeprefix("MODE_")


def find_mode(wanted: str, modes: list[PowerMode]) -> PowerMode | None:
    return next((mode for mode in modes if plain_name(mode.name) == plain_name(wanted)), None)


def mode_problem(variable: str, wanted: str, modes: list[PowerMode]) -> str:
    """One sentence about a mode that the board does not have; empty where it has it."""
    if find_mode(wanted, modes):
        return ""
    if not modes:
        return f"{variable} is '{wanted}', but this board has no power modes: /{CONFIGURATION} names none."
    names = ", ".join(mode.name for mode in modes)
    return f"{variable} is '{wanted}', which this board does not have. Set one of {names}."


def clock_ranges(root: str) -> list[ClockRange]:
    """The clocks of processors and GPU that jetson_clocks holds at their highest."""
    places = [
        (path, "scaling_min_freq", "scaling_max_freq")
        for path in sorted(glob.glob(os.path.join(root, "sys/devices/system/cpu/cpufreq/policy*")))
    ]
    for pattern in ("*.gpu", "*.ga10b", "*.gv11b"):
        found = sorted(glob.glob(os.path.join(root, "sys/class/devfreq", pattern)))
        places += [(path, "min_freq", "max_freq") for path in found]
    ranges = []
    for path, least, most in places:
        ends = [read_line(os.path.join(path, name)) for name in (least, most)]
        if all(end and end.isdigit() for end in ends):
            ranges.append(ClockRange(os.path.basename(path), *(int(end) for end in ends if end)))
    return ranges


def read_state(root: str, timeout: float, nvpmodel: str | None) -> State:
    modes, default = parse_modes(read_text(os.path.join(root, CONFIGURATION)))
    answer = run([nvpmodel, "-q"], timeout) if nvpmodel else None
    current = parse_current(answer.output) if answer and answer.rc == 0 else None
    if current:
        # The configuration's own spelling, where it has the mode.
        current = next((mode for mode in modes if mode.id == current.id), current)
    return State(modes, current, next((mode for mode in modes if mode.id == default), None), clock_ranges(root))


# --- swap -------------------------------------------------------------------------------------------


def parse_swaps(text: str | None) -> list[dict[str, Any]]:
    """``/proc/swaps``: name, kind (zram, partition or file), size_bytes and used_bytes."""
    swaps = []
    for line in (text or "").splitlines()[1:]:
        parts = line.split()
        if len(parts) >= 4 and parts[2].isdigit() and parts[3].isdigit():
            kind = "zram" if "zram" in parts[0] else parts[1]
            sizes = {"size_bytes": int(parts[2]) * 1024, "used_bytes": int(parts[3]) * 1024}
            swaps.append({"name": parts[0], "kind": kind, **sizes})
    return swaps


# --- the whole answer -------------------------------------------------------------------------------


def describe(
    root: str,
    timeout: float,
    package: str | None,
    nvpmodel: str | None = None,
    tegrastats: str | None = None,
) -> dict[str, Any]:
    """What ``jetson_info`` gives back; a host that is no Jetson has the same keys, with nothing in them."""
    answer: dict[str, Any] = {
        "is_jetson": is_jetson(read_text(os.path.join(root, "proc/device-tree/model"))),
        "model": None,
        "compute_capability": None,
        "release": None,
        "release_verdict": None,
        "release_reason": None,
        "release_remedy": None,
        "power_mode": None,
        "power_modes": [],
        "boot_power_mode": None,
        "clocks_locked": None,
        "clocks": [],
        "memory_total_bytes": None,
        "memory_available_bytes": None,
        "swaps": [],
        "fingerprint": None,
        "messages": [],
    }
    if not answer["is_jetson"]:
        return answer
    gpu = parse_jetson(probe_jetson(root, timeout, tegrastats, nvpmodel))
    release, messages = release_of(root, package)
    judgement, state = judge_release(release), read_state(root, timeout, nvpmodel)
    sizes = meminfo_bytes(read_text(os.path.join(root, "proc/meminfo")) or "")
    if judgement.verdict != NO_KNOWN_PROBLEM:
        messages.append(f"L4T {release or 'unknown'}: {judgement.reason}. {judgement.remedy}")
    return {
        **answer,
        "model": gpu["name"],
        "compute_capability": gpu["compute_capability"],
        "release": release,
        "release_verdict": judgement.verdict,
        "release_reason": judgement.reason,
        "release_remedy": judgement.remedy,
        "power_mode": state.mode.name if state.mode else None,
        "power_modes": [mode.name for mode in state.modes],
        "boot_power_mode": state.boot_mode.name if state.boot_mode else None,
        "clocks_locked": state.clocks_locked,
        "clocks": [asdict(clock) for clock in state.clocks],
        "memory_total_bytes": sizes.get("MemTotal"),
        "memory_available_bytes": sizes.get("MemAvailable"),
        "swaps": parse_swaps(read_text(os.path.join(root, "proc/swaps"))),
        "fingerprint": gpu["fingerprint"],
        "messages": messages,
    }
