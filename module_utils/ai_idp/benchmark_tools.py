"""The tools that measure: how each is called, and what its output says.

Each tool is a known program of the distribution or of an engine; nothing here measures by itself. ``argv`` may hold
``{output_dir}`` (a folder of the run's own), ``{work_dir}`` (a folder on the disk that is measured) and ``{seed}`` (a
number that no run had before), which the engine fills in.
"""

from __future__ import annotations

import glob
import json
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ansible.module_utils.ai_idp import load_client
from ansible.module_utils.ai_idp.benchmark_errors import MeasurementError
from ansible.module_utils.ai_idp.benchmark_parsed import Parsed
from ansible.module_utils.ai_idp.documents import WRONG_SHAPE, from_json
from ansible.module_utils.ai_idp.gpu_common import read_line
from ansible.module_utils.ai_idp.messages import shorten
from ansible.module_utils.ai_idp.sample_statistics import can_be_figure

MIB = 1 << 20
OUTPUT_DIR, WORK_DIR, SEED = "{output_dir}", "{work_dir}", "{seed}"
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")

Parameters = dict[str, Any]


@dataclass(frozen=True)
class Tool:
    """One program: ``argv(parameters)`` calls it, ``parse(stdout, output_dir)`` reads what it says.

    ``parse`` raises MeasurementError with one clear sentence when the output is not that of a measurement in which
    everything went well.
    """

    name: str
    # The default of parameters["command"].
    command: tuple[str, ...]
    # The package of Debian and Ubuntu; empty where a role of the platform brings the program.
    package: str
    argv: Callable[[Parameters], list[str]]
    parse: Callable[[str, str], Parsed]
    # One plain sentence of what one process does.
    method: Callable[[Parameters], str]
    required: tuple[str, ...] = ()
    # Tells the version; the first match of ``version_pattern`` is the build.
    version_options: tuple[str, ...] = ("--version",)
    version_pattern: str = ""
    # Files that the program reads, by their names in the output folder.
    files: Callable[[Parameters], dict[str, str]] = field(default=lambda parameters: {})
    # Words of the output that say why the program failed; empty when it says nothing better than its last line.
    explain: Callable[[str], str] = field(default=lambda stdout: "")
    # What it prints as errors belongs to its output.
    merge_errors: bool = False
    # Calls the program in the image parameters["image"], for hosts that have it nowhere else.
    container: Callable[[Parameters], list[str]] | None = None


def command_of(parameters: Parameters, default: tuple[str, ...]) -> list[str]:
    return [str(word) for word in parameters.get("command") or default]


def positive(name: str, value: Any) -> float:
    """A number that a metric can be; MeasurementError for anything else."""
    if not can_be_figure(value) or value <= 0:
        raise MeasurementError(f"{name} is {value!r:.40}, which no measurement gives")
    return float(value)


def read_json(tool: str, text: str) -> Any:
    try:
        return from_json(text)
    except ValueError:
        raise MeasurementError(f"{tool} printed no JSON but: {shorten(text, 120) or 'nothing'}") from None


def find_number(tool: str, pattern: str, text: str, what: str) -> float:
    match = re.search(pattern, text, re.MULTILINE)
    if not match:
        raise MeasurementError(f"{tool} did not say {what}; it printed: {shorten(text, 120) or 'nothing'}")
    return float(match.group(1))


def seconds_of(parameters: Parameters, default: int) -> int:
    return int(parameters.get("seconds") or default)


# --- llama-bench ----------------------------------------------------------------------------------------


def _llama_bench_argv(parameters: Parameters) -> list[str]:
    argv = [
        *command_of(parameters, ("llama-bench",)),
        *("--output", "json", "--repetitions", "1", "--model", str(parameters["model_path"])),
        *("--n-prompt", str(parameters.get("prompt_tokens", 512))),
        *("--n-gen", str(parameters.get("output_tokens", 128))),
        *("--n-depth", str(parameters.get("depth", 0))),
    ]
    # None leaves the choice to llama-bench, which puts everything on the GPU that it finds.
    if parameters.get("gpu_layers") is not None:
        argv += ["--n-gpu-layers", str(parameters["gpu_layers"])]
    # Without a device not even long prompts are computed on the GPU, as a build for GPUs does at 0 layers.
    if parameters.get("gpu_layers") == 0:
        argv += ["--device", "none"]
    if parameters.get("threads"):
        argv += ["--threads", str(parameters["threads"])]
    return [*argv, *map(str, parameters.get("extra_args") or [])]


