"""Findings: a row for every claim and host, what may and may not decide, history, and the files' texts."""

import copy
import csv
import io
import json
import math
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.ai_idp import findings, model_fit, roofline
from ansible.module_utils.ai_idp.findings import FindingsError, Inputs, join

from ai_idp.benchmarks.claims import load_claims

ROOT = Path(__file__).resolve().parent.parent.parent
CLAIMS = [claim.model_dump(mode="json") for claim in load_claims(ROOT / "benchmarks" / "claims.yml")]
MIB = 1 << 20
SERVER = {"host": "schlimers-server", "groups": ["gpu_servers"], "hardware_fingerprint": "f" * 16}
XPS = {"host": "xps15", "groups": ["gateways"], "hardware_fingerprint": "e" * 16}
JETSON = {"host": "jetson", "groups": ["edge"], "hardware_fingerprint": "d" * 16}
HOSTS = [SERVER, XPS, JETSON]
RTX = {"cpu": "AMD Ryzen 9 9900X 12-Core Processor", "gpus": ["NVIDIA GeForce RTX 5070 Ti"], "memory_bytes": 1}
H100 = {"cpu": "AMD EPYC 9V84", "gpus": ["NVIDIA H100 80GB HBM3"], "memory_bytes": 1}
FAST = [81.2, 82.9, 81.7, 83.4, 82.3]


def result(
    name: str = "vllm-c1",
    values: Any = FAST,
    metric: str = "output_tokens_per_second",
    samples: Any = None,
    **changes: Any,
) -> dict[str, Any]:
    runs = [{"metrics": {metric: value}, "samples": {}} for value in values]
    if samples:
        for run, drawn in zip(runs, samples, strict=True):
            run["samples"] = drawn
    found: dict[str, Any] = {
        "schema": 1, "id": name, "key": "k", "status": "ok", "reason": None, "host": "schlimers-server",
        "environment": "production", "tool": "vllm_bench_serve", "method": "5 processes", "command": ["vllm"],
        "parameters": {"concurrency": 1}, "build": "vllm 0.30.0", "model": "qwen2.5-7b-awq", "model_hash": None,
        "hardware_fingerprint": "f" * 16, "hardware": RTX, "warmup_runs": 1, "runs": runs, "flags": [],
        "measured_at": "2026-11-23T15:00:09Z", **changes,
    }  # fmt: skip
    return found


def made(*results: dict[str, Any], **changes: Any) -> dict[str, Any]:
    inputs = {"environment": "production", "claims": CLAIMS, "hosts": HOSTS, "results": list(results), **changes}
    document: dict[str, Any] = join(Inputs(**inputs))[0]
    return document


def row(document: dict[str, Any], claim: str, host: str = "schlimers-server") -> dict[str, Any]:
    found = [one for one in document["findings"] if (one["claim_id"], one["host"]) == (claim, host)]
    assert len(found) == 1
    one: dict[str, Any] = found[0]
    return one


def fit(gpu: dict[str, Any] | None, weights: int = 42_520_398_816, **changes: Any) -> dict[str, Any]:
    """What the module model_fit answers about Llama 3.3 70B Q4_K_M."""
    figures = {"weights_bytes": weights, "layers": 80, "kv_heads": 8, "head_dim": 128}
    service = {"name": "hybrid", "engine": "llama_cpp", "device": "gpu", "context_length": 4096,
               "model": {"name": "llama-3.3-70b-q4", "figures": figures}, **changes}  # fmt: skip
    inputs, problems = model_fit.parse(
        {"services": [service], "gpus": [gpu] if gpu else [], "host_memory_bytes": 128 << 30,
         "host_reserved_bytes": None, "overhead_bytes": None, "alternatives": [],
         "host_memory_bandwidth_bytes_per_second": 89_600_000_000}
    )  # fmt: skip
    assert problems == []
    assert inputs is not None
    answer: dict[str, Any] = model_fit.decide(inputs)
    return answer


CARD_16 = {"index": 0, "name": "NVIDIA GeForce RTX 5070 Ti", "memory_total_bytes": 16_303 * MIB}
CARD_80 = {"index": 0, "name": "NVIDIA H100 80GB HBM3", "memory_total_bytes": 81_559 * MIB}


