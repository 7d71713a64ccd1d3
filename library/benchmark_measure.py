#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: benchmark_measure
short_description: Measures one thing on a host by a known tool, in several independent processes
description:
  - Calls the tool O(warmup_runs) times for warming up and then O(runs) times, each time as a process of its own, and
    keeps the numbers of each run together with what else the machine did.
  - A finished measurement is the file C(ID.json) in O(results_dir). As long as tool, command, build, model and
    hardware are the same, it is kept and nothing is measured; see RV(measurement.key). One of more runs, requests,
    seconds or bytes than are asked for is kept too.
  - What can't be measured (a program that is missing) or fails (an endpoint that is down, failed requests, a run that
    hangs, a folder that can't be written to) does not fail the module, so that a play goes on with the others.
    RV(measurement.status) and RV(measurement.reason) say it, and a result that was finished before stays on the disk.
  - Runs of one moment say little of the next one, when clocks and temperatures are others. With O(rounds) they are
    spread over several calls, which alternate with those of other measurements; RV(measurement.status) is V(started)
    until the last one.
  - A run on a busy or throttled machine is measured and named in RV(measurement.flags).
  - In check mode no load is sent and nothing is written; RV(plan) says what would be.
options:
  measurements:
    description:
      - Several measurements, each with O(id), O(tool) and what else this module takes for one. They are only looked at;
        RV(pending) names those that have to be measured, one by one, and RV(measurements) has the others' results.
      - O(rounds), O(results_dir), O(host), O(environment), O(hardware_profile) and O(again) count for all of them.
    type: list
    elements: dict
  id:
    description: Name of the measurement, and of its file. Needed without O(measurements).
    type: str
  tool:
    description: What measures. Needed without O(measurements).
    type: str
    choices:
      - apache_bench
      - fio_read
      - iperf3
      - llama_bench
      - sockperf
      - sysbench_cpu
      - sysbench_memory
      - vllm_bench_serve
  parameters:
    description:
      - What the tool is asked to do. Every tool knows C(command), the words that it is called by, to which the others
        are added. C({output_dir}) in them is a folder of the run's own.
      - C(llama_bench) needs C(model_path) and knows C(prompt_tokens), C(output_tokens), C(depth), C(gpu_layers),
        C(threads) and C(extra_args); where its program is not in the path, C(image) is run by Docker, with
        C(docker_options) and C(image_program).
      - C(vllm_bench_serve) needs C(url), C(model) and C(tokenizer) and knows C(image), C(concurrency), C(num_prompts),
        C(input_tokens) and C(output_tokens). C(apache_bench) needs C(url). Both find out the server's build.
      - C(iperf3) and C(sockperf) need C(peer_address) and know C(peer), C(port).
      - C(fio_read) needs C(directory) and knows C(size_mib) and C(direct). Its file is removed afterwards.
      - All that run for a time know C(seconds).
    type: dict
    default: {}
  runs:
    description: Independent processes that count. An interval needs 2.
    type: int
    default: 5
  warmup_runs:
    description: Processes before them that don't count.
    type: int
    default: 1
  rounds:
    description: Over how many calls the runs are spread.
    type: int
    default: 1
  round:
    description: Which of them this is, from 1 on. Runs that earlier ones should have done are done too.
    type: int
    default: 1
  timeout:
    description: Seconds for each process. One that takes longer is ended and fails the measurement.
    type: float
    default: 300
  results_dir:
    description: Folder of finished measurements.
    type: path
    required: true
  host:
    description: Name of the host as results tell it.
    type: str
    default: ""
  environment:
    description: Name of the environment, such as V(lab) or V(production).
    type: str
    default: ""
  build:
    description: Build of what is measured, where the caller knows it better than tool and server tell.
    type: str
  model:
    description: Name of the model, where one is measured.
    type: str
  model_hash:
    description: Its hash, when it is known already.
    type: str
  model_path:
    description: File or folder of the model, to hash it. Hashes of files that have not changed are remembered.
    type: path
  hardware_profile:
    description: The C(profile) of M(hardware_profile) when it was asked already; without it this module reads it.
    type: dict
  secrets:
    description: Environment variables of the processes that hold keys. They are in no argument, result or log.
    type: dict
    default: {}
  requires_gpu:
    description: Skip it on a host without a GPU, and with a llama-bench that was built without one in mind.
    type: bool
    default: false
  unavailable:
    description: Why it can't be measured, where the caller knows it; it is then skipped with this reason.
    type: str
    default: ""
  expected_seconds:
    description: How long it takes in all, for the plan. A result of an earlier time knows better.
    type: float
  again:
    description: Measure even if it is finished.
    type: bool
    default: false
