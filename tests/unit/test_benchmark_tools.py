"""The tools that measure: their calls, and what their real outputs say.

Outputs in ``tests/golden/benchmark`` were captured in a Debian 13 container on a busy machine with 2 CPUs; the versions
are in their names. Their numbers say nothing but what a parser must find.
"""

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.ai_idp import benchmark_tools
from ansible.module_utils.ai_idp.benchmark_errors import MeasurementError
from ansible.module_utils.ai_idp.benchmark_tools import TOOLS

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "benchmark"
NEEDED: dict[str, dict[str, Any]] = {
    "llama_bench": {"model_path": "/m/a.gguf"},
    "vllm_bench_serve": {"url": "http://h:8000", "model": "m", "tokenizer": "/m/t"},
    "apache_bench": {"url": "http://h:8010/"},
    "iperf3": {"peer_address": "10.77.0.12"},
    "sockperf": {"peer_address": "10.77.0.12"},
    "fio_read": {"directory": "/m"},
}


def golden(name: str) -> str:
    return (GOLDEN / name).read_text(encoding="utf-8")


def llama_rows(**more: Any) -> list[dict[str, Any]]:
    return [{**row, **more} for row in json.loads(golden("llama-bench-11669-cpu.json"))]


# --- real outputs ---------------------------------------------------------------------------------------


def test_llama_bench_gives_tokens_by_its_exact_times(tmp_path: Path) -> None:
    rows = llama_rows()
    parsed = TOOLS["llama_bench"].parse(json.dumps(rows), str(tmp_path))
    assert parsed.metrics == {
        "prompt_tokens_per_second": 64e9 / rows[0]["samples_ns"][0],
        "decode_tokens_per_second": 16e9 / rows[1]["samples_ns"][0],
    }
    # Its own figure is the same, rounded.
    assert math.isclose(parsed.metrics["decode_tokens_per_second"], rows[1]["avg_ts"], rel_tol=1e-6)
    assert parsed.build == "llama.cpp 11669 (Debian)"
    assert parsed.devices == [rows[0]["cpu_info"]]
    assert parsed.subject["gpu_layers"] == 0
    assert parsed.subject["backends"] == "CPU"


def test_llama_bench_names_the_gpu_that_it_ran_on(tmp_path: Path) -> None:
    rows = llama_rows(gpu_info="NVIDIA H100 80GB HBM3", backends="CUDA", n_gpu_layers=999, devices="auto")
    assert TOOLS["llama_bench"].parse(json.dumps(rows), str(tmp_path)).devices == ["NVIDIA H100 80GB HBM3"]


@pytest.mark.parametrize(
    ("tool", "file", "metric", "value"),
    [
        ("sysbench_cpu", "sysbench-1.0.20-cpu.txt", "cpu_events_per_second", r"events per second:\s+([\d.]+)"),
        ("sockperf", "sockperf-3.7.txt", "network_rtt_p50_ms", r"percentile 50.000 =\s+([\d.]+)"),
        ("apache_bench", "ab-2.3.txt", "requests_per_second", r"Requests per second:\s+([\d.]+)"),
        ("sysbench_memory", "sysbench-1.0.20-memory.txt", "memory_bandwidth_gb_per_second", r"\(([\d.]+) MiB/sec"),
    ],
)
def test_a_text_gives_its_number_in_the_unit_of_the_metric(
    tool: str, file: str, metric: str, value: str, tmp_path: Path
) -> None:
    shutil.copy(GOLDEN / "ab-2.3-percentiles.csv", tmp_path / "percentiles.csv")
    text = golden(file)
    shown = benchmark_tools.find_number("x", value, text, "x")
    factor = {"network_rtt_p50_ms": 1e-3, "memory_bandwidth_gb_per_second": 1048576e-9}.get(metric, 1.0)
    parsed = TOOLS[tool].parse(text, str(tmp_path))
    assert math.isclose(parsed.metrics[metric], shown * factor)
    assert parsed.build is not None
    assert any(character.isdigit() for character in parsed.build)


def test_iperf3_counts_what_the_peer_received(tmp_path: Path) -> None:
    parsed = TOOLS["iperf3"].parse(golden("iperf3-3.18.json"), str(tmp_path))
    received = json.loads(golden("iperf3-3.18.json"))["end"]["sum_received"]["bits_per_second"]
    assert parsed.metrics == {"network_gbit_per_second": received / 1e9}
    assert parsed.build == "iperf3 3.18"


def test_fio_reads_in_megabytes(tmp_path: Path) -> None:
    text = golden("fio-3.39.json")
    rate = json.loads(text)["jobs"][0]["read"]["bw_bytes"]
    # A note before the JSON, as fio writes it, does no harm.
    parsed = TOOLS["fio_read"].parse(f"note: both iodepth >= 1 and synchronous I/O engine\n{text}", str(tmp_path))
    assert parsed.metrics == {"disk_read_mb_per_second": rate / 1e6}
    assert parsed.build == "fio 3.39"


