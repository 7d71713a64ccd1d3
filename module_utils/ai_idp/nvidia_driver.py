# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Which NVIDIA driver a host needs: what is there is read, what is to be installed is derived, nothing is changed."""

from __future__ import annotations

import fnmatch
import os
import re
from dataclasses import dataclass, field
from typing import Any

from ansible.module_utils.ai_idp import gpu_environment, gpu_host
from ansible.module_utils.ai_idp.gpu_common import read_bytes, read_line, read_text
from ansible.module_utils.ai_idp.gpu_host import version_key

# --- generations of GPUs ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Generation:
    """What drivers know a generation: ``first`` and ``last`` are branches, None where none has dropped it."""

    name: str
    open_modules: bool
    proprietary_modules: bool
    first: int
    last: int | None = None


_OLD = Generation("older than Kepler", False, True, 304, 390)
_KEPLER = Generation("Kepler", False, True, 304, 470)
_MAXWELL = Generation("Maxwell", False, True, 352, 580)
_PASCAL = Generation("Pascal", False, True, 375, 580)
_VOLTA = Generation("Volta", False, True, 384, 580)
_TURING = Generation("Turing", True, True, 410)
_AMPERE = Generation("Ampere", True, True, 450)
_ADA = Generation("Ada Lovelace", True, True, 525)
_HOPPER = Generation("Hopper", True, True, 525)
_BLACKWELL = Generation("Blackwell", True, False, 570)
_NEWER = Generation("Blackwell or newer", True, False, 570)

# PCI device ids, first and last, as NVIDIA gave them out to each family of chips (the names are in pci.ids).
# An id between two rows belongs to the row before it; one above the last row is newer than this table.
_DEVICES: tuple[tuple[int, Generation], ...] = (
    (0x0000, _OLD),
    (0x0FC0, _KEPLER),  # GK107, GK110
    (0x1040, _OLD),  # GF119, GF110
    (0x1180, _KEPLER),  # GK104, GK106
    (0x1200, _OLD),  # GF114, GF116
    (0x1280, _KEPLER),  # GK208
    (0x1340, _MAXWELL),  # GM108, GM107, GM204, GM206
    (0x15F0, _PASCAL),  # GP100
    (0x1600, _MAXWELL),  # GM204 of notebooks, GM200
    (0x1B00, _PASCAL),  # GP102 to GP108
    (0x1D80, _VOLTA),  # GV100
    (0x1E00, _TURING),  # TU102, TU104, TU106, TU117
    (0x2080, _AMPERE),  # GA100
    (0x2180, _TURING),  # TU116
    (0x2200, _AMPERE),  # GA102
    (0x2300, _HOPPER),  # GH100
    (0x2400, _AMPERE),  # GA103 to GA107
    (0x2680, _ADA),  # AD102 to AD107
    (0x2900, _BLACKWELL),  # GB100, GB200, GB202 to GB207
    (0x3000, _NEWER),
)

# From here on NVIDIA itself suggests the open modules; from the second one on it makes no others.
OPEN_SUGGESTED = 560
OPEN_ONLY = 620
# In NVIDIA's repository for Ubuntu, packages carry their branch in the name up to the one before this.
UNBRANCHED = 590


def generation_of(device_id: int) -> Generation:
    """Generation of a GPU by its PCI device id."""
    found = _OLD
    for first, generation in _DEVICES:
        if device_id < first:
            break
        found = generation
    return found


# --- what the host says -----------------------------------------------------------------------------


@dataclass
class Gpu:
    address: str
    device_id: int
    driver: str | None = None

    @property
    def generation(self) -> Generation:
        return generation_of(self.device_id)

    def __str__(self) -> str:
        return f"{self.address} ({self.device_id:#06x}, {self.generation.name})"


@dataclass
class Package:
    name: str
    version: str
    held: bool = False


