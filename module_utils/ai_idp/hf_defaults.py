"""Keys that a model type's configuration may leave out, with what the Transformers library (5.23) has for them then.

Read out of the library's configuration classes (models/*/configuration_*.py); of every class only what decides memory.
Keys under other names (n_layer, n_embd) stand under the usual ones.
"""

from __future__ import annotations

from typing import Any

HF_DEFAULTS: dict[str, dict[str, Any]] = {
    "afmoe": {
        "vocab_size": 200_192, "hidden_size": 2048, "intermediate_size": 6144, "num_hidden_layers": 32,
        "num_attention_heads": 16, "head_dim": 128, "max_position_embeddings": 16_384, "tie_word_embeddings": False,
        "sliding_window": 1024, "num_experts": 64, "num_experts_per_tok": 6, "moe_intermediate_size": 1408,
    },
    "apertus": {
        "vocab_size": 131_072, "hidden_size": 4096, "intermediate_size": 14_336, "num_hidden_layers": 32,
        "num_attention_heads": 32, "max_position_embeddings": 65_536, "tie_word_embeddings": False,
    },
    "arcee": {
        "vocab_size": 32_000, "hidden_size": 2560, "intermediate_size": 18_432, "num_hidden_layers": 32,
        "num_attention_heads": 32, "max_position_embeddings": 4096, "tie_word_embeddings": False,
    },
    "bloom": {
        "vocab_size": 250_880, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 8,
        "tie_word_embeddings": True,
    },
    "cohere": {
        "vocab_size": 256_000, "hidden_size": 8192, "intermediate_size": 22_528, "num_hidden_layers": 40,
        "num_attention_heads": 64, "max_position_embeddings": 8192, "tie_word_embeddings": True,
    },
    "cohere2": {
        "vocab_size": 256_000, "hidden_size": 8192, "intermediate_size": 22_528, "num_hidden_layers": 40,
        "num_attention_heads": 64, "max_position_embeddings": 8192, "tie_word_embeddings": True,
        "sliding_window": 4096,
    },
    "deepseek_v2": {
        "vocab_size": 102_400, "hidden_size": 4096, "intermediate_size": 11_008, "num_hidden_layers": 32,
        "num_attention_heads": 32, "max_position_embeddings": 2048, "tie_word_embeddings": False, "kv_lora_rank": 512,
        "qk_rope_head_dim": 64, "n_routed_experts": 64, "moe_intermediate_size": 1407,
    },
    "deepseek_v3": {
        "vocab_size": 129_280, "hidden_size": 7168, "intermediate_size": 18_432, "num_hidden_layers": 61,
        "num_attention_heads": 128, "num_key_value_heads": 128, "max_position_embeddings": 4096,
        "tie_word_embeddings": False, "kv_lora_rank": 512, "qk_rope_head_dim": 64, "n_routed_experts": 256,
        "num_experts_per_tok": 8, "moe_intermediate_size": 2048,
    },
    "deepseek_v32": {
        "vocab_size": 129_280, "hidden_size": 7168, "intermediate_size": 18_432, "num_hidden_layers": 61,
        "num_attention_heads": 128, "num_key_value_heads": 128, "head_dim": 64, "max_position_embeddings": 163_840,
        "tie_word_embeddings": False, "kv_lora_rank": 512, "qk_rope_head_dim": 64, "n_routed_experts": 256,
        "num_experts_per_tok": 8, "moe_intermediate_size": 2048, "index_head_dim": 128,
    },
    "ernie4_5": {
        "vocab_size": 103_424, "hidden_size": 1024, "intermediate_size": 3072, "num_hidden_layers": 18,
        "num_attention_heads": 16, "num_key_value_heads": 2, "head_dim": 128, "max_position_embeddings": 131_072,
        "tie_word_embeddings": True,
    },
    "ernie4_5_moe": {
        "vocab_size": 103_424, "hidden_size": 2560, "intermediate_size": 12_288, "num_hidden_layers": 28,
        "num_attention_heads": 20, "num_key_value_heads": 4, "max_position_embeddings": 131_072,
        "tie_word_embeddings": True, "moe_intermediate_size": 1536,
    },
    "exaone4": {
        "vocab_size": 102_400, "hidden_size": 4096, "intermediate_size": 16_384, "num_hidden_layers": 32,
        "num_attention_heads": 32, "num_key_value_heads": 32, "max_position_embeddings": 2048,
        "tie_word_embeddings": False, "sliding_window": 4096,
    },
    "falcon": {
        "vocab_size": 65_024, "hidden_size": 4544, "num_hidden_layers": 32, "num_attention_heads": 71,
        "max_position_embeddings": 2048, "tie_word_embeddings": True, "multi_query": True,
        "new_decoder_architecture": False,
    },
    "falcon_h1": {
        "vocab_size": 128_000, "hidden_size": 4096, "intermediate_size": 14_336, "num_hidden_layers": 32,
        "num_attention_heads": 32, "num_key_value_heads": 8, "max_position_embeddings": 8192,
        "tie_word_embeddings": False, "mamba_n_heads": 128, "mamba_d_state": 256, "mamba_d_conv": 4,
        "mamba_d_head": "auto", "mamba_expand": 2, "mamba_n_groups": 1, "mamba_d_ssm": 1024,
    },
    "falcon_mamba": {
        "vocab_size": 50_280, "hidden_size": 768, "num_hidden_layers": 32, "tie_word_embeddings": True,
        "conv_kernel": 4, "state_size": 16, "expand": 2,
    },
    "gemma": {
        "vocab_size": 256_000, "hidden_size": 3072, "intermediate_size": 24_576, "num_hidden_layers": 28,
        "num_attention_heads": 16, "num_key_value_heads": 16, "head_dim": 256, "max_position_embeddings": 8192,
        "tie_word_embeddings": True,
    },
    "gemma2": {
        "vocab_size": 256_000, "hidden_size": 2304, "intermediate_size": 9216, "num_hidden_layers": 26,
        "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256, "max_position_embeddings": 8192,
        "tie_word_embeddings": True, "sliding_window": 4096,
    },
    "gemma3_text": {
        "vocab_size": 262_208, "hidden_size": 2304, "intermediate_size": 9216, "num_hidden_layers": 26,
        "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256, "max_position_embeddings": 131_072,
        "tie_word_embeddings": True, "sliding_window": 4096,
    },
    "gemma3n_text": {
        "vocab_size": 262_400, "hidden_size": 2048, "intermediate_size": 16_384, "num_hidden_layers": 35,
        "num_attention_heads": 8, "num_key_value_heads": 2, "head_dim": 256, "max_position_embeddings": 32_768,
        "tie_word_embeddings": True, "sliding_window": 512, "num_kv_shared_layers": 15,
    },
    "gemma4_text": {
        "vocab_size": 262_144, "hidden_size": 2304, "intermediate_size": 9216, "num_hidden_layers": 30,
        "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256, "max_position_embeddings": 131_072,
        "tie_word_embeddings": True, "sliding_window": 512, "num_kv_shared_layers": 0,
    },
    "glm": {
        "vocab_size": 151_552, "hidden_size": 4096, "intermediate_size": 13_696, "num_hidden_layers": 40,
        "num_attention_heads": 32, "num_key_value_heads": 2, "head_dim": 128, "max_position_embeddings": 131_072,
        "tie_word_embeddings": False,
    },
    "glm4": {
        "vocab_size": 151_552, "hidden_size": 4096, "intermediate_size": 13_696, "num_hidden_layers": 40,
        "num_attention_heads": 32, "num_key_value_heads": 2, "head_dim": 128, "max_position_embeddings": 131_072,
        "tie_word_embeddings": False,
    },
    "glm4_moe": {
        "vocab_size": 151_552, "hidden_size": 4096, "intermediate_size": 10_944, "num_hidden_layers": 46,
        "num_attention_heads": 96, "num_key_value_heads": 8, "max_position_embeddings": 131_072,
        "tie_word_embeddings": False, "n_routed_experts": 128, "num_experts_per_tok": 8,
        "moe_intermediate_size": 1408,
    },
    "glm4_moe_lite": {
        "vocab_size": 154_880, "hidden_size": 2048, "intermediate_size": 10_240, "num_hidden_layers": 47,
        "num_attention_heads": 20, "num_key_value_heads": 20, "max_position_embeddings": 202_752,
        "tie_word_embeddings": False, "kv_lora_rank": 512, "qk_rope_head_dim": 64, "n_routed_experts": 64,
        "num_experts_per_tok": 4, "moe_intermediate_size": 1536,
    },
    "gpt2": {
        "vocab_size": 50_257, "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12,
        "max_position_embeddings": 1024, "tie_word_embeddings": True,
    },
    "gpt_bigcode": {
        "vocab_size": 50_257, "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12,
        "max_position_embeddings": 1024, "tie_word_embeddings": True, "multi_query": True,
    },
    "gpt_neox": {
        "vocab_size": 50_432, "hidden_size": 6144, "intermediate_size": 24_576, "num_hidden_layers": 44,
        "num_attention_heads": 64, "max_position_embeddings": 2048, "tie_word_embeddings": False,
    },
    "gpt_oss": {
        "vocab_size": 201_088, "hidden_size": 2880, "intermediate_size": 2880, "num_hidden_layers": 36,
        "num_attention_heads": 64, "num_key_value_heads": 8, "head_dim": 64, "max_position_embeddings": 131_072,
        "tie_word_embeddings": False, "sliding_window": 128, "num_local_experts": 128, "num_experts_per_tok": 4,
    },
    "gptj": {
        "vocab_size": 50_400, "hidden_size": 4096, "num_hidden_layers": 28, "num_attention_heads": 16,
        "max_position_embeddings": 2048, "tie_word_embeddings": False,
    },
    "granite": {
        "vocab_size": 32_000, "hidden_size": 4096, "intermediate_size": 11_008, "num_hidden_layers": 32,
        "num_attention_heads": 32, "max_position_embeddings": 2048, "tie_word_embeddings": False,
    },
    "granitemoe": {
        "vocab_size": 32_000, "hidden_size": 4096, "intermediate_size": 11_008, "num_hidden_layers": 32,
        "num_attention_heads": 32, "max_position_embeddings": 2048, "tie_word_embeddings": False,
        "num_local_experts": 8, "num_experts_per_tok": 2,
    },
    "granitemoehybrid": {
        "vocab_size": 32_000, "hidden_size": 4096, "intermediate_size": 11_008, "num_hidden_layers": 32,
        "num_attention_heads": 32, "max_position_embeddings": 2048, "tie_word_embeddings": False,
        "mamba_n_heads": 128, "mamba_d_state": 256, "mamba_d_conv": 4, "mamba_d_head": "auto", "mamba_expand": 2,
        "mamba_n_groups": 1, "num_local_experts": 8, "num_experts_per_tok": 2,
    },
    "granitemoeshared": {
        "vocab_size": 32_000, "hidden_size": 4096, "intermediate_size": 11_008, "num_hidden_layers": 32,
        "num_attention_heads": 32, "max_position_embeddings": 2048, "tie_word_embeddings": False,
        "num_local_experts": 8, "num_experts_per_tok": 2,
    },
    "hunyuan_v1_dense": {
        "vocab_size": 290_943, "hidden_size": 4096, "intermediate_size": 11_008, "num_hidden_layers": 32,
        "num_attention_heads": 32, "max_position_embeddings": 2048, "tie_word_embeddings": False,
    },
    "hunyuan_v1_moe": {
        "vocab_size": 290_943, "hidden_size": 4096, "intermediate_size": 11_008, "num_hidden_layers": 32,
        "num_attention_heads": 32, "max_position_embeddings": 2048, "tie_word_embeddings": False, "num_experts": 1,
    },
    "internlm3": {
        "vocab_size": 128_512, "hidden_size": 4096, "intermediate_size": 10_240, "num_hidden_layers": 48,
        "num_attention_heads": 32, "num_key_value_heads": 2, "head_dim": 128, "max_position_embeddings": 32_768,
        "tie_word_embeddings": False,
    },
    "jamba": {
        "vocab_size": 65_536, "hidden_size": 4096, "intermediate_size": 14_336, "num_hidden_layers": 32,
        "num_attention_heads": 32, "num_key_value_heads": 8, "max_position_embeddings": 262_144,
        "tie_word_embeddings": False, "mamba_d_state": 16, "mamba_d_conv": 4, "mamba_expand": 2, "num_experts": 16,
        "num_experts_per_tok": 2, "attn_layer_period": 8, "attn_layer_offset": 4,
    },
    "kimi_linear": {
        "vocab_size": 163_840, "hidden_size": 2304, "intermediate_size": 9216, "num_hidden_layers": 27,
        "num_attention_heads": 32, "num_key_value_heads": 32, "max_position_embeddings": 1_048_576,
        "tie_word_embeddings": False, "kv_lora_rank": 512, "qk_rope_head_dim": 64, "linear_conv_kernel_dim": 4,
        "num_local_experts": 256, "num_experts_per_tok": 8, "moe_intermediate_size": 1024,
    },
    "laguna": {
        "vocab_size": 100_352, "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 40,
        "num_attention_heads": 48, "num_key_value_heads": 8, "head_dim": 128, "max_position_embeddings": 131_072,
        "tie_word_embeddings": False, "sliding_window": 512, "num_experts": 256, "num_experts_per_tok": 8,
        "moe_intermediate_size": 512,
    },
    "lfm2": {
        "vocab_size": 65_536, "hidden_size": 2560, "intermediate_size": 12_288, "num_hidden_layers": 32,
        "num_attention_heads": 32, "num_key_value_heads": 8, "max_position_embeddings": 128_000,
        "tie_word_embeddings": True, "conv_L_cache": 3,
    },
    "lfm2_moe": {
        "vocab_size": 65_536, "hidden_size": 2048, "intermediate_size": 7168, "num_hidden_layers": 32,
        "num_attention_heads": 32, "num_key_value_heads": 8, "max_position_embeddings": 128_000,
        "tie_word_embeddings": True, "conv_L_cache": 3, "num_experts": 32, "num_experts_per_tok": 4,
        "moe_intermediate_size": 1792,
    },
    "llama": {
        "vocab_size": 32_000, "hidden_size": 4096, "intermediate_size": 11_008, "num_hidden_layers": 32,
        "num_attention_heads": 32, "max_position_embeddings": 2048, "tie_word_embeddings": False,
    },
    "llama4_text": {
        "vocab_size": 202_048, "hidden_size": 5120, "intermediate_size": 8192, "num_hidden_layers": 48,
        "num_attention_heads": 40, "num_key_value_heads": 8, "head_dim": 128, "max_position_embeddings": 131_072,
        "tie_word_embeddings": False, "attention_chunk_size": 8192, "no_rope_layer_interval": 4,
        "num_local_experts": 16, "num_experts_per_tok": 1,
    },
    "mamba": {
        "vocab_size": 50_280, "hidden_size": 768, "num_hidden_layers": 32, "tie_word_embeddings": True,
        "conv_kernel": 4, "state_size": 16, "expand": 2,
    },
    "minicpm3": {
        "vocab_size": 73_448, "hidden_size": 2560, "intermediate_size": 6400, "num_hidden_layers": 62,
        "num_attention_heads": 40, "num_key_value_heads": 40, "max_position_embeddings": 32_768,
        "tie_word_embeddings": True, "kv_lora_rank": 256, "qk_rope_head_dim": 32,
    },
    "minimax_m2": {
        "vocab_size": 200_064, "hidden_size": 3072, "intermediate_size": 1536, "num_hidden_layers": 62,
        "num_attention_heads": 48, "num_key_value_heads": 8, "head_dim": 128, "max_position_embeddings": 196_608,
        "tie_word_embeddings": False, "num_local_experts": 256, "num_experts_per_tok": 8,
    },
    "ministral": {
        "vocab_size": 32_000, "hidden_size": 4096, "intermediate_size": 14_336, "num_hidden_layers": 32,
        "num_attention_heads": 32, "num_key_value_heads": 8, "max_position_embeddings": 131_072,
        "tie_word_embeddings": False, "sliding_window": 4096,
    },
    "ministral3": {
        "vocab_size": 131_072, "hidden_size": 4096, "intermediate_size": 14_336, "num_hidden_layers": 34,
        "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128, "max_position_embeddings": 262_144,
        "tie_word_embeddings": False,
    },
    "mistral": {
        "vocab_size": 32_000, "hidden_size": 4096, "intermediate_size": 14_336, "num_hidden_layers": 32,
        "num_attention_heads": 32, "num_key_value_heads": 8, "max_position_embeddings": 131_072,
        "tie_word_embeddings": False, "sliding_window": 4096,
    },
    "mistral4": {
        "vocab_size": 131_072, "hidden_size": 4096, "intermediate_size": 12_288, "num_hidden_layers": 36,
        "num_attention_heads": 32, "num_key_value_heads": 32, "max_position_embeddings": 1_048_576,
        "tie_word_embeddings": False, "kv_lora_rank": 256, "qk_rope_head_dim": 64, "n_routed_experts": 128,
        "num_experts_per_tok": 4, "moe_intermediate_size": 2048,
    },
    "mixtral": {
        "vocab_size": 32_000, "hidden_size": 4096, "intermediate_size": 14_336, "num_hidden_layers": 32,
        "num_attention_heads": 32, "num_key_value_heads": 8, "max_position_embeddings": 131_072,
        "tie_word_embeddings": False, "num_local_experts": 8, "num_experts_per_tok": 2,
    },
    "nemotron": {
        "vocab_size": 256_000, "hidden_size": 6144, "intermediate_size": 24_576, "num_hidden_layers": 32,
        "num_attention_heads": 48, "max_position_embeddings": 4096, "tie_word_embeddings": False,
    },
    "nemotron_h": {
        "vocab_size": 131_072, "hidden_size": 4096, "intermediate_size": 21_504, "num_attention_heads": 32,
        "num_key_value_heads": 8, "head_dim": 128, "max_position_embeddings": 4096, "tie_word_embeddings": False,
        "mamba_num_heads": 128, "mamba_head_dim": 64, "n_groups": 8, "ssm_state_size": 128, "conv_kernel": 4,
        "n_routed_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 7688, "expand": 2,
    },
    "olmo": {
        "vocab_size": 50_304, "hidden_size": 4096, "intermediate_size": 11_008, "num_hidden_layers": 32,
        "num_attention_heads": 32, "max_position_embeddings": 2048, "tie_word_embeddings": False,
    },
    "olmo2": {
        "vocab_size": 50_304, "hidden_size": 4096, "intermediate_size": 11_008, "num_hidden_layers": 32,
        "num_attention_heads": 32, "max_position_embeddings": 2048, "tie_word_embeddings": False,
    },
    "olmo3": {
        "vocab_size": 50_304, "hidden_size": 4096, "intermediate_size": 11_008, "num_hidden_layers": 32,
        "num_attention_heads": 32, "max_position_embeddings": 2048, "tie_word_embeddings": False,
        "sliding_window": 4096,
    },
    "olmo_hybrid": {
        "vocab_size": 100_352, "hidden_size": 3840, "intermediate_size": 11_008, "num_hidden_layers": 32,
        "num_attention_heads": 30, "max_position_embeddings": 65_536, "tie_word_embeddings": False,
        "linear_conv_kernel_dim": 4,
    },
    "olmoe": {
        "vocab_size": 50_304, "hidden_size": 2048, "intermediate_size": 2048, "num_hidden_layers": 16,
        "num_attention_heads": 16, "max_position_embeddings": 4096, "tie_word_embeddings": False, "num_experts": 64,
        "num_experts_per_tok": 8,
    },
    "opt": {
        "vocab_size": 50_272, "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12,
        "num_attention_heads": 12, "max_position_embeddings": 2048, "tie_word_embeddings": True,
    },
    "phi": {
        "vocab_size": 51_200, "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 24,
        "num_attention_heads": 32, "max_position_embeddings": 2048, "tie_word_embeddings": False,
    },
    "phi3": {
        "vocab_size": 32_064, "hidden_size": 3072, "intermediate_size": 8192, "num_hidden_layers": 32,
        "num_attention_heads": 32, "max_position_embeddings": 4096, "tie_word_embeddings": False,
    },
    "phimoe": {
        "vocab_size": 32_064, "hidden_size": 4096, "intermediate_size": 6400, "num_hidden_layers": 32,
        "num_attention_heads": 32, "num_key_value_heads": 8, "max_position_embeddings": 131_072,
        "tie_word_embeddings": False, "num_local_experts": 16, "num_experts_per_tok": 2,
    },
    "qwen2": {
        "vocab_size": 151_936, "hidden_size": 4096, "intermediate_size": 22_016, "num_hidden_layers": 32,
        "num_attention_heads": 32, "num_key_value_heads": 32, "max_position_embeddings": 32_768,
        "tie_word_embeddings": False, "sliding_window": 4096, "use_sliding_window": False, "max_window_layers": 28,
    },
    "qwen2_5_vl_text": {
        "vocab_size": 152_064, "hidden_size": 8192, "intermediate_size": 29_568, "num_hidden_layers": 80,
        "num_attention_heads": 64, "num_key_value_heads": 8, "max_position_embeddings": 32_768,
        "sliding_window": 4096, "use_sliding_window": False, "max_window_layers": 80,
    },
    "qwen2_moe": {
        "vocab_size": 151_936, "hidden_size": 2048, "intermediate_size": 5632, "num_hidden_layers": 24,
        "num_attention_heads": 16, "num_key_value_heads": 16, "max_position_embeddings": 32_768,
        "tie_word_embeddings": False, "sliding_window": 4096, "use_sliding_window": False, "max_window_layers": 28,
        "num_experts": 60, "num_experts_per_tok": 4, "moe_intermediate_size": 1408,
    },
    "qwen2_vl_text": {
        "vocab_size": 152_064, "hidden_size": 8192, "intermediate_size": 29_568, "num_hidden_layers": 80,
        "num_attention_heads": 64, "num_key_value_heads": 8, "max_position_embeddings": 32_768,
        "sliding_window": 4096, "use_sliding_window": False, "max_window_layers": 80,
    },
    "qwen3": {
        "vocab_size": 151_936, "hidden_size": 4096, "intermediate_size": 22_016, "num_hidden_layers": 32,
        "num_attention_heads": 32, "num_key_value_heads": 32, "head_dim": 128, "max_position_embeddings": 32_768,
        "tie_word_embeddings": False, "sliding_window": 4096, "use_sliding_window": False, "max_window_layers": 28,
    },
    "qwen3_5_moe_text": {
        "vocab_size": 248_320, "hidden_size": 2048, "num_hidden_layers": 40, "num_attention_heads": 16,
        "num_key_value_heads": 2, "head_dim": 256, "max_position_embeddings": 32_768, "tie_word_embeddings": False,
        "linear_num_key_heads": 16, "linear_num_value_heads": 32, "linear_key_head_dim": 128,
        "linear_value_head_dim": 128, "linear_conv_kernel_dim": 4, "num_experts": 256, "num_experts_per_tok": 8,
        "moe_intermediate_size": 512,
    },
    "qwen3_5_text": {
        "vocab_size": 248_320, "hidden_size": 4096, "intermediate_size": 12_288, "num_hidden_layers": 32,
        "num_attention_heads": 16, "num_key_value_heads": 4, "head_dim": 256, "max_position_embeddings": 32_768,
        "tie_word_embeddings": False, "linear_num_key_heads": 16, "linear_num_value_heads": 32,
        "linear_key_head_dim": 128, "linear_value_head_dim": 128, "linear_conv_kernel_dim": 4,
    },
    "qwen3_moe": {
        "vocab_size": 151_936, "hidden_size": 2048, "intermediate_size": 6144, "num_hidden_layers": 24,
        "num_attention_heads": 32, "num_key_value_heads": 4, "max_position_embeddings": 32_768,
        "tie_word_embeddings": False, "sliding_window": 4096, "use_sliding_window": False, "num_experts": 128,
        "num_experts_per_tok": 8, "moe_intermediate_size": 768,
    },
    "qwen3_next": {
        "vocab_size": 151_936, "hidden_size": 2048, "intermediate_size": 5632, "num_hidden_layers": 48,
        "num_attention_heads": 16, "num_key_value_heads": 2, "head_dim": 256, "max_position_embeddings": 32_768,
        "tie_word_embeddings": False, "linear_num_key_heads": 16, "linear_num_value_heads": 32,
        "linear_key_head_dim": 128, "linear_value_head_dim": 128, "linear_conv_kernel_dim": 4, "num_experts": 512,
        "num_experts_per_tok": 10, "moe_intermediate_size": 512,
    },
    "qwen3_vl_moe_text": {
        "vocab_size": 151_936, "hidden_size": 2048, "intermediate_size": 5632, "num_hidden_layers": 24,
        "num_attention_heads": 16, "num_key_value_heads": 16, "max_position_embeddings": 128_000,
        "tie_word_embeddings": True, "num_experts": 60, "num_experts_per_tok": 4, "moe_intermediate_size": 1408,
    },
    "qwen3_vl_text": {
        "vocab_size": 151_936, "hidden_size": 4096, "intermediate_size": 22_016, "num_hidden_layers": 32,
        "num_attention_heads": 32, "num_key_value_heads": 32, "head_dim": 128, "max_position_embeddings": 128_000,
    },
    "seed_oss": {
        "vocab_size": 155_136, "hidden_size": 4096, "intermediate_size": 27_648, "num_hidden_layers": 64,
        "num_attention_heads": 80, "num_key_value_heads": 8, "head_dim": 128, "max_position_embeddings": 524_288,
        "tie_word_embeddings": False,
    },
    "smollm3": {
        "vocab_size": 128_256, "hidden_size": 2048, "intermediate_size": 11_008, "num_hidden_layers": 36,
        "num_attention_heads": 16, "num_key_value_heads": 4, "max_position_embeddings": 32_768,
        "tie_word_embeddings": True, "use_sliding_window": False, "no_rope_layer_interval": 4,
    },
    "stablelm": {
        "vocab_size": 50_304, "hidden_size": 2560, "intermediate_size": 6912, "num_hidden_layers": 32,
        "num_attention_heads": 32, "num_key_value_heads": 32, "max_position_embeddings": 4096,
        "tie_word_embeddings": False,
    },
    "starcoder2": {
        "vocab_size": 49_152, "hidden_size": 3072, "intermediate_size": 12_288, "num_hidden_layers": 30,
        "num_attention_heads": 24, "num_key_value_heads": 2, "max_position_embeddings": 4096,
        "tie_word_embeddings": True,
    },
}  # fmt: skip