attributes:
  check_mode:
    support: full
    description: Says whether and for how long it would measure, and sends no load.
  diff_mode:
    support: none
    description: Measured numbers are no configuration.
author:
  - AI-IDP
"""

EXAMPLES = r"""
- name: The CPU is measured
  benchmark_measure:
    id: cpu-events
    tool: sysbench_cpu
    parameters: {seconds: 10}
    results_dir: /home/ubuntu/ai-idp/benchmark/results

- name: Which measurements are finished
  benchmark_measure:
    measurements:
      - {id: cpu-events, tool: sysbench_cpu, parameters: {seconds: 10}}
      - {id: memory-bandwidth, tool: sysbench_memory, parameters: {seconds: 10}}
    results_dir: /home/ubuntu/ai-idp/benchmark/results
  register: __known

- name: The GPU decodes
  benchmark_measure:
    id: llama-bench-gpu
    tool: llama_bench
    parameters:
      command: [/opt/llama.cpp/build/bin/llama-bench]
      model_path: /models/llama-3.1-8b-q4.gguf
      gpu_layers: 99
    model: llama-3.1-8b-q4
    model_path: /models/llama-3.1-8b-q4.gguf
    results_dir: /home/ubuntu/ai-idp/benchmark/results
  register: __decode
"""

RETURN = r"""
measurements:
  description: RV(measurement) for each of O(measurements), in their order; C(planned) are those that are pending.
  returned: when measurements is given
  type: list
  elements: dict
pending:
  description: Names of those that have to be measured.
  returned: when measurements is given
  type: list
  elements: str
  sample: [cpu-events]
measurement:
  description:
    - The result. C(status) is V(ok), V(started), V(failed), V(skipped) or, in check mode, V(planned); C(reason) says
      why it is not ok; C(runs) has the numbers and conditions of each run; C(flags) says what was wrong with them.
    - C(key) is a hash of everything that makes two measurements the same one, but for how much was measured.
  returned: when measurements is not given
  type: dict
  sample:
    id: cpu-events
    status: ok
    runs: [{seconds: 10.0, metrics: {cpu_events_per_second: 561.1}}]
kept:
  description: The result is one of an earlier time.
  returned: always
  type: bool
plan:
  description: What was or would be done, in a sentence.
  returned: always
  type: str
  sample: "cpu-events: 5 runs after 1 for warming up, about 60 s"
expected_seconds:
  description: How long it takes; null when nobody knows, 0 when it is finished.
  returned: always
  type: float