@dataclass
class Host:
    distribution: str
    distribution_version: str
    architecture: str
    kernel: str = ""
    gpus: list[Gpu] = field(default_factory=list)
    jetson: str | None = None
    environment: str = gpu_environment.UNKNOWN
    loaded_version: str | None = None
    nouveau_loaded: bool = False
    secure_boot: bool = False
    mok_enrolled: bool = False
    packages: dict[str, Package] = field(default_factory=dict)

    @property
    def container(self) -> bool:
        """An LXC container is a machine to whoever lives in it, but for the kernel."""
        return self.environment == gpu_environment.LXC


@dataclass
class Settings:
    source: str = "auto"
    branch: str = "580"
    version: str = ""
    edition: str = "compute"
    modules: str = "auto"
    module_build: str = "auto"
    kernel_flavour: str = ""
    allow_downgrade: bool = False
    cuda_toolkit_version: str = ""
    cudnn_version: str = ""


def read_gpus(root: str) -> list[Gpu]:
    """NVIDIA's display devices on the PCI bus, with the driver that each is bound to."""
    found = []
    for card in gpu_host.nvidia_cards(root) or []:
        device = read_line(os.path.join(root, "sys/bus/pci/devices", card.address, "device"))
        found.append(Gpu(card.address, int(device or "0", 16), card.driver))
    return found


def read_secure_boot(root: str) -> tuple[bool, bool]:
    """Whether the kernel takes signed modules only, and whether a key that DKMS signs with is enrolled."""
    efi = os.path.join(root, "sys/firmware/efi")

    def variable(name: str, owner: str) -> bytes:
        # The first four bytes are the attributes of the variable.
        return (read_bytes(os.path.join(efi, f"efivars/{name}-{owner}")) or b"")[4:]

    shim = "605dab50-e046-4300-abb6-3dd810dd8b23"
    on = bool(gpu_host.secure_boot(root))
    # The shim can be told not to check, and the kernel then does not either.
    if variable("MokSBStateRT", shim)[:1] == b"\1":
        on = False
    enrolled = variable("MokListRT", shim) + (read_bytes(os.path.join(efi, "mok-variables/MokListRT")) or b"")
    signers = ("var/lib/shim-signed/mok/MOK.der", "var/lib/dkms/mok.pub")
    keys = [read_bytes(os.path.join(root, path)) for path in signers]
    return on, any(key and key in enrolled for key in keys)


def parse_dpkg(output: str) -> dict[str, Package]:
    """Installed packages from lines of ``WANT STATUS PACKAGE VERSION``."""
    found = {}
    for line in output.splitlines():
        parts = line.split()
        if len(parts) == 4 and parts[1] == "installed":
            found[parts[2]] = Package(parts[2], parts[3], parts[0] == "hold")
    return found


def read_host(
    root: str, distribution: str, distribution_version: str, architecture: str, packages: dict[str, Package]
) -> Host:
    secure_boot, enrolled = read_secure_boot(root)
    model = (read_text(os.path.join(root, "proc/device-tree/model")) or "").strip("\0\n ")
    tegra = read_line(os.path.join(root, "etc/nv_tegra_release"))
    return Host(
        distribution=distribution,
        distribution_version=distribution_version,
        architecture=architecture,
        kernel=read_line(os.path.join(root, "proc/sys/kernel/osrelease")) or "",
        gpus=read_gpus(root),
        jetson=(model or "Jetson") if tegra or "jetson" in model.lower() else None,
        environment=gpu_environment.detect(gpu_environment.read_traces(root, 10)).kind,
        loaded_version=gpu_host.loaded_driver(root)[0],
        nouveau_loaded=bool(gpu_host.module_loaded(root, "nouveau")),
        secure_boot=secure_boot,
        mok_enrolled=enrolled,
        packages=packages,
    )


# --- packages ---------------------------------------------------------------------------------------

