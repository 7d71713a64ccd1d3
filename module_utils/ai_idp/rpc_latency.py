# Copyright: AI-IDP contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Finds the best link between two hosts by measuring all of them, and says whether llama.cpp's RPC is worth it on it.

"Latency" here is always that of a round trip, never half of it. So a delay that one side's network adds to what it
sends (``tc qdisc add dev ETH root netem delay 2ms``) is in it once, and one that both sides add twice. It is told
twice:

- ``link_rtt_ms`` is the link's own, with both kernels but no program: the shortest round trip that the kernel's TCP
  saw on the connection (``tcpi_min_rtt``). It is what netem's delays are held against, within 10 %, and does not mind
  a busy machine.
- ``rtt_*`` (the smallest message) and ``rpc_latency_*`` (what one generated token hands over) are what a program
  waits for, its own waking up and that of the peer's included: some 0.05 to 0.1 ms more on a machine at rest.

All paths are measured in turn, one process of each at a time, so that none of them has the quiet minute.
"""

from __future__ import annotations

import contextlib
import ipaddress
import itertools
import os
import re
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ansible.module_utils.ai_idp import benchmark_measure, rpc_link, sample_statistics
from ansible.module_utils.ai_idp.benchmark_errors import CannotMeasure, MeasurementError
from ansible.module_utils.ai_idp.documents import WRONG_SHAPE, from_json, mapping_of, mappings_of
from ansible.module_utils.ai_idp.gpu_common import read_line
from ansible.module_utils.ai_idp.messages import shorten
from ansible.module_utils.ai_idp.programs import run
from ansible.module_utils.ai_idp.verdict import LIMIT_ERROR, figure

# The claim of the plan asks for the measurement and the metric by these names.
ID, TOOL = "rpc-latency", "rpc_latency"
METRIC = "rpc_latency_p50_ms"
LINK_METRIC = "link_rtt_ms"
# The kernel counts whole microseconds.
SHORTEST_RTT_MS = 0.001
PORT = 50053
PROGRAM = "rpc_link.py"
UNIT_PREFIX = "ai-idp-rpc-link-"
NFT = "/usr/sbin/nft"
# What a result keeps of each run's exchanges, evenly spread over its time.
KEPT_SAMPLES = 200
SAMPLED = ("rtt", "rpc_latency")
# Less than this of what the program sent or received on the interface means that it went another way.
SEEN_ON_INTERFACE = 0.95
START_SECONDS = 0.5

Document = dict[str, Any]

# --- addresses and paths --------------------------------------------------------------------------------

# Networks of containers and virtual machines, which end on the host itself.
INNER = re.compile(
    r"(lo|docker\d*|docker_gwbridge|br-[0-9a-f]{12}|veth.*|cni.*|flannel.*|cali.*|podman.*|virbr.*|lxcbr.*)"
)
USB4, WIFI, USB, ETHERNET, VIRTUAL = "usb4", "wifi", "usb", "ethernet", "virtual"
KIND_TEXT = {USB4: "USB4", WIFI: "Wi-Fi", USB: "USB", ETHERNET: "Ethernet", VIRTUAL: "a virtual interface"}


def interface_kind(name: str, root: str = "/sys/class/net") -> str:
    """What an interface is by its driver; a USB adapter for 2.5GbE is of kind ``usb``."""
    folder = os.path.join(root, name)
    device = os.path.join(folder, "device")
    driver = os.path.basename(os.path.realpath(os.path.join(device, "driver")))
    if driver.replace("-", "_") == "thunderbolt_net":
        return USB4
    if os.path.isdir(os.path.join(folder, "wireless")) or os.path.isdir(os.path.join(folder, "phy80211")):
        return WIFI
    if not os.path.exists(device):
        return VIRTUAL
    return USB if re.search(r"/usb\d+/", os.path.realpath(device)) else ETHERNET


def link_speed(name: str, root: str = "/sys/class/net") -> int | None:
    """What the interface says that it came up with, Mbit/s; None where it does not tell, as on Wi-Fi."""
    try:
        speed = int(read_line(os.path.join(root, name, "speed")) or "")
    except ValueError:
        return None
    return speed if speed > 0 else None


def parse_addresses(text: str, root: str = "/sys/class/net") -> list[Document]:
    """The IPv4 addresses that another host may reach, from ``ip -json -4 address show up``."""
    found = []
    try:
        for interface in from_json(text or "[]"):
            name = str(interface.get("ifname") or "")
            if not name or INNER.fullmatch(name) or "LOOPBACK" in (interface.get("flags") or []):
                continue
            for entry in interface.get("addr_info") or []:
                if entry.get("family") == "inet" and entry.get("scope") != "host":
                    found.append(
                        {
                            # Raises for what is no address or no prefix.
                            "address": str(ipaddress.IPv4Interface((entry["local"], entry["prefixlen"])).ip),
                            "prefix": int(entry["prefixlen"]),
                            "interface": name,
                            "kind": interface_kind(name, root),
                            "speed_mbit_per_second": link_speed(name, root),
                            "mtu": interface.get("mtu"),
                        }
                    )
    except WRONG_SHAPE:
        raise MeasurementError(f"ip told no addresses but: {shorten(text, 120)}") from None
    return found


def read_addresses(program: str = "ip") -> list[Document]:
    answer = run([program, "-json", "-4", "address", "show", "up"], 10)
    if answer.rc != 0:
        raise MeasurementError(f"ip could not tell the addresses: {shorten(answer.output, 120) or 'no answer'}")
    return parse_addresses(answer.output)


def parse_route(text: str) -> tuple[str, str]:
    """Interface and source address of ``ip -json route get ADDRESS``; empty texts where there is no route."""
    try:
        route = from_json(text)[0]
        return str(route.get("dev") or ""), str(route.get("prefsrc") or "")
    except WRONG_SHAPE:
        return "", ""


def read_route(address: str, program: str = "ip") -> tuple[str, str]:
    answer = run([program, "-json", "-4", "route", "get", address], 10)
    return parse_route(answer.output) if answer.rc == 0 else ("", "")


@dataclass
class Path:
    """One address here and one of the peer.

    ``chosen`` is the way that the kernel sends to the peer's address. RPC binds the peer's address alone, so it
    travels on such paths and on no other.
    """

    source: Document
    peer: Document
    same_network: bool
    chosen: bool
    reason: str = ""
    runs: list[Document] = field(default_factory=list)

    @property
    def name(self) -> str:
        return f"{self.source['interface']} {self.source['address']} to {self.peer['address']}"

    def describe(self) -> Document:
        status = benchmark_measure.OK if self.runs and not self.reason else benchmark_measure.FAILED
        return {
            "source": self.source,
            "peer": self.peer,
            "same_network": self.same_network,
            "chosen": self.chosen,
            "status": status,
            "reason": self.reason or None,
            "metrics": {name: summary_of(self.values(name)) for name in self._metrics()},
            "retransmits": sum(entry.get("kernel", {}).get("retransmits") or 0 for entry in self.runs),
        }

    def _metrics(self) -> list[str]:
        """Names of what every run has; the kernel does not tell the link's own round trip each time."""
        names = list(self.runs[0]["metrics"]) if self.runs else []
        return [name for name in names if all(name in entry["metrics"] for entry in self.runs)]

    def values(self, metric: str) -> list[float]:
        return [float(entry["metrics"][metric]) for entry in self.runs]


