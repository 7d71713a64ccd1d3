"""GPUs through NVML, the management library that comes with the driver (``libnvidia-ml.so.1``), by ctypes.

No package is needed on the target. Names, layouts and numbers are those of ``nvml.h``. ``collect`` asks the
library and gives plain data, so that tests replay it; ``ask`` does that in a child process, because a call that
hangs in the driver, or a library that crashes, must not take the module with it.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import signal
import time
from collections.abc import Callable
from typing import Any

from ansible.module_utils.ai_idp.gpu_common import card_fingerprint, empty_gpu, is_unified

LIBRARY = "libnvidia-ml.so.1"
TIMED_OUT = "timeout"
CRASHED = "crashed"
NOT_LOADED = "library"

ERRORS = {
    1: "UNINITIALIZED",
    2: "INVALID_ARGUMENT",
    3: "NOT_SUPPORTED",
    4: "NO_PERMISSION",
    6: "NOT_FOUND",
    7: "INSUFFICIENT_SIZE",
    8: "INSUFFICIENT_POWER",
    9: "DRIVER_NOT_LOADED",
    10: "TIMEOUT",
    11: "IRQ_ISSUE",
    12: "LIBRARY_NOT_FOUND",
    13: "FUNCTION_NOT_FOUND",
    14: "CORRUPTED_INFOROM",
    15: "GPU_IS_LOST",
    16: "RESET_REQUIRED",
    17: "OPERATING_SYSTEM",
    18: "LIB_RM_VERSION_MISMATCH",
    19: "IN_USE",
    20: "MEMORY",
    21: "NO_DATA",
    999: "UNKNOWN",
}
# A value that a GPU does not have is null; these say that the GPU itself is not well.
BROKEN = ("GPU_IS_LOST", "RESET_REQUIRED", "IRQ_ISSUE", "INSUFFICIENT_POWER", "UNKNOWN")
FUNCTION_NOT_FOUND = 13
INSUFFICIENT_SIZE = 7
NOT_AVAILABLE_64 = (1 << 64) - 1
NOT_AVAILABLE_32 = (1 << 32) - 1

ARCHITECTURES = {
    2: "Kepler",
    3: "Maxwell",
    4: "Pascal",
    5: "Volta",
    6: "Turing",
    7: "Ampere",
    8: "Ada Lovelace",
    9: "Hopper",
    10: "Blackwell",
}
VIRTUALIZATION = {0: "None", 1: "Pass-Through", 2: "VGPU", 3: "Host VGPU", 4: "Host VSGA"}
# Bits of the reasons for lower clocks, by the names that nvidia-smi uses. Idleness (bit 0) is none.
THROTTLE_REASONS = {
    0x002: "applications_clocks_setting",
    0x004: "sw_power_cap",
    0x008: "hw_slowdown",
    0x010: "sync_boost",
    0x020: "sw_thermal_slowdown",
    0x040: "hw_thermal_slowdown",
    0x080: "hw_power_brake_slowdown",
    0x100: "display_clocks_setting",
}
CLOCK_SM, CLOCK_MEMORY = 1, 2
MAX_GPUS = 256
MAX_PROCESSES = 4096


class PciInfo(ctypes.Structure):
    """nvmlPciInfo_t, version 3."""

    _fields_ = (
        ("bus_id_legacy", ctypes.c_char * 16),
        ("domain", ctypes.c_uint),
        ("bus", ctypes.c_uint),
        ("device", ctypes.c_uint),
        ("device_id", ctypes.c_uint),
        ("subsystem_id", ctypes.c_uint),
        ("bus_id", ctypes.c_char * 32),
    )


class Memory(ctypes.Structure):
    """nvmlMemory_t; ``used`` counts what the driver keeps."""

    _fields_ = (("total", ctypes.c_ulonglong), ("free", ctypes.c_ulonglong), ("used", ctypes.c_ulonglong))


class MemoryV2(ctypes.Structure):
    """nvmlMemory_v2_t."""

    _fields_ = (
        ("version", ctypes.c_uint),
        ("total", ctypes.c_ulonglong),
        ("reserved", ctypes.c_ulonglong),
        ("free", ctypes.c_ulonglong),
        ("used", ctypes.c_ulonglong),
    )


class ProcessInfo(ctypes.Structure):
    """nvmlProcessInfo_t, versions 2 and 3."""

    _fields_ = (
        ("pid", ctypes.c_uint),
        ("used_memory", ctypes.c_ulonglong),
        ("gpu_instance", ctypes.c_uint),
        ("compute_instance", ctypes.c_uint),
    )


class NvmlError(Exception):
    """A call that did not succeed, with the library's code."""

    def __init__(self, function: str, code: int) -> None:
        super().__init__(f"{function}: {ERRORS.get(code, 'code')} ({code})")
        self.code = code
        self.name = ERRORS.get(code, str(code))


