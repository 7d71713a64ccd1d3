"""What a layer keeps by architecture and model type: figures that others computed, bounds, cards of other kinds."""

from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.ai_idp import engine_memory, fit_input, model_shape
from ansible.module_utils.ai_idp.gguf_header import GgufHeader, Tensor
from ansible.module_utils.ai_idp.layer_kinds import GGUF_ARCHITECTURES, ShapeError, gguf_layers
from ansible.module_utils.ai_idp.layer_kinds_hf import HF_MODEL_TYPES, hf_layers, text_config
from gguf_models import LLAMA_1B, write_llama
from model_configs import write_config
from test_model_fit import MIB, RTX_5070_TI, decide, llama, refused, vllm

GIB = 1 << 30


def gguf_shape(architecture: str, metadata: dict[str, Any], weights: int = 10**9) -> model_shape.ModelShape:
    header = {"general.architecture": architecture, **{f"{architecture}.{key}": v for key, v in metadata.items()}}
    tensors = [Tensor("output_norm.weight", (1,), "F32", weights, 0)]
    return model_shape.from_gguf("m", GgufHeader(3, header, tensors, ["m"], weights, True))


def service_of(engine: str, **changes: Any) -> fit_input.Service:
    raw = {"name": "s", "engine": engine, "model": {"name": "m"}, **changes}
    service, problems = fit_input.parse_service(raw)
    assert service is not None, problems
    return service


def projected(shape: model_shape.ModelShape, engine: str, **changes: Any) -> engine_memory.Projection:
    found = engine_memory.project(shape, service_of(engine, **changes), engine_memory.DEFAULT_OVERHEAD)
    assert found is not None
    return found


HEADERS: list[tuple[str, dict[str, Any], int, float]] = [
    # 12 full layers of 131,072 cells and 12 window layers of 768.
    (
        "gpt-oss",
        {
            "block_count": 24, "context_length": 131_072, "embedding_length": 2880, "feed_forward_length": 2880,
            "attention.head_count": 64, "attention.head_count_kv": 8, "attention.key_length": 64,
            "attention.value_length": 64, "attention.sliding_window": 128,
        },
        131_072,
        3090,
    ),
    # Every sixth layer is full, the others hold 1,536 cells.
    (
        "gemma3",
        {
            "block_count": 62, "context_length": 131_072, "embedding_length": 5376, "feed_forward_length": 21_504,
            "attention.head_count": 32, "attention.head_count_kv": 16, "attention.key_length": 128,
            "attention.value_length": 128, "attention.sliding_window": 1024,
        },
        32_768,
        3184,
    ),
    # V is a view of K.
    (
        "deepseek2",
        {
            "block_count": 47, "context_length": 202_752, "embedding_length": 2048, "feed_forward_length": 10_240,
            "attention.head_count": 20, "attention.head_count_kv": 1, "attention.key_length": 576,
            "attention.value_length": 512, "attention.key_length_mla": 256, "attention.value_length_mla": 256,
            "attention.kv_lora_rank": 512,
        },
        32_768,
        1692,
    ),
]  # fmt: skip


@pytest.mark.parametrize(("architecture", "metadata", "context", "mib"), HEADERS)
def test_a_header_s_cache_is_what_llama_cpp_holds(
    architecture: str, metadata: dict[str, Any], context: int, mib: float
) -> None:
    found = projected(gguf_shape(architecture, metadata), "llama_cpp", context_length=context, sequences=1)
    assert found.kv_cache / MIB == pytest.approx(mib, abs=0.01)


GEMMA3_27B = {
    "model_type": "gemma3",
    "text_config": {
        "model_type": "gemma3_text", "hidden_size": 5376, "intermediate_size": 21_504, "num_hidden_layers": 62,
        "num_attention_heads": 32, "num_key_value_heads": 16, "head_dim": 128, "sliding_window": 1024,
    },
    "vision_config": {},
}  # fmt: skip
GEMMA3_4B = {
    "model_type": "gemma3",
    "text_config": {
        "model_type": "gemma3_text", "hidden_size": 2560, "intermediate_size": 10_240, "num_hidden_layers": 34,
        "sliding_window": 1024,
    },
}  # fmt: skip
GEMMA4_31B = {
    "model_type": "gemma4",
    "text_config": {
        "model_type": "gemma4_text", "hidden_size": 5376, "intermediate_size": 21_504, "num_hidden_layers": 60,
        "num_attention_heads": 32, "num_key_value_heads": 16, "head_dim": 256, "global_head_dim": 512,
        "num_global_key_value_heads": 4, "attention_k_eq_v": True, "sliding_window": 1024,
        "layer_types": (["sliding_attention"] * 5 + ["full_attention"]) * 10,
        "max_position_embeddings": 262_144, "vocab_size": 262_144,
    },
}  # fmt: skip
GRANITE_HYBRID = {
    "model_type": "granitemoehybrid", "hidden_size": 4096, "intermediate_size": 768, "num_attention_heads": 32,
    "num_key_value_heads": 8, "num_hidden_layers": 40, "max_position_embeddings": 131_072, "vocab_size": 100_352,
    "layer_types": ["attention" if index in (5, 15, 25, 35) else "mamba" for index in range(40)],
}  # fmt: skip


