# Copyright: AI-IDP contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Is a host ready for the platform? What it tells of itself, held against what the inventory says of it.

Reading and judging are apart: ``judge_*`` are pure. Nothing needs root, Docker or a driver.
"""

from __future__ import annotations

import glob
import json
import os
import re
import socket
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from ansible.module_utils.ai_idp import gpu_environment, gpu_host, hardware_profile, preflight_check
from ansible.module_utils.ai_idp.files import free_bytes
from ansible.module_utils.ai_idp.gpu_common import read_text
from ansible.module_utils.ai_idp.messages import human_bytes
from ansible.module_utils.ai_idp.model_manifest import read_manifest
from ansible.module_utils.ai_idp.programs import run
from ansible.module_utils.ai_idp.readiness_network import Link, Reached, Ups, explain, reach

OK, MISSING, UNKNOWN = "ok", "missing", "unknown"
NO_GPU = "none"
GIB, GB = 1 << 30, 10**9
# Firmware, kernel and a card's own use take a part of what is sold; the next smaller size is 25 % less or smaller.
MEMORY_TOLERANCE = 0.1
NAS_PORTS = {"cifs": 445, "smb3": 445}
NFS_PORT = 2049
PCI_NAMES = ("usr/share/misc/pci.ids", "usr/share/hwdata/pci.ids")
# A card whose name goes on with one of these is another card.
_OTHER_CARD = r"(?!\s*(?:Ti|SUPER|Laptop|Mobile|Max-Q|D)\b)"


@dataclass(frozen=True)
class Row:
    """One answer. ``needed`` is false where a later week provides it, or where nothing depends on it."""

    name: str
    status: str
    detail: str
    remedy: str = ""
    needed: bool = True

    def public(self, host: str) -> dict[str, Any]:
        return {
            "name": self.name,
            "host": host,
            "status": self.status,
            "detail": self.detail,
            "remedy": "" if self.status == OK else self.remedy,
            "needed": self.needed,
        }


@dataclass(frozen=True)
class Expected:
    """``ai_idp_expected_hardware`` of the inventory; None is not said and not judged."""

    gpu: str | None = None
    gpu_memory_gib: float | None = None
    cpu: str | None = None
    memory_gib: float | None = None
    link_mbit: int | None = None
    nas_free_gb: float | None = None
    ups: str | None = None


def _variable(key: str) -> str:
    return f"ai_idp_expected_hardware.{key} in the inventory"


def names_model(wanted: str, found: str) -> bool:
    """Whether a full product name is that of the model: all of its words, in order, and no sibling's."""
    words = r"\s+".join(re.escape(word) for word in wanted.split())
    # "Orin Nano Super" is an Orin Nano, but an "RTX 5070 Ti" is no RTX 5070.
    guard = _OTHER_CARD if any(sign.isdigit() for sign in wanted) else ""
    return re.search(rf"(?<![\w-]){words}(?![\w-]){guard}", found, re.IGNORECASE) is not None


# -- GPU, CPU, memory ----------------------------------------------------------------------------------------


def pci_names(root: str, cards: list[str]) -> dict[str, str]:
    """Names of NVIDIA cards from the distribution's list, for a host without a driver; those that it knows."""
    ids = {}
    for card in cards:
        device = (read_text(os.path.join(root, "sys/bus/pci/devices", card, "device")) or "").strip()
        if device:
            ids[card] = device.lower().removeprefix("0x")
    names: dict[str, str] = {}
    for path in PCI_NAMES:
        try:
            with open(os.path.join(root, path), encoding="utf-8", errors="replace") as stream:
                vendor = ""
                for line in stream:
                    if not line.startswith(("\t", "#", "\n")):
                        vendor = line[:4]
                    elif vendor == "10de" and line.startswith("\t") and line[1:2] != "\t":
                        number, _, name = line.strip().partition("  ")
                        names[number] = name
        except OSError:
            continue
        break
    return {card: names[number] for card, number in ids.items() if number in names}