class Nvml:
    """The library's functions; one that this driver does not have is NVML_ERROR_FUNCTION_NOT_FOUND, as for NVML."""

    def __init__(self, library: Any) -> None:
        self._library = library

    def call(self, name: str, *arguments: Any) -> None:
        try:
            function = getattr(self._library, name)
        except AttributeError:
            raise NvmlError(name, FUNCTION_NOT_FOUND) from None
        function.restype = ctypes.c_int
        code = function(*arguments)
        if code:
            raise NvmlError(name, int(code))

    def text(self, name: str, *before: Any, size: int = 96) -> str:
        buffer = ctypes.create_string_buffer(size)
        self.call(name, *before, buffer, ctypes.c_uint(size))
        return buffer.value.decode("utf-8", "replace")

    def number(self, name: str, *before: Any, kind: Any = ctypes.c_uint) -> int:
        value = kind()
        self.call(name, *before, ctypes.byref(value))
        return int(value.value)

    def pair(self, name: str, device: Any, kind: Any = ctypes.c_uint) -> tuple[int, int]:
        one, two = kind(), kind()
        self.call(name, device, ctypes.byref(one), ctypes.byref(two))
        return int(one.value), int(two.value)


class _Reader:
    """Reads one device value by value: what is not supported is None, what is broken is remembered."""

    def __init__(self) -> None:
        self.broken: set[str] = set()

    def value(self, read: Callable[[], Any]) -> Any:
        try:
            return read()
        except NvmlError as error:
            if error.name in BROKEN:
                self.broken.add(error.name)
            return None

    def either(self, *reads: Callable[[], Any]) -> Any:
        """The first that is known: older drivers lack the newer functions."""
        return next((value for value in map(self.value, reads) if value is not None), None)


def _memory(nvml: Nvml, device: Any) -> dict[str, int | None]:
    try:
        two = MemoryV2(version=ctypes.sizeof(MemoryV2) | 2 << 24)
        nvml.call("nvmlDeviceGetMemoryInfo_v2", device, ctypes.byref(two))
        return {"total": two.total, "reserved": two.reserved, "used": two.used, "free": two.free}
    except NvmlError as error:
        if error.name in BROKEN:
            raise
    one = Memory()
    nvml.call("nvmlDeviceGetMemoryInfo", device, ctypes.byref(one))
    return {"total": one.total, "reserved": None, "used": one.used, "free": one.free}


def _pci(nvml: Nvml, device: Any) -> dict[str, str]:
    info = PciInfo()
    try:
        nvml.call("nvmlDeviceGetPciInfo_v3", device, ctypes.byref(info))
    except NvmlError as error:
        if error.code != FUNCTION_NOT_FOUND:
            raise
        nvml.call("nvmlDeviceGetPciInfo_v2", device, ctypes.byref(info))
    # Version 2 has no long address: the field stays empty there.
    address = info.bus_id or f"{info.domain:08X}:{info.bus:02X}:{info.device:02X}.0".encode()
    return {"bus_id": address.decode("ascii", "replace"), "device_id": f"{info.device_id:08X}"}


