"""Public models by family: their shapes, and what their cache takes by an arithmetic that knows nothing of the module.

A shape is what the model's published config.json, or the header that llama.cpp's converter makes of it, says. The right
value is written beside it as layers x heads x lengths x tokens x bytes, by the rule in its comment or its neighbour's.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

GIB, MIB = 1 << 30, 1 << 20
BATCHED, UBATCH = 4096, 512


@dataclass(frozen=True)
class Family:
    """A model with its shape, how it is served, and the bytes of its KV cache and of its recurrent states."""

    family: str
    name: str
    engine: str
    shape: dict[str, Any]
    context: int
    kv: int
    states: int = 0
    options: dict[str, Any] = field(default_factory=dict)


def full(layers: int, elements: int, tokens: int) -> int:
    """Every token in every layer, 16 bit; ``elements`` are those of K and V together."""
    return layers * elements * tokens * 2


def window(layers: int, elements: int, tokens: int, size: int) -> int:
    """vLLM: the window less one and one step's tokens, in whole blocks of 16, and a block more."""
    kept = min(size - 1 + BATCHED, tokens)
    return layers * elements * 2 * ((kept + 15) // 16 * 16 + 16)


def chunk(layers: int, elements: int, tokens: int, size: int) -> int:
    """vLLM: the chunk and one step's tokens."""
    return layers * elements * 2 * min(size + BATCHED, tokens)


def cells(layers: int, elements: int, tokens: int, size: int) -> int:
    """llama.cpp: the window and one ubatch in whole 256."""
    return layers * elements * 2 * ((min(tokens, size + UBATCH) + 255) // 256 * 256)


def hf(kind: str, layers: int, hidden: int, heads: int, kv: int | None, **more: Any) -> dict[str, Any]:
    found = {
        "model_type": kind, "num_hidden_layers": layers, "hidden_size": hidden, "num_attention_heads": heads,
        "intermediate_size": 4 * hidden, "vocab_size": 128_000, "max_position_embeddings": 1 << 20, **more,
    }  # fmt: skip
    return found if kv is None else {**found, "num_key_value_heads": kv}


def gg(name: str, layers: int, hidden: int, heads: int, kv: Any, length: int, **more: Any) -> dict[str, Any]:
    return {
        "architecture": name, "block_count": layers, "embedding_length": hidden, "feed_forward_length": 4 * hidden,
        "context_length": 1 << 20, "attention.head_count": heads, "attention.head_count_kv": kv,
        "attention.key_length": length, "attention.value_length": length,
        **{key.replace("__", "."): value for key, value in more.items()},
    }  # fmt: skip


def ssm(kernel: int, inner: int, state: int, groups: int) -> dict[str, int]:
    return {"ssm__conv_kernel": kernel, "ssm__inner_size": inner, "ssm__state_size": state, "ssm__group_count": groups}


K = 1024
QWEN_LINEAR = {
    "head_dim": 256, "linear_num_key_heads": 16, "linear_num_value_heads": 32, "linear_key_head_dim": 128,
    "linear_value_head_dim": 128, "linear_conv_kernel_dim": 4,
}  # fmt: skip
NEMOTRON_H_8B = "M-M-M-M*-M-M-M-M-M*-M-M-M-M-M*-M-M-M-M-M*-M-M-M-M-M-"
GRANITE_H_TINY = ["attention" if index in (5, 15, 25, 35) else "mamba" for index in range(40)]
LFM2_1B = ["full_attention" if index in (2, 5, 8, 10, 12, 14) else "conv" for index in range(16)]
MLA = {"kv_lora_rank": 512, "qk_rope_head_dim": 64}

FAMILIES: tuple[Family, ...] = (
    # --- vLLM ---
    Family("Llama 2", "7B", "vllm", hf("llama", 32, 4096, 32, None), 4 * K, full(32, 2 * 32 * 128, 4 * K)),
    Family("Llama 3", "3.2 1B", "vllm", hf("llama", 16, 2048, 32, 8, head_dim=64), 128 * K, full(16, 1024, 128 * K)),
    Family("Llama 3", "3.1 8B", "vllm", hf("llama", 32, 4096, 32, 8), 128 * K, 16 * GIB),
    Family("Llama 3", "3.3 70B", "vllm", hf("llama", 80, 8192, 64, 8), 128 * K, 40 * GIB),
    # Three of four layers see a chunk of 8,192.
    Family("Llama 4", "Scout", "vllm", hf("llama4_text", 48, 5120, 40, 8, head_dim=128, attention_chunk_size=8192),
           128 * K, full(12, 2048, 128 * K) + chunk(36, 2048, 128 * K, 8192)),
    Family("Yi", "34B", "vllm", hf("llama", 60, 7168, 56, 8), 4 * K, full(60, 2048, 4 * K)),
    # Every layer slides in 0.1; later ones say null.
    Family("Mistral", "7B 0.1", "vllm", hf("mistral", 32, 4096, 32, 8, sliding_window=4096), 32 * K,
           window(32, 2048, 32 * K, 4096)),
    Family("Mistral", "7B 0.3", "vllm", hf("mistral", 32, 4096, 32, 8, sliding_window=None), 32 * K, 4 * GIB),
    Family("Mistral", "Small 3 24B", "vllm", hf("mistral", 40, 5120, 32, 8, head_dim=128, sliding_window=None), 32 * K,
           5 * GIB),
    Family("Mixtral", "8x7B", "vllm", hf("mixtral", 32, 4096, 32, 8, sliding_window=None), 32 * K, 4 * GIB),
    # use_sliding_window is false.
    Family("Qwen2.5", "7B", "vllm", hf("qwen2", 28, 3584, 28, 4, sliding_window=131_072, use_sliding_window=False),
           32 * K, full(28, 1024, 32 * K)),
    Family("Qwen2.5", "72B", "vllm", hf("qwen2", 80, 8192, 64, 8), 32 * K, 10 * GIB),
    Family("Qwen3", "8B", "vllm", hf("qwen3", 36, 4096, 32, 8, head_dim=128), 40 * K, full(36, 2048, 40 * K)),
    Family("Qwen3", "30B-A3B", "vllm", hf("qwen3_moe", 48, 2048, 32, 4, head_dim=128, num_experts=128), 40 * K,
           full(48, 1024, 40 * K)),
    # One of four layers is attention; the others have a convolution of 3 x (2 x 16 x 128 + 32 x 128) and a state of
    # 32 x 128 x 128, 16 bit.
    Family("Qwen3-Next", "80B-A3B", "vllm", hf("qwen3_next", 48, 2048, 16, 2, num_experts=512, **QWEN_LINEAR), 256 * K,
           full(12, 1024, 256 * K), 36 * 2 * (3 * 8192 + 32 * 128 * 128)),
    # The same with 48 value heads and 32-bit states, which its configuration asks for.
    Family("Qwen3.6", "27B", "vllm",
           hf("qwen3_5_text", 64, 5120, 24, 4, **{**QWEN_LINEAR, "linear_num_value_heads": 48},
              mamba_ssm_dtype="float32"),
           256 * K, full(16, 2 * 4 * 256, 256 * K), 48 * (2 * 3 * 10_240 + 4 * 48 * 128 * 128)),
    Family("Gemma 2", "9B", "vllm", hf("gemma2", 42, 3584, 16, 8, head_dim=256, sliding_window=4096), 8 * K,
           full(21, 4096, 8 * K) + window(21, 4096, 8 * K, 4096)),
    Family("Gemma 3", "1B", "vllm", hf("gemma3_text", 26, 1152, 4, 1, head_dim=256, sliding_window=512), 32 * K,
           full(4, 512, 32 * K) + window(22, 512, 32 * K, 512)),
    Family("Gemma 3", "4B", "vllm", hf("gemma3_text", 34, 2560, 8, 4, head_dim=256, sliding_window=1024), 128 * K,
           full(5, 2048, 128 * K) + window(29, 2048, 128 * K, 1024)),
    Family("Gemma 3", "12B", "vllm", hf("gemma3_text", 48, 3840, 16, 8, head_dim=256, sliding_window=1024), 128 * K,
           full(8, 4096, 128 * K) + window(40, 4096, 128 * K, 1024)),
    Family("Gemma 3", "27B", "vllm", hf("gemma3_text", 62, 5376, 32, 16, head_dim=128, sliding_window=1024), 32 * K,
           full(10, 4096, 32 * K) + window(52, 4096, 32 * K, 1024)),
    # Of 35 layers the last 15 read the cache of earlier ones; of the first 20 every fifth is full.
    Family("Gemma 3n", "E4B", "vllm",
           hf("gemma3n_text", 35, 2048, 8, 2, head_dim=256, sliding_window=512, num_kv_shared_layers=15), 32 * K,
           full(4, 1024, 32 * K) + window(16, 1024, 32 * K, 512)),
    # Full layers have 4 heads of 512.
    Family("Gemma 4", "31B", "vllm",
           hf("gemma4_text", 60, 5376, 32, 16, head_dim=256, global_head_dim=512, num_global_key_value_heads=4,
              attention_k_eq_v=True, sliding_window=1024), 256 * K,
           full(10, 4096, 256 * K) + window(50, 8192, 256 * K, 1024)),
    Family("gpt-oss", "20b", "vllm", hf("gpt_oss", 24, 2880, 64, 8, head_dim=64, sliding_window=128), 128 * K,
           full(12, 1024, 128 * K) + window(12, 1024, 128 * K, 128)),
    Family("gpt-oss", "120b", "vllm", hf("gpt_oss", 36, 2880, 64, 8, head_dim=64, sliding_window=128), 128 * K,
           full(18, 1024, 128 * K) + window(18, 1024, 128 * K, 128)),
    Family("Phi-3", "mini 4k", "vllm", hf("phi3", 32, 3072, 32, 32, sliding_window=2047), 4 * K,
           window(32, 2 * 32 * 96, 4 * K, 2047)),
    Family("Phi-4", "14B", "vllm", hf("phi3", 40, 5120, 40, 10, sliding_window=None), 16 * K,
           full(40, 2560, 16 * K)),
    # A layer of Cohere's sees one token more than the window.
    Family("Command R7B", "12-2024", "vllm", hf("cohere2", 32, 4096, 32, 8, sliding_window=4096), 128 * K,
           full(8, 2048, 128 * K) + window(24, 2048, 128 * K, 4097)),
    Family("Command R", "35B", "vllm", hf("cohere", 40, 8192, 64, 64), 8 * K, full(40, 16_384, 8 * K)),
    # One vector of 512 and 64 for each token.
    Family("DeepSeek", "V2 Lite", "vllm", hf("deepseek_v2", 27, 2048, 16, 16, **MLA), 32 * K, full(27, 576, 32 * K)),
    Family("DeepSeek", "V3", "vllm", hf("deepseek_v3", 61, 7168, 128, 128, **MLA), 160 * K, full(61, 576, 160 * K)),
    # Beside it 128 bytes and a scale of the indexer.
    Family("DeepSeek", "V3.2", "vllm", hf("deepseek_v32", 61, 7168, 128, 128, index_head_dim=128, **MLA), 160 * K,
           full(61, 576, 160 * K) + 61 * 132 * 160 * K),
    Family("Kimi", "K2", "vllm", hf("kimi_k2", 61, 7168, 64, 64, **MLA), 128 * K, full(61, 576, 128 * K)),
    Family("GLM-4", "9B", "vllm", hf("glm4", 40, 4096, 32, 2, head_dim=128), 32 * K, full(40, 512, 32 * K)),
    Family("GLM-4.5", "Air", "vllm", hf("glm4_moe", 46, 4096, 96, 8, head_dim=128), 128 * K, full(46, 2048, 128 * K)),
    Family("Granite 3", "3.1 8B", "vllm", hf("granite", 40, 4096, 32, 8), 128 * K, 20 * GIB),
    # 36 layers with 48 heads of 64 and a state of 128: 3 x (3,072 + 2 x 128) and 48 x 64 x 128, 16 bit.
    Family("Granite 4", "H Tiny", "vllm",
           hf("granitemoehybrid", 40, 1536, 12, 4, layer_types=GRANITE_H_TINY, mamba_n_heads=48, mamba_d_head=64,
              mamba_d_state=128, mamba_n_groups=1, mamba_d_conv=4, mamba_expand=2, num_local_experts=64),
           128 * K, full(4, 1024, 128 * K), 36 * 2 * (3 * 3328 + 48 * 64 * 128)),
    Family("Falcon", "7B", "vllm", hf("falcon", 32, 4544, 71, None, multi_query=True), 2 * K, full(32, 128, 2 * K)),
    Family("Falcon", "40B", "vllm",
           hf("falcon", 60, 8192, 128, None, new_decoder_architecture=True, num_kv_heads=8), 2 * K,
           full(60, 1024, 2 * K)),
    # 24 of 52 layers: 3 x (8,192 + 2 x 8 x 128) of 16 bit and 128 x 64 x 128 of 32 bit.
    Family("Nemotron-H", "8B", "vllm", hf("nemotron_h", 52, 4096, 32, 8, head_dim=128, mamba_num_heads=128,
                                          mamba_head_dim=64, ssm_state_size=128, n_groups=8, conv_kernel=4,
                                          hybrid_override_pattern=NEMOTRON_H_8B),
           8 * K, full(4, 2048, 8 * K), 24 * (2 * 3 * 10_240 + 4 * 128 * 64 * 128)),
    Family("Jamba", "1.5 Mini", "vllm", hf("jamba", 32, 4096, 32, 8, mamba_d_state=16, mamba_expand=2, mamba_d_conv=4),
           256 * K, full(4, 2048, 256 * K), 28 * 2 * (3 * 8192 + 8192 * 16)),
    Family("OLMo 3", "7B", "vllm", hf("olmo3", 32, 4096, 32, 32, sliding_window=4096), 64 * K,
           full(8, 8192, 64 * K) + window(24, 8192, 64 * K, 4096)),
    Family("StarCoder2", "3B", "vllm", hf("starcoder2", 30, 3072, 24, 2, sliding_window=4096), 16 * K,
           window(30, 512, 16 * K, 4096)),
    Family("SmolLM3", "3B", "vllm", hf("smollm3", 36, 2048, 16, 4), 64 * K, full(36, 1024, 64 * K)),
    Family("MiniMax", "M2", "vllm", hf("minimax_m2", 62, 3072, 48, 8, head_dim=128), 192 * K, full(62, 2048, 192 * K)),
    Family("StableLM", "2 1.6B", "vllm", hf("stablelm", 24, 2048, 32, 32), 4 * K, full(24, 4096, 4 * K)),
    # Ten layers of a convolution over the last two of 2,048 elements.
    Family("LFM2", "1.2B", "vllm", hf("lfm2", 16, 2048, 32, 8, layer_types=LFM2_1B, conv_L_cache=3), 32 * K,
           full(6, 1024, 32 * K), 10 * 2 * 2 * 2048),
    Family("EXAONE 4", "32B", "vllm", hf("exaone4", 64, 5120, 40, 8, head_dim=128, sliding_window=4096), 128 * K,
           full(16, 2048, 128 * K) + window(48, 2048, 128 * K, 4096)),
    Family("Seed-OSS", "36B", "vllm", hf("seed_oss", 64, 5120, 80, 8, head_dim=128), 512 * K, 128 * GIB),
    # --- llama.cpp ---
    Family("Llama 3", "3.1 8B, q8_0", "llama_cpp", gg("llama", 32, 4096, 32, 8, 128), 128 * K, 16 * GIB * 34 // 64,
           options={"kv_cache_type": "q8_0"}),
    Family("Llama 4", "Scout", "llama_cpp", gg("llama4", 48, 5120, 40, 8, 128), 128 * K,
           full(12, 2048, 128 * K) + cells(36, 2048, 128 * K, 8192)),
    # llama.cpp leaves the window out.
    Family("Phi-3", "mini 4k", "llama_cpp", gg("phi3", 32, 3072, 32, 32, 96, attention__sliding_window=2047), 4 * K,
           1536 * MIB),
    Family("gpt-oss", "20b", "llama_cpp", gg("gpt-oss", 24, 2880, 64, 8, 64, attention__sliding_window=128), 128 * K,
           3090 * MIB),
    Family("gpt-oss", "120b", "llama_cpp", gg("gpt-oss", 36, 2880, 64, 8, 64, attention__sliding_window=128), 128 * K,
           4635 * MIB),
    Family("Gemma 2", "9B", "llama_cpp", gg("gemma2", 42, 3584, 16, 8, 256, attention__sliding_window=4096), 8 * K,
           full(21, 4096, 8 * K) + cells(21, 4096, 8 * K, 4096)),
    Family("Gemma 3", "27B", "llama_cpp", gg("gemma3", 62, 5376, 32, 16, 128, attention__sliding_window=1024), 32 * K,
           3184 * MIB),
    # 18 of 42 layers share; 4 of the 24 others are full with heads of 512, the rest have 256.
    Family("Gemma 4", "E4B", "llama_cpp",
           gg("gemma4", 42, 2560, 8, 2, 512, attention__key_length_swa=256, attention__value_length_swa=256,
              attention__sliding_window=512, attention__shared_kv_layers=18,
              attention__sliding_window_pattern=[(index + 1) % 6 != 0 for index in range(42)]),
           32 * K, full(4, 2048, 32 * K) + cells(20, 1024, 32 * K, 512)),
    Family("Command R7B", "12-2024", "llama_cpp",
           gg("cohere2", 32, 4096, 32, 8, 128, attention__sliding_window=4096), 128 * K,
           full(8, 2048, 128 * K) + cells(24, 2048, 128 * K, 4096)),
    Family("DeepSeek", "V3", "llama_cpp",
           {**gg("deepseek2", 61, 7168, 128, 1, 576, attention__key_length_mla=192, attention__value_length_mla=128),
            "attention.value_length": 512}, 32 * K, full(61, 576, 32 * K)),
    Family("GLM-4.7", "Flash", "llama_cpp",
           {**gg("deepseek2", 47, 2048, 20, 1, 576, attention__key_length_mla=256, attention__value_length_mla=256),
            "attention.value_length": 512}, 32 * K, 1692 * MIB),
    Family("Qwen3", "30B-A3B", "llama_cpp", gg("qwen3moe", 48, 2048, 32, 4, 128), 32 * K, 3 * GIB),
    # Four slots with 32-bit states of 3 x (6,144 + 2 x 16 x 128) + 6,144 x 128 in 48 of 64 layers.
    Family("Qwen3.6", "27B, 4 slots", "llama_cpp",
           gg("qwen35", 64, 5120, 24, 4, 256, full_attention_interval=4, **ssm(4, 6144, 128, 16)), 32 * K,
           full(16, 2048, 32 * K), 4 * 48 * 4 * (3 * 10_240 + 6144 * 128), {"sequences": 4}),
    Family("Granite 4", "H Tiny", "llama_cpp",
           gg("granitehybrid", 40, 1536, 12, [4 if i in (5, 15, 25, 35) else 0 for i in range(40)], 128,
              **ssm(4, 3072, 128, 1)), 32 * K, full(4, 1024, 32 * K), 36 * 4 * (3 * 3328 + 3072 * 128)),
    Family("LFM2", "1.2B", "llama_cpp",
           gg("lfm2", 16, 2048, 32, [8 if i in (2, 5, 8, 10, 12, 14) else 0 for i in range(16)], 64,
              shortconv__l_cache=3), 32 * K, full(6, 1024, 32 * K), 10 * 4 * 2 * 2048),
    Family("EXAONE 4", "32B", "llama_cpp", gg("exaone4", 64, 5120, 40, 8, 128), 32 * K,
           full(16, 2048, 32 * K) + cells(48, 2048, 32 * K, 4096)),
    Family("Mamba", "2.8B", "llama_cpp", gg("mamba", 64, 2560, 0, 0, 0, **ssm(4, 5120, 16, 0)), 8 * K, 0,
           64 * 4 * (3 * 5120 + 5120 * 16)),
)  # fmt: skip
