# Copyright: AI-IDP contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Is this host ready? Read-only checks of accounts, ports, disks, mounts, memory and URLs.

Only the standard library of Python 3.10. Every check returns a ``Check``; "can't tell" is its own status.
"""

from __future__ import annotations

import contextlib
import grp
import http.client
import ipaddress
import os
import pwd
import re
import shutil
import socket
import ssl
import struct
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import Any

from ansible.module_utils.ai_idp.documents import WRONG_SHAPE, from_json
from ansible.module_utils.ai_idp.files import free_bytes, nearest_existing
from ansible.module_utils.ai_idp.http_exchange import ProxyForOthers
from ansible.module_utils.ai_idp.messages import display_url, human_bytes
from ansible.module_utils.ai_idp.programs import run

OK, FAIL, UNKNOWN = "ok", "fail", "unknown"
TCP_LISTEN, UDP_BOUND = "0A", "07"
NETWORK_FILE_SYSTEMS = ("nfs", "nfs4", "cifs", "smb3", "fuse.sshfs")
COMMAND_TIMEOUT_S = 15


@dataclass
class Check:
    """One answer. ``problem`` is a sentence for the user when the status is not ok."""

    name: str
    status: str
    detail: str
    problem: str = ""

    def public(self) -> dict[str, str]:
        return {key: value for key, value in asdict(self).items() if key != "problem"}


@dataclass
class Listener:
    """A socket that takes connections (TCP) or is bound (UDP)."""

    protocol: str
    address: str
    port: int
    inode: int


@dataclass
class Holder:
    """Who has a socket, as far as it can be told."""

    pid: int | None = None
    process: str = ""
    cgroup: str = ""

    def __str__(self) -> str:
        if self.pid is None:
            return "a process that could not be named (the check needs root to see it)"
        return f"{self.process} (process {self.pid})"


@dataclass
class Container:
    """One line of ``docker ps``."""

    id: str
    name: str
    project: str
    ports: list[tuple[str, int, str]] = field(default_factory=list)


# -- ports ---------------------------------------------------------------------------------------------------


def parse_proc_address(text: str) -> str:
    """'0B004D0A' → '10.77.0.11'. The kernel prints each 32-bit word in the order of the machine's bytes."""
    words = [int(text[i : i + 8], 16) for i in range(0, len(text), 8)]
    raw = struct.pack(f"={len(words)}I", *words)
    address = ipaddress.ip_address(raw)
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        return str(address.ipv4_mapped)
    return str(address)


def parse_proc_net(text: str, protocol: str) -> list[Listener]:
    """The listening sockets of /proc/net/{tcp,tcp6,udp,udp6}."""
    wanted = TCP_LISTEN if protocol == "tcp" else UDP_BOUND
    listeners = []
    for line in text.splitlines()[1:]:
        parts = line.split()
        if len(parts) < 10 or parts[3] != wanted:
            continue
        address, _, port = parts[1].partition(":")
        listeners.append(Listener(protocol, parse_proc_address(address), int(port, 16), int(parts[9])))
    return listeners


def overlaps(one: str, other: str) -> bool:
    """Would binding both addresses to one port collide? The wildcards take every address of their host."""
    first, second = ipaddress.ip_address(one), ipaddress.ip_address(other)
    if first == second:
        return True
    for wide, narrow in ((first, second), (second, first)):
        # '::' also takes IPv4 unless its owner asked otherwise, which /proc does not tell.
        if wide.is_unspecified and (wide.version == 6 or narrow.version == 4):
            return True
    return False


def parse_published_ports(text: str) -> list[tuple[str, int, str]]:
    """The Ports column of ``docker ps`` → [(address, port, protocol)], published ports only."""
    ports = []
    for entry in (part.strip() for part in text.split(",")):
        match = re.fullmatch(r"(.*):(\d+)(?:-(\d+))?->[\d-]+/(\w+)", entry)
        if match:
            address = match.group(1).strip("[]")
            last = int(match.group(3) or match.group(2))
            ports += [(address, port, match.group(4)) for port in range(int(match.group(2)), last + 1)]
    return ports