def summary_of(values: list[float]) -> Document:
    found = sample_statistics.summarize(values)
    return {"n": found.n, "mean": found.mean, "ci95_low": found.ci95_low, "ci95_high": found.ci95_high}


def paths_between(
    own: list[Document], peers: list[Document], route: Callable[[str], tuple[str, str]]
) -> tuple[list[Path], list[str]]:
    """The pairs of addresses that may reach each other, and why the others don't.

    A pair may when both are in one network, or when the kernel itself sends to the peer's address from there. Any other
    would be answered only because Linux answers for each of its addresses on every interface, by another wire than the
    one that is named.
    """
    paths, left_out = [], []
    mine = {entry["address"] for entry in own}
    for peer in peers:
        if peer["address"] in mine:
            left_out.append(f"{peer['address']} is an address of both hosts")
            continue
        interface, source = route(peer["address"])
        for entry in own:
            network = ipaddress.ip_interface(f"{entry['address']}/{entry['prefix']}").network
            same = ipaddress.ip_address(peer["address"]) in network
            chosen = entry["interface"] == interface and entry["address"] == source
            if same or chosen:
                paths.append(Path(entry, peer, same, chosen))
            else:
                left_out.append(f"{entry['interface']} {entry['address']} has no route to {peer['address']}")
    return paths, left_out