def judge_gpu(
    expected: Expected, gpus: list[dict[str, Any]], cards: list[str] | None, names: dict[str, str], why: list[str]
) -> list[Row]:
    """The GPU as in the inventory. ``why`` is what gpu_info says where none answers."""
    if gpus:
        found = ", ".join(hardware_profile.gpu_text(row) for row in hardware_profile.gpu_rows({"gpus": gpus}) or [])
        if expected.gpu == NO_GPU:
            return [Row("gpu", OK, f"{found}; the inventory expects none", needed=False)]
        right = [gpu for gpu in gpus if not expected.gpu or names_model(expected.gpu, gpu["name"] or "")]
        if not right:
            remedy = f"Correct {_variable('gpu')}, or put the card in: what another card does says nothing of this one."
            return [Row("gpu", MISSING, f"{found}, not {expected.gpu}", remedy)]
        wanted = (expected.gpu_memory_gib or 0) * GIB * (1 - MEMORY_TOLERANCE)
        # A Jetson's memory is the host's and is judged there.
        small = [gpu for gpu in right if not gpu["memory_is_shared"] and (gpu["memory_total_bytes"] or wanted) < wanted]
        if small:
            remedy = (
                f"Correct {_variable('gpu_memory_gib')}, or look for what holds the card's memory back (MIG, vGPU)."
            )
            return [Row("gpu", MISSING, f"{found}, not {expected.gpu_memory_gib:g} GiB", remedy)]
        return [Row("gpu", OK, found, needed=expected.gpu is not None)]
    if expected.gpu == NO_GPU:
        return [Row("gpu", OK, "none, as the inventory says", needed=False)]
    if cards:
        there = ", ".join(f"{names.get(card, 'an NVIDIA card')} at {card}" for card in cards)
        known = [names[card] for card in cards if card in names]
        if expected.gpu and len(known) == len(cards):
            if not any(names_model(expected.gpu, name) for name in known):
                remedy = f"Correct {_variable('gpu')}, or put the card in."
                return [Row("gpu", MISSING, f"{there}, not {expected.gpu}", remedy)]
            return [Row("gpu", OK, f"{there}; its memory is known once the driver is there")]
        remedy = "Ask again once week 1 has installed the driver, which knows the card's name and memory."
        return [Row("gpu", UNKNOWN, f"{there}; no driver answers", remedy, needed=False)]
    if expected.gpu is None:
        return []
    detail = f"none answers, {expected.gpu} is expected"
    if cards is None:
        return [Row("gpu", UNKNOWN, f"{detail}; the PCI bus does not tell here", " ".join(why) or "Look with lspci.")]
    remedy = (
        "Check slot and power of the card and that the firmware lists it; a virtual machine or container needs it "
        f"passed through (docs/gpu-troubleshooting.md). Without a card: {_variable('gpu')}: {NO_GPU}."
    )
    return [Row("gpu", MISSING, detail, remedy)]


def judge_cpu(expected: Expected, cpu: dict[str, Any] | None) -> list[Row]:
    if cpu is None:
        return [Row("cpu", UNKNOWN, "/proc/cpuinfo does not tell", "Look with lscpu.", expected.cpu is not None)]
    found = hardware_profile.cpu_text(cpu)
    if expected.cpu and not names_model(expected.cpu, cpu["model"]):
        remedy = f"Correct {_variable('cpu')}, or the address of this host in hosts.yml if it is another machine."
        return [Row("cpu", MISSING, f"{found}, not {expected.cpu}", remedy)]
    return [Row("cpu", OK, found, needed=expected.cpu is not None)]


def judge_memory(expected: Expected, memory: dict[str, Any] | None, container: bool) -> list[Row]:
    needed = expected.memory_gib is not None
    if memory is None:
        return [Row("memory", UNKNOWN, "/proc/meminfo does not tell", "Look with free -h.", needed)]
    total = memory["total_bytes"]
    found = f"{hardware_profile.size_text(total)}{' (of the machine that this container runs on)' if container else ''}"
    if expected.memory_gib and total < expected.memory_gib * GIB * (1 - MEMORY_TOLERANCE):
        remedy = (
            "Check that all modules are seated and enabled (a virtual machine or container may be given less), or "
            f"correct {_variable('memory_gib')}."
        )
        return [Row("memory", MISSING, f"{found}, not {expected.memory_gib:g} GiB", remedy)]
    return [Row("memory", OK, found, needed=needed)]