def derived(answer: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {"claim_id": "llama-3.3-70b-hybrid", "fit": answer, "host_bandwidth_bytes_per_second": 89_600_000_000,
            **changes}  # fmt: skip


# --- rows -------------------------------------------------------------------------------------------


def test_every_claim_has_a_row_for_every_host_of_its_group() -> None:
    document = made()
    places = [(one["claim_id"], one["host"]) for one in document["findings"]]
    edge = ("usb4-rpc-latency", "jetson-llama-3.2-1b")
    assert places == [(claim["id"], "jetson" if claim["id"] in edge else "schlimers-server") for claim in CLAIMS]
    assert {one["verdict"] for one in document["findings"]} == {"not_measured"}
    assert all(one["reason"] for one in document["findings"])
    assert row(document, "usb4-rpc-latency", "jetson")["reason"] == (
        "the measurement rpc-latency has no result on jetson; week 4 measures it"
    )
    two = made(hosts=[*HOSTS, {"host": "second", "groups": ["gpu_servers"]}])
    assert len([one for one in two["findings"] if one["claim_id"] == "vllm-throughput"]) == 2
    everywhere = made(claims=[{**CLAIMS[0], "group": "all"}])
    assert [one["host"] for one in everywhere["findings"]] == ["schlimers-server", "xps15", "jetson"]


def test_a_group_without_hosts_has_one_row() -> None:
    document = made(hosts=[SERVER])
    found = row(document, "jetson-llama-3.2-1b", "")
    assert (found["verdict"], found["reason"]) == ("not_measured", "the group edge has no hosts")
    assert len(document["findings"]) == len(CLAIMS)


def test_a_measured_claim() -> None:
    found = row(made(result()), "vllm-throughput")
    assert list(found)[: len(findings.COLUMNS)] == list(findings.COLUMNS)
    assert (found["verdict"], found["n"], found["measured_mean"]) == ("within_expected", 5, 82.3)
    assert (found["ci95_low"], found["ci95_high"]) == (pytest.approx(81.198, abs=0.01), pytest.approx(83.4, abs=0.01))
    assert (found["documented"], found["expected_low"], found["expected_high"]) == ("140\u2013170", 60, 100)
    assert (found["build"], found["model"], found["method"]) == ("vllm 0.30.0", "qwen2.5-7b-awq", "5 processes")
    assert found["samples"] == FAST


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (result(status="failed", reason="3 of 200 requests failed"), "failed: 3 of 200 requests failed"),
        (result(status="skipped", reason="no GPU"), "was skipped: no GPU"),
        (result(status="skipped"), "was skipped: no reason was given"),
        (result(values=[82.0]), "no interval: at least two runs are needed"),
        (result(values=[]), "the measurement gives no output_tokens_per_second"),
        (result(metric="requests_per_second"), "gives no output_tokens_per_second (it has requests_per_second)"),
        (result(values=[82.0, math.nan]), "invalid: output_tokens_per_second: value 2 is nan"),
        (result(values=[82.0, math.inf]), "value 2 is inf"),
        (result(values=[82.0, None]), "value 2 is None"),
        (result(values=[82.0, "83"]), "value 2 is '83'"),
        (result(values=[1e200, -1e200]), "the result is invalid"),
        (result(flags=["invalid: the clock went back"]), "invalid: the clock went back"),
        (result(flags=["cached: the file system can't be read past the page cache"]), "cached: the file system"),
    ],
)
def test_what_was_not_measured_says_why(given: dict[str, Any], reason: str) -> None:
    document = made(given)
    found = row(document, "vllm-throughput")
    assert found["verdict"] == "not_measured"
    assert reason in found["reason"]
    findings.json_text(document)


