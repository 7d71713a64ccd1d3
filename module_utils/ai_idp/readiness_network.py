# Copyright: AI-IDP contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a host sees of its network without being root: its links, the other hosts, and a UPS behind NUT."""

from __future__ import annotations

import errno
import glob
import ipaddress
import os
import shlex
import socket
import ssl
import struct
import time
from dataclasses import dataclass, field
from typing import TextIO

from ansible.module_utils.ai_idp.gpu_common import read_line, read_text

NUT_PORT = 3493
ROUTE_IS_UP = 0x1
ECHO_REQUEST, ECHO_REPLY = 8, 0
# A server that never ends its list is no NUT server.
MAX_NUT_LINES = 5000

# -- links ---------------------------------------------------------------------------------------------------


@dataclass
class Link:
    """A network interface; ``speed_mbit`` is None where no speed was negotiated or the kernel can't tell.

    ``cards`` are the physical interfaces behind it: itself, or the members of a bridge or bond. Without any it is
    virtual, and its speed says nothing about a cable.
    """

    name: str
    speed_mbit: int | None = None
    duplex: str | None = None
    cards: list[str] = field(default_factory=list)
    wireless: bool = False
    # Whether a cable with something at its other end is in; None where the interface is down.
    carrier: bool | None = None


@dataclass(frozen=True)
class Route:
    """A line of the kernel's IPv4 routing table."""

    interface: str
    network: ipaddress.IPv4Network
    metric: int


def parse_routes(text: str) -> list[Route]:
    """/proc/net/route, whose addresses are hexadecimal in the machine's own byte order."""
    found = []
    for line in text.splitlines()[1:]:
        parts = line.split()
        if len(parts) < 8 or not int(parts[3], 16) & ROUTE_IS_UP:
            continue
        address, mask = (socket.inet_ntoa(struct.pack("=I", int(parts[index], 16))) for index in (1, 7))
        found.append(Route(parts[0], ipaddress.IPv4Network(f"{address}/{mask}", strict=False), int(parts[6])))
    return found


def interface_to(address: str | None, routes: list[Route]) -> str | None:
    """The interface that leads to an IPv4 address, or to the Internet (None): longest prefix, then lowest metric."""
    if address is None:
        fitting = [route for route in routes if route.network.prefixlen == 0]
    else:
        try:
            wanted = ipaddress.IPv4Address(address)
        except ValueError:
            return None
        fitting = [route for route in routes if wanted in route.network]
    best = min(fitting, key=lambda route: (-route.network.prefixlen, route.metric), default=None)
    return best.interface if best else None


def physical_cards(root: str, name: str, depth: int = 3) -> list[str]:
    """The interfaces with hardware behind this one: itself, or what a bridge, bond or VLAN is made of."""
    folder = os.path.join(root, "sys/class/net", name)
    if os.path.exists(os.path.join(folder, "device")):
        return [name]
    if depth == 0:
        return []
    lower = sorted(os.path.basename(path).removeprefix("lower_") for path in glob.glob(os.path.join(folder, "lower_*")))
    return [card for member in lower for card in physical_cards(root, member, depth - 1)]


def _speed(root: str, name: str) -> int | None:
    """Mbit/s; the kernel gives -1, or no answer at all, for what has none."""
    text = read_line(os.path.join(root, "sys/class/net", name, "speed"))
    return int(text) if text and text.isdigit() and int(text) > 0 else None


def _carriers(folders: list[str]) -> list[bool]:
    """Reading it fails where an interface is down."""
    texts = [read_line(os.path.join(folder, "carrier")) for folder in folders]
    return [text == "1" for text in texts if text]


def read_links(root: str, peers: list[str]) -> list[Link]:
    """The interfaces that lead to the peers; where there are none, the one that leads out."""
    routes = parse_routes(read_text(os.path.join(root, "proc/net/route")) or "")
    names = [name for name in (interface_to(peer, routes) for peer in peers) if name]
    if not names:
        names = [name for name in (interface_to(None, routes),) if name]
    links = []
    for name in dict.fromkeys(names):
        if name == "lo":
            continue
        cards = physical_cards(root, name)
        folders = [os.path.join(root, "sys/class/net", card) for card in cards]
        # The members of a bridge share nothing: the fastest is the one with the cable to the others.
        speeds = {card: speed for card in cards if (speed := _speed(root, card))}
        fastest = max(speeds, key=lambda card: speeds[card], default=None)
        links.append(
            Link(
                name=name,
                speed_mbit=speeds[fastest] if fastest else None,
                duplex=read_line(os.path.join(root, "sys/class/net", fastest, "duplex")) if fastest else None,
                cards=cards,
                carrier=any(carriers) if (carriers := _carriers(folders)) else None,
                wireless=any(os.path.exists(os.path.join(folder, "phy80211")) for folder in folders),
            )
        )
    return links


# -- the other hosts -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Reached:
    """Whether another host answered; ``detail`` says how, or what went wrong."""

    ok: bool
    detail: str