_DRIVER_PACKAGES = (
    "nvidia-*",
    "libnvidia-*",
    "linux-modules-nvidia-*",
    "linux-objects-nvidia-*",
    "linux-signatures-nvidia-*",
    "xserver-xorg-video-nvidia*",
    "libcuda1",
    "libnvcuvid1",
    "libcudadebugger1",
    "libxnvctrl0",
    "firmware-nvidia-gsp*",
    "cuda-drivers*",
)
# They look like the driver and are not: the container toolkit has a role of its own, the toolkit an own switch.
_OTHER_PACKAGES = ("nvidia-container-*", "libnvidia-container*", "nvidia-cuda-*", "nvidia-cudnn*", "nvidia-prime*")
# Packages whose version is the driver's.
_VERSIONED = re.compile(
    r"^(libnvidia-(compute|ml)\S*|libcuda1|nvidia-(utils|smi|driver|headless|dkms|kernel|open-kernel|compute-utils)\S*)$"
)
_UPSTREAM = re.compile(r"^(?:\d+:)?(\d{3}\.\d+(?:\.\d+)?)(?=[-+~]|$)")


def upstream_version(version: str) -> str | None:
    """The driver's version in a package's version, 580.126.09 of 580.126.09-0ubuntu0.24.04.1."""
    match = _UPSTREAM.match(version)
    return match.group(1) if match else None


def is_driver_package(name: str) -> bool:
    def matches(patterns: tuple[str, ...]) -> bool:
        return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)

    return matches(_DRIVER_PACKAGES) and not matches(_OTHER_PACKAGES)


def installed_driver_version(packages: dict[str, Package]) -> str | None:
    """Newest version among the installed parts of a driver, None without one."""
    versions = [
        version
        for package in packages.values()
        if _VERSIONED.match(package.name) and is_driver_package(package.name)
        for version in [upstream_version(package.version)]
        if version
    ]
    return max(versions, key=version_key, default=None)


def kernel_flavours(host: Host) -> list[str]:
    """Flavours of the installed kernel metapackages, the one of the running kernel first, HWE before others."""
    names = [name[len("linux-image-") :] for name in host.packages if re.match(r"^linux-image-[a-z]", name)]
    names = [name for name in names if not re.match(r"^(unsigned|extra)-|.*-dbg$", name)]
    running = host.kernel.rpartition("-")[2]

    def rank(name: str) -> tuple[bool, bool, str]:
        return (not (running and name.startswith((running, "virtual"))), "-hwe-" not in name, name)

    return sorted(names, key=rank)


def kernel_without_modules(host: Host, modules: list[str]) -> str | None:
    """The kernel that the next boot takes, when a prebuilt module is installed and not for that one.

    ``modules`` are metapackages such as ``linux-modules-nvidia-580-open-generic``.
    """
    kernels = [
        match.group(1) for name in host.packages for match in [re.match(r"^linux-image-(\d\S+)$", name)] if match
    ]
    newest = max(kernels, key=lambda name: [int(part) for part in re.findall(r"\d+", name)], default=None)
    for meta in modules:
        stem = re.match(r"^linux-modules-nvidia-\d+(-server)?(-open)?", meta)
        if newest and stem and meta in host.packages and f"{stem.group()}-{newest}" not in host.packages:
            return newest
    return None


def module_flavour(flavour: str) -> str:
    """Prebuilt modules are named after the kernel, and a virtual machine's kernel is the generic one."""
    return re.sub(r"^virtual(?=-|$)", "generic", flavour)


@dataclass
class Choice:
    """The driver that was picked."""

    source: str
    branch: int
    modules: str
    build: str
    edition: str
    flavour: str


