"""The lab's tiny models: the same bytes each time, and the same model in both formats."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import gguf
import numpy as np
import pytest
from tokenizers import Tokenizer

SCRIPT = Path(__file__).parents[2] / "lab" / "tiny_models.py"


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("tiny_models", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["tiny_models"] = module
    spec.loader.exec_module(module)
    return module


tiny_models = load()


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("models") / "hub"
    assert tiny_models.main(["--out", str(out)]) == 0
    return out


def folder(hub: Path, name: str = "tiny-llama") -> Path:
    return hub / "ai-idp" / name / "resolve" / "main"


def read_safetensors(path: Path) -> dict[str, np.ndarray]:
    """Reads bfloat16 tensors as float32, by the format's own rules and not with the code under test."""
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    header.pop("__metadata__")
    tensors = {}
    for name, entry in header.items():
        start, end = entry["data_offsets"]
        halves = np.frombuffer(data[8 + length + start : 8 + length + end], dtype="<u2").astype("<u4")
        tensors[name] = (halves << 16).view("<f4").reshape(entry["shape"])
    return tensors


def test_two_runs_write_the_same_bytes(hub: Path, tmp_path: Path) -> None:
    again = tmp_path / "hub"
    assert tiny_models.main(["--out", str(again)]) == 0
    first = {path.relative_to(hub): path.read_bytes() for path in hub.rglob("*") if path.is_file()}
    second = {path.relative_to(again): path.read_bytes() for path in again.rglob("*") if path.is_file()}
    assert first == second


def test_the_hub_has_both_models_and_their_listings(hub: Path) -> None:
    assert {path.name for path in folder(hub).iterdir()} == {
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "special_tokens_map.json",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    assert [path.name for path in folder(hub, "tiny-llama-GGUF").iterdir()] == ["tiny-llama-f16.gguf"]


@pytest.mark.parametrize("name", ["tiny-llama", "tiny-llama-GGUF"])
def test_the_listing_tells_the_truth_about_each_file(hub: Path, name: str) -> None:
    listing = json.loads((hub / "api" / "models" / "ai-idp" / name / "tree" / "main.json").read_text())
    assert [entry["path"] for entry in listing] == sorted(path.name for path in folder(hub, name).iterdir())
    for entry in listing:
        data = (folder(hub, name) / entry["path"]).read_bytes()
        assert entry["type"] == "file"
        assert entry["size"] == len(data)
        if "lfs" in entry:
            assert entry["lfs"]["oid"] == hashlib.sha256(data).hexdigest()
            assert entry["lfs"]["size"] == len(data)
        else:
            blob = b"blob %d\0" % len(data) + data
            assert entry["oid"] == hashlib.sha1(blob, usedforsecurity=False).hexdigest()
    large = {entry["path"] for entry in listing if "lfs" in entry}
    assert large == {path.name for path in folder(hub, name).iterdir() if path.suffix in {".safetensors", ".gguf"}}


def test_the_shapes_are_those_of_the_config(hub: Path) -> None:
    config = json.loads((folder(hub) / "config.json").read_text())
    tensors = read_safetensors(folder(hub) / "model.safetensors")
    hidden, heads = config["hidden_size"], config["head_dim"]
    assert config["architectures"] == ["LlamaForCausalLM"]
    assert tensors["model.embed_tokens.weight"].shape == (config["vocab_size"], hidden)
    assert tensors["lm_head.weight"].shape == (config["vocab_size"], hidden)
    for layer in range(config["num_hidden_layers"]):
        prefix = f"model.layers.{layer}."
        assert tensors[prefix + "self_attn.q_proj.weight"].shape == (config["num_attention_heads"] * heads, hidden)
        assert tensors[prefix + "self_attn.k_proj.weight"].shape == (config["num_key_value_heads"] * heads, hidden)
        assert tensors[prefix + "mlp.down_proj.weight"].shape == (hidden, config["intermediate_size"])


def test_both_formats_hold_the_same_numbers(hub: Path) -> None:
    tensors = read_safetensors(folder(hub) / "model.safetensors")
    reader = gguf.GGUFReader(folder(hub, "tiny-llama-GGUF") / "tiny-llama-f16.gguf")
    by_name = {tensor.name: np.asarray(tensor.data, dtype=np.float32) for tensor in reader.tensors}
    config = json.loads((folder(hub) / "config.json").read_text())
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config["num_hidden_layers"])
    assert len(by_name) == len(tensors)
    for name, values in tensors.items():
        found = by_name[names.get_name(name, try_suffixes=(".weight",))].reshape(values.shape)
        head = config["head_dim"]
        if "q_proj" in name or "k_proj" in name:
            # llama.cpp keeps the two numbers that one rotation turns side by side; Hugging Face half a head apart.
            order = [
                block * head + half * (head // 2) + pair
                for block in range(values.shape[0] // head)
                for pair in range(head // 2)
                for half in range(2)
            ]
            values = values[order]
        np.testing.assert_array_equal(found, values, err_msg=name)


def test_the_tokenizer_gives_text_back_and_starts_with_the_begin_token(hub: Path) -> None:
    tokenizer = Tokenizer.from_file(str(folder(hub) / "tokenizer.json"))
    text = "The gateway's 443 is a front door.\n\nGrüße, 北京! \U0001f600"
    encoded = tokenizer.encode(text)
    assert encoded.ids[0] == tokenizer.token_to_id("<|begin_of_text|>")
    assert tokenizer.decode(encoded.ids) == text
    # Words of the corpus are whole tokens: the vocabulary was learned, not only bytes.
    assert len(tokenizer.encode(" gateway platform", add_special_tokens=False).ids) == 2


def test_both_formats_have_the_same_vocabulary_and_template(hub: Path) -> None:
    tokenizer = Tokenizer.from_file(str(folder(hub) / "tokenizer.json"))
    settings = json.loads((folder(hub) / "tokenizer_config.json").read_text())
    reader = gguf.GGUFReader(folder(hub, "tiny-llama-GGUF") / "tiny-llama-f16.gguf")
    tokens = reader.fields["tokenizer.ggml.tokens"].contents()
    assert {token: number for number, token in enumerate(tokens)} == tokenizer.get_vocab(with_added_tokens=True)
    assert len(tokens) == json.loads((folder(hub) / "config.json").read_text())["vocab_size"]
    assert reader.fields["tokenizer.chat_template"].contents() == settings["chat_template"]
    assert reader.fields["tokenizer.ggml.pre"].contents() == "llama-bpe"
    assert tokens[reader.fields["tokenizer.ggml.eos_token_id"].contents()] == settings["eos_token"] == "<|eot_id|>"


def test_a_new_run_replaces_the_hub(hub: Path, tmp_path: Path) -> None:
    out = tmp_path / "hub"
    assert tiny_models.main(["--out", str(out)]) == 0
    weights = folder(out) / "model.safetensors"
    weights.write_bytes(b"broken")
    assert tiny_models.main(["--out", str(out)]) == 0
    assert weights.read_bytes() == (folder(hub) / "model.safetensors").read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == ["hub"]


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_text("miau")
    assert tiny_models.main(["--out", str(tmp_path / "photos")]) == 1
    assert "holds something else" in capsys.readouterr().err
    assert (tmp_path / "photos" / "cat.jpg").read_text() == "miau"
