"""What is refused, each with one clear message before anything is changed."""

from pathlib import Path
from typing import Any

import pytest

from .conftest import ROOT, extra, run_playbook

# A 16 GB card, replayed; the lab has none.
WITH_GPU = {
    "inference_stack_accelerator": "nvidia",
    "inference_stack_gpu_replay": str(ROOT / "tests" / "golden" / "gpu" / "constructed-rtx5070ti.json"),
}

REFUSALS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "70B on 16 GB": (
        {
            **WITH_GPU,
            "inference_stack_gpu_services": ["llama_cpp"],
            "inference_stack_vllm_enabled": False,
            "inference_stack_llama_cpp_model": "llama-3.3-70b-q4",
        },
        ["llama-3.3-70b", "16.8 GB", "does not fit"],
    ),
    "a context that the card has no room for": (
        {
            **WITH_GPU,
            "inference_stack_vllm_model": "llama-3.1-8b-awq",
            "inference_stack_vllm_max_model_len": 131072,
        },
        ["llama-3.1-8b-awq", "does not fit", "inference_stack_vllm_max_model_len to at most"],
    ),
    "more cards than there are": (
        {**WITH_GPU, "inference_stack_vllm_tensor_parallel_size": 2},
        ["inference_stack_vllm_tensor_parallel_size is 2", "has 1 GPU"],
    ),
    "a context that is no number": (
        {"inference_stack_vllm_max_model_len": "as much as possible"},
        ["inference_stack_vllm_max_model_len", "as much as possible", "up to N"],
    ),
    "utilisation above 1": (
        {"inference_stack_vllm_gpu_memory_utilization": 1.2},
        ["inference_stack_vllm_gpu_memory_utilization", "1.2"],
    ),
    "utilisation as a percentage": (
        {"inference_stack_vllm_gpu_memory_utilization": "80%"},
        ["inference_stack_vllm_gpu_memory_utilization", "80%"],
    ),
    "two GPU services over the budget": (
        {**WITH_GPU, "inference_stack_gpu_services": ["vllm", "triton"], "inference_stack_triton_gpu_memory_mib": 8192},
        ["triton", "vllm", "inference_stack"],
    ),
    "unknown service": ({"inference_stack_gpu_services": ["vlm"]}, ["inference_stack_gpu_services", "vlm", "triton"]),
    "typing error": (
        {"inference_stack_vlm_enabled": True},
        ["inference_stack_vlm_enabled", "inference_stack_vllm_enabled"],
    ),
    "port taken": ({"inference_stack_vllm_port": 22}, ["inference_stack_vllm_port", "22", "sshd"]),
    "disk too small": (
        {"model_store_dir": "/srv/elsewhere", "model_store_keep_free_bytes": "10000TB"},
        ["model_store_keep_free_bytes", "free"],
    ),
    "NAS not mounted": ({"model_store_mount": "/srv/nas"}, ["model_store_mount", "/srv/nas", "mount"]),
    "registry unreachable": (
        {"inference_stack_image_registry": "10.77.0.5:5999", "ai_idp_insecure_registries": ["10.77.0.5:5999"]},
        ["10.77.0.5:5999", "inference_stack_image_registry"],
    ),
    "bound to every network": (
        {"inference_stack_bind_address": "0.0.0.0"},
        ["inference_stack_bind_address", "0.0.0.0"],
    ),
    "no such model": ({"inference_stack_vllm_model": "tiny-lama"}, ["tiny-lama", "tiny-llama"]),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_refused_before_anything_is_changed(case: str) -> None:
    variables, words = REFUSALS[case]
    run = run_playbook("playbooks/week2.yml", *extra(**variables))
    assert run.code != 0, run.output
    assert set(run.changed.values()) == {0}, run.output
    for word in words:
        assert word in run.output, f"{word!r} is not in:\n{run.output}"


def test_an_inventory_without_gpu_servers_is_refused(tmp_path: Path) -> None:
    (tmp_path / "hosts.yml").write_text("gateways: {hosts: {xps15: {ansible_host: 10.77.0.12}}}\n")
    (tmp_path / "group_vars").symlink_to(ROOT / "inventory" / "lab" / "group_vars")
    run = run_playbook("playbooks/week2.yml", inventory=tmp_path)
    assert run.code != 0
    assert "no host in the group gpu_servers" in " ".join(run.output.split())


def test_a_wrong_model_hash_is_refused(tmp_path: Path) -> None:
    lock = ROOT / "locks" / "lab" / "models.yml"
    wrong = tmp_path / "models.yml"
    recorded = lock.read_text(encoding="utf-8")
    digest = next(word for word in recorded.split() if len(word) == 64)
    wrong.write_text(recorded.replace(digest, "ab" * 32), encoding="utf-8")
    run = run_playbook("playbooks/week2.yml", *extra(model_store_lock_file=str(wrong)))
    assert run.code != 0, run.output
    assert "ab" * 32 in run.output
    assert digest in run.output