@pytest.mark.parametrize(
    ("config", "context", "gib"),
    [(GEMMA3_27B, 32_768, 4.53), (GEMMA3_4B, 32_768, 1.19), (GEMMA4_31B, 262_144, 23.92), (GRANITE_HYBRID, 131_072, 2)],
)
def test_a_configuration_s_cache_is_what_vllm_holds(
    tmp_path: Path, config: dict[str, Any], context: int, gib: float
) -> None:
    shape = model_shape.from_path("m", str(write_config(tmp_path, config)))
    found = projected(shape, "vllm", context_length=context, max_num_batched_tokens=4096)
    assert found.kv_cache / GIB == pytest.approx(gib, abs=0.01)
    # What vLLM asks for before it starts is more where layers of two kinds share a pool of blocks.
    assert found.pool > 0


def test_recurrent_states_count_for_each_slot() -> None:
    """Qwen3.6 27B with four slots: 598 MiB of 32-bit states in 48 of 64 layers."""
    metadata = {
        "block_count": 64, "embedding_length": 5120, "full_attention_interval": 4, "attention.head_count": 24,
        "attention.head_count_kv": 4, "attention.key_length": 256, "attention.value_length": 256,
        "ssm.conv_kernel": 4, "ssm.inner_size": 6144, "ssm.state_size": 128, "ssm.group_count": 16,
    }  # fmt: skip
    found = projected(gguf_shape("qwen35", metadata), "llama_cpp", context_length=8192, sequences=4)
    assert found.states == 598.5 * MIB
    assert found.kv_cache == 16 * 2 * 4 * 256 * 2 * 8192


def test_shared_layers_and_layers_of_further_tokens_hold_nothing() -> None:
    shared = {
        "block_count": 6, "embedding_length": 1024, "attention.head_count": 4, "attention.head_count_kv": 1,
        "attention.key_length": 512, "attention.value_length": 512, "attention.key_length_swa": 256,
        "attention.value_length_swa": 256, "attention.sliding_window": 512, "attention.shared_kv_layers": 2,
        "attention.sliding_window_pattern": [True, True, False, True, True, False],
    }  # fmt: skip
    layers = gguf_layers("gemma4", shared.get).most
    assert [layer.elements for layer in layers] == [512, 512, 1024, 512, 0, 0]
    assert [layer.window for layer in layers] == [512, 512, None, 512, None, None]
    further = {**{k: v for k, v in shared.items() if "s" not in k.split("_")[-1]}, "nextn_predict_layers": 1}
    further.pop("attention.sliding_window_pattern", None)
    assert [layer.elements for layer in gguf_layers("glm4moe", further.get).most][-2:] == [1024, 0]


def test_a_window_that_the_header_has_to_name_is_asked_for() -> None:
    with pytest.raises(ShapeError, match=r"no attention\.sliding_window"):
        gguf_layers("gpt-oss", {"block_count": 2, "embedding_length": 64, "attention.head_count": 2}.get)


@pytest.mark.parametrize("rule", [*GGUF_ARCHITECTURES.values(), *HF_MODEL_TYPES.values()])
def test_every_row_names_its_source(rule: Any) -> None:
    assert rule.source.endswith((".cpp", ".py")) or rule.source.startswith("vllm/models/")


@pytest.mark.parametrize("kind", HF_MODEL_TYPES)
def test_a_type_alone_is_read_with_its_library_s_defaults(kind: str) -> None:
    """Where the rows hold them all; else one sentence says which key is needed."""
    config, found = text_config({"model_type": kind})
    if {"num_hidden_layers", "hidden_size", "num_attention_heads"} <= config.keys() and kind != "kimi_linear":
        assert hf_layers(config, found).most
    else:
        with pytest.raises(ShapeError, match=r".+"):
            hf_layers(config, found)


# --- what has no row --------------------------------------------------------------------------------------------


UNKNOWN = {
    "model_type": "tomorrow", "hidden_size": 4096, "intermediate_size": 14_336, "num_hidden_layers": 32,
    "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128_256,
}  # fmt: skip


def tomorrow(folder: Path, weights: int, **changes: Any) -> dict[str, Any]:
    path = write_config(folder, UNKNOWN, weights)
    model = {"name": "tomorrow", "path": str(path), **changes.pop("model", {})}
    return vllm(model=model, context_length=8192, **changes)


def test_an_unknown_family_fits_only_if_the_most_does_and_is_refused_only_if_the_least_is_too_much(
    tmp_path: Path,
) -> None:
    by_weights = {}
    for gb in (1, 8, 14):
        by_weights[gb] = decide(tomorrow(tmp_path / str(gb), gb * 10**9))
    assert [by_weights[gb]["verdict"] for gb in (1, 8, 14)] == ["fits", "unknown", "does_not_fit"]
    row = by_weights[8]["services"][0]
    assert row["limited_by"] == "layer_kinds"
    assert row["least_bytes"] < row["available_bytes"] < row["required_bytes"]
    assert "the model type tomorrow has no row in the table of layer kinds" in row["message"]
    assert "at least " in row["message"]
    assert "accept_unknown: true in the entry of this model (inference_stack_vllm_model)" in row["message"]
    assert by_weights[8]["unaccepted"] == [row["message"]]


