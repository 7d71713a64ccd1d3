"""GPUs of a host: which backend answers, and the one answer made of what it and the host say.

``Probe`` holds everything that is read from the machine, so that tests replay captured outputs. The backends
are ``gpu_nvml``, ``gpu_smi`` and ``gpu_jetson``; ``gpu_host`` reads the PCI bus and the kernel's log.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any

from ansible.module_utils.ai_idp import gpu_host, gpu_jetson, gpu_nvml
from ansible.module_utils.ai_idp.gpu_common import (
    GPU_KEYS,
    NONE,
    OK,
    UNKNOWN,
    AnswerError,
    empty_gpu,
    fingerprint_of,
    read_text,
)
from ansible.module_utils.ai_idp.gpu_host import nvidia_pci_devices
from ansible.module_utils.ai_idp.gpu_jetson import JetsonProbe
from ansible.module_utils.ai_idp.gpu_smi import add_compute_capabilities, parse_smi, parse_xml
from ansible.module_utils.ai_idp.programs import Answer, run

__all__ = [
    "BACKENDS",
    "GPU_KEYS",
    "PROBE_ARGUMENTS",
    "Answer",
    "AnswerError",
    "JetsonProbe",
    "Probe",
    "Tools",
    "describe",
    "fingerprint_of",
    "nvidia_pci_devices",
    "parse_xml",
    "probe_machine",
    "replay",
    "run",
    "tools_of",
]

BACKENDS = ("auto", "nvml", "nvidia-smi", "jetson")


@dataclass
class Tools:
    """Where the programs and the library are; None is what is not installed or not to be used."""

    nvidia_smi: str | None = None
    nvml_library: str | None = None
    journalctl: str | None = None
    tegrastats: str | None = None
    nvpmodel: str | None = None


# Options of the modules that ask for GPUs.
PROBE_ARGUMENTS: dict[str, dict[str, Any]] = {
    "backend": {"type": "str", "default": "auto", "choices": list(BACKENDS)},
    "nvidia_smi": {"type": "str", "default": "nvidia-smi"},
    "nvml_library": {"type": "str", "default": gpu_nvml.LIBRARY},
    "timeout": {"type": "int", "default": 30},
    "root": {"type": "path", "default": "/"},
}


def tools_of(module: Any) -> Tools:
    """Where an AnsibleModule with ``PROBE_ARGUMENTS`` finds what it asks.

    A recorded machine (``root``) is not mixed with this one: its own library and programs are then used only when
    they are named.
    """
    here = os.path.realpath(module.params["root"]) == "/"
    library = module.params["nvml_library"]
    return Tools(
        nvidia_smi=module.get_bin_path(module.params["nvidia_smi"], opt_dirs=["/usr/lib/wsl/lib"])
        if here or os.path.isabs(module.params["nvidia_smi"])
        else None,
        nvml_library=library if here or os.path.isabs(library) else None,
        journalctl=module.get_bin_path("journalctl") if here else None,
        tegrastats=module.get_bin_path("tegrastats") if here else None,
        nvpmodel=module.get_bin_path("nvpmodel") if here else None,
    )


@dataclass
class Probe:
    """What was read from the machine. ``None`` means that it is not there, or was not asked."""

    backend: str = "auto"
    nvml: dict[str, Any] | None = None
    smi: Answer | None = None
    compute_capabilities: Answer | None = None
    # PCI addresses of NVIDIA display devices; None where the bus can't be read.
    pci_devices: list[str] | None = None
    jetson: JetsonProbe | None = None
    xids: list[dict[str, Any]] | None = None
    notes: list[str] = field(default_factory=list)


@dataclass
class _Found:
    """What one backend gave: GPUs, or a status and message that say why not."""

    gpus: list[dict[str, Any]] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)
    status: str = NONE
    backend: str = "none"


def _on_bus(probe: Probe) -> str:
    cards = probe.pci_devices
    return f"{len(cards)} NVIDIA GPU(s) on the PCI bus ({', '.join(cards)})" if cards else ""


def _mismatch(said: str) -> str:
    return (
        f"The loaded kernel module and the driver's libraries are of different versions ({said}). "
        "Restart the host, or unload and load the nvidia modules while nothing uses them."
    )


def _not_loaded(probe: Probe, who: str) -> str:
    return (
        f"{who} can't reach the driver; {_on_bus(probe) or 'the PCI bus is not readable'}. The kernel module is "
        "not loaded: see `lsmod | grep -e nvidia -e nouveau` and `dkms status`, and restart after a kernel update."
    )


def _finds_none(probe: Probe) -> str:
    return (
        f"The driver is loaded but finds no GPU; {_on_bus(probe) or 'the PCI bus is not readable'}. A card may have "
        "fallen off the bus or need the open kernel modules (Blackwell): see `journalctl -k` for lines with NVRM."
    )


def _hangs(who: str) -> str:
    return (
        f"{who} did not answer in time: the driver or a GPU hangs. Look for Xid errors in `journalctl -k` and "
        "restart the host."
    )


def _smi_failure(probe: Probe, answer: Answer) -> tuple[str, str]:
    """Status and message for an nvidia-smi that gave no list of GPUs."""
    said = " ".join(answer.output.split())[:300]
    if answer.rc is None:
        return UNKNOWN, _hangs("nvidia-smi")
    if "version mismatch" in said.lower():
        return UNKNOWN, _mismatch(said)
    if probe.pci_devices == []:
        return NONE, f"nvidia-smi is installed, but no NVIDIA GPU is on the PCI bus ({said or 'no output'})."
    if "no devices were found" in said.lower():
        return UNKNOWN, _finds_none(probe)
    if "communicate with the nvidia driver" in said.lower():
        return UNKNOWN, _not_loaded(probe, "nvidia-smi")
    if "unable to determine the device handle" in said.lower():
        return UNKNOWN, (
            f"A GPU does not answer any more ({said}). It has fallen off the bus: look for Xid 79 in "
            "`journalctl -k`, check its power and seat, and restart the host."
        )
    return UNKNOWN, f"nvidia-smi failed with code {answer.rc}: {said or 'no output'}."


def _from_smi(probe: Probe) -> _Found:
    if probe.smi is None:
        return _Found()
    failure: Answer | None = probe.smi
    gpus: list[dict[str, Any]] = []
    messages: list[str] = []
    if probe.smi.rc == 0:
        try:
            gpus, messages = parse_smi(probe.smi.output)
            failure = None if gpus else Answer(0, "No devices were found")
        except AnswerError as error:
            failure = Answer(0, str(error))
    if failure is None:
        add_compute_capabilities(gpus, probe.compute_capabilities)
        return _Found(gpus, messages, OK, "nvidia-smi")
    status, message = _smi_failure(probe, failure)
    return _Found([], [*messages, message], status)


def _nvml_failure(probe: Probe, where: str, code: int | None, name: str) -> tuple[str, str]:
    """Status and message for an NVML that gave no GPU."""
    said = f"NVML: {name}" + (f" ({code})" if code is not None else "")
    if where == gpu_nvml.TIMED_OUT or name == "TIMEOUT":
        return UNKNOWN, _hangs("NVML")
    if name == "LIB_RM_VERSION_MISMATCH":
        return UNKNOWN, _mismatch(said)
    if probe.pci_devices == []:
        return NONE, f"The driver's library is installed, but no NVIDIA GPU is on the PCI bus ({said})."
    if name == "DRIVER_NOT_LOADED":
        return UNKNOWN, _not_loaded(probe, "NVML")
    if name == "GPU_IS_LOST":
        return UNKNOWN, (
            f"A GPU does not answer any more ({said}). It has fallen off the bus: look for Xid 79 in "
            "`journalctl -k`, check its power and seat, and restart the host."
        )
    if name in ("NO_PERMISSION", "OPERATING_SYSTEM"):
        return UNKNOWN, (
            f"The driver is there but may not be used from here ({said}): the device nodes /dev/nvidia* are missing "
            "or blocked, as in a container that was not given the GPU."
        )
    if where == gpu_nvml.NOT_LOADED:
        return UNKNOWN, f"The driver's library can't be loaded ({name})."
    return UNKNOWN, f"{where} failed: {said}."


def _from_nvml(probe: Probe) -> _Found:
    if probe.nvml is None:
        return _Found()
    error = probe.nvml["error"]
    gpus, messages = gpu_nvml.parse_nvml(probe.nvml)
    if gpus:
        return _Found(gpus, messages, OK, "nvml")
    if error is None and probe.nvml["lost"]:
        return _Found([], messages, UNKNOWN)
    if error is None:
        if probe.pci_devices == []:
            return _Found([], ["The driver is loaded, but no NVIDIA GPU is on the PCI bus."], NONE)
        return _Found([], [_finds_none(probe)], UNKNOWN)
    status, message = _nvml_failure(probe, *error)
    return _Found([], [message], status)


def _library_missing(probe: Probe) -> bool:
    return probe.nvml is not None and probe.nvml["error"] is not None and probe.nvml["error"][0] == gpu_nvml.NOT_LOADED


def _no_backend(probe: Probe) -> _Found:
    """Neither the library nor the program is there."""
    if probe.backend in ("nvml", "nvidia-smi"):
        what = "libnvidia-ml.so.1" if probe.backend == "nvml" else "nvidia-smi"
        return _Found([], [f"{what} is not installed, so that backend has nothing to ask."], UNKNOWN)
    if probe.backend == "jetson":
        return _Found([], ["This is no Jetson: its device tree names none."], NONE)
    if not probe.pci_devices:
        return _Found()
    message = f"{_on_bus(probe)}, but there is no nvidia-smi and no libnvidia-ml.so.1: install the driver."
    return _Found([], [message], UNKNOWN)


def _choose(probe: Probe) -> _Found:
    if probe.jetson is not None:
        # JetPack's nvidia-smi knows neither memory nor power: the device tree comes first there.
        return _Found([gpu_jetson.parse_jetson(probe.jetson)], [], OK, "jetson")
    nvml_asked = probe.nvml is not None and not _library_missing(probe)
    if not nvml_asked and probe.smi is None:
        found = _no_backend(probe)
        if probe.backend == "nvml" and _library_missing(probe):
            return _from_nvml(probe)
        return found
    nvml, smi = _from_nvml(probe), _from_smi(probe)
    if nvml_asked and (nvml.gpus or not smi.gpus):
        # Both ask the same driver: without GPUs NVML's code says more exactly why than nvidia-smi's words.
        return nvml
    return smi


def _add_xids(gpus: list[dict[str, Any]], xids: list[dict[str, Any]] | None) -> None:
    for gpu in gpus:
        if xids is None or not gpu["pci_id"]:
            continue
        here = gpu_host.pci_key(gpu["pci_id"])
        gpu["xid_errors"] = [
            {"xid": entry["xid"], "count": entry["count"], "text": entry["text"]}
            for entry in xids
            if gpu_host.pci_key(entry["pci_id"]) == here
        ]


def describe(probe: Probe) -> dict[str, Any]:
    """gpus, backend, status (ok, none or unknown), messages, Xid errors and the fingerprint of all GPUs."""
    found = _choose(probe)
    on_bus = probe.pci_devices or []
    messages = [*probe.notes, *found.messages]
    if found.backend in ("nvml", "nvidia-smi") and len(on_bus) > len(found.gpus):
        messages.append(
            f"{len(on_bus)} NVIDIA GPUs are on the PCI bus, the driver answers for {len(found.gpus)}: "
            "see `journalctl -k` for lines with NVRM or Xid."
        )
    _add_xids(found.gpus, probe.xids)
    return {
        "gpus": found.gpus,
        "backend": found.backend,
        "status": found.status,
        "messages": messages,
        "xid_errors": probe.xids,
        "fingerprint": fingerprint_of(*sorted(gpu["fingerprint"] for gpu in found.gpus)),
    }


def replay(recorded: dict[str, Any]) -> dict[str, Any]:
    """A recorded answer as if the host had given it, and marked as what it is."""
    gpus, status = recorded.get("gpus"), recorded.get("status")
    if (
        status not in (OK, NONE, UNKNOWN)
        or not isinstance(gpus, list)
        or not all(isinstance(gpu, dict) for gpu in gpus)
    ):
        raise AnswerError("The capture to replay is no answer of gpu_info: it needs status and the list gpus.")
    rows = [{**empty_gpu(), **gpu} for gpu in gpus]
    return {
        "gpus": rows,
        "backend": recorded.get("backend") or NONE,
        "status": status,
        "messages": recorded.get("messages") or [],
        "xid_errors": recorded.get("xid_errors"),
        "fingerprint": recorded.get("fingerprint") or fingerprint_of(*sorted(str(gpu["fingerprint"]) for gpu in rows)),
        "replayed": True,
    }


# --- reading the machine ----------------------------------------------------------------------------


def _ask_smi(probe: Probe, program: str, timeout: float) -> None:
    probe.smi = run([program, "-q", "-x"], timeout)
    if probe.smi.rc == 0:
        query = ["--query-gpu=uuid,compute_cap", "--format=csv,noheader,nounits"]
        probe.compute_capabilities = run([program, *query], timeout)


def probe_machine(
    tools: Tools, root: str, timeout: float, backend: str = "auto", log: gpu_host.KernelLog | None = None
) -> Probe:
    """Reads everything that ``describe`` needs. ``log`` is the kernel's, where the caller has it already."""
    probe = Probe(backend=backend, pci_devices=nvidia_pci_devices(root))
    model = read_text(os.path.join(root, "proc/device-tree/model"))
    if backend in ("auto", "jetson") and gpu_jetson.is_jetson(model):
        probe.jetson = gpu_jetson.probe_jetson(root, timeout, tools.tegrastats, tools.nvpmodel)
        return probe
    if backend == "jetson":
        return probe
    if backend != "nvidia-smi" and tools.nvml_library:
        probe.nvml = gpu_nvml.ask(tools.nvml_library, timeout)
    answered = probe.nvml is not None and bool(probe.nvml["gpus"])
    # A driver that hangs under one hangs under the other too.
    hangs = probe.nvml is not None and probe.nvml["error"] is not None and probe.nvml["error"][0] == gpu_nvml.TIMED_OUT
    if backend != "nvml" and tools.nvidia_smi and not answered and not hangs:
        _ask_smi(probe, tools.nvidia_smi, timeout)
    if probe.pci_devices != [] or answered:
        log = log or gpu_host.kernel_log(root, timeout, tools.journalctl)
        probe.xids = gpu_host.xid_errors(log)
    return probe