def test_a_busy_machine_decides_nothing_bad() -> None:
    flags = ["busy: load 3.1 on 24 CPUs before run 2"]
    slow = row(made(result(values=[11.0, 12.0, 11.5], flags=flags)), "vllm-throughput")
    assert slow["verdict"] == "not_measured"
    assert "the machine was not at rest (busy: load 3.1 on 24 CPUs before run 2)" in slow["reason"]
    assert (slow["measured_mean"], slow["flags"]) == (11.5, flags)
    assert row(made(result(flags=flags)), "vllm-throughput")["verdict"] == "within_expected"
    # What a card is sold with is no excuse, and neither is a flag of another kind.
    for flag in ("note: x", "throttled: sw_power_cap on GPU 0 during run 1"):
        assert row(made(result(values=[11.0, 12.0], flags=[flag])), "vllm-throughput")["verdict"] == "refuted"
    hot = [f"throttled: sw_power_cap, hw_thermal_slowdown on GPU 0 during run {number}" for number in range(1, 6)]
    assert "run 2; and 3 more)" in row(made(result(values=[11.0, 12.0], flags=hot)), "vllm-throughput")["reason"]


# --- subjects ---------------------------------------------------------------------------------------


def test_the_lab_neither_confirms_nor_refutes() -> None:
    for values in (FAST, [500.0, 501.0], [1.0, 1.1]):
        lab = result(environment="lab", model="tiny-llama", hardware={"cpu": "x", "gpus": []}, values=values)
        found = row(made(lab, environment="lab"), "vllm-throughput")
        assert found["verdict"] == "not_measured"
        assert found["reason"] == (
            "measured something else: tiny-llama on the CPU in the lab; the claim is about qwen2.5-7b-awq or "
            "llama-3.1-8b-awq on an RTX 5070 Ti on the production machines"
        )
        assert (found["n"], found["environment"]) == (len(values), "lab")


def test_another_card_or_model_is_another_subject() -> None:
    other = row(made(result(hardware=H100)), "vllm-throughput")
    assert other["reason"].startswith("measured something else: qwen2.5-7b-awq on NVIDIA H100 80GB HBM3 on the prod")
    assert row(made(result(model="qwen2.5-14b-awq")), "vllm-throughput")["verdict"] == "not_measured"
    assert row(made(result(hardware=None)), "vllm-throughput")["verdict"] == "not_measured"
    eight = row(made(result(model="llama-3.1-8b-fp8")), "rtx-5070-ti-fp8")
    assert (eight["verdict"], eight["reason"]) == ("within_expected", "no figure was promised")
    on_cpu: dict[str, Any] = {"metric": "decode_tokens_per_second", "devices": [RTX["cpu"]]}
    assert row(made(result("llama-bench-cpu", **on_cpu)), "ryzen-9900x-cpu-throughput")["verdict"] == "within_expected"
    on_gpu = {**on_cpu, "devices": RTX["gpus"]}
    assert (
        "on NVIDIA GeForce RTX 5070 Ti"
        in row(made(result("llama-bench-cpu", **on_gpu)), "ryzen-9900x-cpu-throughput")["reason"]
    )
    beside = result(devices=[RTX["cpu"]])
    assert "qwen2.5-7b-awq on the CPU" in row(made(beside), "vllm-throughput")["reason"]
    cpu = result("llama-bench-cpu", metric="decode_tokens_per_second", hardware={**RTX, "cpu": "AMD Ryzen 9 9900X3D"})
    assert "on AMD Ryzen 9 9900X3D" in row(made(cpu), "ryzen-9900x-cpu-throughput")["reason"]


@pytest.mark.parametrize(
    ("wanted", "name", "same"),
    [
        ("RTX 5070 Ti", "NVIDIA GeForce RTX 5070 Ti", True),
        ("rtx 5070 ti", "NVIDIA GeForce RTX 5070 Ti", True),
        ("RTX 5070", "NVIDIA GeForce RTX 5070 Ti", False),
        ("RTX 5070 Ti", "NVIDIA GeForce RTX 5070 Ti Laptop GPU", False),
        ("RTX 5070 Ti", "NVIDIA GeForce RTX 5070 Ti SUPER", False),
        ("H100", "NVIDIA H100 80GB HBM3", True),
        ("9900X", "AMD Ryzen 9 9900X 12-Core Processor", True),
        ("9900X", "AMD Ryzen 9 9900X3D 12-Core Processor", False),
    ],
)
def test_names_of_devices(wanted: str, name: str, same: bool) -> None:
    assert findings.named(wanted, name) is same


