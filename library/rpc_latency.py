#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: rpc_latency
short_description: Measures the links between two hosts at the message sizes of llama.cpp's RPC
description:
  - Finds the best link between two hosts by measuring every path between their IPv4 addresses, and says whether it is
    worth it to let the peer compute layers of a model through llama.cpp's RPC.
  - Latency is the round trip between two programs over TCP. A delay that one side's network adds to what it sends is
    in it once.
  - Each path is measured by independent processes, one of each path at a time. Each exchanges the messages that
    llama.cpp sends for a command, for one generated token, and for a piece of a prompt, with TCP_NODELAY as llama.cpp
    has it, and streams both ways.
  - A finished measurement is the file C(rpc-latency.json) in O(results_dir), of the form of M(benchmark_measure). As
    long as addresses, speeds of the interfaces, routes, hardware and program are the same, it is kept.
  - What can't be measured does not fail the module, so that a play goes on; RV(measurement.status) and
    RV(measurement.reason) say it.
options:
  step:
    description:
      - V(addresses) reads the addresses of this host, the peer.
      - V(serve) starts, on the peer, a server for each of O(addresses), by systemd-run as a user of its own, bound to
        the one address, open to O(clients) alone. It ends by itself after O(lifetime).
      - V(measure), on the other host, measures the paths from its addresses to O(peer_addresses).
      - V(stop) ends, on the peer, the servers and removes their program.
      - V(judge) compares tokens per second without and through RPC.
    type: str
    choices: [addresses, serve, measure, stop, judge]
    required: true
  addresses:
    description:
      - This host's addresses, as V(addresses) returned them. V(measure) reads them itself where they are not given.
    type: list
    elements: dict
  peer_addresses:
    description: Those of the peer.
    type: list
    elements: dict
  clients:
    description: Addresses that the servers answer.
    type: list
    elements: str
  port:
    description: Port of the servers. The peer's firewall has to admit it.
    type: int
    default: 50053
  lifetime:
    description: Seconds after which a server ends by itself.
    type: int
    default: 900
  program:
    description:
      - For V(serve) and V(measure), the text of the program of both ends. The action plugin gives it, from
        C(module_utils/ai_idp/rpc_link.py).
    type: str
  results_dir:
    description: Folder of the finished measurement.
    type: path
  peer:
    description: Name of the peer as the result tells it.
    type: str
    default: ""
  host:
    description: Name of the host that the result is about.
    type: str
    default: ""
  environment:
    description: Name of the environment, such as V(lab) or V(production).
    type: str
    default: ""
  runs:
    description: Independent processes on each path that count. An interval needs 2.
    type: int
    default: 5
  warmup_runs:
    description: Processes before them that don't count.
    type: int
    default: 1
  seconds:
    description: How long a process repeats each exchange, and streams each way.
    type: float
    default: 0.3
  timeout:
    description: Seconds for each process. One that takes longer is ended, and its path left out.
    type: float
    default: 120
  hardware_profile:
    description: The C(profile) of M(hardware_profile) of the host that the result is about.
    type: dict
    default: {}
  again:
    description: Measure even if it is finished.
    type: bool
    default: false
  local:
    description:
      - For V(judge), the C(measurement) of llama-bench without RPC; the best that the host does without the peer, so
        with layers on its CPU where the model does not fit into its GPU.
    type: dict
  remote:
    description: For V(judge), the one of llama-bench with C(--rpc) O(through).
    type: dict
  link:
    description: For V(judge), the C(measurement) of V(measure).
    type: dict
  through:
    description: For V(judge), C(ADDRESS:PORT) of the RPC server.
    type: str
  minimum_ratio:
    description: How many times the tokens per second of without RPC make it worth it. Under 1 it is a price of memory.
    type: float
    default: 1.0
attributes:
  check_mode:
    support: full
    description: Starts no server and sends no load; says whether it would. V(addresses) and V(judge) change nothing.
  diff_mode:
    support: none
    description: Measured numbers are no configuration.
author:
  - AI-IDP
"""

EXAMPLES = r"""
- name: The peer's addresses are known
  rpc_latency:
    step: addresses
  delegate_to: jetson
  register: __peer

- name: The links to the peer are measured
  rpc_latency:
    step: measure
    peer_addresses: "{{ __peer.addresses }}"
    peer: jetson
    results_dir: /home/ubuntu/ai-idp/benchmark/links/jetson
  register: __link

- name: Whether offloading is worth it is known
  rpc_latency:
    step: judge
    local: "{{ __llama_bench_local.measurement }}"
    remote: "{{ __llama_bench_remote.measurement }}"
    link: "{{ __link.measurement }}"
    through: 10.77.0.13:50052