def _processes(nvml: Nvml, device: Any, kind: str) -> list[dict[str, Any]]:
    count = ctypes.c_uint(0)
    name = f"nvmlDeviceGet{kind}RunningProcesses"
    version = "_v3" if hasattr(nvml._library, name + "_v3") else "_v2"
    try:
        nvml.call(name + version, device, ctypes.byref(count), None)
    except NvmlError as error:
        if error.code != INSUFFICIENT_SIZE:
            raise
    if not count.value:
        return []
    # Programs may start between the two calls.
    room = min(count.value + 16, MAX_PROCESSES)
    rows, count = (ProcessInfo * room)(), ctypes.c_uint(room)
    nvml.call(name + version, device, ctypes.byref(count), rows)
    found = []
    for row in rows[: min(count.value, room)]:
        try:
            program = nvml.text("nvmlSystemGetProcessName", ctypes.c_uint(row.pid), size=1024)
        except NvmlError:
            program = ""
        used = None if row.used_memory == NOT_AVAILABLE_64 else int(row.used_memory)
        found.append({"pid": int(row.pid), "type": kind[0], "name": program or None, "used_memory_bytes": used})
    return found


def _mig_device(nvml: Nvml, handle: Any, index: int, reader: _Reader) -> dict[str, Any]:
    memory = reader.value(lambda: _memory(nvml, handle)) or {}
    return {
        "index": index,
        "gpu_instance_id": reader.value(lambda: nvml.number("nvmlDeviceGetGpuInstanceId", handle)),
        "compute_instance_id": reader.value(lambda: nvml.number("nvmlDeviceGetComputeInstanceId", handle)),
        "memory_total_bytes": memory.get("total"),
        "memory_used_bytes": memory.get("used"),
        "memory_free_bytes": memory.get("free"),
    }


def _mig_devices(nvml: Nvml, device: Any, reader: _Reader) -> list[dict[str, Any]]:
    found = []
    for index in range(reader.value(lambda: nvml.number("nvmlDeviceGetMaxMigDeviceCount", device)) or 0):
        handle = ctypes.c_void_p()
        try:
            nvml.call("nvmlDeviceGetMigDeviceHandleByIndex", device, ctypes.c_uint(index), ctypes.byref(handle))
        except NvmlError:
            # Free places between instances are NOT_FOUND.
            continue
        found.append(_mig_device(nvml, handle, index, reader))
    return found


def _device(nvml: Nvml, device: Any, index: int) -> dict[str, Any]:
    """One GPU as plain data, in the library's own units."""
    reader = _Reader()

    def number(name: str, *more: Any, kind: Any = ctypes.c_uint) -> int | None:
        found = reader.value(lambda: nvml.number(name, device, *more, kind=kind))
        return None if found in (NOT_AVAILABLE_32, NOT_AVAILABLE_64) else found

    def pair(name: str, kind: Any = ctypes.c_uint) -> tuple[int, int] | None:
        found: tuple[int, int] | None = reader.value(lambda: nvml.pair(name, device, kind))
        return found

    def clock(name: str, kind: int) -> int | None:
        return number(name, ctypes.c_int(kind))

    compute = reader.value(lambda: _processes(nvml, device, "Compute"))
    graphics = reader.value(lambda: _processes(nvml, device, "Graphics"))
    mig = pair("nvmlDeviceGetMigMode")
    row = {
        "index": index,
        "name": reader.value(lambda: nvml.text("nvmlDeviceGetName", device)),
        "uuid": reader.value(lambda: nvml.text("nvmlDeviceGetUUID", device)),
        "vbios": reader.value(lambda: nvml.text("nvmlDeviceGetVbiosVersion", device, size=32)),
        "pci": reader.value(lambda: _pci(nvml, device)),
        "memory": reader.value(lambda: _memory(nvml, device)),
        "architecture": number("nvmlDeviceGetArchitecture"),
        "compute_capability": pair("nvmlDeviceGetCudaComputeCapability", ctypes.c_int),
        "virtualization": number("nvmlDeviceGetVirtualizationMode"),
        "power_limit_mw": reader.either(
            lambda: nvml.number("nvmlDeviceGetEnforcedPowerLimit", device),
            lambda: nvml.number("nvmlDeviceGetPowerManagementLimit", device),
        ),
        "power_limits_mw": pair("nvmlDeviceGetPowerManagementLimitConstraints"),
        "power_draw_mw": number("nvmlDeviceGetPowerUsage"),
        "temperature": number("nvmlDeviceGetTemperature", ctypes.c_int(0)),
        "clock_sm": clock("nvmlDeviceGetClockInfo", CLOCK_SM),
        "clock_memory": clock("nvmlDeviceGetClockInfo", CLOCK_MEMORY),
        "clock_sm_max": clock("nvmlDeviceGetMaxClockInfo", CLOCK_SM),
        "clock_memory_max": clock("nvmlDeviceGetMaxClockInfo", CLOCK_MEMORY),
        "pcie_generation": number("nvmlDeviceGetCurrPcieLinkGeneration"),
        "pcie_generation_max": number("nvmlDeviceGetMaxPcieLinkGeneration"),
        "pcie_width": number("nvmlDeviceGetCurrPcieLinkWidth"),
        "pcie_width_max": number("nvmlDeviceGetMaxPcieLinkWidth"),
        "ecc": pair("nvmlDeviceGetEccMode"),
        "mig": mig,
        "mig_devices": _mig_devices(nvml, device, reader) if mig and mig[0] else [],
        "persistence": number("nvmlDeviceGetPersistenceMode"),
        "throttle": reader.either(
            lambda: nvml.number("nvmlDeviceGetCurrentClocksEventReasons", device, kind=ctypes.c_ulonglong),
            lambda: nvml.number("nvmlDeviceGetCurrentClocksThrottleReasons", device, kind=ctypes.c_ulonglong),
        ),
        "processes": (compute or []) + (graphics or []),
    }
    return {**row, "broken": sorted(reader.broken)}