def _llama_bench_container(parameters: Parameters) -> list[str]:
    folder = os.path.dirname(os.path.abspath(str(parameters["model_path"])))
    return [
        # By the file with its id the engine can end the container: it does not end with the docker command.
        *("docker", "run", "--rm", "--pull=never", "--network=none", f"--cidfile={OUTPUT_DIR}/cid"),
        f"--volume={folder}:{folder}:ro",
        *map(str, parameters.get("docker_options") or []),
        *("--entrypoint", str(parameters.get("image_program") or "/app/llama-bench"), str(parameters["image"])),
    ]


def parse_llama_bench(stdout: str, output_dir: str) -> Parsed:
    rows = read_json("llama-bench", stdout)
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        raise MeasurementError("llama-bench measured nothing: its list of tests is empty")
    metrics: dict[str, float] = {}
    for row in rows:
        prompt, output = row.get("n_prompt"), row.get("n_gen")
        if prompt and not output:
            name = "prompt_tokens_per_second"
        elif output and not prompt:
            name = "decode_tokens_per_second"
        else:
            raise MeasurementError(f"llama-bench measured {prompt} prompt and {output} output tokens in one test")
        if name in metrics:
            raise MeasurementError(f"llama-bench gave {name} twice: measure one depth and one batch size at a time")
        samples = row.get("samples_ns")
        if not isinstance(samples, list) or len(samples) != 1:
            raise MeasurementError("llama-bench did not repeat each test once, so a process is not one sample")
        # Its own average is rounded; tokens and nanoseconds are not.
        nanoseconds = positive("the time of a test of llama-bench", samples[0])
        metrics[name] = positive("the tokens of a test of llama-bench", prompt or output) * 1e9 / nanoseconds
    first = rows[0]
    on_gpu = first.get("n_gpu_layers") != 0 and first.get("devices") != "none"
    device = (first.get("gpu_info") if on_gpu else "") or first.get("cpu_info") or "a device without a name"
    return Parsed(
        metrics,
        build=f"llama.cpp {first.get('build_number')} ({first.get('build_commit')})",
        model=first.get("model_type"),
        devices=[str(device)],
        subject={
            "backends": first.get("backends"),
            "model_size_bytes": first.get("model_size"),
            "gpu_layers": first.get("n_gpu_layers"),
            "threads": first.get("n_threads"),
            "depth": first.get("n_depth"),
            "flash_attention": first.get("flash_attn"),
        },
    )


def _llama_bench_method(parameters: Parameters) -> str:
    depth = parameters.get("depth", 0)
    where = "on the CPU alone" if parameters.get("gpu_layers") == 0 else "with the layers on the GPU that fit"
    if parameters.get("gpu_layers"):
        where = f"with up to {parameters['gpu_layers']} layers on the GPU"
    return (
        f"llama-bench {where} reads {parameters.get('prompt_tokens', 512)} and writes "
        f"{parameters.get('output_tokens', 128)} tokens, one sequence, {depth} tokens of context before"
    )


# --- sysbench -------------------------------------------------------------------------------------------


def _threads(parameters: Parameters) -> str:
    return str(parameters.get("threads") or os.cpu_count() or 1)


def _sysbench_build(stdout: str) -> str | None:
    version = re.search(r"^sysbench ([\d.]+)", stdout, re.MULTILINE)
    return f"sysbench {version.group(1)}" if version else None


def _sysbench_argv(parameters: Parameters) -> list[str]:
    return [
        *command_of(parameters, ("sysbench",)),
        "cpu",
        f"--threads={_threads(parameters)}",
        f"--time={seconds_of(parameters, 10)}",
        # Without a limit on events the time decides.
        "--events=0",
        f"--cpu-max-prime={parameters.get('max_prime', 20000)}",
        "run",
    ]


def parse_sysbench(stdout: str, output_dir: str) -> Parsed:
    rate = find_number("sysbench", r"^\s*events per second:\s*([\d.]+)\s*$", stdout, "its events per second")
    return Parsed(
        {"cpu_events_per_second": positive("sysbench's events per second", rate)},
        build=_sysbench_build(stdout),
        subject={"threads": int(find_number("sysbench", r"^Number of threads: (\d+)", stdout, "its threads"))},
    )


# --- sysbench memory ------------------------------------------------------------------------------------
# Reads with all threads, each a block of its own, and counts the bytes that it read: that is what decoding does, and
# there is no write whose hidden read would have to be guessed. It agrees with likwid-bench's load kernel within the
# noise of the machine that both were tried on, and runs on every processor; likwid-bench is packaged for x86 alone. Of
# the others, mbw copies with one thread, about half of what two read, and stress-ng --stream fills four times the
# last cache before it begins, which on a server's CPU takes longer than the run, and then refuses to tell a rate.