# --- the server on the peer -----------------------------------------------------------------------------


def unit_of(address: str) -> str:
    return f"{UNIT_PREFIX}{address.replace('.', '-')}"


def door_properties(address: str, port: int, clients: list[str], seconds: int) -> list[str]:
    """Have the platform's firewall admit clients as long as a transient unit runs, however that ends.

    A host without that firewall goes without: both commands may fail, before and after.

    Args:
        address: IPv4 address at which the unit listens.
        port: its port.
        clients: IPv4 addresses to admit.
        seconds: after so many the firewall forgets them by itself.

    Returns:
        Arguments of systemd-run.
    """
    doors = [f"{client} . {address} . {port}" for client in clients]
    timed = " , ".join(f"{door} timeout {seconds}s" for door in doors)
    return [
        f"--property=ExecStartPre=+-{NFT} add element inet ai_idp measuring {{ {timed} }}",
        f"--property=ExecStopPost=+-{NFT} delete element inet ai_idp measuring {{ {' , '.join(doors)} }}",
    ]


def server_argv(program: str, address: str, port: int, clients: list[str], lifetime: int) -> list[str]:
    """Systemd runs the server as a user of its own, and ends it should nobody be left to do so."""
    return [
        *("systemd-run", "--quiet", "--collect", f"--unit={unit_of(address)}"),
        *("--property=DynamicUser=yes", "--property=CapabilityBoundingSet=", "--property=PrivateDevices=yes"),
        *("--property=RestrictAddressFamilies=AF_INET", f"--property=RuntimeMaxSec={lifetime + 5}"),
        *door_properties(address, port, clients, lifetime + 5),
        *("/usr/bin/env", "python3", "-I", program, "server", "--bind", address, "--port", str(port)),
        *("--allow", ",".join(clients), "--lifetime", str(lifetime)),
    ]


# --- measuring ------------------------------------------------------------------------------------------


def client_argv(program: str, path: Path, port: int, seconds: float) -> list[str]:
    return [
        *(sys.executable or "python3", "-I", program, "client"),
        *("--source", path.source["address"], "--interface", path.source["interface"]),
        *("--peer", path.peer["address"], "--port", str(port), "--seconds", f"{seconds:g}"),
    ]


