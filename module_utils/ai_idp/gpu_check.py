"""Holds what a host's GPUs are against what is required of them: named checks with ok, fail or unknown.

The first five checks follow the way from the card to an answer (bus, driver, module, versions, GPUs); what
depends on one that failed is unknown, never ok. The others are the caller's requirements.
"""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ansible.module_utils.ai_idp import gpu_environment, gpu_host, gpu_nvml
from ansible.module_utils.ai_idp.gpu_common import read_line
from ansible.module_utils.ai_idp.gpu_environment import DOCKER, LXC, Environment
from ansible.module_utils.ai_idp.gpu_host import KernelLog, PciCard, version_key
from ansible.module_utils.ai_idp.gpu_remedies import PROBLEMS
from ansible.module_utils.ai_idp.programs import Answer, run

OK, FAIL, UNKNOWN = "ok", "fail", "unknown"
GIB = 1 << 30

_REJECTED = re.compile(
    r"[Ll]oading of (?:unsigned )?module.*(?:rejected|unavailable key)|[Ll]ockdown: .*unsigned module"
    r"|nvidia.*(?:Key was rejected|[Rr]equired key not available)"
)
_NEEDS_OPEN = re.compile(
    r"NVRM: .*requires use of the NVIDIA open kernel modules|NVRM: .*open.*kernel module.*required"
)
# Errors that programs cause in a GPU that is well, by NVIDIA's Xid catalogue.
PROGRAM_XIDS = (13, 31, 43, 45)


class RequirementError(ValueError):
    """A requirement that can't be read, with a sentence that says what is allowed."""


@dataclass
class Check:
    """One answer: what was found, and what to do when it is not ok."""

    name: str
    status: str
    reason: str
    remedy: str = ""
    problem: str | None = None
    # Only says that an earlier check stands in the way.
    follows: bool = False

    def as_dict(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "status": self.status,
            "reason": self.reason,
            "remedy": self.remedy,
            "problem": self.problem,
        }


@dataclass
class HostFacts:
    """What is known of the host beside its GPUs; None is always "can't tell"."""

    environment: Environment
    cards: list[PciCard] | None = None
    nvidia_loaded: bool | None = None
    nouveau_loaded: bool | None = None
    loaded_version: str | None = None
    loaded_open: bool | None = None
    library_versions: list[str] = field(default_factory=list)
    program_found: bool = False
    secure_boot: bool | None = None
    # Version of the module on disk for the kernel that runs; "" where there is none.
    module_on_disk: str | None = None
    kernel: str | None = None
    device_nodes: list[str] = field(default_factory=list)
    log: KernelLog | None = None


@dataclass
class Requirements:
    """What the caller asks for; None is not asked."""

    minimum_gpus: int = 1
    minimum_driver_version: str | None = None
    minimum_cuda_version: str | None = None
    minimum_compute_capability: str | None = None
    minimum_memory_bytes: int | None = None
    minimum_pcie_generation: int | None = None
    minimum_pcie_width: int | None = None
    maximum_temperature_celsius: int | None = None
    minimum_power_limit_watts: float | None = None
    no_xid_errors: bool = False
    ignored_xid_errors: tuple[int, ...] = PROGRAM_XIDS
    no_throttling: bool = False

    def validated(self) -> Requirements:
        for name in ("minimum_driver_version", "minimum_cuda_version", "minimum_compute_capability"):
            value = getattr(self, name)
            if value is not None and not re.fullmatch(r"\d+(\.\d+)*", value):
                raise RequirementError(
                    f'{name} is "{value}". Give dotted numbers, such as 580 or 13.0, in quotes so that 12.10 keeps '
                    "its zero."
                )
        for name in ("minimum_gpus", "minimum_memory_bytes", "minimum_pcie_generation", "minimum_pcie_width"):
            value = getattr(self, name)
            if value is not None and value < 0:
                raise RequirementError(f"{name} is {value}. Give 0 or more.")
        return self


