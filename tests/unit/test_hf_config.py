"""Hugging Face folders: configuration, weights from safetensors headers or the index, bad files."""

import json
import struct
from pathlib import Path

import numpy as np
import pytest
from ansible.module_utils.ai_idp import hf_config, model_shape
from ansible.module_utils.ai_idp.hf_config import ConfigError
from ansible.module_utils.ai_idp.model_shape import KvLayer, ShapeError, kv_bytes
from safetensors.numpy import save_file

LLAMA_8B = {
    "num_hidden_layers": 32,
    "hidden_size": 4096,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "intermediate_size": 14336,
    "vocab_size": 128256,
    "max_position_embeddings": 131072,
    "tie_word_embeddings": False,
}


def folder(path: Path, config: dict, index: dict | None = None) -> Path:
    (path / "config.json").write_text(json.dumps(config))
    if index is not None:
        (path / "model.safetensors.index.json").write_text(json.dumps(index))
    return path


def shape_of(path: Path) -> model_shape.ModelShape:
    return model_shape.from_path("m", str(path))


def test_index_gives_the_weights_that_are_not_there_yet(tmp_path: Path) -> None:
    index = {"metadata": {"total_size": 16_060_522_496}, "weight_map": {"a": "model-00001-of-00004.safetensors"}}
    shape = shape_of(folder(tmp_path, LLAMA_8B, index))
    assert shape.weights_bytes == 16_060_522_496
    assert (shape.layers, shape.hidden, shape.feed_forward, shape.vocabulary) == (32, 4096, 14336, 128256)
    assert shape.kv_layers[0] == KvLayer(1024, 1024)
    assert shape.trained_context == 131072


def test_safetensors_headers_are_summed(tmp_path: Path) -> None:
    folder(tmp_path, {**LLAMA_8B, "quantization_config": {"quant_method": "awq"}})
    save_file(
        {
            "model.embed_tokens.weight": np.zeros((8, 4), dtype=np.float16),
            "b": np.zeros((3, 5), dtype=np.int32),
        },
        tmp_path / "model.safetensors",
    )
    model = hf_config.read_folder(str(tmp_path))
    assert model.weights_bytes == 64 + 60
    assert model.bytes_by_dtype == {"F16": 64, "I32": 60}
    assert model.token_embedding_bytes == 64


def test_files_outside_the_index_are_not_counted_twice(tmp_path: Path) -> None:
    folder(tmp_path, LLAMA_8B, {"weight_map": {"a": "model-00001-of-00001.safetensors"}})
    for name in ("model-00001-of-00001.safetensors", "consolidated.safetensors"):
        save_file({"a": np.zeros(16, dtype=np.float16)}, tmp_path / name)
    assert hf_config.read_folder(str(tmp_path)).weights_bytes == 32


def test_float32_weights_count_as_16_bit(tmp_path: Path) -> None:
    folder(tmp_path, LLAMA_8B)
    save_file({"a": np.zeros(100, dtype=np.float32)}, tmp_path / "model.safetensors")
    shape = shape_of(tmp_path)
    assert shape.weights_bytes == 200
    assert shape.notes


def test_latent_attention_caches_one_vector(tmp_path: Path) -> None:
    config = {**LLAMA_8B, "kv_lora_rank": 512, "qk_rope_head_dim": 64}
    shape = shape_of(folder(tmp_path, config, {"metadata": {"total_size": 1}}))
    assert shape.kv_layers[0] == KvLayer(576, 0)


def test_sliding_layers_keep_their_window(tmp_path: Path) -> None:
    config = {
        **LLAMA_8B,
        "num_hidden_layers": 2,
        "sliding_window": 1024,
        "layer_types": ["sliding_attention", "full_attention"],
    }
    shape = shape_of(folder(tmp_path, config, {"metadata": {"total_size": 1}}))
    assert [layer.window for layer in shape.kv_layers] == [1024, None]
    assert kv_bytes(shape.kv_layers, 8192, 2, 2) == (1024 + 8192) * 2048 * 2


def test_the_language_part_of_a_vision_model_counts(tmp_path: Path) -> None:
    config = {"text_config": LLAMA_8B, "vision_config": {"num_hidden_layers": 3}}
    assert shape_of(folder(tmp_path, config, {"metadata": {"total_size": 1}})).layers == 32


@pytest.mark.parametrize("key", ["num_hidden_layers", "hidden_size", "num_attention_heads"])
def test_a_config_without_a_needed_key_names_it(tmp_path: Path, key: str) -> None:
    config = {name: value for name, value in LLAMA_8B.items() if name != key}
    with pytest.raises(ShapeError, match=key):
        shape_of(folder(tmp_path, config, {"metadata": {"total_size": 1}}))


@pytest.mark.parametrize("value", [0, -1, "32", True, 1e30, 2.5])
def test_impossible_layer_counts_are_refused(tmp_path: Path, value: object) -> None:
    with pytest.raises(ShapeError, match="num_hidden_layers"):
        shape_of(folder(tmp_path, {**LLAMA_8B, "num_hidden_layers": value}, {"metadata": {"total_size": 1}}))


def test_without_weights_or_index_the_size_is_not_invented(tmp_path: Path) -> None:
    with pytest.raises(ShapeError, match="neither safetensors files nor an index"):
        shape_of(folder(tmp_path, LLAMA_8B))


def test_a_folder_without_a_model_says_so(tmp_path: Path) -> None:
    with pytest.raises(ShapeError, match=r"neither a config.json nor a .gguf"):
        shape_of(tmp_path)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"abc", "not a safetensors file"),
        (struct.pack("<Q", 1 << 50) + b"{}", "claims 1125899906842624 bytes"),
        (struct.pack("<Q", 2) + b"[]", "no JSON object"),
        (struct.pack("<Q", 3) + b"{{{", "not valid JSON"),
        (struct.pack("<Q", 9) + b'{"a": {}}', "tensor 'a' is broken"),
    ],
)
def test_broken_safetensors_are_refused(tmp_path: Path, data: bytes, reason: str) -> None:
    folder(tmp_path, LLAMA_8B)
    (tmp_path / "model.safetensors").write_bytes(data)
    with pytest.raises(ConfigError, match=reason):
        hf_config.read_folder(str(tmp_path))


@pytest.mark.parametrize("data", ["{", "[]", "[" * 100_000])
def test_broken_config_is_refused(tmp_path: Path, data: str) -> None:
    (tmp_path / "config.json").write_text(data)
    with pytest.raises(ConfigError, match=r"config.json"):
        hf_config.read_folder(str(tmp_path))