def last_cache_bytes(root: str = "/sys/devices/system/cpu") -> int:
    """The sum of all last-level caches, one for each group of CPUs that share one; 32 MiB where that can't be read."""
    caches: dict[str, int] = {}
    for path in glob.glob(os.path.join(root, "cpu[0-9]*/cache/index3/size")):
        size = re.fullmatch(r"(\d+)K", read_line(path) or "")
        shared = read_line(os.path.join(os.path.dirname(path), "shared_cpu_list"))
        if size and shared:
            caches[shared] = int(size.group(1)) << 10
    return sum(caches.values()) or 32 << 20


def _sysbench_memory_argv(parameters: Parameters) -> list[str]:
    threads = int(_threads(parameters))
    # Together at least twice the last caches, so that what is read next is never still there; sysbench wants powers of
    # two.
    block_mib = parameters.get("block_mib") or 64
    while not parameters.get("block_mib") and block_mib * MIB * threads < 2 * last_cache_bytes():
        block_mib *= 2
    return [
        *command_of(parameters, ("sysbench",)),
        "memory",
        f"--threads={threads}",
        f"--time={seconds_of(parameters, 10)}",
        *("--events=0", f"--memory-block-size={block_mib}M", "--memory-total-size=1000T"),
        *("--memory-oper=read", "--memory-access-mode=seq", "--memory-scope=local", "run"),
    ]


def parse_sysbench_memory(stdout: str, output_dir: str) -> Parsed:
    rate = find_number("sysbench", r"transferred \(([\d.]+) MiB/sec\)\s*$", stdout, "how much it read")
    if not re.search(r"^\s*operation: read\s*$", stdout, re.MULTILINE):
        raise MeasurementError("sysbench did not read but wrote")
    return Parsed(
        {"memory_bandwidth_gb_per_second": positive("sysbench's rate", rate) * MIB / 1e9},
        build=_sysbench_build(stdout),
        subject={"threads": int(find_number("sysbench", r"^Number of threads: (\d+)", stdout, "its threads"))},
    )


# --- iperf3 ---------------------------------------------------------------------------------------------


def _iperf3_argv(parameters: Parameters) -> list[str]:
    argv = [
        *command_of(parameters, ("iperf3",)),
        *("--json", "--client", str(parameters["peer_address"]), "--port", str(parameters.get("port", 5201))),
        *("--time", str(seconds_of(parameters, 10)), "--connect-timeout", "5000"),
    ]
    if parameters.get("streams"):
        argv += ["--parallel", str(parameters["streams"])]
    return argv


def _iperf3_error(stdout: str) -> str:
    try:
        answer = from_json(stdout)
    except ValueError:
        return ""
    return str(answer.get("error") or "") if isinstance(answer, dict) else ""


def parse_iperf3(stdout: str, output_dir: str) -> Parsed:
    answer = read_json("iperf3", stdout)
    if not isinstance(answer, dict) or answer.get("error"):
        raise MeasurementError(f"iperf3 failed: {_iperf3_error(stdout) or 'no object in its JSON'}")
    try:
        received = answer["end"]["sum_received"]["bits_per_second"]
        version = answer["start"]["version"]
    except (KeyError, TypeError):
        raise MeasurementError("iperf3's JSON does not tell what the peer received") from None
    retransmits = (answer["end"].get("sum_sent") or {}).get("retransmits")
    return Parsed(
        {"network_gbit_per_second": positive("iperf3's rate", received) / 1e9},
        build=str(version).replace("iperf ", "iperf3 "),
        subject={"retransmits": retransmits},
    )


# --- sockperf -------------------------------------------------------------------------------------------


def _sockperf_argv(parameters: Parameters) -> list[str]:
    return [
        *command_of(parameters, ("sockperf",)),
        *("ping-pong", "--tcp", "--full-rtt", "--ip", str(parameters["peer_address"])),
        *("--port", str(parameters.get("port", 11111)), "--time", str(seconds_of(parameters, 10))),
        *("--msg-size", str(parameters.get("message_bytes", 64))),
    ]