"""

import signal
import sys
from typing import Any

from ansible.module_utils.ai_idp import benchmark_measure, gpu_environment, gpu_info, hardware_profile
from ansible.module_utils.basic import AnsibleModule


def read_hardware(module: AnsibleModule) -> dict[str, Any]:
    """The profile that was handed in, else that of this machine."""
    given = module.params["hardware_profile"]
    if given:
        return dict(given)
    probe = gpu_info.probe_machine(
        gpu_info.Tools(
            nvidia_smi=module.get_bin_path("nvidia-smi"),
            nvml_library="libnvidia-ml.so.1",
            tegrastats=module.get_bin_path("tegrastats"),
            nvpmodel=module.get_bin_path("nvpmodel"),
        ),
        "/",
        30,
    )
    traces = gpu_environment.read_traces("/", 30, module.get_bin_path("systemd-detect-virt"))
    container = gpu_environment.detect(traces).kind in (gpu_environment.LXC, gpu_environment.DOCKER)
    profile: dict[str, Any] = hardware_profile.read_profile("/", gpu_info.describe(probe), container)
    return profile


def plan_text(wanted: benchmark_measure.Wanted, seconds: float | None) -> str:
    about = "" if seconds is None else f", about {benchmark_measure.duration_text(seconds)}"
    return f"{wanted.id}: {wanted.runs} runs after {wanted.warmup_runs} for warming up{about}"


def stop(number: int, frame: object) -> None:
    # Leaves by the way on which running programs are ended and files removed.
    sys.exit(128 + number)


OF_A_MEASUREMENT: dict[str, Any] = {
    "tool": {"type": "str", "choices": sorted(benchmark_measure.TOOLS)},
    "parameters": {"type": "dict", "default": {}},
    "runs": {"type": "int", "default": 5},
    "warmup_runs": {"type": "int", "default": 1},
    "timeout": {"type": "float", "default": 300},
    "build": {"type": "str"},
    "model": {"type": "str"},
    "model_hash": {"type": "str"},
    "model_path": {"type": "path"},
    "secrets": {"type": "dict", "default": {}, "no_log": True},
    "requires_gpu": {"type": "bool", "default": False},
    "unavailable": {"type": "str", "default": ""},
    "expected_seconds": {"type": "float"},
}


def prepared(
    module: AnsibleModule, options: dict[str, Any], profile: dict[str, Any]
) -> tuple[benchmark_measure.Measurement, bool]:
    """A measurement, and whether it can be done here."""
    wanted = benchmark_measure.wanted_from(options)
    # An answer of Jinja may be a number.
    wanted.secrets = {name: str(value) for name, value in wanted.secrets.items() if value is not None}
    problem = wanted.problem()
    if problem:
        module.fail_json(msg=problem)
    wanted.hardware = benchmark_measure.hardware_of(profile)
    wanted.hardware_fingerprint = profile.get("fingerprint") or hardware_profile.fingerprint(profile)
    measurement = benchmark_measure.Measurement(wanted)
    ready = measurement.prepare(touch=not module.check_mode)
    if measurement.out_of_sight:
        module.warn(f"{wanted.id} keeps what was measured before: {measurement.out_of_sight}.")
    return measurement, ready


def look(module: AnsibleModule) -> None:
    """Tell of several measurements which have to be done, and what became of the others."""
    profile, found, pending = read_hardware(module), [], []
    for options in module.params["measurements"]:
        measurement, ready = prepared(module, {**module.params, **options}, profile)
        finished = measurement.plan()["finished"] if ready else None
        # In check mode a program that is missing now may be installed by then.
        open_still = ready or (module.check_mode and not measurement.hopeless)
        if open_still and not finished:
            pending.append(options["id"])
            found.append({**measurement.result, "status": benchmark_measure.PLANNED})
        else:
            found.append(finished or measurement.result)
    module.exit_json(changed=module.check_mode and bool(pending), measurements=found, pending=pending)


def main() -> None:
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop)
    module = AnsibleModule(
        argument_spec={
            "measurements": {
                "type": "list",
                "elements": "dict",
                "options": {
                    **OF_A_MEASUREMENT,
                    "id": {"type": "str", "required": True},
                    "tool": {**OF_A_MEASUREMENT["tool"], "required": True},
                },
            },
            "id": {"type": "str"},
            **OF_A_MEASUREMENT,
            "rounds": {"type": "int", "default": 1},
            "round": {"type": "int", "default": 1},
            "results_dir": {"type": "path", "required": True},
            "host": {"type": "str", "default": ""},
            "environment": {"type": "str", "default": ""},
            "hardware_profile": {"type": "dict"},
            "again": {"type": "bool", "default": False},
        },
        required_one_of=[("id", "measurements")],
        mutually_exclusive=[("id", "measurements")],
        required_by={"id": "tool"},
        supports_check_mode=True,
    )
    if module.params["measurements"] is not None:
        look(module)
    measurement, ready = prepared(module, module.params, read_hardware(module))
    wanted = measurement.wanted
    plan = measurement.plan()
    finished = plan["finished"] if ready else None
    if finished:
        module.exit_json(
            changed=False,
            measurement=finished,
            kept=True,
            plan=f"{wanted.id}: kept, measured at {finished['measured_at']}",
            expected_seconds=0,
        )
    seconds = plan["expected_seconds"]
    result = {"kept": False, "plan": plan_text(wanted, seconds), "expected_seconds": seconds}
    if module.check_mode and not measurement.hopeless:
        # A program that is missing now may be installed by then.
        if not ready:
            result["plan"] += f" (not now: {measurement.result['reason']})"
        module.exit_json(changed=True, measurement={**measurement.result, "status": "planned"}, **result)
    if not ready:
        module.exit_json(changed=False, measurement=measurement.result, **result)
    answer = measurement.measure()
    measured = answer["status"] in (benchmark_measure.OK, benchmark_measure.STARTED)
    module.exit_json(changed=measured, measurement=answer, **result)


if __name__ == "__main__":
    main()
