"""What is refused, each with one clear message before anything is changed.

Every case is refused in one run of the plays that week 2 runs before its first change (only_preflight.py). That week 2
itself ends there is shown for some cases, other ones for each commit, and in the full profile for all of them.
"""

import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from .conftest import INVENTORY, extra, read_secrets, run_playbook
from .only_preflight import Outcome, lay_out, refuse_all
from .suite import ROOT, rotation

GPU_SERVER = "schlimers-server"

# A 16 GB card, replayed; the lab has none.
WITH_GPU = {
    "inference_stack_accelerator": "nvidia",
    "inference_stack_gpu_replay": str(ROOT / "tests" / "golden" / "gpu" / "constructed-rtx5070ti.json"),
}

# A file that is there when the tests run.
NO_GPU = "<no GPU>"

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
    "a replay outside the lab": (
        {"inference_stack_gpu_replay": NO_GPU, "ai_idp_environment": "production"},
        ["inference_stack_gpu_replay", "is no lab"],
    ),
}
END_TO_END = 3


@pytest.fixture(scope="session")
def no_gpu(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A file that replays a machine without GPUs."""
    path = tmp_path_factory.mktemp("refusals") / "gpus.json"
    path.write_text('{"status": "none", "gpus": []}', encoding="utf-8")
    return str(path)


def variables_of(case: str, no_gpu: str) -> dict[str, Any]:
    """The variables of a case, with the file in its place."""
    return {name: no_gpu if value == NO_GPU else value for name, value in REFUSALS[case][0].items()}


def alias(case: str) -> str:
    """The name of the machine that has the settings of a case."""
    return "gpu-" + "-".join(case.lower().split())


@pytest.fixture(scope="session")
def refused(tmp_path_factory: pytest.TempPathFactory, no_gpu: str) -> dict[str, Outcome]:
    """What became of each case, all of them asked in one run; and of the lab's GPU server, which has nothing wrong."""
    hosts = yaml.safe_load((INVENTORY / "hosts.yml").read_text(encoding="utf-8"))
    servers = hosts["all"]["children"]["gpu_servers"]["hosts"]
    for case in REFUSALS:
        servers[alias(case)] = {**servers[GPU_SERVER], **variables_of(case, no_gpu)}
    folder = tmp_path_factory.mktemp("project")
    playbook, inventory = lay_out(ROOT, folder, "week2.yml", INVENTORY, hosts)
    # These names are hosts of this run alone.
    facts = {"ANSIBLE_CACHE_PLUGIN_CONNECTION": str(folder / "facts")}
    return refuse_all(ROOT, playbook, inventory, {**os.environ, **facts})


@pytest.mark.parametrize("case", REFUSALS)
def test_refused_before_anything_is_changed(case: str, refused: dict[str, Outcome]) -> None:
    outcome = refused[alias(case)]
    assert outcome.refused, f"{case} is accepted"
    assert {host: one.changed for host, one in refused.items() if one.changed} == {}
    for word in REFUSALS[case][1]:
        assert word in outcome.said, f"{word!r} is not in:\n{outcome.said}"


def test_the_same_preflight_accepts_what_is_right(refused: dict[str, Outcome]) -> None:
    """Else a preflight that refuses everything would pass for one that knows these cases."""
    assert not refused[GPU_SERVER].refused, refused[GPU_SERVER].said


@pytest.mark.parametrize("case", rotation("refusals by week 2 itself", list(REFUSALS), END_TO_END))
def test_week_2_ends_where_something_is_refused(case: str, no_gpu: str) -> None:
    keys = read_secrets()
    run = run_playbook("playbooks/week2.yml", *extra(rotate_keys=True, **variables_of(case, no_gpu)))
    assert run.code != 0, run.output
    assert read_secrets() == keys
    assert set(run.changed.values()) == {0}, run.output
    for word in REFUSALS[case][1]:
        assert word in run.output, f"{word!r} is not in:\n{run.output}"


def test_a_plan_that_is_refused_replaces_no_key() -> None:
    """Week 2 is asked for new keys with each of its cases above, and week 4 in test_4_edge; this is week 3."""
    keys = read_secrets()
    run = run_playbook("playbooks/week3.yml", *extra(rotate_keys=True, nginx_gateway_status_port=22))
    assert run.code != 0
    assert set(run.changed.values()) == {0}, run.output
    for word in ("nginx_gateway_status_port", "22", "sshd"):
        assert word in run.output, run.output
    assert read_secrets() == keys


def test_an_inventory_without_gpu_servers_is_refused(tmp_path: Path) -> None:
    (tmp_path / "hosts.yml").write_text("gateways: {hosts: {xps15: {ansible_host: 10.77.0.12}}}\n")
    (tmp_path / "group_vars").symlink_to(ROOT / "inventory" / "lab" / "group_vars")
    run = run_playbook("playbooks/week2.yml", inventory=tmp_path)
    assert run.code != 0
    assert "no host in the group gpu_servers" in " ".join(run.output.split())


def test_a_wrong_model_hash_is_refused(tmp_path: Path) -> None:
    """A model that is there is hashed by the role itself, after the preflight."""
    lock = ROOT / "locks" / "lab" / "models.yml"
    wrong = tmp_path / "models.yml"
    recorded = lock.read_text(encoding="utf-8")
    digest = next(word for word in recorded.split() if len(word) == 64)
    wrong.write_text(recorded.replace(digest, "ab" * 32), encoding="utf-8")
    run = run_playbook("playbooks/week2.yml", *extra(model_store_lock_file=str(wrong)))
    assert run.code != 0, run.output
    assert "ab" * 32 in run.output
    assert digest in run.output