class _Judge:
    """Makes the checks, one after the other."""

    def __init__(self, facts: HostFacts, answer: dict[str, Any], nvml: dict[str, Any] | None) -> None:
        self.facts = facts
        self.answer = answer
        self.nvml = nvml
        self.gpus: list[dict[str, Any]] = answer["gpus"]
        self.checks: list[Check] = []

    @property
    def place(self) -> str:
        return self.facts.environment.kind

    def add(self, name: str, status: str, reason: str, problem: str | None = None) -> None:
        remedy = PROBLEMS[problem].remedy_in(self.place) if problem and status != OK else ""
        self.checks.append(Check(name, status, reason, remedy, problem if status != OK else None))

    def stopped_by(self) -> Check | None:
        """The first check of the way to the GPU that is not ok."""
        return next((check for check in self.checks if check.status != OK), None)

    def skipped(self, name: str) -> bool:
        """Adds an unknown when an earlier step is not ok and no GPU answers."""
        earlier = self.stopped_by()
        if earlier is None or self.gpus:
            return False
        self.checks.append(Check(name, UNKNOWN, f"Can't be told while {earlier.name} is not ok.", follows=True))
        return True

    def _xid(self, number: int) -> list[dict[str, Any]]:
        return [entry for entry in self.answer["xid_errors"] or [] if entry["xid"] == number]

    def _log_has(self, pattern: re.Pattern[str]) -> bool:
        return any(pattern.search(line) for line in (self.facts.log.lines if self.facts.log else []))

    # --- the way to the GPU -------------------------------------------------------------------------

    def gpu_on_bus(self) -> None:
        cards = self.facts.cards
        if cards:
            listed = ", ".join(card.address for card in cards)
            self.add("gpu_on_bus", OK, f"{len(cards)} NVIDIA GPU(s) on the PCI bus: {listed}.")
        elif self.gpus:
            self.add("gpu_on_bus", OK, "GPUs answer; the PCI bus does not show them here.")
        elif cards is None:
            self.add("gpu_on_bus", UNKNOWN, "The PCI bus can't be read here.", "no_card")
        elif self._xid(79):
            self.add("gpu_on_bus", FAIL, "Xid 79 was logged and the card is no longer on the bus.", "fell_off_bus")
        else:
            self.add("gpu_on_bus", FAIL, "No NVIDIA GPU is on the PCI bus.", "no_card")

    def driver_installed(self) -> None:
        if self.skipped("driver_installed"):
            return
        versions = self.facts.library_versions
        if versions:
            self.add("driver_installed", OK, f"Driver libraries {', '.join(versions)} are installed.")
        elif self.gpus or self.facts.program_found:
            self.add("driver_installed", OK, "The driver's programs are installed.")
        else:
            reason = "Neither libnvidia-ml.so nor nvidia-smi is installed."
            self.add("driver_installed", FAIL, reason, "no_driver")

    def module_loaded(self) -> None:
        name, facts = "module_loaded", self.facts
        if self.skipped(name):
            return
        cards = facts.cards or []
        if self.gpus:
            flavour = "" if facts.loaded_open is None else "open " if facts.loaded_open else "proprietary "
            self.add(name, OK, f"The {flavour}kernel module {facts.loaded_version or ''}".rstrip() + " is loaded.")
        elif cards and all(card.driver == "vfio-pci" for card in cards):
            self.add(name, FAIL, "vfio-pci holds the card.", "vfio")
        elif any(card.driver == "nouveau" for card in cards):
            self.add(name, FAIL, "nouveau holds the card.", "nouveau")
        elif facts.nvidia_loaded or facts.loaded_version:
            self.add(name, OK, f"The kernel module {facts.loaded_version or ''}".rstrip() + " is loaded.")
        elif facts.nouveau_loaded:
            self.add(name, FAIL, "nouveau is loaded in place of nvidia.", "nouveau")
        elif self._log_has(_REJECTED):
            self.add(name, FAIL, "The kernel refused a module that is not signed by a key it trusts.", "secure_boot")
        elif facts.nvidia_loaded is None:
            self.add(name, UNKNOWN, "The list of loaded modules can't be read.", "module_not_loaded")
        else:
            reason = "The kernel module nvidia is not loaded"
            if facts.module_on_disk == "":
                reason += f", and there is none for the kernel that runs ({facts.kernel})"
            elif facts.secure_boot and facts.module_on_disk:
                reason += "; Secure Boot is on, so an unsigned one would be refused"
            self.add(name, FAIL, reason + ".", "module_not_loaded")

    def versions_match(self) -> None:
        name, facts = "versions_match", self.facts
        if self.skipped(name):
            return
        loaded, libraries = facts.loaded_version, facts.library_versions
        said = " ".join(self.answer["messages"])
        if loaded and libraries and loaded not in libraries:
            newest = libraries[-1]
            older = version_key(loaded) < version_key(newest)
            reason = f"The loaded kernel module is {loaded}, the libraries are {', '.join(libraries)}: "
            if self.place in (LXC, DOCKER):
                reason += "host and container have different drivers."
            elif older:
                reason += "the driver was updated and the host not restarted."
            else:
                reason += "the libraries are older than the module."
            if self.place not in (LXC, DOCKER) and facts.module_on_disk not in (None, *libraries):
                there = facts.module_on_disk or "none"
                reason += f" The module on disk for the kernel that runs is {there}, so a restart alone won't help."
            self.add(name, FAIL, reason, "version_mismatch")
        elif "different versions" in said:
            self.add(name, FAIL, "The driver reports a driver/library version mismatch.", "version_mismatch")
        elif self.gpus:
            self.add(name, OK, f"Kernel module and libraries work together ({self.gpus[0]['driver_version']}).")
        elif loaded and loaded in libraries:
            self.add(name, OK, f"Kernel module and libraries are {loaded}.")
        else:
            missing = "the loaded module" if not loaded else "the libraries"
            self.add(name, UNKNOWN, f"The version of {missing} can't be read.", "version_mismatch")

    def _expected(self) -> int:
        """Cards that the nvidia driver is to answer for; those kept for VMs are not its."""
        return sum(card.driver != "vfio-pci" for card in self.facts.cards or [])

    def gpus_answer(self) -> None:
        name, answer = "gpus_answer", self.answer
        if self.skipped(name):
            return
        said = " ".join(answer["messages"])
        lost = self.nvml["lost"] if self.nvml else []
        if self.gpus and (lost or self._expected() > len(self.gpus)):
            reason = f"{self._expected()} GPU(s) are on the bus, {len(self.gpus)} answer."
            gone = self._xid(79) or lost or "fallen off" in said
            self.add(name, FAIL, reason, "fell_off_bus" if gone else "no_devices")
        elif self.gpus and self._xid(79):
            self.add(name, FAIL, "Xid 79 was logged: a GPU has fallen off the bus since the start.", "fell_off_bus")
        elif self.gpus and "only in part" in said:
            self.add(name, FAIL, said, "hangs")
        elif self.gpus:
            names = ", ".join(gpu["name"] or gpu["pci_id"] or "?" for gpu in self.gpus)
            self.add(name, OK, f"{len(self.gpus)} answer through {answer['backend']}: {names}.")
        elif "in time" in said:
            self.add(name, FAIL, said, "hangs")
        elif lost or self._xid(79) or ("fallen off" in said and "may have" not in said):
            self.add(name, FAIL, "A GPU has fallen off the bus (Xid 79, or the driver says that it is lost).",
                     "fell_off_bus")  # fmt: skip
        elif self._log_has(_NEEDS_OPEN):
            self.add(name, FAIL, "The driver says that the card needs the open kernel modules.", "open_modules")
        elif not self._nodes_there():
            missing = "are not there" if not self.facts.device_nodes else "are incomplete"
            self.add(name, FAIL, f"The device nodes /dev/nvidiactl and /dev/nvidia0 {missing}.", "device_nodes")
        elif "may not be used" in said or (self.place in (LXC, DOCKER) and "UNKNOWN" in said.upper()):
            self.add(name, FAIL, f"The device nodes are there but blocked. {said}".strip(), "device_nodes")
        else:
            self.add(name, FAIL if self.nvml or "finds no GPU" in said else UNKNOWN,
                     said or "No GPU answers.", "no_devices")  # fmt: skip

    def _nodes_there(self) -> bool:
        nodes = self.facts.device_nodes
        return "nvidiactl" in nodes and any(re.fullmatch(r"nvidia\d+", node) for node in nodes)

    # --- requirements -------------------------------------------------------------------------------

    def each(
        self, name: str, problem: str, wanted: str, read: Callable[[dict[str, Any]], Any], good: Callable[[Any], bool],
        show: Callable[[Any], str] = str,
    ) -> None:  # fmt: skip
        """One check over all GPUs: fail when one is known to be bad, ok only when all are known to be good."""
        if not self.gpus:
            self.add(name, UNKNOWN, f"Wanted: {wanted}. No GPU answers (see gpus_answer).")
            return
        values = [(gpu["index"], read(gpu)) for gpu in self.gpus]
        bad = [f"GPU {index} has {show(value)}" for index, value in values if value is not None and not good(value)]
        silent = [f"GPU {index}" for index, value in values if value is None]
        if bad:
            self.add(name, FAIL, f"Wanted: {wanted}. {', '.join(bad)}.", problem)
        elif silent:
            self.add(name, UNKNOWN, f"Wanted: {wanted}. {', '.join(silent)} does not tell.", problem)
        else:
            found = ", ".join(f"GPU {index}: {show(value)}" for index, value in values)
            self.add(name, OK, f"Wanted: {wanted}. {found}.")

    def gpu_count(self, wanted: int) -> None:
        count = len(self.gpus)
        if count >= wanted:
            self.add("gpu_count", OK, f"Wanted: at least {wanted}. {count} answer.")
        elif self.answer["status"] == "unknown":
            self.add(
                "gpu_count", UNKNOWN, f"Wanted: at least {wanted}. How many there are can't be told.", "too_few_gpus"
            )
        else:
            self.add("gpu_count", FAIL, f"Wanted: at least {wanted}. {count} answer.", "too_few_gpus")

    def version(self, name: str, key: str, wanted: str, problem: str) -> None:
        def read(gpu: dict[str, Any]) -> str | None:
            value = gpu[key]
            # A Jetson's driver is part of L4T and has no number of its own.
            return value if value and version_key(value) else None

        def good(value: str) -> bool:
            return version_key(value) >= version_key(wanted)

        self.each(name, problem, f"{wanted} or newer", read, good)

    def xid(self, ignored: tuple[int, ...]) -> None:
        found = self.answer["xid_errors"]
        if found is None:
            reason = "The kernel's log can't be read from its beginning, so the absence of Xid errors can't be told."
            self.add("xid_errors", UNKNOWN, reason, "xid_errors")
            return
        counted = [entry for entry in found if entry["xid"] not in ignored]
        if counted:
            listed = ", ".join(f"{entry['xid']} ({entry['count']} times, {entry['pci_id']})" for entry in counted)
            problem = "fell_off_bus" if any(entry["xid"] == 79 for entry in counted) else "xid_errors"
            self.add("xid_errors", FAIL, f"Xid errors since the start: {listed}.", problem)
            return
        numbers = sorted({entry["xid"] for entry in found})
        left = f" Left out as programs' own: {', '.join(map(str, numbers))}." if numbers else ""
        self.add("xid_errors", OK, f"No Xid errors since the start.{left}")

    def require(self, wanted: Requirements) -> None:
        self.gpu_count(wanted.minimum_gpus)
        if wanted.minimum_driver_version:
            self.version("driver_version", "driver_version", wanted.minimum_driver_version, "driver_old")
        if wanted.minimum_cuda_version:
            self.version("cuda_version", "cuda_version", wanted.minimum_cuda_version, "driver_old")
        if wanted.minimum_compute_capability:
            needed = wanted.minimum_compute_capability
            self.version("compute_capability", "compute_capability", needed, "card_insufficient")
        if wanted.minimum_memory_bytes is not None:
            least = wanted.minimum_memory_bytes
            self.each("memory", "card_insufficient", f"{least / GIB:.1f} GiB", lambda gpu: gpu["memory_total_bytes"],
                      lambda value: value >= least, lambda value: f"{value / GIB:.1f} GiB")  # fmt: skip
        if wanted.minimum_pcie_generation is not None:
            # The present one drops when the card is idle; what card and slot can do together does not.
            generation = wanted.minimum_pcie_generation
            self.each("pcie_generation", "pcie_slow", f"generation {generation}",
                      lambda gpu: gpu["pcie_generation_max"], lambda value: value >= generation)  # fmt: skip
        if wanted.minimum_pcie_width is not None:
            width = wanted.minimum_pcie_width
            self.each("pcie_width", "pcie_slow", f"{width} lanes", lambda gpu: gpu["pcie_width"],
                      lambda value: value >= width, lambda value: f"{value} lanes")  # fmt: skip
        if wanted.maximum_temperature_celsius is not None:
            most = wanted.maximum_temperature_celsius
            self.each("temperature", "too_hot", f"at most {most} °C", lambda gpu: gpu["temperature_celsius"],
                      lambda value: value <= most, lambda value: f"{value} °C")  # fmt: skip
        if wanted.minimum_power_limit_watts is not None:
            watts = wanted.minimum_power_limit_watts
            self.each("power_limit", "power_limit_low", f"{watts:g} W", lambda gpu: gpu["power_limit_watts"],
                      lambda value: value >= watts, lambda value: f"{value:g} W")  # fmt: skip
        if wanted.no_xid_errors:
            self.xid(wanted.ignored_xid_errors)
        if wanted.no_throttling:
            self.each("throttling", "throttling", "no lowered clocks", lambda gpu: gpu["throttle_reasons"],
                      lambda value: not value, lambda value: ", ".join(value) or "none")  # fmt: skip

    def container(self, name: str, answer: Answer | None) -> None:
        """``nvidia-smi -L`` inside a running container."""
        if answer is None:
            self.add("container", UNKNOWN, f"There is no docker to ask container {name} with.")
            return
        said = " ".join(answer.output.split())[:300]
        seen = re.findall(r"^GPU \d+: ", answer.output, re.MULTILINE)
        if answer.rc is None:
            self.add("container", UNKNOWN, f"nvidia-smi in container {name} did not answer in time.", "hangs")
        elif answer.rc == 0 and seen:
            self.add("container", OK, f"Container {name} sees {len(seen)} of {len(self.gpus)} GPU(s).")
        elif "failed to initialize nvml" in said.lower() or "no devices were found" in said.lower():
            problem = "version_mismatch" if "mismatch" in said.lower() else "container_lost_gpu"
            self.add("container", FAIL, f"Container {name} can't reach its GPU: {said}", problem)
        elif re.search(r"no such container|is not running|is paused|is restarting", said, re.IGNORECASE):
            self.add("container", FAIL, f"Container {name} does not run: {said}", "container_not_running")
        elif "executable file not found" in said or answer.rc in (126, 127):
            self.add("container", FAIL, f"Container {name} has no nvidia-smi: {said}", "container_without_gpu")
        else:
            self.add("container", UNKNOWN, f"nvidia-smi in container {name} ended with code {answer.rc}: {said}",
                     "container_lost_gpu")  # fmt: skip