# -- network -------------------------------------------------------------------------------------------------


def judge_links(expected: Expected, links: list[Link]) -> list[Row]:
    """The speed that was negotiated, by interface."""
    if not links:
        return [Row("link", UNKNOWN, "no route leads to the others", "Look with `ip route`.", bool(expected.link_mbit))]
    return [_judge_link(expected.link_mbit, link) for link in links]


def _judge_link(wanted: int | None, link: Link) -> Row:
    name, needed = f"link {link.name}", wanted is not None
    via = f" ({', '.join(link.cards)})" if link.cards and link.cards != [link.name] else ""
    # A guest can't tell, and what can't be told here is measured before anything relies on it.
    elsewhere = (
        "Read /sys/class/net/*/speed on the machine that holds the card; what the way really carries is measured in "
        "week 1."
    )
    if not link.cards:
        detail = "a virtual interface, whose speed says nothing about a cable"
        return Row(name, UNKNOWN, detail, elsewhere, needed=False)
    if link.wireless:
        remedy = "Connect a cable: the speed of Wi-Fi changes from minute to minute."
        return Row(name, MISSING if needed else OK, f"Wi-Fi{via}", remedy, needed)
    if link.speed_mbit is None and link.carrier:
        detail = f"up, but its card tells no speed, as in a virtual machine{via}"
        return Row(name, UNKNOWN, detail, elsewhere, needed=False)
    if link.speed_mbit is None:
        remedy = f"Put the cable in, switch the other end on, and look with `ethtool {link.cards[0]}`."
        return Row(name, MISSING if needed else UNKNOWN, f"no cable, or nothing at its other end{via}", remedy, needed)
    detail = f"{link.speed_mbit} Mbit/s{f', {link.duplex} duplex' if link.duplex else ''}{via}"
    if link.duplex == "half":
        remedy = "Let both ends negotiate (no fixed speed on card or switch) and try another cable."
        return Row(name, MISSING, detail, remedy, needed)
    if wanted and link.speed_mbit < wanted:
        remedy = (
            f"{wanted} Mbit/s are expected: both cards, the switch port and the cable (Cat 5e or better) have to do "
            f"it. Compare with `ethtool {link.cards[0]}`, or correct {_variable('link_mbit')}."
        )
        return Row(name, MISSING, detail, remedy)
    return Row(name, OK, detail, needed=needed)


def judge_peer(name: str, reached: Reached) -> Row:
    remedy = (
        "Check that it is on, that both are in one network or have a route, and that no firewall on the way drops it; "
        "the hosts call each other at ai_idp_address: the one in hosts.yml or, for a name, that of the default route."
    )
    return Row(f"reaches {name}", OK if reached.ok else MISSING, reached.detail, remedy)


def ask_peers(peers: list[dict[str, Any]], timeout_s: float) -> list[Row]:
    if not peers:
        return []
    with ThreadPoolExecutor(max_workers=min(16, len(peers))) as pool:
        answers = pool.map(lambda peer: reach(peer["address"], peer["port"], timeout_s), peers)
        return [judge_peer(peer["name"], answer) for peer, answer in zip(peers, answers, strict=True)]


def peer_addresses(peers: list[dict[str, Any]]) -> list[str]:
    """As numbers, to find the way to them; names that can't be resolved are told by the check of that peer."""
    found = []
    for peer in peers:
        try:
            found.append(socket.gethostbyname(peer["address"]))
        except OSError:
            continue
    return found


# -- software ------------------------------------------------------------------------------------------------


@dataclass
class Software:
    """Versions of what is installed; None is not installed."""

    driver: str | None = None
    loaded_driver: str | None = None
    cuda: str | None = None
    cudnn: str | None = None
    docker: str | None = None
    compose: str | None = None


def _newest(versions: list[str]) -> str | None:
    return max(versions, key=gpu_host.version_key, default=None)


def read_cuda(root: str, nvcc: str | None, timeout_s: float) -> str | None:
    """The CUDA toolkit's version from its own file, else from its compiler."""
    found = []
    for path in glob.glob(os.path.join(root, "usr/local/cuda*/version.json")):
        try:
            found.append(str(json.loads(read_text(path) or "")["cuda"]["version"]))
        except (ValueError, KeyError, TypeError):
            continue
    if not found and nvcc:
        match = re.search(r"release [\d.]+, V([\d.]+)", run([nvcc, "--version"], timeout_s).output)
        found = [match.group(1)] if match else []
    return _newest(found)