"""

RETURN = r"""
addresses:
  description: Addresses that another host may reach; those of containers, virtual machines and loopback are left out.
  returned: step is addresses or measure
  type: list
  elements: dict
  sample:
    - {address: 10.77.0.13, prefix: 24, interface: eth0, kind: ethernet, speed_mbit_per_second: 2500, mtu: 1500}
servers:
  description: C(ADDRESS:PORT) of each server that was started.
  returned: step is serve
  type: list
  elements: str
measurement:
  description:
    - The result. C(runs) are those of the best path; C(subject.paths) has every path with its metrics and intervals or
      the reason why it was not measured, C(subject.best) the best one and why.
  returned: step is measure
  type: dict
  sample:
    id: rpc-latency
    status: ok
    runs: [{metrics: {rtt_p50_ms: 0.21, rpc_latency_p50_ms: 0.29, throughput_gbit_per_second: 9.4}}]
    subject: {best: {peer: {address: 10.99.0.2}, reason: "thunderbolt0 10.99.0.1 to 10.99.0.2 (USB4): 0.29 ms"}}
kept:
  description: The result is one of an earlier time.
  returned: step is measure
  type: bool
plan:
  description: What was or would be done, in a sentence.
  returned: step is measure
  type: str
expected_seconds:
  description: How long it takes; 0 when it is finished.
  returned: step is measure
  type: float
offload:
  description:
    - C(verdict) is V(worth_it), V(not_worth_it), V(inconclusive) or V(not_measured); C(reason) says why. C(decode) and
      C(prompt) have ratio and interval of generating and of reading a prompt; the verdict is that of generating.
  returned: step is judge
  type: dict
  sample: {verdict: not_worth_it, reason: "through RPC 0.59 times (0.57 to 0.61) as many tokens per second"}
"""

import os
import shutil
import signal
import socket
import sys
import time
from typing import Any

from ansible.module_utils.ai_idp import benchmark_measure, hardware_profile, rpc_latency
from ansible.module_utils.ai_idp.benchmark_errors import MeasurementError
from ansible.module_utils.ai_idp.files import write_atomically
from ansible.module_utils.ai_idp.programs import run
from ansible.module_utils.ai_idp.sample_statistics import StatisticsError
from ansible.module_utils.basic import AnsibleModule

# Everybody may read the program: systemd runs it as a user that is nobody else.
PROGRAM_DIR = "/run/ai-idp-rpc-link"
START_PATIENCE = 15.0


def addresses_of(module: AnsibleModule) -> list[dict[str, Any]]:
    """This host's addresses. Without the program that tells them the module fails."""
    program = module.get_bin_path("ip", opt_dirs=["/usr/sbin", "/sbin"])
    if not program:
        module.fail_json(msg="ip is not there, which tells the addresses: install the package iproute2")
    return rpc_latency.read_addresses(program)


def read_addresses(module: AnsibleModule) -> None:
    module.exit_json(changed=False, addresses=addresses_of(module))


def wait_for(address: str, port: int) -> bool:
    until = time.monotonic() + START_PATIENCE
    while time.monotonic() < until:
        try:
            with socket.create_connection((address, port), timeout=1):
                return True
        except OSError:
            time.sleep(0.1)
    return False


def stop_servers(module: AnsibleModule) -> bool:
    """Ends what is there of servers; False when there was nothing."""
    systemctl = module.get_bin_path("systemctl")
    if systemctl:
        module.run_command([systemctl, "stop", f"{rpc_latency.UNIT_PREFIX}*.service"])
    if not os.path.isdir(PROGRAM_DIR):
        return False
    shutil.rmtree(PROGRAM_DIR)
    return True


def serve(module: AnsibleModule) -> None:
    addresses = [entry["address"] for entry in module.params["addresses"]]
    port, clients = module.params["port"], module.params["clients"]
    servers = [f"{address}:{port}" for address in addresses]
    if module.check_mode:
        module.exit_json(changed=True, servers=servers)
    if not module.get_bin_path("systemd-run"):
        module.fail_json(msg="systemd-run is not there, which starts and ends the servers: this needs systemd")
    # A run that was interrupted leaves its servers behind, until their time is over.
    stop_servers(module)
    os.makedirs(PROGRAM_DIR, mode=0o755)
    module.set_mode_if_different(PROGRAM_DIR, "0755", False)
    program = os.path.join(PROGRAM_DIR, rpc_latency.PROGRAM)
    write_atomically(program, module.params["program"].encode())
    module.set_mode_if_different(program, "0644", False)
    for address in addresses:
        argv = rpc_latency.server_argv(program, address, port, clients, module.params["lifetime"])
        rc, out, err = module.run_command(argv)
        reason = (err or out).strip() if rc else ""
        if not rc and not wait_for(address, port):
            unit = f"{rpc_latency.unit_of(address)}.service"
            said = run(["journalctl", "--unit", unit, "--lines", "3", "--output", "cat", "--no-pager"], 10)
            reason = benchmark_measure.last_line(said.output) or "it does not answer"
        if reason:
            stop_servers(module)
            module.fail_json(msg=f"the server of the link measurement could not start on {address}:{port}: {reason}")
    module.exit_json(changed=True, servers=servers)