def test_ab_reads_percentiles_with_fractions(tmp_path: Path) -> None:
    shutil.copy(GOLDEN / "ab-2.3-percentiles.csv", tmp_path / "percentiles.csv")
    parsed = TOOLS["apache_bench"].parse(golden("ab-2.3.txt"), str(tmp_path))
    assert parsed.metrics["latency_p50_ms"] < parsed.metrics["latency_p95_ms"]
    assert parsed.metrics["latency_p50_ms"] != round(parsed.metrics["latency_p50_ms"])


# --- what is no measurement -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tool", "text", "said"),
    [
        ("iperf3", golden("iperf3-3.18-refused.json"), "Connection refused"),
        # It ends with code 0.
        ("sockperf", golden("sockperf-3.7-refused.txt"), "Connection refused"),
        ("sockperf", golden("sockperf-3.7.txt").replace("dropped messages = 0", "dropped messages = 3"), "lost"),
        ("apache_bench", golden("ab-2.3-not-found.txt"), "50 of 50 requests failed"),
        ("apache_bench", golden("ab-2.3.txt").replace("Failed requests:        0", "Failed requests: 2"), "2 of 200"),
        ("apache_bench", golden("ab-2.3.txt"), "percentiles can't be read"),
        ("sysbench_memory", golden("sysbench-1.0.20-memory.txt").replace("operation: read", "operation: write"), "did"),
        ("fio_read", golden("fio-3.39.json").replace('"error" : 0', '"error" : 5'), "Input/output error"),
        ("llama_bench", "[", "printed no JSON"),
        ("llama_bench", "[]", "measured nothing"),
        ("llama_bench", json.dumps(llama_rows() * 2), "twice"),
        ("llama_bench", json.dumps(llama_rows(samples_ns=[1, 2])), "did not repeat each test once"),
        ("llama_bench", json.dumps(llama_rows(samples_ns=[0])), "which no measurement gives"),
        ("llama_bench", json.dumps(llama_rows(n_prompt=64, n_gen=16)), "in one test"),
    ],
)
def test_what_went_wrong_is_said(tool: str, text: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(MeasurementError, match=said):
        TOOLS[tool].parse(text, str(tmp_path))


@pytest.mark.parametrize("tool", sorted(TOOLS))
@pytest.mark.parametrize("text", ["", "Segmentation fault", '{"jobs": [], "end": null}', "[{}]", "\x00\xff"])
def test_garbage_is_no_measurement(tool: str, text: str, tmp_path: Path) -> None:
    with pytest.raises(MeasurementError) as error:
        TOOLS[tool].parse(text, str(tmp_path))
    assert str(error.value)
    assert "\n" not in str(error.value)


# --- calls ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tool", sorted(TOOLS))
def test_every_tool_is_called_by_words(tool: str) -> None:
    argv = TOOLS[tool].argv(NEEDED.get(tool, {}))
    assert all(isinstance(word, str) for word in argv)
    assert tuple(argv[: len(TOOLS[tool].command)]) == TOOLS[tool].command
    assert TOOLS[tool].method(NEEDED.get(tool, {}))
    assert set(TOOLS[tool].required) == set(NEEDED.get(tool, {}))


def test_a_command_of_ones_own_stands_in_front() -> None:
    argv = TOOLS["llama_bench"].argv({"model_path": "/m/a.gguf", "command": ["nice", "/opt/llama-bench"]})
    assert argv[:3] == ["nice", "/opt/llama-bench", "--output"]


def test_without_layers_on_the_gpu_nothing_runs_there() -> None:
    argv = TOOLS["llama_bench"].argv({"model_path": "/m/a.gguf", "gpu_layers": 0, "depth": 2048, "threads": 12})
    assert argv[argv.index("--device") + 1] == "none"
    assert argv[argv.index("--n-depth") + 1] == "2048"
    assert argv[argv.index("--threads") + 1] == "12"
    assert "--device" not in TOOLS["llama_bench"].argv({"model_path": "/m/a.gguf", "gpu_layers": 999})


def test_the_container_of_llama_bench_sees_the_model_and_no_network() -> None:
    container = TOOLS["llama_bench"].container
    assert container is not None
    command = container({"model_path": "/m/a/b.gguf", "image": "i:1", "docker_options": ["--device=x"]})
    assert command[-3:] == ["--entrypoint", "/app/llama-bench", "i:1"]
    assert {"--volume=/m/a:/m/a:ro", "--network=none", "--pull=never", "--device=x"} <= set(command)


def test_blocks_are_larger_than_the_caches_together(tmp_path: Path) -> None:
    for cpu, shared in ((0, "0-1"), (1, "0-1"), (2, "2-3"), (3, "2-3")):
        folder = tmp_path / f"cpu{cpu}" / "cache" / "index3"
        folder.mkdir(parents=True)
        (folder / "size").write_text("32768K\n")
        (folder / "shared_cpu_list").write_text(f"{shared}\n")
    assert benchmark_tools.last_cache_bytes(str(tmp_path)) == 64 << 20
    assert benchmark_tools.last_cache_bytes(str(tmp_path / "nothing")) == 32 << 20