def test_what_is_accepted_stops_nothing(tmp_path: Path) -> None:
    answer = decide(tomorrow(tmp_path, 8 * 10**9, model={"accept_unknown": True}))
    assert answer["verdict"] == "unknown"
    assert answer["unaccepted"] == []
    assert answer["services"][0]["accepted"]


def test_a_kind_of_layer_that_nobody_knows_is_between_nothing_and_all(tmp_path: Path) -> None:
    config = {**UNKNOWN, "model_type": "llama", "layer_types": ["full_attention", "woven_attention"] * 16}
    shape = model_shape.from_path("m", str(write_config(tmp_path, config)))
    assert shape.uncertain == "layers of the kind woven_attention are not known"
    assert shape.least_layers is not None
    assert shape.least_layers[1].elements == 0
    assert shape.kv_layers[1].elements == 2 * 32 * 128


def test_an_unknown_architecture_of_llama_cpp_is_bounded_too(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    write_llama(path, LLAMA_1B, "Q4_K_M", architecture="tomorrow")
    answer = decide(llama(model={"name": "m", "path": str(path)}, context_length=131_072))
    assert answer["verdict"] == "unknown"
    assert "llama.cpp's architecture tomorrow has no row" in answer["unknowns"][0]


# --- other cards ------------------------------------------------------------------------------------------------


A100_IN_FOUR = {
    "index": 0, "name": "NVIDIA A100-SXM4-80GB", "memory_total_bytes": 81_920 * MIB,
    "memory_reserved_bytes": 594 * MIB, "mig_enabled": True,
    "mig_devices": [
        {"index": index, "memory_total_bytes": 19_968 * MIB, "memory_used_bytes": 12 * MIB,
         "memory_free_bytes": 19_956 * MIB} for index in range(4)
    ],
}  # fmt: skip
FORTY = {"weights_bytes": 40 * 10**9, "layers": 80, "kv_heads": 8, "head_dim": 128}
SMALL = {"weights_bytes": 3 * 10**9, "layers": 16, "kv_heads": 8, "head_dim": 64, "vocabulary_size": 128_256}


def test_a_card_that_is_cut_up_is_judged_by_its_instances() -> None:
    row = decide(vllm(model={"name": "m", "figures": FORTY}), gpus=[A100_IN_FOUR])["services"][0]
    assert row["verdict"] == "does_not_fit"
    assert row["available_bytes"] <= 0.8 * 19_968 * MIB + 1
    answer = decide(vllm(model={"name": "m", "figures": SMALL}, gpu_index=2), gpus=[A100_IN_FOUR, RTX_5070_TI])
    assert answer["services"][0]["devices"] == ["0:2"]
    assert [gpu["device"] for gpu in answer["gpus"]] == ["0:0", "0:1", "0:2", "0:3", "0"]
    assert "MIG 2" in answer["services"][0]["message"]


def test_instances_do_not_work_together() -> None:
    figures = {**SMALL, "hidden_size": 2048}
    answer = decide(vllm(model={"name": "m", "figures": figures}, tensor_parallel_size=4), gpus=[A100_IN_FOUR])
    assert "tensor_parallel_size" in answer["problems"][0]


def test_a_gpu_with_the_host_s_memory_has_all_of_it() -> None:
    gb10 = {"index": 0, "name": "NVIDIA GB10", "memory_total_bytes": None}
    host = 128_501_256_192
    large = {"weights_bytes": 141_100_000_000, "layers": 80, "kv_heads": 8, "head_dim": 128}
    eight = {"weights_bytes": 16_100_000_000, "layers": 32, "kv_heads": 8, "head_dim": 128, "vocabulary_size": 128_256}
    verdicts = [
        decide(vllm(model={"name": "m", "figures": figures}), gpus=[gb10], host_memory_bytes=host)["verdict"]
        for figures in (large, eight)
    ]
    assert verdicts == ["does_not_fit", "fits"]


def test_weights_above_the_host_s_memory_are_refused_where_the_card_tells_nothing() -> None:
    blind = {"index": 0, "name": "x", "memory_total_bytes": None}
    answer = decide(vllm(model={"name": "m", "figures": FORTY}), gpus=[blind], host_memory_bytes=32 * GIB)
    assert answer["services"][0]["limited_by"] == "weights"
    assert answer["problems"]
    assert decide(vllm(model={"name": "m", "figures": SMALL}), gpus=[blind], host_memory_bytes=32 * GIB)["unaccepted"]


def test_mig_devices_that_are_none_are_named() -> None:
    assert "mig_devices of GPU 0" in refused(vllm(), gpus=[{**A100_IN_FOUR, "mig_devices": ["x"]}])[0]