def parse_docker_ps(text: str) -> list[Container]:
    """``docker ps --format '{{json .}}'``: one JSON object per line."""
    containers = []
    for line in text.splitlines():
        if not line.strip():
            continue
        entry = from_json(line)
        labels = dict(label.partition("=")[::2] for label in (entry.get("Labels") or "").split(","))
        containers.append(
            Container(
                id=entry["ID"],
                name=entry.get("Names", ""),
                project=labels.get("com.docker.compose.project", ""),
                ports=parse_published_ports(entry.get("Ports", "")),
            )
        )
    return containers


class Host:
    """What the checks read from the machine; tests put captured text in its place."""

    def __init__(self, proc: str = "/proc") -> None:
        self.proc = proc
        self._containers: list[Container] | None = None
        self._asked_docker = False

    def read(self, path: str) -> str:
        with open(os.path.join(self.proc, path), encoding="utf-8", errors="replace") as stream:
            return stream.read()

    def listeners(self) -> list[Listener]:
        found = []
        for name, protocol in (("tcp", "tcp"), ("tcp6", "tcp"), ("udp", "udp"), ("udp6", "udp")):
            # A kernel without IPv6 has no such file.
            with contextlib.suppress(FileNotFoundError):
                found += parse_proc_net(self.read(f"net/{name}"), protocol)
        return found

    def holders(self, inodes: set[int]) -> dict[int, Holder]:
        """Finds the processes of the sockets by walking /proc/PID/fd; several may share one, the first counts."""
        wanted = {f"socket:[{inode}]": inode for inode in inodes}
        found: dict[int, Holder] = {}
        for pid in sorted((int(name) for name in os.listdir(self.proc) if name.isdigit()), reverse=True):
            folder = os.path.join(self.proc, str(pid), "fd")
            # Processes end while we look, and other users' are closed to us.
            with contextlib.suppress(OSError):
                for name in os.listdir(folder):
                    with contextlib.suppress(OSError):
                        inode = wanted.get(os.readlink(os.path.join(folder, name)))
                        if inode is not None:
                            found[inode] = self._holder(pid)
        return found

    def _holder(self, pid: int) -> Holder:
        process, cgroup = "?", ""
        with contextlib.suppress(OSError):
            process = self.read(f"{pid}/comm").strip()
        with contextlib.suppress(OSError):
            cgroup = self.read(f"{pid}/cgroup")
        return Holder(pid, process, cgroup)

    def containers(self) -> list[Container] | None:
        """Running containers, or None where Docker is not there or does not answer."""
        if not self._asked_docker:
            self._asked_docker = True
            self._containers = self._ask_docker()
        return self._containers

    @staticmethod
    def _ask_docker() -> list[Container] | None:
        program = shutil.which("docker", path=os.environ.get("PATH", "") + ":/usr/bin:/usr/local/bin")
        if program is None:
            return None
        try:
            done = subprocess.run(
                [program, "ps", "--no-trunc", "--format", "{{json .}}"],
                capture_output=True,
                encoding="utf-8",
                errors="replace",
                timeout=COMMAND_TIMEOUT_S,
                env={**os.environ, "LC_ALL": "C"},
                check=False,
            )
            return parse_docker_ps(done.stdout) if done.returncode == 0 else None
        except (OSError, subprocess.TimeoutExpired, *WRONG_SHAPE):
            return None


def find_container(listener: Listener, holder: Holder, containers: Iterable[Container]) -> Container | None:
    """The container behind a socket: by its published port, or by the process's cgroup (host network)."""
    for container in containers:
        published = any(
            port == listener.port and protocol == listener.protocol and overlaps(address, listener.address)
            for address, port, protocol in container.ports
        )
        if container.id in holder.cgroup or (published and holder.process in ("docker-proxy", "dockerd", "")):
            return container
    return None


def is_ours(wanted: dict[str, Any], holder: Holder, container: Container | None) -> bool:
    project = wanted.get("owner_compose_project")
    if project and container is not None and container.project == project:
        return True
    if holder.pid is None:
        return False
    if wanted.get("owner_unit") and f"/{wanted['owner_unit']}" in holder.cgroup:
        return True
    return holder.process in (wanted.get("owner_processes") or [])


