"""model_fit against what vLLM 0.30.0 really took on an H100: 14 starts, warm and cold, and what it refused."""

import functools
import json
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.ai_idp import vllm_memory
from ansible.module_utils.ai_idp.layer_kinds import KvLayer
from ansible.module_utils.ai_idp.vllm_cache import sequence_cache
from model_configs import CONFIGS, LLAMA_8B, shape, weights_bytes, write_config
from test_model_fit import MIB, decide, refused, vllm

CAPTURED = json.loads((Path(__file__).parent.parent / "golden" / "h100" / "vllm_memory.json").read_text())
CARD = {"index": 0, "name": "NVIDIA H100 80GB HBM3", "memory_total_bytes": CAPTURED["total_memory"]}
PROFILED = [case for case in CAPTURED["cases"] if case["available_kv"] is not None]


def projected(folder: Path, case: dict[str, Any], **changes: Any) -> dict[str, Any]:
    config = CONFIGS[case["model"]]
    path = write_config(folder, config, weights_bytes(config))
    service = {
        "name": "vllm", "engine": "vllm", "model": {"name": case["model"], "path": str(path)},
        "context_length": case["max_model_len"], "sequences": case["max_num_seqs"],
        "max_num_batched_tokens": case["max_num_batched_tokens"], "enforce_eager": case["enforce_eager"],
        "gpu_memory_utilization": case["gpu_memory_utilization"],
        "compile_cache": "warm" if case["compile_cache"] == "warm" else "cold", **changes,
    }  # fmt: skip
    row: dict[str, Any] = decide(service, gpus=[CARD])["services"][0]
    return row


@pytest.mark.parametrize("case", PROFILED, ids=lambda case: case["name"])
def test_the_projection_holds_warm_and_cold(tmp_path: Path, case: dict[str, Any]) -> None:
    """What vLLM needed is its budget less the KV cache that was left, and one sequence. 1 % or 100 MiB is promised."""
    row = projected(tmp_path, case)
    one_block = row["breakdown"]["pool"]
    needed = case["requested_memory"] - case["available_kv"] + row["breakdown"]["kv_cache"] + one_block
    assert abs(row["required_bytes"] - needed) <= 20 * MIB
    assert row["required_bytes"] - needed <= max(0.01 * needed, 100 * MIB)


@pytest.mark.parametrize("case", CAPTURED["cases"], ids=lambda case: case["name"])
def test_no_verdict_is_wrong(tmp_path: Path, case: dict[str, Any]) -> None:
    assert projected(tmp_path, case)["verdict"] == {"starts": "fits", "refused": "does_not_fit"}[case["verdict"]]


@pytest.mark.parametrize(
    "case", [case for case in PROFILED if not case["enforce_eager"]], ids=lambda case: case["name"]
)
def test_a_cold_start_is_planned_for_and_the_warm_one_told(tmp_path: Path, case: dict[str, Any]) -> None:
    row = projected(tmp_path, {**case, "compile_cache": "cold"})
    warm = projected(tmp_path, {**case, "compile_cache": "warm"})
    assert row["warm_required_bytes"] == warm["required_bytes"] < row["required_bytes"]
    assert row["warm_max_context_length"] == warm["max_context_length"] >= row["max_context_length"]


@pytest.mark.parametrize("case", [case for case in PROFILED if case["used_after"]], ids=lambda case: case["name"])
def test_what_is_taken_beyond_the_budget_is_left_free_for_it(tmp_path: Path, case: dict[str, Any]) -> None:
    """Measured after ordinary requests; the part of the CUDA context is the one that llama.cpp's measurement has."""
    path = write_config(tmp_path, CONFIGS[case["model"]], 10**9)
    service = vllm(model={"name": "m", "path": str(path)}, gpu_memory_utilization=case["gpu_memory_utilization"])
    [gpu] = decide(service, gpus=[CARD])["gpus"]
    taken = case["used_after"] - case["used_before"]
    assert 0 <= gpu["required_bytes"] - taken < 420 * MIB


def test_auto_plans_what_a_cold_start_serves(tmp_path: Path) -> None:
    """Qwen2.5 14B AWQ on a budget of 12,680 MiB: vLLM found room for 4,448 tokens, and auto had planned 7,680."""
    case = next(case for case in CAPTURED["cases"] if case["name"] == "16-q14bawq-7680-cold")
    row = projected(tmp_path, {**case, "max_model_len": "auto"}, sequences=32)
    assert 3584 <= row["context_length"] <= 4448
    assert row["verdict"] == "fits"
    assert row["warm_max_context_length"] > 8192


@functools.cache
def sizes(sequences: int) -> int:
    return len(vllm_memory.graph_sizes(sequences, 4096))


def test_as_many_graphs_as_vllm_captures() -> None:
    assert (sizes(32), sizes(128), sizes(256)) == (11, 35, 51)


def test_what_is_spread_over_cards_is_shared_out(tmp_path: Path) -> None:
    path = write_config(tmp_path, CONFIGS["llama-3.1-8b"], weights_bytes(CONFIGS["llama-3.1-8b"]))
    model = {"name": "m", "path": str(path)}
    cards = [{**CARD, "index": index} for index in range(2)]
    one, two = (
        decide(vllm(model=model, tensor_parallel_size=size), gpus=cards)["services"][0]["breakdown"] for size in (1, 2)
    )
    assert two["kv_cache"] == one["kv_cache"] // 2
    assert two["weights"] < 0.51 * one["weights"]