def test_results_of_other_hardware_are_stale() -> None:
    found = row(made(result(hardware_fingerprint="0123456789abcdef")), "vllm-throughput")
    assert found["verdict"] == "not_measured"
    assert found["reason"] == (
        "stale: measured on other hardware (fingerprint 0123456789ab, the host now has ffffffffffff). Run week 1 again"
    )
    assert found["measured_mean"] == 82.3


# --- ratios, percentiles ----------------------------------------------------------------------------

SLOW = [21.0, 22.4, 20.8, 21.5, 21.9]


def test_the_improvement_names_its_baseline() -> None:
    base = result("llama-cpp-server-c1", SLOW, build="b11434", model="llama-3.1-8b-q4")
    found = row(made(result(), base), "throughput-improvement-7x")
    assert (found["verdict"], found["unit"], found["n"]) == ("within_expected", "x", 5)
    assert found["measured_mean"] == pytest.approx(3.826, abs=0.005)
    assert found["ci95_low"] < 3.826 < found["ci95_high"]
    assert found["samples"][0] == pytest.approx(81.2 / 21.51, rel=1e-3)
    assert (found["build"], found["model"]) == ("vllm 0.30.0 / b11434", "qwen2.5-7b-awq / llama-3.1-8b-q4")
    assert found["baseline"]["name"] == "llama.cpp on the CPU of the same host"


@pytest.mark.parametrize(
    ("results", "reason"),
    [
        ([result()], "the baseline is missing (llama.cpp on the CPU of the same host): the measurement"),
        ([result(), result("llama-cpp-server-c1", status="failed", reason="down")], "llama-cpp-server-c1 failed: down"),
        ([result("llama-cpp-server-c1", SLOW)], "the measurement vllm-c1 has no result"),
        ([result(), result("llama-cpp-server-c1", [0.0, 1.0])], "a ratio needs values above 0"),
        ([result(), result("llama-cpp-server-c1", SLOW, hardware_fingerprint="a")], "are of different hardware"),
        ([result(), result("llama-cpp-server-c1", SLOW, flags=["busy: x"])], "makes the ratio look better than it is"),
        ([result(), result("llama-cpp-server-c1", [21.0])], "no interval"),
        (
            [result(), result("llama-cpp-server-c1", SLOW, devices=["NVIDIA GeForce RTX 5070 Ti"])],
            "the baseline is to be llama.cpp on the CPU of the same host, but it ran on NVIDIA GeForce RTX 5070 Ti",
        ),
        ([result(), result("llama-cpp-server-c1", SLOW, parameters={"device": "gpu"})], "but it ran on the GPU"),
        ([result(), result("llama-cpp-server-c1", metric="x_ms")], "the baseline (llama.cpp on the CPU of the same"),
    ],
)
def test_a_ratio_needs_both_sides(results: list[dict[str, Any]], reason: str) -> None:
    found = row(made(*results), "throughput-improvement-7x")
    assert found["verdict"] == "not_measured"
    assert reason in found["reason"]


def test_percentiles_use_every_request() -> None:
    values = [100.0, 104.0, 99.0, 101.0, 102.0]
    requests = [{"ttft_ms": [value - 20, value, value + 40, value - 5, value + 5]} for value in values]
    bare = row(made(result(values=values, metric="ttft_p50_ms")), "vllm-ttft")
    full = row(made(result(values=values, metric="ttft_p50_ms", samples=requests)), "vllm-ttft")
    assert full["verdict"] == bare["verdict"] == "within_expected"
    assert full["measured_mean"] == bare["measured_mean"]
    assert full["ci95_low"] <= bare["ci95_low"]
    assert full["ci95_high"] >= bare["ci95_high"]
    assert (full["ci95_low"], full["ci95_high"]) != (bare["ci95_low"], bare["ci95_high"])
    requests[0]["ttft_ms"][0] = math.nan
    spoilt = row(made(result(values=values, metric="ttft_p50_ms", samples=requests)), "vllm-ttft")
    assert (spoilt["ci95_low"], spoilt["ci95_high"]) == (bare["ci95_low"], bare["ci95_high"])


# --- what arithmetic allows -------------------------------------------------------------------------