def _checksum(data: bytes) -> int:
    """The Internet checksum of RFC 1071."""
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def ping(address: str, timeout_s: float) -> float | None:
    """Milliseconds to an echo and back; None without one, or where users may not ping. No root is needed."""
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP) as sock:
            sock.settimeout(timeout_s)
            head = struct.pack("!BBHHH", ECHO_REQUEST, 0, 0, 0, 1)
            began = time.monotonic()
            sock.sendto(struct.pack("!BBHHH", ECHO_REQUEST, 0, _checksum(head), 0, 1), (address, 0))
            answer = sock.recv(1024)
            return (time.monotonic() - began) * 1000 if answer[:1] == bytes([ECHO_REPLY]) else None
    except OSError:
        return None


def explain(error: OSError) -> str:
    if isinstance(error, socket.gaierror):
        return "its name can't be resolved"
    if isinstance(error, TimeoutError):
        return "no answer"
    # Where IPv6 is off, the second address of localhost can't even be tried.
    if error.errno in (errno.ECONNREFUSED, errno.EADDRNOTAVAIL):
        return "connection refused"
    return os.strerror(error.errno) if error.errno else str(error)


def reach(address: str, port: int, timeout_s: float) -> Reached:
    """Connects to the SSH port, which every host of an inventory has; a host that closes it may still answer pings."""
    where = f"{address}:{port}"
    began = time.monotonic()
    try:
        with socket.create_connection((address, port), timeout=timeout_s):
            return Reached(True, f"{where} answers in {(time.monotonic() - began) * 1000:.1f} ms")
    except OSError as error:
        milliseconds = ping(address, timeout_s)
        if milliseconds is not None:
            return Reached(True, f"{address} answers pings in {milliseconds:.1f} ms ({where}: {explain(error)})")
        return Reached(False, f"{where}: {explain(error)}, and no answer to a ping")


def connects(address: str, port: int, timeout_s: float) -> bool:
    """Whether something listens there."""
    try:
        with socket.create_connection((address, port), timeout=timeout_s):
            return True
    except OSError:
        return False


def serves_tls(address: str, port: int, timeout_s: float) -> str | None:
    """The TLS version that a server speaks; None without one. Whose certificate it is, is not asked here."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        with (
            socket.create_connection((address, port), timeout=timeout_s) as sock,
            context.wrap_socket(sock) as wrapped,
        ):
            return wrapped.version()
    except OSError:
        return None


# -- UPS -----------------------------------------------------------------------------------------------------


@dataclass
class Ups:
    """What a NUT server says; ``problem`` is a sentence where there is no UPS that answers."""

    name: str = ""
    variables: dict[str, str] = field(default_factory=dict)
    problem: str = ""
    # A NUT server answered, whatever it said.
    served: bool = False


class NutError(Exception):
    """The server answers with an error, or with something that is not NUT's protocol."""


def parse_ups(text: str) -> tuple[str, str, int]:
    """``[NAME@]HOST[:PORT]``, as NUT's own tools write it. ValueError for anything else."""
    name, _, place = text.rpartition("@")
    host, colon, port = place.rpartition(":") if ":" in place and not place.endswith("]") else (place, "", "")
    if not host.strip("[]") or (colon and not (port.isdigit() and 0 < int(port) < 65536)):
        raise ValueError(text)
    return name, host.strip("[]"), int(port) if colon else NUT_PORT


def _nut_list(stream: TextIO, query: str) -> list[list[str]]:
    """The lines of one LIST of NUT's network protocol, as words."""
    stream.write(f"LIST {query}\n")
    stream.flush()
    found: list[list[str]] = []
    for _ in range(MAX_NUT_LINES):
        line = stream.readline(4096)
        try:
            words = shlex.split(line)
        except ValueError:
            raise NutError("it answers, but not as a NUT server") from None
        if words[:1] == ["ERR"]:
            raise NutError(words[1] if len(words) > 1 else "ERR")
        if words[:2] == ["END", "LIST"]:
            return found
        if words[:2] == ["BEGIN", "LIST"]:
            continue
        if not line or words[:1] not in (["UPS"], ["VAR"]):
            raise NutError("it answers, but not as a NUT server")
        found.append(words)
    raise NutError("its list does not end")


def ask_ups(name: str, host: str, port: int, timeout_s: float) -> Ups:
    """Asks upsd for a UPS and its variables; without a name the first that it has. Reading needs no password."""
    where = f"{host}:{port}"
    try:
        with (
            socket.create_connection((host, port), timeout=timeout_s) as sock,
            sock.makefile("rw", encoding="utf-8", errors="replace", newline="\n") as stream,
        ):
            known = [words[1] for words in _nut_list(stream, "UPS") if len(words) > 1]
            if not known:
                return Ups(problem=f"the NUT server at {where} has no UPS", served=True)
            if name and name not in known:
                return Ups(problem=f"the NUT server at {where} has {', '.join(known)}, not {name}", served=True)
            chosen = name or known[0]
            try:
                rows = _nut_list(stream, f"VAR {chosen}")
            except NutError as error:
                return Ups(chosen, problem=f"{chosen} at {where} gives no figures: {error}", served=True)
            return Ups(chosen, {words[2]: words[3] for words in rows if len(words) > 3}, served=True)
    except NutError as error:
        return Ups(problem=f"{where}: {error}", served=True)
    except OSError as error:
        return Ups(problem=f"no NUT server at {where}: {explain(error)}")