def stop(module: AnsibleModule) -> None:
    if module.check_mode:
        module.exit_json(changed=os.path.isdir(PROGRAM_DIR))
    module.exit_json(changed=stop_servers(module))


def measure(module: AnsibleModule) -> None:
    params = module.params
    program = module.get_bin_path("ip", opt_dirs=["/usr/sbin", "/sbin"])
    if params["addresses"] is None:
        params["addresses"] = addresses_of(module)
    profile = params["hardware_profile"]
    wanted = rpc_latency.Wanted(
        **{
            name: params[name]
            for name in (
                *("addresses", "peer_addresses", "results_dir", "program", "peer", "host", "environment", "port"),
                *("runs", "warmup_runs", "seconds", "timeout", "again"),
            )
        }
    )
    problem = wanted.problem()
    if problem:
        module.fail_json(msg=problem)
    if profile:
        wanted.hardware = benchmark_measure.hardware_of(profile)
        wanted.hardware_fingerprint = profile.get("fingerprint") or hardware_profile.fingerprint(profile)
    survey = rpc_latency.Survey(wanted, lambda address: rpc_latency.read_route(address, program or "ip"))
    finished = survey.finished()
    if finished:
        plan = f"{rpc_latency.ID}: kept, measured at {finished['measured_at']}"
        answer = {"kept": True, "plan": plan, "expected_seconds": 0}
        module.exit_json(changed=False, measurement=finished, addresses=wanted.addresses, **answer)
    seconds = survey.expected_seconds()
    about = benchmark_measure.duration_text(seconds)
    answer = {
        "addresses": wanted.addresses,
        "kept": False,
        "plan": f"{rpc_latency.ID}: {len(survey.paths)} paths, {wanted.runs} runs of each, about {about}",
        "expected_seconds": seconds,
    }
    if module.check_mode:
        module.exit_json(changed=bool(survey.paths), measurement=survey.result, **answer)
    result = survey.measure()
    module.exit_json(changed=result["status"] == benchmark_measure.OK, measurement=result, **answer)


def judge(module: AnsibleModule) -> None:
    names = ("local", "remote", "link", "through", "minimum_ratio")
    module.exit_json(changed=False, offload=rpc_latency.offload_of(*(module.params[name] for name in names)))


STEPS = {"addresses": read_addresses, "serve": serve, "measure": measure, "stop": stop, "judge": judge}


def leave(number: int, frame: object) -> None:
    # Leaves by the way on which running programs are ended and files removed.
    sys.exit(128 + number)


def main() -> None:
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, leave)
    module = AnsibleModule(
        argument_spec={
            "step": {"type": "str", "required": True, "choices": list(STEPS)},
            "addresses": {"type": "list", "elements": "dict"},
            "peer_addresses": {"type": "list", "elements": "dict"},
            "clients": {"type": "list", "elements": "str"},
            "port": {"type": "int", "default": rpc_latency.PORT},
            "lifetime": {"type": "int", "default": 900},
            "program": {"type": "str"},
            "results_dir": {"type": "path"},
            "peer": {"type": "str", "default": ""},
            "host": {"type": "str", "default": ""},
            "environment": {"type": "str", "default": ""},
            "runs": {"type": "int", "default": 5},
            "warmup_runs": {"type": "int", "default": 1},
            "seconds": {"type": "float", "default": 0.3},
            "timeout": {"type": "float", "default": 120},
            "hardware_profile": {"type": "dict", "default": {}},
            "again": {"type": "bool", "default": False},
            "local": {"type": "dict"},
            "remote": {"type": "dict"},
            "link": {"type": "dict"},
            "through": {"type": "str"},
            "minimum_ratio": {"type": "float", "default": 1.0},
        },
        required_if=[
            ("step", "serve", ("addresses", "clients", "program")),
            ("step", "measure", ("peer_addresses", "results_dir", "program")),
            ("step", "judge", ("through",)),
        ],
        supports_check_mode=True,
    )
    try:
        STEPS[module.params["step"]](module)
    except (MeasurementError, StatisticsError) as error:
        module.fail_json(msg=str(error))


if __name__ == "__main__":
    main()