def _cuda_version(nvml: Nvml) -> int:
    try:
        return nvml.number("nvmlSystemGetCudaDriverVersion_v2", kind=ctypes.c_int)
    except NvmlError:
        return nvml.number("nvmlSystemGetCudaDriverVersion", kind=ctypes.c_int)


def collect(library: Any) -> dict[str, Any]:
    """Everything the library tells. ``error`` is None, or ``[where, code, name]`` of what stopped it."""
    nvml = Nvml(library)
    answer: dict[str, Any] = {"error": None, "driver": None, "cuda": None, "gpus": [], "lost": []}
    try:
        nvml.call("nvmlInit_v2")
    except NvmlError as error:
        return {**answer, "error": ["nvmlInit_v2", error.code, error.name]}
    try:
        reader = _Reader()
        answer["driver"] = reader.value(lambda: nvml.text("nvmlSystemGetDriverVersion", size=80))
        answer["cuda"] = reader.value(lambda: _cuda_version(nvml))
        count = min(nvml.number("nvmlDeviceGetCount_v2"), MAX_GPUS)
        for index in range(count):
            handle = ctypes.c_void_p()
            try:
                nvml.call("nvmlDeviceGetHandleByIndex_v2", ctypes.c_uint(index), ctypes.byref(handle))
            except NvmlError as error:
                answer["lost"].append([index, error.code, error.name])
                continue
            answer["gpus"].append(_device(nvml, handle, index))
    except NvmlError as error:
        answer["error"] = ["nvmlDeviceGetCount_v2", error.code, error.name]
    finally:
        # Everything has been read, and the process ends anyway.
        with contextlib.suppress(NvmlError):
            nvml.call("nvmlShutdown")
    return answer


def _failed(code: str, text: str) -> dict[str, Any]:
    return {"error": [code, None, text], "driver": None, "cuda": None, "gpus": [], "lost": []}


def load_and_collect(path: str) -> dict[str, Any]:
    try:
        library = ctypes.CDLL(path)
    except OSError as error:
        return _failed(NOT_LOADED, str(error))
    return collect(library)


def _read_until(descriptor: int, until: float) -> bytes | None:
    """All that is written before the other end closes; None when the time is up first."""
    data = b""
    while True:
        left = until - time.monotonic()
        if left <= 0 or not select.select([descriptor], [], [], left)[0]:
            return None
        part = os.read(descriptor, 1 << 16)
        if not part:
            return data
        data += part