def test_mxfp4_experts_are_padded_when_they_are_loaded(tmp_path: Path) -> None:
    """gpt-oss-120b: vLLM loads 65.97 GiB of a 60.77 GiB file on one card and 17.22 on each of four."""
    config = {
        "model_type": "gpt_oss", "num_hidden_layers": 36, "num_local_experts": 128, "vocab_size": 201_088,
        "hidden_size": 2880, "intermediate_size": 2880, "head_dim": 64, "num_attention_heads": 64,
        "num_key_value_heads": 8, "sliding_window": 128, "tie_word_embeddings": False,
        "quantization_config": {"quant_method": "mxfp4"},
    }  # fmt: skip
    path = write_config(tmp_path, config, round(60.77 * (1 << 30)))
    cards = [{**CARD, "index": index} for index in range(4)]
    for size, published in ((1, 65.97), (4, 17.22)):
        service = vllm(model={"name": "m", "path": str(path)}, tensor_parallel_size=size, context_length=8192)
        loaded = decide(service, gpus=cards)["services"][0]["breakdown"]["weights"] / (1 << 30)
        assert loaded == pytest.approx(published, rel=0.01)


def test_an_8_bit_cache_with_a_float16_model_is_refused(tmp_path: Path) -> None:
    """vLLM crashes then when it captures its graphs on Hopper."""
    awq = CONFIGS["llama-3.1-8b-awq"]
    path = write_config(tmp_path, awq, weights_bytes(awq))
    service = vllm(model={"name": "m", "path": str(path)}, kv_cache_type="fp8", context_length=8192)
    [problem] = decide(service, gpus=[CARD])["problems"]
    assert "float16" in problem
    assert "bfloat16" in problem
    assert decide({**service, "dtype": "bfloat16"}, gpus=[CARD])["verdict"] == "fits"
    bf16 = write_config(tmp_path / "bf16", shape(*LLAMA_8B), weights_bytes(shape(*LLAMA_8B)))
    assert decide({**service, "model": {"name": "m", "path": str(bf16)}}, gpus=[CARD])["verdict"] == "fits"
    assert "allowed is one of" in refused({**service, "dtype": "int3"})[0]


# --- the block pool -------------------------------------------------------------------------------------------------


def test_layers_of_one_kind_take_whole_blocks_and_one_to_spare() -> None:
    layers = (KvLayer(1024, 1024, kv_heads=8),) * 32
    found = sequence_cache(layers, 8190, 4096, 2)
    assert (found.kv, found.pool) == (8192 * 131_072, 16 * 131_072)


def test_groups_of_two_kinds_are_of_one_size() -> None:
    """Gemma 3 27B: 10 full layers and 52 that slide, in one group of 10 and six of up to 10."""
    full, slides = KvLayer(2048, 2048, kv_heads=16), KvLayer(2048, 2048, 1024, kv_heads=16)
    layers = tuple(full if index % 6 == 5 else slides for index in range(62))
    found = sequence_cache(layers, 32_768, 4096, 2)
    blocks = 2048 + 6 * (-(-(1023 + 8192) // 16) + 1)
    assert found.total == (blocks + 1) * 10 * 16 * 8192


def test_a_recurrent_state_sets_the_size_of_blocks() -> None:
    """A state of 2 MiB beside layers of 4 KiB a token: blocks of 512 tokens, two states of each sequence."""
    layers = (KvLayer(0, 0, state_bytes=2 * MIB),) * 6 + (KvLayer(1024, 1024, kv_heads=8),) * 2
    found = sequence_cache(layers, 8192, 4096, 2)
    assert found.states == 12 * MIB
    assert found.total == (16 + 3 * 2 + 1) * 2 * 2 * MIB


# --- the page -------------------------------------------------------------------------------------------------------


def table(folder: Path) -> str:
    """The page's table of starts."""
    lines = [
        "| model | budget | length | sequences | batched | compiled kernels | needed | model_fit | error | vLLM "
        "| model_fit says |",
        "|---|---:|---:|---:|---:|---|---:|---:|---:|---|---|",
    ]
    for number, case in enumerate(CAPTURED["cases"]):
        row = projected(folder / str(number), case)
        needed, error = "-", "-"
        if case["available_kv"] is not None:
            cache = row["breakdown"]["kv_cache"] + row["breakdown"]["pool"]
            real = case["requested_memory"] - case["available_kv"] + cache
            off = row["required_bytes"] - real
            needed, error = f"{real / MIB:,.0f}", f"{off / MIB:+.0f} ({100 * off / real:+.1f} %)"
        budget = case["gpu_memory_utilization"] * CAPTURED["total_memory"] / MIB
        kernels = "no compilation" if case["enforce_eager"] else case["compile_cache"]
        lines.append(
            f"| {case['model']} | {budget:,.0f} | {case['max_model_len']:,} | {case['max_num_seqs']} "
            f"| {case['max_num_batched_tokens']:,} | {kernels} | {needed} | {row['required_bytes'] / MIB:,.0f} "
            f"| {error} | {case['verdict']} | {row['verdict'].replace('_', ' ')} |"
        )
    return "\n".join(lines) + "\n"


def test_the_page_shows_today_s_projection(tmp_path: Path) -> None:
    """After a change of the projection: put this table into the page, and read it."""
    assert table(tmp_path) in (Path(__file__).parent.parent.parent / "docs" / "model-fit.md").read_text()