def driver_packages(host: Host, choice: Choice) -> tuple[list[str], list[str]]:
    """Names of the packages that carry the driver's version, and of those that carry the kernel's."""
    ubuntu = host.distribution == "Ubuntu"
    open_modules = choice.modules == "open"
    suffix = "-open" if open_modules else ""
    branch = str(choice.branch) + ("-server" if choice.edition == "server" else "")
    headers = [f"linux-headers-{choice.flavour}"] if choice.build == "dkms" and choice.flavour else []

    if host.container:
        if ubuntu and (choice.source == "distribution" or choice.branch < UNBRANCHED):
            return [f"libnvidia-compute-{branch}", f"nvidia-utils-{branch}"], []
        if ubuntu:
            return ["libnvidia-compute"], []
        return (["nvidia-driver-cuda"] if choice.source == "nvidia" else ["libcuda1", "nvidia-smi"]), []

    if ubuntu and choice.source == "distribution":
        if choice.edition == "desktop":
            driver = [f"nvidia-driver-{branch}{suffix}"]
        else:
            driver = [f"nvidia-headless-no-dkms-{branch}{suffix}", f"nvidia-utils-{branch}"]
        if choice.build == "prebuilt":
            return driver, [f"linux-modules-nvidia-{branch}{suffix}-{module_flavour(choice.flavour)}"]
        return [*driver, f"nvidia-dkms-{branch}{suffix}"], headers
    if ubuntu and choice.branch < UNBRANCHED:
        if choice.edition == "desktop":
            return [f"nvidia-driver-{branch}{suffix}", f"nvidia-dkms-{branch}{suffix}"], headers
        return [f"libnvidia-compute-{branch}", f"nvidia-utils-{branch}", f"nvidia-dkms-{branch}{suffix}"], headers
    if ubuntu:
        if choice.edition == "desktop":
            return ["nvidia-open" if open_modules else "cuda-drivers"], headers
        return ["libnvidia-compute", f"nvidia-dkms{suffix}"], headers
    if choice.source == "nvidia":
        driver = ["nvidia-driver-cuda", "nvidia-kernel-open-dkms" if open_modules else "nvidia-kernel-dkms"]
        return (["nvidia-driver", *driver] if choice.edition == "desktop" else driver), headers
    module = "nvidia-open-kernel-dkms" if open_modules else "nvidia-kernel-dkms"
    return ([module, "nvidia-driver", "libcuda1", "nvidia-smi"] if choice.edition == "desktop" else
            [module, "libcuda1", "nvidia-smi"]), headers  # fmt: skip


_MODULE_PACKAGES = re.compile(r"^(nvidia-(dkms|kernel-dkms|kernel-open-dkms|open-kernel-dkms)\b|linux-modules-nvidia-)")


def unwanted_packages(host: Host, wanted: list[str]) -> list[str]:
    """Installed kernel modules of another build, flavour or branch, which would be loaded in place of the wanted."""
    stems = [
        match.group()
        for name in wanted
        for match in [re.match(r"^linux-modules-nvidia-\d+(-server)?(-open)?(?=-)", name)]
        if match
    ]
    # What is left of a wanted metapackage is a kernel's version.
    ours = [re.compile(re.escape(stem) + r"-\d+\.") for stem in stems]
    return sorted(
        name
        for name in host.packages
        if _MODULE_PACKAGES.match(name) and name not in wanted and not any(own.match(name) for own in ours)
    )


def cuda_packages(settings: Settings) -> list[tuple[str, str]]:
    """Names and exact versions of the CUDA toolkit and of cuDNN."""
    found = []
    if settings.cuda_toolkit_version:
        major, minor, _ = settings.cuda_toolkit_version.split(".")
        found.append((f"cuda-toolkit-{major}-{minor}", f"{settings.cuda_toolkit_version}-1"))
    if settings.cudnn_version:
        cuda = (settings.cuda_toolkit_version or "13").split(".")[0]
        major = settings.cudnn_version.split(".")[0]
        for part in ("", "-dev", "-headers"):
            found.append((f"libcudnn{major}{part}-cuda-{cuda}", f"{settings.cudnn_version}-1"))
    return found


def initramfs_command(root: str = "/") -> list[str]:
    """What makes the first files of the kernel anew; empty where the host has none."""
    for program, arguments in (("usr/sbin/update-initramfs", ["-u", "-k", "all"]),
                               ("usr/bin/dracut", ["--force", "--regenerate-all"])):  # fmt: skip
        if os.path.exists(os.path.join(root, program)):
            return [os.path.join(root, program), *arguments]
    return []