def test_the_ceiling_of_a_split_model_by_hand() -> None:
    """16.6 GB at 896 GB/s and 25.9 GB at 89.6 GB/s: 18.5 + 289 ms."""
    found = roofline.hybrid_ceiling(42_500_000_000, 16_600_000_000, 896 * 10**9, 89_600_000_000)
    assert found.tokens_per_second == pytest.approx(1 / (16.6 / 896 + 25.9 / 89.6))
    assert found.tokens_per_second == pytest.approx(3.25, abs=0.01)
    assert (found.gpu_bytes, found.host_bytes) == (16_600_000_000, 25_900_000_000)
    whole = roofline.hybrid_ceiling(42_500_000_000, 85_000_000_000, 3350 * 10**9, 89_600_000_000)
    assert whole.tokens_per_second == pytest.approx(3350 / 42.5)
    longer = roofline.hybrid_ceiling(42_500_000_000, 0, 0, 89_600_000_000, None, 327_680, 8192)
    assert longer.tokens_per_second == pytest.approx(89.6e9 / (42.5e9 + 327_680 * 8192))
    too_big = roofline.hybrid_ceiling(42_500_000_000, 16_600_000_000, 896 * 10**9, 89_600_000_000, 8 << 30)
    assert (too_big.tokens_per_second, "can't be held at all" in too_big.reason) == (0, True)
    for sizes in ((0, 1, 1, 1), (1, -1, 1, 1), (10, 1, 0, 1), (10, 1, 1, 0)):
        with pytest.raises(ValueError, match="above 0"):
            roofline.hybrid_ceiling(*sizes)


def test_70b_is_impossible_on_16_gb_by_arithmetic() -> None:
    found = row(made(derived=[derived(fit(CARD_16))]), "llama-3.3-70b-hybrid")
    assert found["verdict"] == "impossible"
    assert "at most 3.3 tok/s" in found["reason"]
    assert "are read from host memory" in found["reason"]
    assert "documented is 30\u201340 tok/s" in found["reason"]
    assert (found["model"], found["measured_mean"], found["n"]) == ("llama-3.3-70b-q4", None, 0)
    assert found["hardware_fingerprint"] == "f" * 16
    assert found["limit"]["value"] == pytest.approx(3.27, abs=0.05)


def test_70b_is_not_impossible_on_80_gb() -> None:
    found = row(made(derived=[derived(fit(CARD_80))]), "llama-3.3-70b-hybrid")
    assert found["verdict"] == "not_measured"
    assert found["reason"].startswith("derived for something else: llama-3.3-70b-q4 on NVIDIA H100 80GB HBM3")
    assert "at most 78.8 tok/s" in found["reason"]
    # A claim that names no card is judged by the card that is there.
    claims = copy.deepcopy(CLAIMS)
    next(claim for claim in claims if claim["id"] == "llama-3.3-70b-hybrid")["subject"] = {}
    open_claim = row(made(claims=claims, derived=[derived(fit(CARD_80))]), "llama-3.3-70b-hybrid")
    assert open_claim["verdict"] == "not_measured"
    assert open_claim["reason"].startswith("arithmetic does not rule it out (derived: at most 78.8 tok/s: ")


def test_the_documented_card_is_judged_where_it_is_not() -> None:
    """The lab has no GPU; the plan's machine is judged by the data sheets, and the row says so."""
    given = derived(fit(CARD_16), documented_hardware=True)
    slow = result("memory-bandwidth", [9.0, 9.1], "memory_bandwidth_gb_per_second", environment="lab")
    found = row(made(slow, environment="lab", derived=[given]), "llama-3.3-70b-hybrid")
    assert found["verdict"] == "impossible"
    assert found["reason"].startswith("derived from the documented hardware: at most 3.3 tok/s")
    assert found["hardware_fingerprint"] == ""
    none = row(made(derived=[derived(fit(None))]), "llama-3.3-70b-hybrid")
    assert none["reason"].startswith("derived for something else: llama-3.3-70b-q4 on a host without a GPU")


def test_measured_memory_bandwidth_takes_the_place_of_the_data_sheet() -> None:
    measured = result("memory-bandwidth", [60.0, 60.4, 60.2], "memory_bandwidth_gb_per_second")
    sheet = row(made(derived=[derived(fit(CARD_16))]), "llama-3.3-70b-hybrid")["limit"]["value"]
    found = row(made(measured, derived=[derived(fit(CARD_16))]), "llama-3.3-70b-hybrid")["limit"]["value"]
    assert found == pytest.approx(sheet * 60.7 / 89.6, rel=0.03)