def read_cudnn(root: str) -> str | None:
    """cuDNN's version, from the name of its library."""
    found = []
    for folder in (*gpu_host.LIBRARY_FOLDERS, "usr/lib/aarch64-linux-gnu", "usr/local/cuda/lib64"):
        for path in glob.glob(os.path.join(root, folder, "libcudnn.so.*")):
            match = re.search(r"libcudnn\.so\.(\d+\.\d+\.\d+)$", os.path.realpath(path))
            if match:
                found.append(match.group(1))
    return _newest(found)


def read_docker(docker: str | None, timeout_s: float) -> tuple[str | None, str | None]:
    """Versions of Docker and its compose plugin. The daemon is not asked, since that takes more than a user."""
    if docker is None:
        return None, None
    match = re.search(r"version ([^\s,]+)", run([docker, "--version"], timeout_s).output)
    compose = run([docker, "compose", "version", "--short"], timeout_s)
    return match.group(1) if match else "of unknown version", compose.output.strip() if compose.rc == 0 else None


def judge_driver(seen: Software, wanted: str, expects_gpu: bool) -> list[Row]:
    """The driver's libraries and the loaded kernel module, against the branch that week 1 installs."""
    if not expects_gpu and seen.driver is None:
        return []
    week1 = f"Week 1 installs {wanted}." if wanted else "Week 1 installs it."
    if seen.driver is None:
        return [Row("driver", MISSING, "no NVIDIA driver", week1, needed=False)]
    if seen.driver.startswith("L4T"):
        return [Row("driver", OK, seen.driver, needed=False)]
    if seen.loaded_driver is None:
        remedy = "Restart the host, or see `dkms status` and docs/gpu-troubleshooting.md."
        return [Row("driver", MISSING, f"{seen.driver} is installed, its kernel module is not loaded", remedy)]
    if seen.loaded_driver != seen.driver:
        remedy = "Restart the host, so that kernel module and libraries are of one version."
        return [Row("driver", MISSING, f"{seen.driver}, but the kernel has loaded {seen.loaded_driver}", remedy)]
    if wanted and gpu_host.version_key(seen.driver)[:1] < gpu_host.version_key(wanted)[:1]:
        return [Row("driver", MISSING, f"{seen.driver}, which is older than {wanted}", week1, needed=False)]
    return [Row("driver", OK, seen.driver, needed=False)]


def judge_software(seen: Software, has_gpu: bool) -> list[Row]:
    """What the inference stack is made of. All of it is installed by the platform, so nothing here is needed now."""
    rows = []
    if has_gpu:
        for name, title, found, variable in (
            ("cuda", "CUDA toolkit", seen.cuda, "nvidia_driver_cuda_toolkit_enabled"),
            ("cudnn", "cuDNN", seen.cudnn, "nvidia_driver_cudnn_enabled"),
        ):
            remedy = f"The images bring their own; with {variable}: true week 1 installs it on the host too."
            rows.append(Row(name, OK if found else MISSING, found or f"no {title} on the host", remedy, needed=False))
    if seen.docker is None:
        rows.append(Row("docker", MISSING, "not installed", "Week 2 installs it.", needed=False))
    elif seen.compose is None:
        rows.append(
            Row("docker", MISSING, f"{seen.docker} without the compose plugin", "Week 2 installs it.", needed=False)
        )
    else:
        rows.append(Row("docker", OK, f"{seen.docker}, compose {seen.compose}", needed=False))
    return rows


def judge_service(name: str, week: int, there: bool, found: str, lacking: str) -> Row:
    """A service that a later week brings. Whether it is well is a question for `ai-idp doctor`."""
    status, detail = (OK, found) if there else (MISSING, lacking)
    return Row(name, status, detail, f"Week {week} installs it.", needed=False)


def has_service(root: str, name: str, program: str | None) -> bool:
    """A program in the path, or a unit of that name."""
    folders = ("etc/systemd/system", "usr/lib/systemd/system")
    return program is not None or any(
        os.path.exists(os.path.join(root, folder, f"{name}.service")) for folder in folders
    )


