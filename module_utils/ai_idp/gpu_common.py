"""What the backends of gpu_info share: keys, values, fingerprints, and reading small files."""

from __future__ import annotations

import hashlib
from typing import Any

OK, NONE, UNKNOWN = "ok", "none", "unknown"
MIB = 1 << 20

GPU_KEYS = (
    "index",
    "name",
    "uuid",
    "pci_id",
    "architecture",
    "compute_capability",
    "memory_total_bytes",
    "memory_reserved_bytes",
    "memory_used_bytes",
    "memory_free_bytes",
    "memory_is_shared",
    "driver_version",
    "cuda_version",
    "vbios_version",
    "virtualization",
    "power_limit_watts",
    "power_limit_max_watts",
    "power_draw_watts",
    "temperature_celsius",
    "clock_sm_mhz",
    "clock_memory_mhz",
    "clock_sm_max_mhz",
    "clock_memory_max_mhz",
    "pcie_generation",
    "pcie_generation_max",
    "pcie_width",
    "pcie_width_max",
    "ecc_enabled",
    "mig_enabled",
    "mig_devices",
    "persistence_enabled",
    "throttle_reasons",
    "xid_errors",
    "processes",
    "fingerprint",
)


class AnswerError(ValueError):
    """The output can't be read, with a sentence that says why."""


def empty_gpu() -> dict[str, Any]:
    """A GPU that told nothing: every key is there, unknown values are None."""
    gpu: dict[str, Any] = dict.fromkeys(GPU_KEYS)
    return {**gpu, "mig_devices": [], "processes": []}


# GPUs without memory of their own, whose driver says "Not Supported" where others say how much they have.
UNIFIED_GPUS = ("GB10",)


def is_unified(name: str | None) -> bool:
    """Whether a GPU has the host's memory."""
    return any(part in (name or "").split() for part in UNIFIED_GPUS)


def first(*values: Any) -> Any:
    """The first value that is known: fields were renamed between driver branches."""
    return next((value for value in values if value is not None), None)


def fingerprint_of(*parts: object) -> str:
    """A short hash of what makes a piece of hardware this one."""
    joined = "\x1f".join("" if part is None else str(part) for part in parts)
    return hashlib.sha256(joined.encode()).hexdigest()[:16]


def card_fingerprint(uuid: str | None, name: str | None, device_id: str | None, total: int | None) -> str:
    """Of one card, the same from every backend.

    Slot, driver and settings may change while the card stays; the UUID is the card's own. nvidia-smi rounds
    memory down to MiB, so the others do here too.
    """
    plain = device_id.upper().removeprefix("0X") if device_id else None
    return fingerprint_of(uuid, name, plain, None if total is None else total // MIB * MIB)


def read_text(path: str) -> str | None:
    """A file's text, at most 1 MiB of it; None where it is not there or may not be read."""
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            return stream.read(1 << 20)
    except OSError:
        return None


def read_bytes(path: str) -> bytes | None:
    """A file's bytes, at most 1 MiB of them; None where it is not there or may not be read."""
    try:
        with open(path, "rb") as stream:
            return stream.read(1 << 20)
    except OSError:
        return None


def read_line(path: str) -> str | None:
    """The stripped text of a small file of /proc or /sys; None for what is missing or empty."""
    text = read_text(path)
    return (text.replace("\x00", "").strip() or None) if text is not None else None