def installed_cuda_packages(packages: dict[str, Package], settings: Settings) -> list[str]:
    """Installed parts of the wanted toolkit, which all end in its version such as -13-0, and of cuDNN."""
    names = [name for name, _ in cuda_packages(settings)]
    toolkit = next((name[len("cuda-toolkit") :] for name in names if name.startswith("cuda-toolkit-")), None)
    return sorted(
        name
        for name in packages
        if name in names or (toolkit and name.endswith(toolkit) and name.startswith(("cuda-", "lib", "gds-")))
    )


# --- the plan ---------------------------------------------------------------------------------------


def _pick_modules(host: Host, settings: Settings, branch: int, errors: list[str]) -> str:
    gpus = [gpu for gpu in host.gpus if gpu.driver != "vfio-pci"]
    for gpu in gpus:
        generation = gpu.generation
        if branch < generation.first:
            errors.append(f"nvidia_driver_branch: '{branch}' does not know {gpu}; set {generation.first} or newer")
        if generation.last is not None and branch > generation.last:
            errors.append(
                f"nvidia_driver_branch: '{branch}' has dropped {gpu}; the last branch for it is {generation.last}"
            )
    needs_open = [gpu for gpu in gpus if not gpu.generation.proprietary_modules]
    needs_proprietary = [gpu for gpu in gpus if not gpu.generation.open_modules]
    if needs_open and needs_proprietary:
        errors.append(
            f"no one driver serves both {needs_open[0]}, which has open modules only, and {needs_proprietary[0]}, "
            "which has proprietary ones only: take one of them out, or give it to a virtual machine"
        )
    wanted = settings.modules
    if wanted == "auto":
        suggested = branch >= OPEN_SUGGESTED and not needs_proprietary
        wanted = "open" if needs_open or suggested else "proprietary"
    elif wanted == "proprietary" and needs_open:
        errors.append(f"nvidia_driver_modules: 'proprietary' has none for {needs_open[0]}; set auto or open")
    elif wanted == "open" and needs_proprietary:
        errors.append(f"nvidia_driver_modules: 'open' has none for {needs_proprietary[0]}; set auto or proprietary")
    if wanted == "proprietary" and branch >= OPEN_ONLY and not needs_proprietary:
        errors.append(f"nvidia_driver_modules: 'proprietary' ended before branch {OPEN_ONLY}; set auto or open")
    return wanted


def _secure_boot_error(host: Host, choice: Choice) -> str:
    if host.distribution == "Ubuntu":
        way = (
            "either let nvidia_driver_source be distribution and nvidia_driver_module_build auto, for modules that "
            "Ubuntu has signed, or make and enrol a key of the host's own: update-secureboot-policy --new-key, "
            "mokutil --import /var/lib/shim-signed/mok/MOK.der"
        )
    else:
        way = (
            "make and enrol a key of the host's own: apt install dkms mokutil, dkms generate_mok, "
            "mokutil --import /var/lib/dkms/mok.pub"
        )
    return (
        f"Secure Boot is on and no key that DKMS signs with is enrolled, so the kernel would refuse the modules that "
        f"nvidia_driver_module_build: '{choice.build}' makes; {way}, reboot and confirm the key at the console (or "
        "switch Secure Boot off in the firmware)"
    )