def ask(path: str, timeout: float) -> dict[str, Any]:
    """``collect`` in a child process that is left behind when it hangs or crashes."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setsid()
            os.close(reading)
            null = os.open(os.devnull, os.O_RDWR)
            # A child that hangs in the driver must not hold the module's output open.
            for descriptor in (0, 1, 2):
                os.dup2(null, descriptor)
            with os.fdopen(writing, "wb") as stream:
                stream.write(json.dumps(load_and_collect(path)).encode())
        finally:
            os._exit(0)
    os.close(writing)
    try:
        data = _read_until(reading, time.monotonic() + timeout)
    finally:
        os.close(reading)
    if data is None:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, os.WNOHANG)
        return _failed(TIMED_OUT, f"NVML did not answer within {timeout:g} seconds")
    _, status = os.waitpid(child, 0)
    if not data:
        how = f"signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else "no answer"
        return _failed(CRASHED, f"NVML ended with {how}")
    found: dict[str, Any] = json.loads(data)
    return found


def _watts(milliwatts: int | None) -> float | None:
    return None if milliwatts is None else round(milliwatts / 1000, 2)


def _enabled(value: Any) -> bool | None:
    state = value[0] if isinstance(value, (list, tuple)) else value
    return None if state is None else bool(state)


def cuda_text(version: int | None) -> str | None:
    """13000 is 13.0."""
    return None if not version else f"{version // 1000}.{version % 1000 // 10}"


def parse_gpu(answer: dict[str, Any], row: dict[str, Any]) -> dict[str, Any]:
    """One GPU under the keys of gpu_info."""
    memory, pci = row["memory"] or {}, row["pci"] or {}
    capability, limits = row["compute_capability"], row["power_limits_mw"]
    throttle = row["throttle"]
    total = memory.get("total")
    virtualization = VIRTUALIZATION.get(row["virtualization"])
    reasons = None
    if throttle is not None:
        reasons = [name for bit, name in THROTTLE_REASONS.items() if throttle & bit]
    return {
        **empty_gpu(),
        "index": row["index"],
        "name": row["name"],
        "uuid": row["uuid"],
        "pci_id": pci.get("bus_id"),
        "architecture": ARCHITECTURES.get(row["architecture"]),
        "compute_capability": f"{capability[0]}.{capability[1]}" if capability else None,
        "memory_total_bytes": total,
        "memory_reserved_bytes": memory.get("reserved"),
        "memory_used_bytes": memory.get("used"),
        "memory_free_bytes": memory.get("free"),
        "memory_is_shared": is_unified(row["name"]),
        "driver_version": answer["driver"],
        "cuda_version": cuda_text(answer["cuda"]),
        "vbios_version": row["vbios"],
        # nvidia-smi's "None" is no value there either.
        "virtualization": None if virtualization == "None" else virtualization,
        "power_limit_watts": _watts(row["power_limit_mw"]),
        "power_limit_max_watts": _watts(limits[1]) if limits else None,
        "power_draw_watts": _watts(row["power_draw_mw"]),
        "temperature_celsius": row["temperature"],
        "clock_sm_mhz": row["clock_sm"],
        "clock_memory_mhz": row["clock_memory"],
        "clock_sm_max_mhz": row["clock_sm_max"],
        "clock_memory_max_mhz": row["clock_memory_max"],
        "pcie_generation": row["pcie_generation"],
        "pcie_generation_max": row["pcie_generation_max"],
        "pcie_width": row["pcie_width"],
        "pcie_width_max": row["pcie_width_max"],
        "ecc_enabled": _enabled(row["ecc"]),
        "mig_enabled": _enabled(row["mig"]),
        "mig_devices": row["mig_devices"],
        "persistence_enabled": _enabled(row["persistence"]),
        "throttle_reasons": reasons,
        "processes": row["processes"],
        "fingerprint": card_fingerprint(row["uuid"], row["name"], pci.get("device_id"), total),
    }


def parse_nvml(answer: dict[str, Any]) -> tuple[list[dict[str, Any]], list[str]]:
    """All GPUs of an answer and messages about those that do not, or only in part, answer."""
    gpus, messages = [], []
    for row in answer["gpus"]:
        gpu = parse_gpu(answer, row)
        gpus.append(gpu)
        if row["broken"]:
            messages.append(
                f"GPU {gpu['index']} ({gpu['name'] or gpu['pci_id']}) answers only in part: NVML says "
                f"{', '.join(row['broken'])}. Look for Xid errors in `journalctl -k`, then reset the GPU or restart "
                "the host."
            )
    for index, code, name in answer["lost"]:
        messages.append(
            f"GPU {index} does not answer any more: NVML says {name} ({code}). Look for Xid errors in "
            "`journalctl -k`, check its power and seat, and restart the host."
        )
    return gpus, messages