def judge_sudo(rc: int | None, installed: bool, user: str) -> Row:
    """The playbooks become root, and nobody is there to type a password."""
    if not installed:
        remedy = f"Install sudo and let {user} use it without a password, or connect as root (ansible_user)."
        return Row("sudo", MISSING, "not installed", remedy)
    if rc == 0:
        return Row("sudo", OK, "root itself" if user == "root" else f"{user} becomes root without a password")
    remedy = (
        f"As root: echo '{user} ALL=(ALL) NOPASSWD: ALL' > /etc/sudoers.d/{user}; or run the playbooks with "
        "ansible-playbook --ask-become-pass."
    )
    return Row("sudo", MISSING, f"{user} can't become root without a password", remedy)


# -- NAS, models, UPS ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Model:
    """A model that the host is to hold; ``size_bytes`` None is not known beforehand."""

    name: str
    path: str
    size_bytes: int | None = None


def held_bytes(model: Model) -> int | None:
    """Bytes of a model that an earlier run completed; None where it is not complete."""
    try:
        files = read_manifest(model.path).get("files", [])
        sizes = [(entry["size_bytes"], os.stat(os.path.join(model.path, entry["path"])).st_size) for entry in files]
    except (OSError, KeyError, TypeError):
        return None
    complete = bool(sizes) and all(recorded == real for recorded, real in sizes)
    return sum(real for _, real in sizes) if complete else None


def judge_models(
    models: list[Model], held: dict[str, int | None], free: int | None, where: str, keep_free: int
) -> list[Row]:
    """Each model, and whether there is room for those that are to come. ``free`` None: their disk is not there yet."""
    rows, coming, unsized = [], 0, 0
    for model in models:
        size = held[model.name]
        if size is not None:
            rows.append(Row(f"model {model.name}", OK, human_bytes(size), needed=False))
            continue
        detail = f"to be downloaded, {human_bytes(model.size_bytes) if model.size_bytes else 'size not known'}"
        rows.append(Row(f"model {model.name}", MISSING, detail, "Week 2 downloads it.", needed=False))
        coming += model.size_bytes or 0
        unsized += not model.size_bytes
    if not models:
        return rows
    more = f", {unsized} of unknown size" if unsized else ""
    wanted = f"{human_bytes(coming)} to come{more}, {human_bytes(keep_free)} stay free"
    if free is None:
        return [*rows, Row("disk for models", UNKNOWN, wanted, f"{where} is not mounted yet.", needed=False)]
    detail = f"{human_bytes(free)} free at {where}; {wanted}"
    if (coming or unsized) and coming + keep_free > free:
        remedy = (
            f"Free {human_bytes(coming + keep_free - free)} there, choose a larger disk (model_store_dir, "
            "model_store_nas) or fewer models (model_store_models)."
        )
        return [*rows, Row("disk for models", MISSING, detail, remedy)]
    return [*rows, Row("disk for models", OK, detail)]


def nas_server(source: str) -> str:
    """SERVER:/EXPORT, [IPv6]:/EXPORT or //SERVER/SHARE."""
    found = re.match(r"//([^/]+)/", source) or re.match(r"(.+?):/", source)
    return found.group(1).strip("[]") if found else ""


@dataclass(frozen=True)
class Nas:
    """Where models lie that are not on the host's own disk; without ``source`` somebody else mounts it."""

    path: str = ""
    source: str = ""
    fstype: str = "nfs4"