@pytest.mark.parametrize("flag", ["busy: x", "throttled: thermal", "invalid: x"])
def test_memory_bandwidth_of_a_machine_that_was_not_at_rest_limits_nothing(flag: str) -> None:
    measured = result("memory-bandwidth", [6.0, 6.1, 6.2], "memory_bandwidth_gb_per_second", flags=[flag])
    sheet = row(made(derived=[derived(fit(CARD_16))]), "llama-3.3-70b-hybrid")["limit"]
    assert row(made(measured, derived=[derived(fit(CARD_16))]), "llama-3.3-70b-hybrid")["limit"] == sheet


def test_what_was_derived_for_a_host_outside_of_the_run_is_kept() -> None:
    first = made(derived=[derived(fit(CARD_16))])
    away = [{**host, "hardware_fingerprint": None} for host in HOSTS]
    kept = row(made(hosts=away, previous=first), "llama-3.3-70b-hybrid")
    assert kept == row(first, "llama-3.3-70b-hybrid")
    assert kept["verdict"] == "impossible"
    # A host whose hardware was read, and another environment, have verdicts of their own.
    for given in ({"previous": first}, {"hosts": away, "previous": first, "environment": "lab"}):
        assert row(made(**given), "llama-3.3-70b-hybrid")["reason"].startswith("nothing was derived")


def test_what_was_not_derived_says_why() -> None:
    assert row(made(), "llama-3.3-70b-hybrid")["reason"] == (
        "nothing was derived for schlimers-server: model_fit was not asked about this claim"
    )
    other = row(made(derived=[derived(fit(CARD_16), host="xps15")]), "llama-3.3-70b-hybrid")
    assert other["reason"].startswith("nothing was derived")


@pytest.mark.parametrize(
    ("entry", "sentence"),
    [
        ({"claim_id": "nope"}, "claim_id is 'nope'; allowed is the id of a claim: jetson-llama-3.2-1b, "),
        ({"fit": {"x": 1}}, "fit is no answer of model_fit"),
        ({"service": "vllm"}, "service is 'vllm', which the answer does not have"),
        ({"host_bandwidth_bytes_per_second": 0}, "Set gpu_bandwidth_bytes_per_second and host_bandwidth_bytes"),
    ],
)
def test_a_bad_derivation_is_refused(entry: dict[str, Any], sentence: str) -> None:
    with pytest.raises(FindingsError, match=sentence):
        made(derived=[derived(fit(CARD_16), **entry)])


def test_a_measurement_above_the_roofline_is_of_something_else() -> None:
    small = fit(CARD_16, 5_570_747_392, model={"name": "qwen2.5-7b-awq", "figures": {"weights_bytes": 5_570_747_392,
                "layers": 28, "kv_heads": 4, "head_dim": 128}})  # fmt: skip
    entry = derived(small, claim_id="vllm-throughput")
    assert row(made(result(), derived=[entry]), "vllm-throughput")["verdict"] == "within_expected"
    wild = row(made(result(values=[400.0, 401.0, 402.0]), derived=[entry]), "vllm-throughput")
    assert wild["verdict"] == "not_measured"
    assert "better than is physically possible" in wild["reason"]
    # Several requests at once read the weights once for all of them.
    many = result(values=[400.0, 401.0, 402.0], parameters={"concurrency": 8})
    assert row(made(many, derived=[entry]), "vllm-throughput")["verdict"] == "confirmed"


# --- runs one after the other -----------------------------------------------------------------------


def test_a_run_of_one_measurement_keeps_the_others() -> None:
    first = made(result(), result("llama-cpp-server-c1", SLOW))
    again = made(result(values=[90.0, 91.0, 92.0], measured_at="2026-11-24T00:00:00Z"), previous=first)
    assert row(again, "throughput-improvement-7x")["n"] == 3
    assert row(made(previous=first), "vllm-throughput") == row(first, "vllm-throughput")
    failed = made(result(status="failed", reason="down"), previous=first)
    assert row(failed, "vllm-throughput")["verdict"] == "not_measured"
    assert row(made(previous=first, environment="lab"), "vllm-throughput")["n"] == 0
    gone = made(previous=first, hosts=[XPS])
    assert gone["measurements"] == []