def check_ports(items: list[dict[str, Any]], host: Host) -> list[Check]:
    """Is each port free, or held by what this project itself started there?"""
    if not items:
        return []
    listeners = host.listeners()
    clashes = [
        [
            listener
            for listener in listeners
            if listener.port == item["port"]
            and listener.protocol == item["protocol"]
            and overlaps(listener.address, item["address"])
        ]
        for item in items
    ]
    inodes = {listener.inode for found in clashes for listener in found}
    holders = host.holders(inodes) if inodes else {}
    checks = [_check_port(item, found, holders, host) for item, found in zip(items, clashes, strict=True)]
    return checks + _check_port_pairs(items)


def _check_port(item: dict[str, Any], found: list[Listener], holders: dict[int, Holder], host: Host) -> Check:
    name = f"port {item['address']}:{item['port']}/{item['protocol']}"
    held_by = ""
    for listener in found:
        holder = holders.get(listener.inode, Holder())
        container = find_container(listener, holder, host.containers() or [])
        if is_ours(item, holder, container):
            held_by = f"held by this platform's own {container.name if container else holder.process}"
            continue
        who = f"container {container.name}" if container else str(holder)
        return Check(
            name,
            FAIL,
            f"{listener.address}:{listener.port} is held by {who}",
            f"{_variable(item)}{item['port']} on {item['address']} ({item['protocol']}) is already taken by {who}, "
            f"which listens on {listener.address}: choose a free port, or stop what holds it.",
        )
    return Check(name, OK, held_by or "free")


def _check_port_pairs(items: list[dict[str, Any]]) -> list[Check]:
    """Two services of one plan must not want the same port either."""
    checks = []
    for index, first in enumerate(items):
        for second in items[index + 1 :]:
            same = all(first[key] == second[key] for key in ("port", "protocol"))
            if same and overlaps(first["address"], second["address"]):
                names = " and ".join(item.get("variable") or "an entry without a name" for item in (first, second))
                checks.append(
                    Check(
                        f"port {first['port']}/{first['protocol']} wanted twice",
                        FAIL,
                        f"wanted by {names}",
                        f"{names} both want port {first['port']} ({first['protocol']}) on {first['address']}: "
                        f"give one of them another port.",
                    )
                )
    return checks


def _variable(item: dict[str, Any]) -> str:
    return f"{item['variable']}: " if item.get("variable") else ""


# -- accounts -----------------------------------------------------------------------------------------------


def check_account(item: dict[str, Any]) -> Check:
    """Is the account there, and a group of its name?"""
    name = item["name"]
    missing = []
    for kind, find in (("account", pwd.getpwnam), ("group", grp.getgrnam)):
        try:
            find(name)
        except KeyError:
            missing.append(kind)
    if not missing:
        return Check(f"account {name}", OK, "it is there with a group of its name")
    return Check(
        f"account {name}",
        FAIL,
        f"no {' and no '.join(missing)} of this name",
        f"{_variable(item)}this host has no {' and no '.join(missing)} '{name}': make what is missing, or name an "
        f"account that it has.",
    )


# -- disks, mounts, memory -----------------------------------------------------------------------------------


def check_disk(item: dict[str, Any]) -> Check:
    """Is there room under the path, which need not exist yet?"""
    where = nearest_existing(item["path"])
    free = free_bytes(where)
    detail = f"{human_bytes(free)} free on the file system of {where}, {human_bytes(item['min_free_bytes'])} wanted"
    name = f"disk {item['path']}"
    if free >= item["min_free_bytes"]:
        return Check(name, OK, detail)
    return Check(
        name,
        FAIL,
        detail,
        f"{_variable(item)}{item['path']} lies on a file system with {human_bytes(free)} free ({where}), but "
        f"{human_bytes(item['min_free_bytes'])} are needed: free {human_bytes(item['min_free_bytes'] - free)} there or "
        f"choose a path on a larger disk.",
    )