def judge(
    facts: HostFacts,
    answer: dict[str, Any],
    wanted: Requirements,
    nvml: dict[str, Any] | None = None,
    container: str | None = None,
    container_answer: Answer | None = None,
) -> dict[str, Any]:
    """The whole answer; ``answer`` is gpu_info's. See RETURN of the module."""
    judge_ = _Judge(facts, answer, nvml)
    if answer["backend"] == "jetson":
        judge_.gpus_answer()
        judge_.require(wanted)
    elif answer["status"] == "none" and not facts.cards and wanted.minimum_gpus == 0:
        judge_.add("gpu_on_bus", OK, "There is no GPU, and none is required.")
    else:
        for check in (judge_.gpu_on_bus, judge_.driver_installed, judge_.module_loaded, judge_.versions_match,
                      judge_.gpus_answer):  # fmt: skip
            check()
        judge_.require(wanted)
    if container:
        judge_.container(container, container_answer)
    checks = judge_.checks
    states = {check.status for check in checks}
    return {
        "ok": states == {OK},
        "status": FAIL if FAIL in states else UNKNOWN if UNKNOWN in states else OK,
        "checks": [check.as_dict() for check in checks],
        "problems": [
            f"{check.name} {'failed' if check.status == FAIL else 'is unknown'}: {check.reason} {check.remedy}".strip()
            for check in checks
            if check.status != OK and not check.follows
        ],
        "environment": {
            "kind": facts.environment.kind,
            "proxmox": facts.environment.proxmox,
            "description": f"This host is {facts.environment.text}.",
            "evidence": facts.environment.evidence,
        },
    }