def test_of_two_results_the_later_one_counts() -> None:
    old, new = result(values=[1.0, 2.0], measured_at="2026-01-01T00:00:00Z"), result()
    for results in ((old, new), (new, old)):
        assert row(made(*results), "vllm-throughput")["measured_mean"] == 82.3


def test_results_that_can_t_be_used_are_left_out_with_a_warning() -> None:
    bad = [
        {"id": "x"}, {**result(), "schema": 2}, {**result(), "status": "fine"}, {**result(), "runs": "x"},
        {**result(), "runs": [{"metrics": [1]}]}, {**result(), "parameters": 3}, {**result(), "host": "stranger"}, 4,
    ]  # fmt: skip
    document, _, warnings = join(Inputs("production", CLAIMS, HOSTS, bad))
    assert len(warnings) == len(bad)
    assert document["measurements"] == []


def test_a_check_keeps_what_was_measured() -> None:
    first = made(result())
    document, _, warnings = join(
        Inputs("production", CLAIMS, HOSTS, [result(status="planned", runs=[])], previous=first)
    )
    assert (document["findings"], warnings) == (first["findings"], [])


def test_the_history_has_each_finished_measurement_once() -> None:
    first = [result(), result("x", status="failed")]
    _, history, _ = join(Inputs("production", CLAIMS, HOSTS, first))
    assert [(line["id"], line["metrics"]) for line in history] == [("vllm-c1", {"output_tokens_per_second": FAST})]
    _, same, _ = join(Inputs("production", CLAIMS, HOSTS, first, history=history))
    assert same == history
    later = result(measured_at="2026-11-24T00:00:00Z")
    document, more, _ = join(Inputs("production", CLAIMS, HOSTS, [later], history=history))
    assert len(more) == 2
    assert document["history"] == more
    parsed, broken = findings.parse_history(findings.history_text(more, ["{half a li"]) + "\n[]\n")
    assert (parsed, broken) == (more, ["{half a li", "[]"])


@pytest.mark.parametrize(
    ("changes", "outcome"),
    [
        ({"values": [value * 1.2 for value in FAST]}, "better"),
        ({"values": [value * 0.8 for value in FAST]}, "worse"),
        ({"values": [value * 1.001 for value in FAST]}, "inconclusive"),
        ({"build": "vllm 0.31.0"}, "inconclusive"),
        ({"parameters": {"concurrency": 1, "image": "llama.cpp:b2", "url": "http://x"}}, "inconclusive"),
        ({"hardware_fingerprint": "other"}, None),
        ({"model": "llama-3.1-8b-awq"}, None),
        ({"parameters": {"concurrency": 1, "output_tokens": 9}}, None),
        ({"environment": "lab"}, None),
    ],
)
def test_a_run_is_compared_with_the_last_of_its_kind(changes: dict[str, Any], outcome: str | None) -> None:
    older = result(values=[1.0, 1.1], measured_at="2026-11-01T00:00:00Z")
    _, history, _ = join(Inputs("production", CLAIMS, HOSTS, [older]))
    _, history, _ = join(Inputs("production", CLAIMS, HOSTS, [result()], history=history))
    now = result(**{"measured_at": "2026-11-24T00:00:00Z", **changes})
    document, _, _ = join(Inputs("production", CLAIMS, HOSTS, [now], history=history))
    found = row(document, "vllm-throughput")["comparison"]
    assert (found and found["outcome"]) == outcome
    if found:
        assert (found["measured_at"], found["n"]) == ("2026-11-23T15:00:09Z", 5)


def test_lower_latency_is_better_than_before() -> None:
    older = result(values=[100.0, 101.0, 102.0], metric="ttft_p50_ms", measured_at="2026-11-01T00:00:00Z")
    _, history, _ = join(Inputs("production", CLAIMS, HOSTS, [older]))
    document = made(result(values=[90.0, 91.0, 92.0], metric="ttft_p50_ms"), history=history)
    assert row(document, "vllm-ttft")["comparison"]["outcome"] == "better"