def make_plan(host: Host, settings: Settings) -> dict[str, Any]:
    """What is to be done on the host, or why nothing is; ``errors`` names everything that stands against it."""
    errors: list[str] = []
    gpus = [gpu for gpu in host.gpus if gpu.driver != "vfio-pci"]
    installed = installed_driver_version(host.packages)
    ours = [package for package in host.packages.values() if is_driver_package(package.name)]
    plan: dict[str, Any] = {
        "mode": "host",
        "reason": "",
        "gpus": [
            {
                "address": gpu.address,
                "device_id": f"{gpu.device_id:#06x}",
                "generation": gpu.generation.name,
                "driver": gpu.driver,
            }
            for gpu in host.gpus
        ],
        "installed_version": installed,
        "loaded_version": host.loaded_version,
        "nouveau_loaded": host.nouveau_loaded,
        "secure_boot": host.secure_boot,
        "driver_packages_installed": sorted(package.name for package in ours),
        "cuda_packages_installed": installed_cuda_packages(host.packages, settings),
        "errors": errors,
        "packages": [],
        "missing": [],
        "unwanted": [],
        "to_hold": [],
        "held": [],
        "reboot_reasons": [],
        "kernel_without_modules": None,
        "pin": "",
        "source": None,
        "modules": None,
        "build": None,
        "repository_needed": False,
    }
    kernels = [
        name
        for flavour in kernel_flavours(host)
        for name in (f"linux-image-{flavour}", f"linux-headers-{flavour}", f"linux-{flavour}")
        if name in host.packages
    ]
    guarded = [*(package.name for package in ours), *kernels, *plan["cuda_packages_installed"]]
    plan["guarded"] = sorted(guarded)
    plan["held"] = sorted(name for name in guarded if host.packages[name].held)

    if host.jetson:
        plan["mode"] = "jetson"
        plan["reason"] = (
            f"{host.jetson}: the driver of a Jetson is part of L4T and comes with JetPack; a driver for cards would "
            "break it"
        )
        return plan
    if not host.gpus:
        plan["mode"] = "none"
        plan["reason"] = "the PCI bus has no NVIDIA GPU"
        return plan
    if host.environment in (gpu_environment.DOCKER, gpu_environment.WSL):
        plan["mode"] = host.environment
        plan["reason"] = (
            "this is a container of Docker's kind, which gets the driver's libraries from the NVIDIA Container Toolkit"
            if host.environment == gpu_environment.DOCKER
            else "this is Windows Subsystem for Linux, whose driver is that of Windows"
        )
        return plan
    if not gpus:
        plan["mode"] = "passthrough"
        plan["reason"] = (
            f"{', '.join(map(str, host.gpus))}: given to a virtual machine (vfio-pci); the driver belongs in there"
        )
        return plan

    branch = int(settings.branch)
    wanted = settings.version
    if host.container:
        plan["mode"] = "container"
        if not host.loaded_version:
            errors.append(
                "this is an LXC container, which uses the driver of its host's kernel, and none is "
                "loaded there: install the driver on the host, then run this again"
            )
        else:
            for name, value, prefix in (
                ("nvidia_driver_branch", settings.branch, host.loaded_version.split(".")[0]),
                ("nvidia_driver_version", settings.version, host.loaded_version),
            ):
                if value and value != prefix:
                    errors.append(
                        f"{name}: '{value}' is not what the host's kernel has loaded ({host.loaded_version}), and an "
                        f"LXC container must match it; set '{prefix}', or change the host's driver"
                    )
            wanted = host.loaded_version

    source = settings.source
    if source == "auto":
        source = "distribution" if host.distribution == "Ubuntu" else "nvidia"
    modules = _pick_modules(host, settings, branch, errors)
    prebuilt_exist = host.distribution == "Ubuntu" and source == "distribution"
    build = settings.module_build
    if build == "auto":
        build = "prebuilt" if prebuilt_exist else "dkms"
    elif build == "prebuilt" and not prebuilt_exist:
        errors.append(
            "nvidia_driver_module_build: 'prebuilt' modules come from Ubuntu only; set auto or dkms, or on Ubuntu "
            "nvidia_driver_source to distribution"
        )
    if settings.edition == "server" and not prebuilt_exist:
        errors.append("nvidia_driver_edition: 'server' is a series of Ubuntu's own; set compute or desktop")
    flavour = settings.kernel_flavour or next(iter(kernel_flavours(host)), "")
    if not flavour and not host.container:
        errors.append(
            "nvidia_driver_kernel_flavour: '' and no kernel metapackage (such as linux-image-generic or "
            "linux-image-amd64) is installed that would tell it; set the flavour that kernels come by"
        )
    choice = Choice(source, branch, modules, build, settings.edition, flavour)
    if build == "dkms" and not host.container and host.secure_boot and not host.mok_enrolled:
        errors.append(_secure_boot_error(host, choice))
    if wanted and not wanted.startswith(f"{branch}."):
        errors.append(f"nvidia_driver_version: '{wanted}' is not of nvidia_driver_branch '{branch}'; set both alike")
    cuda = settings.cuda_toolkit_version
    if cuda and int(cuda.split(".")[0]) >= 13 and branch < 580:
        errors.append(f"nvidia_driver_branch: '{branch}' is too old for CUDA {cuda}, which needs 580 or newer")

    older = installed is not None and (
        version_key(wanted) < version_key(installed) if wanted else branch < version_key(installed)[0]
    )
    if older and not settings.allow_downgrade:
        errors.append(
            f"{'nvidia_driver_version' if wanted else 'nvidia_driver_branch'}: '{wanted or branch}' is older than "
            f"the installed {installed}; keep that, or set nvidia_driver_allow_downgrade: true"
        )

    versioned, kernel_bound = driver_packages(host, choice)
    version_glob = f"{wanted}-*" if wanted else f"{branch}.*"
    cuda_wanted = cuda_packages(settings)
    specs = [(name, version_glob) for name in versioned] + [(name, "") for name in kernel_bound] + list(cuda_wanted)
    plan["packages"] = [f"{name}={version}" if version else name for name, version in specs]
    plan["missing"] = [
        f"{name}={version}" if version else name
        for name, version in specs
        if name not in host.packages or (version and not fnmatch.fnmatchcase(host.packages[name].version, version))
    ]
    plan["unwanted"] = unwanted_packages(host, [*versioned, *kernel_bound])
    plan["source"], plan["modules"], plan["build"] = source, modules, None if host.container else build
    plan["repository_needed"] = source == "nvidia" or bool(cuda_wanted)
    plan["reason"] = (
        f"{', '.join(map(str, gpus))}: branch {branch}"
        + (f", version {wanted}" if wanted else "")
        + (
            ", userspace only, because this is an LXC container and the module is its host's"
            if host.container
            else f", {modules} modules, {'built by DKMS' if build == 'dkms' else 'prebuilt and signed by Ubuntu'}"
        )
        + f", from {'NVIDIA' if source == 'nvidia' else host.distribution}"
    )
    plan["pin"] = _pin(host, choice, version_glob, cuda_wanted, settings)
    if host.container:
        # A container has a kernel's packages by accident at most.
        guarded = [name for name in guarded if name not in kernels]
    else:
        plan["reboot_reasons"] = _reboot_reasons(host, installed)
        plan["kernel_without_modules"] = kernel_without_modules(host, kernel_bound)
    plan["to_hold"] = sorted(name for name in guarded if not host.packages[name].held)
    return plan