def parse_mountinfo(text: str) -> list[dict[str, str]]:
    """/proc/self/mountinfo → [{path, fstype, source}], in the order of mounting."""
    mounts = []
    for line in text.splitlines():
        left, _, right = line.partition(" - ")
        before, after = left.split(), right.split()
        if len(before) >= 5 and len(after) >= 2:
            path, source = (
                re.sub(r"\\([0-7]{3})", lambda match: chr(int(match.group(1), 8)), value)
                for value in (before[4], after[1])
            )
            mounts.append({"path": path, "fstype": after[0], "source": source})
    return mounts


def answers(path: str, timeout_s: float = 10.0) -> bool:
    """Does the file system answer? Asked by a child, since a dead NFS server blocks whoever asks."""
    # A child that hangs in the kernel goes when the server is back; nobody waits for it.
    return run(["stat", "--file-system", "--", path], timeout_s).rc == 0


def check_mount(item: dict[str, Any], mountinfo: str, is_alive: Callable[[str], bool] = answers) -> Check:
    """Is something really mounted at the path (and is it the right thing)?"""
    path = os.path.normpath(item["path"])
    name = f"mount {path}"
    here = [mount for mount in parse_mountinfo(mountinfo) if mount["path"] == path]
    if not here:
        return Check(
            name,
            FAIL,
            "nothing is mounted there",
            f"{_variable(item)}{path} is not a mount point, so files would land on the host's own disk: mount the disk "
            f"or NAS there (see 'findmnt {path}' and /etc/fstab), then run again.",
        )
    mount = here[-1]
    detail = f"{mount['source']} ({mount['fstype']})"
    fstype, source = item.get("fstype"), item.get("source")
    kinds = {mount["fstype"], mount["fstype"].rstrip("4") if mount["fstype"] == "nfs4" else mount["fstype"]}
    if fstype and fstype not in kinds and not (fstype == "nfs4" and mount["fstype"] == "nfs"):
        return Check(
            name,
            FAIL,
            detail,
            f"{_variable(item)}{path} has a {mount['fstype']} file system mounted, {fstype} is expected: mount the "
            f"right one, then run again.",
        )
    if source and source.rstrip("/") != mount["source"].rstrip("/"):
        return Check(
            name,
            FAIL,
            detail,
            f"{_variable(item)}{path} has {mount['source']} mounted, {source} is expected: unmount it or correct the "
            f"source, then run again.",
        )
    if mount["fstype"] in NETWORK_FILE_SYSTEMS and not is_alive(path):
        return Check(
            name,
            FAIL,
            f"{detail} does not answer",
            f"{_variable(item)}{path} is mounted from {mount['source']}, which does not answer: bring the server or "
            f"the network back, then run again.",
        )
    return Check(name, OK, detail)


def check_memory(item: dict[str, Any], meminfo: str) -> list[Check]:
    """Total and available memory, from /proc/meminfo (its kB are KiB)."""
    values = {match.group(1): int(match.group(2)) * 1024 for match in re.finditer(r"(\w+):\s+(\d+) kB", meminfo)}
    checks = []
    for key, field_name, word in (
        ("min_total_bytes", "MemTotal", "in all"),
        ("min_available_bytes", "MemAvailable", "available"),
    ):
        wanted = item.get(key)
        if wanted is None:
            continue
        name = f"memory {word}"
        if field_name not in values:
            checks.append(Check(name, UNKNOWN, f"/proc/meminfo has no {field_name}"))
            continue
        has = values[field_name]
        detail = f"{human_bytes(has)} {word}, {human_bytes(wanted)} wanted"
        remedy = "stop what uses it" if field_name == "MemAvailable" else "use a larger host"
        problem = (
            f"{_variable(item)}{human_bytes(wanted)} of memory are needed, the host has {human_bytes(has)} {word}: "
            f"lower what is asked for, or {remedy}."
        )
        checks.append(Check(name, OK, detail) if has >= wanted else Check(name, FAIL, detail, problem))
    return checks


# -- URLs ----------------------------------------------------------------------------------------------------


def host_of(url: str) -> str:
    """The host of a URL; empty where it is none."""
    try:
        return urllib.parse.urlsplit(url).hostname or ""
    except ValueError:
        return ""