def thinned(values: list[float], most: int = KEPT_SAMPLES) -> list[float]:
    """At most so many of them, evenly spread."""
    if len(values) <= most:
        return list(values)
    return [values[place * len(values) // most] for place in range(most)]


def gbit_per_second(stream: Document) -> float:
    return float(stream["bytes"]) * 8 / float(stream["seconds"]) / 1e9


def parse_client(stdout: str) -> Document:
    """Metrics, samples and the kernel's own figures of one process of the client."""
    try:
        told = from_json(stdout)
        metrics: dict[str, float] = {}
        samples: dict[str, list[float]] = {}
        for name, case in told["cases"].items():
            times = sample_statistics.numbers(case["milliseconds"], f"time of {name}")
            for percent in (5, 50, 95):
                metrics[f"{name}_p{percent}_ms"] = sample_statistics.percentile(times, percent)
            if name in SAMPLED:
                samples[f"{name}_ms"] = thinned(times)
        kernel = told.get("kernel") or {}
        if kernel.get("shortest_rtt_ms") is not None:
            metrics[LINK_METRIC] = max(float(kernel["shortest_rtt_ms"]), SHORTEST_RTT_MS)
        kernel = {**kernel, "retransmits": int(kernel.get("retransmits") or 0)}
        metrics["throughput_gbit_per_second"] = gbit_per_second(told["streams"]["there"])
        metrics["throughput_back_gbit_per_second"] = gbit_per_second(told["streams"]["back"])
        elsewhere = other_way(told)
    except WRONG_SHAPE:
        raise MeasurementError(f"{PROGRAM} told no measurement but: {shorten(stdout, 120) or 'nothing'}") from None
    wrong = [name for name, value in metrics.items() if not (value > 0 and sample_statistics.can_be_figure(value))]
    if wrong or METRIC not in metrics:
        raise MeasurementError(f"{PROGRAM} told {', '.join(wrong) or 'no ' + METRIC}, which no measurement gives")
    if elsewhere:
        raise MeasurementError(elsewhere)
    return {"metrics": metrics, "samples": samples, "kernel": kernel}


def other_way(told: Document) -> str:
    """Why the path is not the one that is named: its interface did not see what was sent; empty when it did."""
    program, interface = told.get("program_bytes"), told.get("interface_bytes")
    if not program or not interface:
        return ""
    for way in ("sent", "received"):
        if interface[way] < SEEN_ON_INTERFACE * program[way]:
            return (
                f"{program[way]} bytes were {way}, of which the interface saw {interface[way]}: they went another way"
            )
    return ""


def best_path(paths: list[Path]) -> tuple[Path | None, str]:
    """The path on which a token waits least, and why.

    Of those that can't be told apart by that (Welch's interval of the difference holds 0), the one that carries more.
    Only paths that the kernel chooses count, since RPC travels on no other.
    """
    measured = [path for path in paths if path.runs and not path.reason]
    usable = sorted((path for path in measured if path.chosen), key=latency)
    if not usable:
        return None, ""
    first = usable[0]
    equal = [first]
    for path in usable[1:]:
        difference = sample_statistics.welch(first.values(METRIC), path.values(METRIC), higher_is_better=False)
        if difference.outcome == sample_statistics.INCONCLUSIVE:
            equal.append(path)
    best = max(equal, key=throughput)
    sentences = [path_text(best)]
    others = [path for path in usable if path is not best]
    if others:
        sentences.append("next: " + path_text(others[0]))
    faster = [path for path in measured if not path.chosen and latency(path) < latency(best)]
    if faster:
        sentences.append(f"{path_text(min(faster, key=latency))} would be faster, but the routes do not use it")
    return best, "; ".join(sentences)


def latency(path: Path) -> float:
    value: float = sample_statistics.mean(path.values(METRIC))
    return value


def throughput(path: Path) -> float:
    """Of the slower way."""
    both = ("throughput_gbit_per_second", "throughput_back_gbit_per_second")
    value: float = min(sample_statistics.mean(path.values(way)) for way in both)
    return value


def path_text(path: Path) -> str:
    kind = KIND_TEXT.get(path.source["kind"], path.source["kind"])
    return f"{path.name} ({kind}): {figure(latency(path))} ms for each token, {figure(throughput(path))} Gbit/s"


@dataclass
class Wanted:
    """What is to be measured, by which program, and what is known of it."""

    addresses: list[Document]
    peer_addresses: list[Document]
    results_dir: str
    program: str
    peer: str = ""
    host: str = ""
    environment: str = ""
    port: int = PORT
    runs: int = 5
    warmup_runs: int = 1
    seconds: float = 0.3
    timeout: float = 120.0
    hardware: Document = field(default_factory=dict)
    hardware_fingerprint: str = ""
    again: bool = False

    def problem(self) -> str:
        """What is wrong with it, or an empty text."""
        if self.runs < 2:
            return f"runs is {self.runs}; an interval needs at least 2 independent runs: set it to 2 or more."
        if self.warmup_runs < 0:
            return f"warmup_runs is {self.warmup_runs}; it is 0 or more."
        if not 0.01 <= self.seconds <= 60:
            return f"seconds is {self.seconds:g}; it is a number between 0.01 and 60."
        if not 1 <= self.port <= 65535:
            return f"port is {self.port}; it is a number between 1 and 65535."
        return ""


class Survey:
    """All paths between this host and a peer, as one measurement whose runs are those of the best path."""

    def __init__(self, wanted: Wanted, route: Callable[[str], tuple[str, str]] = read_route) -> None:
        self.wanted = wanted
        self.path = os.path.join(wanted.results_dir, f"{ID}.json")
        self.flags: list[str] = []
        self.paths, self.left_out = paths_between(wanted.addresses, wanted.peer_addresses, route)
        # The speed of an interface says which cable is in it; a link that came up anew is another one.
        known = [[entry[name] for name in sorted(entry)] for entry in (*wanted.addresses, *wanted.peer_addresses)]
        chosen = [[path.source["address"], path.peer["address"]] for path in self.paths if path.chosen]
        self.result: Document = {
            "schema": benchmark_measure.SCHEMA,
            "id": ID,
            "key": benchmark_measure.key_of(
                {
                    "schema": benchmark_measure.SCHEMA,
                    "tool": TOOL,
                    "program": wanted.program,
                    "peer": wanted.peer,
                    "addresses": known,
                    "chosen": chosen,
                    "hardware_fingerprint": wanted.hardware_fingerprint,
                }
            ),
            "status": benchmark_measure.PLANNED,
            "reason": None,
            "host": wanted.host,
            "environment": wanted.environment,
            "tool": TOOL,
            "method": (
                f"{wanted.runs} processes after {wanted.warmup_runs} for warming up on each of {len(self.paths)} paths "
                "in turn; each exchanges messages of the sizes of llama.cpp's RPC over TCP with a server on "
                f"{wanted.peer or 'the peer'}, one at a time, and streams both ways. The round trip of what one "
                f"generated token of Llama 3.2 1B hands over is {METRIC}, the link's own {LINK_METRIC}."
            ),
            "command": [],
            "parameters": {"peer": wanted.peer, "port": wanted.port, "seconds": wanted.seconds},
            "build": f"{PROGRAM} {rpc_link.GREETING.decode().split()[-1]}",
            "model": None,
            "model_hash": None,
            "hardware_fingerprint": wanted.hardware_fingerprint,
            "hardware": wanted.hardware,
            "devices": [],
            "subject": {},
            "warmup_runs": wanted.warmup_runs,
            "runs": [],
            "flags": self.flags,
            "measured_at": None,
        }

    def expected_seconds(self) -> float:
        one = START_SECONDS + self.wanted.seconds * (len(rpc_link.CASES) + 2.4)
        return one * len(self.paths) * (self.wanted.runs + self.wanted.warmup_runs)

    def finished(self) -> Document | None:
        """A result of the same, of no less than is asked for."""
        last = benchmark_measure.read_result(self.path)
        if not last or last.get("key") != self.result["key"] or self.wanted.again:
            return None
        seconds = mapping_of(last.get("parameters")).get("seconds")
        runs = [run for run in mappings_of(last.get("runs")) if METRIC in mapping_of(run.get("metrics"))]
        best = mapping_of(mapping_of(last.get("subject")).get("best"))
        whole = all("address" in mapping_of(best.get(end)) for end in ("source", "peer"))
        if not whole or not isinstance(seconds, (int, float)) or not isinstance(last.get("measured_at"), str):
            return None
        return last if len(runs) >= self.wanted.runs and seconds >= self.wanted.seconds else None

    def measure(self) -> Document:
        """The result: ok, failed or skipped. Only what is ok is kept on the disk."""
        try:
            if not self.paths:
                raise CannotMeasure(self._no_path("no address here reaches one of the peer's", self.left_out))
            with benchmark_measure.only_one(self.wanted.results_dir, ID):
                self._runs()
            self._judge()
            benchmark_measure.write_json(self.path, self.result)
        except CannotMeasure as error:
            self.result.update(status=benchmark_measure.SKIPPED, reason=str(error))
        except MeasurementError as error:
            self.result.update(status=benchmark_measure.FAILED, reason=str(error))
        except OSError as error:
            text = benchmark_measure.os_error_text(error)
            self.result.update(status=benchmark_measure.FAILED, reason=f"a file can't be read or written: {text}")
        return self.result

    def _no_path(self, what: str, reasons: list[str]) -> str:
        peer = f" ({self.wanted.peer})" if self.wanted.peer else ""
        return f"{what}{peer}: {'; '.join(reasons[:4]) or 'one of them has no address'}"

    def _runs(self) -> None:
        with tempfile.TemporaryDirectory(prefix="ai-idp-rpc-link-") as folder:
            program = os.path.join(folder, PROGRAM)
            with open(program, "w", encoding="utf-8") as stream:
                stream.write(self.wanted.program)
            for number in range(1 - self.wanted.warmup_runs, self.wanted.runs + 1):
                conditions = benchmark_measure.cpu_conditions()
                if number > 0:
                    self.flags.extend(benchmark_measure.flags_of(number, conditions, []))
                for path in self.paths:
                    if not path.reason:
                        self._run(program, path, number, conditions)

    def _run(self, program: str, path: Path, number: int, conditions: Document) -> None:
        argv = client_argv(program, path, self.wanted.port, self.wanted.seconds)
        started_at, started = benchmark_measure.now_text(), time.monotonic()
        output = benchmark_measure.execute(argv, self.wanted.timeout)
        seconds = time.monotonic() - started
        try:
            if output.rc is None:
                raise MeasurementError(f"it did not end within {self.wanted.timeout:g} s and was stopped")
            if output.rc:
                said = benchmark_measure.last_line(output.stderr)
                raise MeasurementError(said or f"{PROGRAM} ended with code {output.rc}")
            parsed = parse_client(output.stdout)
        except MeasurementError as error:
            # The other paths go on.
            path.reason = str(error)
            return
        if number > 0:
            row = {"started_at": started_at, "seconds": round(seconds, 3), **parsed, "conditions": conditions}
            path.runs.append(row)

    def _judge(self) -> None:
        best, reason = best_path(self.paths)
        self.result["subject"] = {
            "paths": [path.describe() for path in self.paths],
            "left_out": self.left_out,
            "best": None,
        }
        if best is None:
            unused = [f"{path.name}: the routes do not use it" for path in self.paths if not path.reason]
            failed = [f"{path.name}: {path.reason}" for path in self.paths if path.reason]
            raise MeasurementError(self._no_path("no path to the peer can be used", [*failed, *unused]))
        self.result["subject"]["best"] = {"source": best.source, "peer": best.peer, "reason": reason}
        self.result["command"] = client_argv(PROGRAM, best, self.wanted.port, self.wanted.seconds)[1:]
        self.result["parameters"].update(
            source_address=best.source["address"],
            interface=best.source["interface"],
            peer_address=best.peer["address"],
            peer_interface=best.peer["interface"],
        )
        self.result.update(
            status=benchmark_measure.OK, runs=best.runs, measured_at=benchmark_measure.now_text(), reason=None
        )


# --- what RPC costs, and whether it is worth it ---------------------------------------------------------

WORTH_IT, NOT_WORTH_IT, INCONCLUSIVE, NOT_MEASURED = "worth_it", "not_worth_it", "inconclusive", "not_measured"
DECODE, PROMPT = "decode_tokens_per_second", "prompt_tokens_per_second"
DISTURBED = re.compile(r"(busy|throttled)\b")


@dataclass(frozen=True)
class Rates:
    """Tokens per second of independent processes of llama-bench, or why there are none.

    ``disturbed`` says why the machine may be better than its figures.
    """

    values: list[float] = field(default_factory=list)
    missing: str = ""
    disturbed: str = ""


@dataclass(frozen=True)
class Offload:
    """Whether it is worth it, why, and the ratio of through RPC to local with its interval."""

    verdict: str
    reason: str
    ratio: float | None = None
    ci95_low: float | None = None
    ci95_high: float | None = None


def judge_offload(
    local: Rates, remote: Rates, round_trip_ms: float | None = None, minimum_ratio: float = 1.0
) -> Offload:
    """Whether it is worth it to let a peer compute layers through RPC over this link.

    Worth it means: through RPC the model generates at least ``minimum_ratio`` times the tokens per second of without.
    ``local`` has to be the best that the host does *without* the peer, so where the model does not fit into its GPU
    that is with the rest of the layers on its CPU. A ``minimum_ratio`` under 1 is the price that somebody is ready to
    pay for the memory that the peer lends.

    The whole 95 % interval of the ratio decides (Welch's, of the logarithms: ``sample_statistics.ratio_interval``),
    and standing exactly on the figure counts as reaching it. The first rule that holds:

    1. ``not_measured``: one side has no result or fewer than two runs; or what went "through RPC" was faster than the
       link allows, so that no layer was computed by the peer. Each token waits for at least one round trip
       (``round_trip_ms``, measured), so 1000 / round_trip_ms tokens per second are the most.
    2. ``worth_it``: the interval's low end is at or above ``minimum_ratio``.
    3. ``not_worth_it``: its high end is below.
    4. ``inconclusive``: the interval holds the figure.

    A busy or throttled machine is slower than it is. So ``worth_it`` against a local side that was disturbed and
    ``not_worth_it`` of a remote side that was become ``inconclusive``.
    """
    if not minimum_ratio > 0:
        raise sample_statistics.StatisticsError(f"minimum_ratio is {minimum_ratio!r}; it is a number above 0")
    for name, rates in (("without RPC", local), ("through RPC", remote)):
        if rates.missing or len(rates.values) < 2:
            missing = rates.missing or f"there are {len(rates.values)} runs, and an interval needs 2"
            return Offload(NOT_MEASURED, f"tokens per second {name} are not known: {missing}")
    found = sample_statistics.ratio_interval(remote.values, local.values)
    ours, theirs = sample_statistics.mean(local.values), sample_statistics.mean(remote.values)
    if found.ci95_low is None or found.ci95_high is None:
        return Offload(NOT_MEASURED, "the runs differ so much that their ratio has no interval", found.ratio)
    ends = {"ratio": found.ratio, "ci95_low": found.ci95_low, "ci95_high": found.ci95_high}
    if round_trip_ms and theirs > (1 + LIMIT_ERROR) * 1000 / round_trip_ms:
        return Offload(
            NOT_MEASURED,
            f"{figure(theirs)} tok/s are more than the {figure(1000 / round_trip_ms)} that a round trip of "
            f"{figure(round_trip_ms)} ms allows, so the peer computed nothing of it",
            **ends,
        )
    said = (
        f"through RPC {figure(found.ratio)} times ({figure(found.ci95_low)} to {figure(found.ci95_high)}) as many "
        f"tokens per second: {figure(theirs)} in place of {figure(ours)}{_cost_text(ours, theirs, round_trip_ms)}"
    )
    asked = f"at least {figure(minimum_ratio)} times is asked for"
    # Logarithms there and back leave 0.49999999999999994 of a half.
    line = minimum_ratio * (1 - 1e-9)
    if found.ci95_low >= line:
        if local.disturbed:
            return Offload(INCONCLUSIVE, f"{said}; but without RPC {local.disturbed}; measure again", **ends)
        return Offload(WORTH_IT, f"{said}; {asked}", **ends)
    if found.ci95_high < line:
        if remote.disturbed:
            return Offload(INCONCLUSIVE, f"{said}; but through RPC {remote.disturbed}; measure again", **ends)
        return Offload(NOT_WORTH_IT, f"{said}; {asked}", **ends)
    return Offload(INCONCLUSIVE, f"{said}; {asked}, which lies in the interval: more runs narrow it", **ends)


def _cost_text(ours: float, theirs: float, round_trip_ms: float | None) -> str:
    more = 1000 / theirs - 1000 / ours
    if more <= 0:
        return ""
    text = f", {figure(more)} ms more for each token"
    if round_trip_ms:
        text += f" (as much as {figure(more / round_trip_ms)} of the link's round trips of {figure(round_trip_ms)} ms)"
    return text


def rates_of(measurement: Document | None, metric: str, through: str | None) -> Rates:
    """A metric of a result of llama-bench; ``through`` is the peer's ADDRESS:PORT where it went through RPC.

    A result is refused when it did not go where it is said to: llama-bench goes on without a peer that it can't use.
    """
    if not measurement:
        return Rates(missing="it was not measured")
    if measurement.get("status") != benchmark_measure.OK:
        status = measurement.get("status")
        return Rates(missing=str(measurement.get("reason") or f"the measurement is {status}"))
    command = [str(word) for word in measurement.get("command") or []]
    peers = [part for word in command_values(command, ("--rpc", "-rpc")) for part in word.split(",")]
    # llama-bench names an RPC device by the address of its server.
    devices = [str(device) for device in measurement.get("devices") or []]
    if through is None and peers:
        return Rates(missing=f"the one without RPC went through {', '.join(peers)}")
    if through is not None:
        if through not in peers:
            return Rates(missing=f"llama-bench was not called with --rpc {through}")
        if not any(through in device for device in devices):
            return Rates(missing=f"llama-bench did not compute on {through} but on {', '.join(devices) or 'nothing'}")
    values = [(entry.get("metrics") or {}).get(metric) for entry in measurement.get("runs") or []]
    try:
        numbers = sample_statistics.numbers(values, metric)
    except sample_statistics.StatisticsError as error:
        return Rates(missing=str(error))
    if min(numbers) <= 0:
        return Rates(missing=f"{metric} is {min(numbers):g}, which no measurement gives")
    flags = [str(flag) for flag in measurement.get("flags") or []]
    disturbed = next((flag for flag in flags if DISTURBED.match(flag)), "")
    return Rates(numbers, disturbed=f"the machine was not at rest ({disturbed})" if disturbed else "")


def command_values(command: list[str], options: tuple[str, ...]) -> list[str]:
    """What follows an option, as a word of its own or behind an equals sign."""
    found = [word for before, word in itertools.pairwise(command) if before in options]
    return found + [word.split("=", 1)[1] for word in command for option in options if word.startswith(f"{option}=")]


# What has to be the same on both sides for the ratio to be that of RPC alone.
SAME = ("build", "model", "model_hash", "hardware_fingerprint")


def not_comparable(local: Document | None, remote: Document | None) -> str:
    """What the two results differ in beside RPC; empty when nothing."""
    if not local or not remote:
        return ""
    for name in SAME:
        if local.get(name) != remote.get(name):
            return f"the two measurements differ in {name}: {local.get(name)} and {remote.get(name)}"
    tokens = ("prompt_tokens", "output_tokens", "depth")
    for name in tokens:
        one, other = (entry.get("parameters") or {} for entry in (local, remote))
        if one.get(name) != other.get(name):
            return f"the two measurements differ in {name}: {one.get(name)} and {other.get(name)}"
    return ""


def round_trip_of(link: Document | None) -> tuple[float | None, str]:
    """The link's own round trip (that of the smallest message where the kernel does not tell), and what it is."""
    if not link or link.get("status") != benchmark_measure.OK:
        return None, str((link or {}).get("reason") or "the link was not measured")
    metrics = [entry.get("metrics") or {} for entry in link.get("runs") or []]
    values = [entry.get(LINK_METRIC, entry.get("rtt_p50_ms")) for entry in metrics]
    with contextlib.suppress(sample_statistics.StatisticsError):
        mean = sample_statistics.mean(sample_statistics.numbers(values))
        best = ((link.get("subject") or {}).get("best") or {}).get("reason")
        return mean, str(best or "")
    return None, "the link was not measured"


def of_known_form(result: Document | None) -> Document | None:
    """The result itself, or a failed one in the place of one that no measurement wrote like this."""
    if not result or benchmark_measure.well_formed(result):
        return result
    return {"status": benchmark_measure.FAILED, "reason": "its result has another form: measure it again"}


def offload_of(
    local: Document | None, remote: Document | None, link: Document | None, through: str, minimum_ratio: float
) -> Document:
    """The verdict on offloading from the results of llama-bench and of the link, with what prompts pay beside it."""
    local, remote, link = (of_known_form(one) for one in (local, remote, link))
    round_trip, link_text = round_trip_of(link)
    different = not_comparable(local, remote)
    answer: Document = {"through": through, "link": link_text, "round_trip_ms": round_trip}
    for name, metric in (("decode", DECODE), ("prompt", PROMPT)):
        ours, theirs = rates_of(local, metric, None), rates_of(remote, metric, through)
        if different and not ours.missing and not theirs.missing:
            theirs = Rates(missing=different)
        # A prompt is read many tokens at a time, so a round trip bounds nothing there.
        limit = round_trip if name == "decode" else None
        found = judge_offload(ours, theirs, limit, minimum_ratio)
        answer[name] = {
            "verdict": found.verdict,
            "reason": found.reason,
            "ratio": found.ratio,
            "ci95_low": found.ci95_low,
            "ci95_high": found.ci95_high,
            "local": summary_of(ours.values) if ours.values else None,
            "remote": summary_of(theirs.values) if theirs.values else None,
        }
    # Each token that is generated waits for the link, and a prompt only once.
    answer.update(verdict=answer["decode"]["verdict"], reason=answer["decode"]["reason"])
    return answer