def _reboot_reasons(host: Host, installed: str | None) -> list[str]:
    reasons: list[str] = []
    if installed is None:
        return reasons
    if host.nouveau_loaded:
        reasons.append("nouveau is loaded, and holds the GPU until the next boot")
    elif host.loaded_version is None:
        reasons.append("the nvidia module is not loaded")
    elif host.loaded_version != installed:
        reasons.append(f"the kernel has {host.loaded_version} loaded, and {installed} is installed")
    return reasons


def _pin(host: Host, choice: Choice, version_glob: str, cuda: list[tuple[str, str]], settings: Settings) -> str:
    """Preferences for apt. Of the records that match a version, the first one counts."""
    globs = "nvidia-* libnvidia-* xserver-xorg-video-nvidia* libcuda1 libnvcuvid1 firmware-nvidia-gsp* cuda-drivers*"
    records = []
    if choice.source == "distribution" and cuda:
        records.append((globs, "origin {repository_host}", -1))
    if choice.source == "nvidia" and host.distribution == "Ubuntu":
        named = f"nvidia-*-{choice.branch}* libnvidia-*-{choice.branch}* xserver-xorg-video-nvidia-{choice.branch}*"
        records.append((named, "release o=Ubuntu", -1))
    # From 1000 on, apt goes back to older versions by itself.
    records.append((globs, f"version {version_glob}", 1001 if settings.allow_downgrade else 990))
    records += [(name, f"version {version}", 990) for name, version in cuda]
    return "\n".join(f"Package: {name}\nPin: {pin}\nPin-Priority: {priority}\n" for name, pin, priority in records)