def explain_network_error(error: BaseException, url: str) -> tuple[str, str]:
    """(what failed, what to do): name, connection, time or certificate."""
    host = host_of(url) or display_url(url)
    reason: Any = error
    while isinstance(reason, urllib.error.URLError) and isinstance(reason.reason, BaseException):
        reason = reason.reason
    if isinstance(reason, socket.gaierror):
        return f"the name {host} cannot be resolved", "check the name and the host's DNS"
    if isinstance(reason, ssl.SSLCertVerificationError):
        return (
            f"its TLS certificate is not trusted ({reason.verify_message})",
            "install the authority's certificate on the host or correct the URL",
        )
    if isinstance(reason, ssl.SSLError):
        return (
            f"TLS failed ({reason.reason or reason})",
            "check whether the port speaks https and not plain http",
        )
    if isinstance(reason, TimeoutError):
        return "it did not answer in time", "check the address, routes and firewalls on the way"
    if isinstance(reason, ConnectionRefusedError):
        return "the connection was refused", "check that the service runs and that the port is right"
    if isinstance(reason, http.client.HTTPException):
        return f"it does not speak HTTP ({type(reason).__name__})", "check the port and the scheme of the URL"
    text = str(getattr(reason, "reason", reason)) or type(reason).__name__
    return text, "check the address and the network"


def _status_of(url: str, method: str, timeout_s: float) -> int:
    request = urllib.request.Request(url, method=method, headers={"User-Agent": "ai-idp-preflight-check"})
    opener = urllib.request.build_opener(ProxyForOthers())
    try:
        with opener.open(request, timeout=timeout_s) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def check_url(item: dict[str, Any], timeout_s: float = 10.0) -> Check:
    """Is the service there? ``tcp://HOST:PORT`` only connects."""
    url = item["url"]
    shown = display_url(url)
    name = f"url {shown}"
    purpose = f" ({item['purpose']})" if item.get("purpose") else ""
    try:
        parts = urllib.parse.urlsplit(url)
        valid = parts.scheme in ("http", "https", "tcp") and parts.hostname
        # Asking for the port refuses one that is none.
        if not valid or (parts.port is None and parts.scheme == "tcp"):
            raise ValueError(url)
        if parts.scheme == "tcp":
            with socket.create_connection((str(parts.hostname), int(parts.port or 0)), timeout=timeout_s):
                return Check(name, OK, "connected")
        status = _status_of(url, item.get("method") or "GET", timeout_s)
    except (OverflowError, ValueError, http.client.InvalidURL):
        return Check(
            name,
            FAIL,
            "not a URL",
            f"{_variable(item)}{shown!r}{purpose} is not a usable URL: write http://, https:// or tcp:// with host and "
            f"(for tcp) port.",
        )
    except (urllib.error.URLError, http.client.HTTPException, OSError) as error:
        what, remedy = explain_network_error(error, url)
        return Check(
            name, FAIL, what, f"{_variable(item)}{shown}{purpose} cannot be reached from this host: {what}; {remedy}."
        )
    accepted = item.get("accept_status") or []
    if status in accepted or (not accepted and 200 <= status < 400):
        return Check(name, OK, f"HTTP {status}")
    allowed = " or ".join(str(code) for code in accepted) or "200 to 399"
    return Check(
        name,
        FAIL,
        f"HTTP {status}",
        f"{_variable(item)}{shown}{purpose} answered HTTP {status}, expected {allowed}: check the address and what "
        f"runs there.",
    )


def run_checks(params: dict[str, Any], host: Host | None = None) -> list[Check]:
    """All checks of one call. URLs are asked side by side, since a dead one costs its whole time-out."""
    host = host or Host()
    checks = check_ports(params.get("ports") or [], host)
    checks += [check_account(item) for item in params.get("accounts") or []]
    checks += [check_disk(item) for item in params.get("disk") or []]
    mounts = params.get("mounts") or []
    if mounts:
        mountinfo = host.read("self/mountinfo")
        checks += [check_mount(item, mountinfo) for item in mounts]
    if params.get("memory"):
        checks += check_memory(params["memory"], host.read("meminfo"))
    urls = params.get("urls") or []
    if urls:
        with ThreadPoolExecutor(max_workers=min(8, len(urls))) as pool:
            checks += pool.map(lambda item: check_url(item, params.get("timeout") or 10), urls)
    return checks
