"""`ai-idp fit`: a model of the catalogue, a file and a folder, on GPUs that are named, here, or of an inventory."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from gguf_models import LLAMA_8B, write_llama
from model_configs import CONFIGS, weights_bytes, write_config
from typer.testing import CliRunner, Result

from ai_idp import fit
from ai_idp.cli import app

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(autouse=True)
def checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AI_IDP_HOME", str(ROOT))


def ask(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["fit", *arguments])


def answer(*arguments: str) -> dict[str, Any]:
    result = ask(*arguments, "--json")
    assert result.exit_code in (0, 1), result.output
    document: dict[str, Any] = json.loads(result.stdout)
    return document


def test_a_model_of_the_catalogue_on_a_card_that_is_named() -> None:
    result = ask("llama-3.1-8b-awq", "--gpu", "RTX 5070 Ti", "--context", "8192")
    assert result.exit_code == 0
    for words in (
        "llama-3.1-8b-awq fits on described (RTX 5070 Ti)",
        "KV cache",
        "longest context",
        "tokens per second",
    ):
        assert words in result.stdout


def test_what_does_not_fit_says_what_would() -> None:
    result = ask("llama-3.3-70b-q4", "--gpu", "RTX 5070 Ti", "--memory", "128")
    assert result.exit_code == 1
    assert "does not fit" in result.stdout
    assert "What fits instead" in result.stdout
    assert "On the CPU under llama.cpp it needs" in result.stdout
    assert answer("llama-3.3-70b-q4", "--gpu", "H100", "--context", "8192")["fits"]


def test_a_gguf_file_and_a_folder_choose_their_engine(tmp_path: Path) -> None:
    gguf = write_llama(tmp_path / "m.gguf", LLAMA_8B)
    config = CONFIGS["qwen2.5-7b-awq"]
    folder = write_config(tmp_path / "qwen", config, weights_bytes(config))
    [of_file] = answer(str(gguf), "--gpu", "RTX 4090")["answers"]
    [of_folder] = answer(str(folder), "--gpu", "RTX 4090")["answers"]
    assert (of_file["engine"], of_folder["engine"]) == ("llama_cpp", "vllm")
    assert of_file["figures_source"] == "gguf"
    assert of_folder["context_length"] == 32_768
    assert of_folder["warm_required_bytes"] < of_folder["required_bytes"]


@pytest.mark.parametrize(
    ("name", "gib"), [("RTX 4090", 24), ("NVIDIA GeForce RTX 5070 Ti", 16), ("mine:12GiB", 12), ("48GB", 48)]
)
def test_a_card_is_known_by_name_or_by_its_size(name: str, gib: float) -> None:
    [gpu] = fit.described([name], None).gpus
    assert gpu["memory_total_bytes"] == gib * fit.GIB


def test_several_cards_share_a_model() -> None:
    [row] = answer("llama-3.1-8b-fp8", "--gpu", "RTX 3090", "--gpu", "RTX 3090")["answers"]
    assert row["tensor_parallel_size"] == 2


def test_without_a_card_it_is_this_machine() -> None:
    [row] = answer("llama-3.2-1b-q4", "--context", "4096")["answers"]
    assert row["host"] == "this machine"
    assert row["host_memory_bytes"] > 0


def test_an_inventory_s_hosts_are_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "checkout"
    folder = root / "inventory" / "here"
    folder.mkdir(parents=True)
    for part in ("ansible.cfg", "playbooks", "library", "module_utils", "roles", "filter_plugins", "action_plugins"):
        (root / part).symlink_to(ROOT / part)
    host = {"ansible_connection": "local", "ansible_python_interpreter": "{{ ansible_playbook_python }}"}
    (folder / "hosts.yml").write_text(yaml.safe_dump({"all": {"children": {"gpu_servers": {"hosts": {"box": host}}}}}))
    monkeypatch.setenv("AI_IDP_HOME", str(root))
    [row] = answer("llama-3.2-1b-q4", "--inventory", "here", "--context", "4096")["answers"]
    assert row["host"] == "box"
    assert row["host_memory_bytes"] > 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("nowhere",), "neither a file, nor a folder, nor a model of the catalogue"),
        (("llama-3.1-8b-q4", "--gpu", "Voodoo 2"), 'write its memory with it, as in --gpu "Voodoo 2:24GiB"'),
        (("llama-3.1-8b-q4", "--engine", "vllm"), "llama_cpp serves it and vllm does not"),
        (("llama-3.1-8b-q4", "--engine", "tgi"), "allowed is vllm or llama_cpp"),
        (("llama-3.1-8b-q4", "--gpu", "L4", "--inventory", "lab"), "give one of them"),
        (("llama-3.1-8b-q4", "--gpu", "L4", "--context", "long"), "--context is 'long'"),
    ],
)
def test_what_can_not_be_asked_is_one_sentence(arguments: tuple[str, ...], words: str) -> None:
    result = ask(*arguments)
    assert result.exit_code == 2
    assert words in result.stderr


def test_hosts_that_do_not_answer_in_time_are_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fit, "ASK_TIMEOUT_S", 0.01)
    result = ask("llama-3.2-1b-q4", "--inventory", "lab")
    assert result.exit_code == 2
    assert "the hosts gpu_servers of lab gave no answer within 0.01 s" in result.stderr
    assert "Traceback" not in result.output