def parse_sockperf(stdout: str, output_dir: str) -> Parsed:
    text = _COLOUR.sub("", stdout)
    # It ends with code 0 although it could not connect.
    error = re.search(r"^sockperf: ERROR: (.*)$", text, re.MULTILINE)
    if error:
        raise MeasurementError(f"sockperf failed: {error.group(1).replace('`', chr(39))}")
    counts = re.search(
        r"dropped messages = (\d+); # duplicated messages = (\d+); # out-of-order messages = (\d+)", text
    )
    if not counts:
        raise MeasurementError(f"sockperf gave no statistics; it printed: {shorten(text, 120) or 'nothing'}")
    if any(int(count) for count in counts.groups()):
        raise MeasurementError(f"sockperf lost, doubled or reordered messages: {counts.group(0)}")
    metrics = {}
    for name, percentile in (("p50", "50.000"), ("p99", "99.000")):
        pattern = rf"percentile {re.escape(percentile)} =\s+([\d.]+)"
        microseconds = find_number("sockperf", pattern, text, f"its {name}")
        metrics[f"network_rtt_{name}_ms"] = positive(f"sockperf's {name}", microseconds) / 1000
    version = re.search(r"version #([\w.-]+)", text)
    return Parsed(metrics, build=f"sockperf {version.group(1)}" if version else None)


# --- fio ------------------------------------------------------------------------------------------------


def _fio_argv(parameters: Parameters) -> list[str]:
    return [
        *command_of(parameters, ("fio",)),
        "--name=model-store",
        f"--filename={WORK_DIR}/read.bin",
        f"--size={parameters.get('size_mib', 1024)}M",
        *("--rw=read", "--bs=1M", "--ioengine=libaio", "--iodepth=16"),
        f"--direct={1 if parameters.get('direct', True) else 0}",
        *("--time_based", f"--runtime={seconds_of(parameters, 10)}s", "--output-format=json"),
    ]


def parse_fio(stdout: str, output_dir: str) -> Parsed:
    # Notes of fio stand before its JSON.
    answer = read_json("fio", stdout[max(stdout.find("{"), 0) :])
    try:
        job = answer["jobs"][0]
        rate = job["read"]["bw_bytes"]
        failed = job["error"]
    except (KeyError, IndexError, TypeError):
        raise MeasurementError("fio's JSON does not tell how fast it read") from None
    if failed:
        raise MeasurementError(f"fio's reads failed: {os.strerror(failed)}")
    return Parsed(
        {"disk_read_mb_per_second": positive("fio's rate", rate) / 1e6},
        build=str(answer.get("fio version") or "fio").replace("fio-", "fio "),
    )


# --- ApacheBench against Triton -------------------------------------------------------------------------

_BODY = "body.json"
_PERCENTILES = "percentiles.csv"


def _ab_argv(parameters: Parameters) -> list[str]:
    model = parameters.get("model", "text_embedder")
    return [
        *command_of(parameters, ("ab",)),
        *("-q", "-k", "-l", "-n", str(parameters.get("requests", 500)), "-c", str(parameters.get("concurrency", 1))),
        *("-s", str(parameters.get("request_timeout", 30)), "-e", f"{OUTPUT_DIR}/{_PERCENTILES}"),
        *("-p", f"{OUTPUT_DIR}/{_BODY}", "-T", "application/json"),
        f"{str(parameters['url']).rstrip('/')}/v2/models/{model}/infer",
    ]


def _ab_files(parameters: Parameters) -> dict[str, str]:
    default = {
        "inputs": [
            {"name": "TEXT", "shape": [1, 1], "datatype": "BYTES", "data": ["Which claims does a measurement support?"]}
        ]
    }
    return {_BODY: json.dumps(parameters.get("body") or default)}


def parse_ab(stdout: str, output_dir: str) -> Parsed:
    complete = int(find_number("ab", r"^Complete requests:\s+(\d+)", stdout, "how many requests it completed"))
    failed = int(find_number("ab", r"^Failed requests:\s+(\d+)", stdout, "how many requests failed"))
    refused = re.search(r"^Non-2xx responses:\s+(\d+)", stdout, re.MULTILINE)
    bad = failed + (int(refused.group(1)) if refused else 0)
    if bad:
        raise MeasurementError(f"{bad} of {complete} requests failed")
    rate = find_number("ab", r"^Requests per second:\s+([\d.]+)", stdout, "its requests per second")
    metrics = {"requests_per_second": positive("ab's requests per second", rate)}
    try:
        with open(os.path.join(output_dir, _PERCENTILES), encoding="utf-8") as stream:
            rows = dict(line.strip().split(",", 1) for line in stream if "," in line)
        metrics["latency_p50_ms"] = positive("ab's p50", float(rows["50"]))
        metrics["latency_p95_ms"] = positive("ab's p95", float(rows["95"]))
    except (OSError, *WRONG_SHAPE) as error:
        raise MeasurementError(f"ab's table of percentiles can't be read: {error}") from None
    version = re.search(r"ApacheBench, Version ([\d.]+)", stdout)
    return Parsed(metrics, build=f"ab {version.group(1)}" if version else None, subject={"requests": complete})