# --- reading the machine ----------------------------------------------------------------------------


def _module_on_disk(modinfo: str | None, timeout: float) -> str | None:
    if not modinfo:
        return None
    answer = run([modinfo, "-F", "version", "nvidia"], timeout)
    if answer.rc == 0:
        lines = answer.output.split()
        return lines[0] if lines else None
    return "" if "not found" in answer.output else None


def gather(
    root: str,
    timeout: float,
    program: str | None,
    detect_virt: str | None = None,
    modinfo: str | None = None,
    journalctl: str | None = None,
) -> HostFacts:
    """Reads the host; programs are None where they are not installed or another machine is replayed."""
    version, is_open = gpu_host.loaded_driver(root)
    return HostFacts(
        environment=gpu_environment.detect(gpu_environment.read_traces(root, timeout, detect_virt)),
        cards=gpu_host.nvidia_cards(root),
        nvidia_loaded=gpu_host.module_loaded(root, "nvidia"),
        nouveau_loaded=gpu_host.module_loaded(root, "nouveau"),
        loaded_version=version,
        loaded_open=is_open,
        library_versions=gpu_host.library_versions(root),
        program_found=program is not None,
        secure_boot=gpu_host.secure_boot(root),
        module_on_disk=_module_on_disk(modinfo, timeout),
        kernel=read_line(os.path.join(root, "proc/sys/kernel/osrelease")),
        device_nodes=sorted(os.path.basename(path) for path in glob.glob(os.path.join(root, "dev/nvidia*"))),
        log=gpu_host.kernel_log(root, timeout, journalctl),
    )


def ask_container(docker: str | None, name: str, timeout: float) -> Answer | None:
    return run([docker, "exec", name, "nvidia-smi", "-L"], timeout) if docker else None


def library_answer(probe_nvml: dict[str, Any] | None) -> dict[str, Any] | None:
    """NVML's answer, when there was a library to ask."""
    if probe_nvml is None or (probe_nvml["error"] and probe_nvml["error"][0] == gpu_nvml.NOT_LOADED):
        return None
    return probe_nvml