def judge_nas(
    expected: Expected, nas: Nas, mount: preflight_check.Check | None, free: int | None, held: int, server: str | None
) -> list[Row]:
    """``held`` are bytes of models that are there already: they have the room that was asked for. ``server`` says
    how the server answers, None where it does not."""
    if mount is None:
        if expected.nas_free_gb is None:
            remedy = "Set model_store_nas to keep them on a NAS."
            return [Row("nas", MISSING, "none is configured; models lie on the host's own disk", remedy, needed=False)]
        remedy = (
            "Set model_store_nas: {source: SERVER:/EXPORT, path: /mnt/models} and model_store_dir in the inventory; "
            f"for models on the host's own disk take away {_variable('nas_free_gb')}."
        )
        return [Row("nas", MISSING, "none is configured", remedy)]
    if mount.status != preflight_check.OK:
        if server and "nothing is mounted" in mount.detail:
            return [Row("nas", MISSING, f"not mounted; {server}", "Week 2 mounts it.", needed=False)]
        problem = mount.problem or "Mount it."
        where = f"; no answer from {nas_server(nas.source)}" if nas.source else ""
        return [Row("nas", MISSING, f"{nas.path}: {mount.detail}{where}", problem)]
    if free is None:
        return [Row("nas", UNKNOWN, mount.detail, f"Look with `df {nas.path}`.")]
    detail = f"{mount.detail} at {nas.path}, {human_bytes(free)} free"
    if held:
        detail += f" and {human_bytes(held)} of models"
    if expected.nas_free_gb and free + held < expected.nas_free_gb * GB:
        remedy = (
            f"Free space on the NAS until {expected.nas_free_gb:g} GB are there, or lower {_variable('nas_free_gb')}."
        )
        return [Row("nas", MISSING, detail, remedy)]
    return [Row("nas", OK, detail)]


def read_nas(nas: Nas, mountinfo: str, timeout_s: float) -> tuple[preflight_check.Check | None, int | None, str | None]:
    """The mount, free bytes, and how the server answers where nothing is mounted."""
    if not nas.path:
        return None, None, None
    item = {"path": nas.path, "fstype": nas.fstype if nas.source else None, "source": nas.source or None}
    mount = preflight_check.check_mount({**item, "variable": "model_store_nas"}, mountinfo)
    if mount.status == preflight_check.OK:
        try:
            return mount, free_bytes(nas.path), None
        except OSError:
            return mount, None, None
    address, port = nas_server(nas.source), NAS_PORTS.get(nas.fstype, NFS_PORT)
    if not address:
        return mount, None, None
    try:
        with socket.create_connection((address, port), timeout=timeout_s):
            return mount, None, f"{address}:{port} answers"
    except OSError as error:
        return preflight_check.Check(mount.name, mount.status, mount.detail, _server_problem(nas, error)), None, None


def _server_problem(nas: Nas, error: OSError) -> str:
    server = nas_server(nas.source)
    return f"Switch {server} on, check the address in model_store_nas.source ({explain(error)}) and what it exports."


def judge_ups(expected: Expected, ups: Ups) -> Row:
    """The UPS: whether it is seen, on what it runs and for how long it would."""
    needed = bool(expected.ups)
    if ups.problem:
        remedy = (
            "Connect the UPS by USB, install nut-server and nut-client, find it with `nut-scanner -U`, enter it in "
            "/etc/nut/ups.conf and start it"
        )
        remedy += (
            f"; or correct {_variable('ups')} (NAME@HOST[:PORT])."
            if needed
            else f"; with {_variable('ups')}: NAME@HOST it is required."
        )
        return Row("ups", MISSING, ups.problem, remedy, needed)
    values = ups.variables
    words = values.get("ups.status", "").split()
    model = " ".join(values[key] for key in ("ups.mfr", "ups.model") if values.get(key)) or "UPS"
    runtime = values.get("battery.runtime", "")
    minutes = f", {float(runtime) / 60:.0f} min at the present load" if re.fullmatch(r"\d+(\.\d+)?", runtime) else ""
    charge = f", {values['battery.charge']} % charged" if values.get("battery.charge") else ""
    detail = f"{ups.name} ({model}): {' '.join(words) or 'no status'}{charge}{minutes or ', runtime not told'}"
    if "OB" in words or "LB" in words:
        return Row("ups", MISSING, detail, "It runs on its battery: bring the mains back first.", needed)
    if "RB" in words:
        return Row("ups", MISSING, detail, "Its battery wants to be replaced.", needed)
    if "OL" not in words:
        return Row("ups", UNKNOWN, detail, f"Look with `upsc {ups.name}`.", needed)
    return Row("ups", OK, detail, needed=needed)


# -- where it runs -------------------------------------------------------------------------------------------


def is_container(environment: gpu_environment.Environment) -> bool:
    return environment.kind in (gpu_environment.LXC, gpu_environment.DOCKER)