# --- all of them ----------------------------------------------------------------------------------------


def _vllm_method(parameters: Parameters) -> str:
    return (
        f"vllm bench serve sends {parameters.get('num_prompts', 'several')} requests, "
        f"{parameters.get('concurrency', 1)} at a time, each of {parameters.get('input_tokens', 128)} random tokens "
        f"and asking for {parameters.get('output_tokens', 64)}"
    )


TOOLS: dict[str, Tool] = {
    tool.name: tool
    for tool in (
        Tool(
            name="llama_bench",
            command=("llama-bench",),
            package="",
            argv=_llama_bench_argv,
            parse=parse_llama_bench,
            method=_llama_bench_method,
            required=("model_path",),
            container=_llama_bench_container,
            version_pattern=r"version: .*?(\(build .*\)|\S.*)",
        ),
        Tool(
            name="vllm_bench_serve",
            command=("vllm", "bench", "serve"),
            package="",
            argv=load_client.argv,
            parse=load_client.parse,
            method=_vllm_method,
            required=("url", "model", "tokenizer"),
            container=lambda parameters: load_client.container_command(
                str(parameters["image"]), str(parameters["tokenizer"]), int(parameters.get("timeout_seconds", 600))
            ),
            explain=load_client.explain,
            merge_errors=True,
            # Asking takes as long as starting it; the image in the command says which version it is.
            version_options=(),
        ),
        Tool(
            name="apache_bench",
            command=("ab",),
            package="apache2-utils",
            argv=_ab_argv,
            parse=parse_ab,
            method=lambda parameters: (
                f"ab posts {parameters.get('requests', 500)} infer requests to Triton's "
                f"{parameters.get('model', 'text_embedder')}, {parameters.get('concurrency', 1)} at a time"
            ),
            required=("url",),
            version_options=("-V",),
            version_pattern=r"Version ([\d.]+)",
            files=_ab_files,
        ),
        Tool(
            name="sysbench_memory",
            command=("sysbench",),
            package="sysbench",
            argv=_sysbench_memory_argv,
            parse=parse_sysbench_memory,
            method=lambda parameters: (
                f"sysbench reads blocks larger than the caches on {_threads(parameters)} threads for "
                f"{seconds_of(parameters, 10)} s"
            ),
            version_pattern=r"sysbench ([\d.]+)",
        ),
        Tool(
            name="sysbench_cpu",
            command=("sysbench",),
            package="sysbench",
            argv=_sysbench_argv,
            parse=parse_sysbench,
            method=lambda parameters: (
                f"sysbench looks for primes up to {parameters.get('max_prime', 20000)} on {_threads(parameters)} "
                f"threads for {seconds_of(parameters, 10)} s"
            ),
            version_pattern=r"sysbench ([\d.]+)",
        ),
        Tool(
            name="iperf3",
            command=("iperf3",),
            package="iperf3",
            argv=_iperf3_argv,
            parse=parse_iperf3,
            method=lambda parameters: (
                f"iperf3 sends over TCP to {parameters.get('peer') or parameters.get('peer_address')} for "
                f"{seconds_of(parameters, 10)} s; what the peer received counts"
            ),
            required=("peer_address",),
            version_pattern=r"iperf ([\d.]+)",
            explain=_iperf3_error,
        ),
        Tool(
            name="sockperf",
            command=("sockperf",),
            package="sockperf",
            argv=_sockperf_argv,
            parse=parse_sockperf,
            method=lambda parameters: (
                f"sockperf sends {parameters.get('message_bytes', 64)} bytes over TCP to "
                f"{parameters.get('peer') or parameters.get('peer_address')} and back, one at a time, for "
                f"{seconds_of(parameters, 10)} s"
            ),
            required=("peer_address",),
            version_pattern=r"version #?([\d.]+)",
        ),
        Tool(
            name="fio_read",
            command=("fio",),
            package="fio",
            argv=_fio_argv,
            parse=parse_fio,
            method=lambda parameters: (
                f"fio reads a file of {parameters.get('size_mib', 1024)} MiB in blocks of 1 MiB, 16 at a time, for "
                f"{seconds_of(parameters, 10)} s"
            ),
            required=("directory",),
            version_pattern=r"fio-([\d.]+)",
        ),
    )
}
