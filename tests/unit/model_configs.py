"""Model folders of a configuration and an index that says how large the weights are, for tests of what reads them."""

import json
from pathlib import Path
from typing import Any

BF16 = 2


def write_config(folder: Path, config: dict[str, Any], weights: int = 10**9) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    index = {"metadata": {"total_size": weights}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def shape(
    layers: int, hidden: int, width: int, heads: int, kv_heads: int, head_dim: int, **more: Any
) -> dict[str, Any]:
    """The configuration of a plain model."""
    return {
        "model_type": "llama", "vocab_size": 128_256, "torch_dtype": "bfloat16", "max_position_embeddings": 131_072,
        "num_hidden_layers": layers, "hidden_size": hidden, "intermediate_size": width, "num_attention_heads": heads,
        "num_key_value_heads": kv_heads, "head_dim": head_dim, "tie_word_embeddings": False, **more,
    }  # fmt: skip


def qwen(layers: int, hidden: int, width: int, heads: int, kv_heads: int, **more: Any) -> dict[str, Any]:
    own = {"model_type": "qwen2", "vocab_size": 152_064, "max_position_embeddings": 32_768, "use_sliding_window": False}
    return shape(layers, hidden, width, heads, kv_heads, hidden // heads, **{**own, **more})


AWQ = {"torch_dtype": "float16", "quantization_config": {"quant_method": "awq", "bits": 4, "group_size": 128}}
FP8 = {"quantization_config": {"quant_method": "fp8", "activation_scheme": "static"}}
LLAMA_8B = (32, 4096, 14_336, 32, 8, 128)
QWEN_7B, QWEN_14B = (28, 3584, 18_944, 28, 4), (48, 5120, 13_824, 40, 8)
# The models of the captured starts of vLLM.
CONFIGS = {
    "llama-3.2-1b": shape(16, 2048, 8192, 32, 8, 64, tie_word_embeddings=True),
    "llama-3.2-3b": shape(28, 3072, 8192, 24, 8, 128, tie_word_embeddings=True),
    "llama-3.1-8b": shape(*LLAMA_8B),
    "llama-3.1-8b-awq": shape(*LLAMA_8B, **AWQ),
    "llama-3.1-8b-fp8": shape(*LLAMA_8B, **FP8),
    "qwen2.5-7b": qwen(*QWEN_7B),
    "qwen2.5-7b-awq": qwen(*QWEN_7B, **AWQ),
    "qwen2.5-14b-awq": qwen(*QWEN_14B, **AWQ),
}


def weights_bytes(config: dict[str, Any]) -> int:
    """Bytes of a plain model's files: matrices at their bits (AWQ with scale and zero for 128), the rest in 16 bit."""
    hidden, width, head_dim = config["hidden_size"], config["intermediate_size"], config["head_dim"]
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    matrices = hidden * head_dim * (2 * heads + 2 * kv_heads) + 3 * hidden * width
    method = config.get("quantization_config", {}).get("quant_method")
    each = {"awq": 0.5 + 2 / 128 + 0.5 / 128, "fp8": 1}.get(method, BF16)
    biases = (heads + 2 * kv_heads) * head_dim if config["model_type"] == "qwen2" else 0
    layers = config["num_hidden_layers"] * (matrices * each + (2 * hidden + biases) * BF16)
    embeddings = config["vocab_size"] * hidden * BF16 * (1 if config["tie_word_embeddings"] else 2)
    return round(layers + embeddings + hidden * BF16)