def test_findings_of_hardware_that_is_gone_are_stale() -> None:
    document = made(result(), result("llama-cpp-server-c1", SLOW), derived=[derived(fit(CARD_16))])
    before = copy.deepcopy(document)
    assert findings.mark_stale(document, "xps15", "f" * 16, []) == 0
    assert findings.mark_stale(document, "schlimers-server", "0" * 16, []) == 0
    assert document == before
    changes = ["GPU replaced: A by B."]
    marked = findings.mark_stale(document, "schlimers-server", "f" * 16, changes)
    # Throughput, TTFT and FP8 (the same measurement), the ratio, and what was derived for this hardware.
    assert marked == 5
    found = row(document, "vllm-throughput")
    assert (found["verdict"], found["measured_mean"]) == ("not_measured", 82.3)
    assert found["reason"] == (
        "stale: measured on other hardware (fingerprint ffffffffffff): GPU replaced: A by B. Run week 1 again"
    )
    assert findings.mark_stale(document, "schlimers-server", "f" * 16, changes) == 0


# --- texts ------------------------------------------------------------------------------------------


def test_the_csv_is_the_contract_s() -> None:
    text = findings.csv_text(made(result()))
    rows = list(csv.reader(io.StringIO(text)))
    assert tuple(rows[0]) == findings.COLUMNS
    assert len(rows) == 1 + len(CLAIMS)
    first = dict(zip(rows[0], rows[1], strict=True))
    assert (first["documented"], first["expected_low"], first["measured_mean"]) == ("140\u2013170", "60", "82.3")
    last = dict(zip(rows[0], rows[-1], strict=True))
    assert (last["measured_mean"], last["ci95_low"], last["n"]) == ("", "", "0")
    assert "\r" not in text


def test_the_same_input_gives_the_same_bytes() -> None:
    requests = [{"ttft_ms": [value, value + 1, value + 9]} for value in FAST]
    given = [result(metric="ttft_p50_ms", samples=requests), result("llama-cpp-server-c1", SLOW)]
    texts = {findings.json_text(made(*results)) + findings.csv_text(made(*results)) for results in (given, given[::-1])}
    assert len(texts) == 1
    document = json.loads(findings.json_text(made(*given)))
    assert findings.read_document(findings.json_text(document)) == document


def test_numbers_that_json_has_not_are_null() -> None:
    text = findings.json_text(made(result(values=[math.nan, 1.0])))
    assert "NaN" not in text
    json.loads(text)


def test_mlflow_gets_parameters_metrics_and_tags() -> None:
    document = findings.mlflow_document(made(result(), result("x", status="failed")))
    names = [run["run_name"] for run in document["runs"]]
    assert names == ["week1-production-schlimers-server", "week1-production-jetson"]
    run = document["runs"][0]
    assert run["metrics"]["vllm-c1/output_tokens_per_second"] == 82.3
    assert run["metrics"]["vllm-c1/output_tokens_per_second_n"] == 5
    low, high = (run["metrics"][f"vllm-c1/output_tokens_per_second_ci95_{end}"] for end in ("low", "high"))
    assert low < 82.3 < high
    assert run["params"]["vllm-c1/build"] == "vllm 0.30.0"
    assert run["params"]["vllm-c1/concurrency"] == "1"
    assert run["tags"]["verdict/vllm-throughput"] == "within_expected"
    assert run["tags"]["hardware_fingerprint"] == "f" * 16
    assert all(isinstance(value, str) for value in [*run["params"].values(), *run["tags"].values()])
    assert not [name for name in run["metrics"] if name.startswith("x/")]


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"schema": 2}', '{"schema": 1, "environment": "lab"}'])
def test_what_is_no_findings_file(content: str) -> None:
    assert findings.read_document(content) is None


def test_the_report_s_example_has_the_form_that_is_read() -> None:
    path = ROOT / "tests/golden/benchmark_findings/constructed-week1.json"
    assert findings.read_document(path.read_text()) is not None


def test_counts_name_every_verdict() -> None:
    assert findings.counts(made(result()))["within_expected"] == 1
    assert len(findings.counts(made())) == 7
