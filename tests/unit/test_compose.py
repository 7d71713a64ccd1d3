"""The compose file of a GPU server, rendered as production's inventory would have it, on a simulated card."""

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from jinja2 import Environment

ROOT = Path(__file__).resolve().parents[2]
ROLE = ROOT / "roles" / "inference_stack"
DIGEST = "sha256:" + "0" * 64

PLAYBOOK = """
- hosts: localhost
  connection: local
  gather_facts: false
  tasks:
    - ansible.builtin.include_vars: {{file: {role}/defaults/main.yml}}
    - ansible.builtin.include_vars: {{file: {root}/playbooks/group_vars/all/models.yml}}
    - ansible.builtin.include_vars: {{file: {role}/vars/main.yml}}
    - ansible.builtin.include_tasks: {role}/tasks/budget.yml
    - ansible.builtin.template: {{src: {role}/templates/compose.yml.j2, dest: "{{{{ target }}}}", mode: "0600"}}
"""

GPU = {"index": 0, "name": "NVIDIA GeForce RTX 5070 Ti (simulated)", "memory_total_bytes": 16303 * 1048576}


def render(folder: Path, **variables: Any) -> dict[str, Any]:
    """Render the template with the role's own defaults and derived variables."""
    playbook, target = folder / "render.yml", folder / "compose.yml"
    playbook.write_text(PLAYBOOK.format(role=ROLE, root=ROOT))
    services = ["vllm", "llama_cpp", "triton", "dcgm_exporter"]
    known = {
        "target": str(target),
        "role_path": str(ROLE),
        "ansible_facts": {
            "processor_cores": 12,
            "processor_count": 1,
            "memtotal_mb": 128 * 1024,
            "default_ipv4": {"address": "192.168.1.11"},
        },
        "inference_stack_bind_address": "192.168.1.11",
        "inference_stack_vllm_api_key": "key-of-vllm",
        "inference_stack_llama_cpp_api_key": "key-of-llama-cpp",
        "__inference_stack_gpu_info": {"status": "ok", "gpus": [GPU]},
        "__inference_stack_references": {service: f"registry.example/{service}:1@{DIGEST}" for service in services},
        "__inference_stack_found": {"release": None, "user_ids": "1000:1000"},
        "__inference_stack_cores": 12,
    }
    done = subprocess.run(
        ["ansible-playbook", "-i", "localhost,", playbook, "-e", '{"inference_stack_models": "{{ ai_idp_models }}"}',
         "-e", json.dumps({**known, **variables})],
        cwd=ROOT, capture_output=True, text=True, check=False,
        env={**os.environ, "ANSIBLE_CACHE_PLUGIN": "memory"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    text = target.read_text(encoding="utf-8")
    assert "key-of-" not in text
    return yaml.safe_load(text)


@pytest.mark.parametrize(
    ("service", "limit", "said"),
    [
        ("llama_cpp", "4g", r"Available: 4\.3 GB \(inference_stack_llama_cpp_memory_limit\); short by [\d.]+ GB"),
        ("vllm", "2g", r"Available: 2\.1 GB \(inference_stack_vllm_memory_limit\); short by [\d.]+ GB"),
        ("triton", "64m", r"Available: [\d.]+ \wB \(inference_stack_triton_memory_limit\); short by"),
    ],
)
def test_a_memory_limit_below_the_need_is_refused_with_the_figures(
    service: str, limit: str, said: str, tmp_path: Path
) -> None:
    limits: dict[str, Any] = {f"inference_stack_{service}_memory_limit": limit}
    with pytest.raises(AssertionError) as refused:
        render(tmp_path, inference_stack_accelerator="none", **limits)
    assert re.search(said, " ".join(str(refused.value).split())), refused.value


def test_a_memory_limit_that_is_enough_is_the_containers(tmp_path: Path) -> None:
    rendered = render(tmp_path, inference_stack_llama_cpp_memory_limit="64g")
    assert rendered["services"]["llama-cpp"]["mem_limit"] == "64g"


@pytest.mark.parametrize("name", ["on", "010", "1e3"])
def test_names_stay_names(name: str, tmp_path: Path) -> None:
    """YAML would take them for a boolean and for numbers."""
    model = {"name": name, "format": "gguf", "files": ["m.gguf"], "figures": {"weights_bytes": 10**9, "layers": 4,
             "kv_heads": 2, "head_dim": 64}}  # fmt: skip
    rendered = render(
        tmp_path,
        inference_stack_project=name,
        inference_stack_models=[model],
        inference_stack_llama_cpp_model=name,
        inference_stack_vllm_enabled=False,
        inference_stack_triton_enabled=False,
    )
    assert rendered["name"] == name
    command = rendered["services"]["llama-cpp"]["command"]
    assert command[command.index("--alias") + 1] == name
    assert all(isinstance(argument, str) for argument in command)


@pytest.mark.parametrize("role", ["inference_stack", "mlflow", "n8n"])
@pytest.mark.parametrize("name", ["on", "010", "1e3"])
def test_a_project_s_name_stays_a_name(role: str, name: str) -> None:
    lines = (ROOT / "roles" / role / "templates" / "compose.yml.j2").read_text(encoding="utf-8").splitlines()
    (line,) = (line for line in lines if line.startswith("name: "))
    environment = Environment()
    environment.filters["to_json"] = json.dumps
    assert yaml.safe_load(environment.from_string(line).render({f"{role}_project": name})) == {"name": name}


@pytest.fixture(scope="module")
def on_gpu(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return render(tmp_path_factory.mktemp("gpu"))["services"]


@pytest.fixture(scope="module")
def on_cpu(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return render(tmp_path_factory.mktemp("cpu"), inference_stack_accelerator="none")["services"]


def devices(service: dict[str, Any]) -> list[str]:
    reservations = service.get("deploy", {}).get("resources", {}).get("reservations", {}).get("devices", [])
    return [name for device in reservations for name in device["device_ids"]]


def test_the_gpu_is_vllms_and_the_exporters(on_gpu: dict[str, Any]) -> None:
    assert {name: devices(service) for name, service in on_gpu.items() if devices(service)} == {
        "vllm": ["nvidia.com/gpu=all"],
        "dcgm-exporter": ["nvidia.com/gpu=all"],
    }
    assert "VLLM_CPU_KVCACHE_SPACE" not in on_gpu["vllm"]["environment"]
    assert on_gpu["llama-cpp"]["command"][on_gpu["llama-cpp"]["command"].index("--n-gpu-layers") + 1] == "0"


def test_without_a_gpu_nothing_asks_for_one(on_cpu: dict[str, Any]) -> None:
    assert set(on_cpu) == {"vllm", "llama-cpp", "triton"}
    assert not any(devices(service) for service in on_cpu.values())
    assert on_cpu["vllm"]["environment"]["VLLM_CPU_KVCACHE_SPACE"] == "4"


@pytest.mark.parametrize("key", ["plain-0123", "a$HOME'b\"c\\d`id`$(id) e", "$$", "=#!"])
def test_vllm_gets_the_key_as_it_is(on_gpu: dict[str, Any], key: str, tmp_path: Path) -> None:
    """No shell looks at what is in it."""
    (tmp_path / "vllm.key").write_text(f"{key}\n")
    (tmp_path / "vllm").write_text('#!/bin/sh\nprintf "%s|" "$VLLM_API_KEY" "$@"\n')
    (tmp_path / "vllm").chmod(0o755)
    arguments = [
        word.replace("$$", "$").replace("/run/secrets/vllm.key", str(tmp_path / "vllm.key"))
        for word in on_gpu["vllm"]["entrypoint"]
    ]
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run([*arguments, "--port=1"], capture_output=True, text=True, env=environment)
    assert done.stdout == f"{key}|serve|--port=1|", done.stderr


def test_the_corrected_limits_are_the_defaults(on_gpu: dict[str, Any]) -> None:
    limits = {"--gpu-memory-utilization=0.8", "--max-num-seqs=32", "--max-num-batched-tokens=4096"}
    assert limits <= set(on_gpu["vllm"]["command"])


def test_switches_and_the_number_of_threads_may_be_text(tmp_path: Path) -> None:
    """As the command line gives them: text that is true in Python, whatever it says."""
    defaults = yaml.safe_load((ROLE / "defaults" / "main.yml").read_text(encoding="utf-8"))
    typed = {name: value for name, value in defaults.items() if isinstance(value, bool)}
    typed |= {"inference_stack_triton_enabled": False, "inference_stack_llama_cpp_threads": 0}
    text = {name: str(value).lower() for name, value in typed.items()}
    rendered = []
    for name, variables in (("typed", typed), ("text", text)):
        folder = tmp_path / name
        folder.mkdir()
        rendered.append(render(folder, inference_stack_accelerator="none", **variables))
    assert rendered[0] == rendered[1]
    assert {*rendered[1]["services"]} == {"vllm", "llama-cpp"}


def test_two_cards_share_the_model(tmp_path: Path) -> None:
    gpus = [GPU, {**GPU, "index": 1}]
    vllm = render(tmp_path, __inference_stack_gpu_info={"status": "ok", "gpus": gpus})["services"]["vllm"]
    assert "--tensor-parallel-size=2" in vllm["command"]
    assert devices(vllm) == ["nvidia.com/gpu=all"]


def test_of_unlike_cards_the_larger_is_vllms(tmp_path: Path) -> None:
    larger = {"index": 1, "name": "NVIDIA GeForce RTX 4090 (simulated)", "memory_total_bytes": 24564 * 1048576}
    answer = {"status": "ok", "gpus": [GPU, larger]}
    services = render(tmp_path, __inference_stack_gpu_info=answer, inference_stack_gpu_services=["vllm", "triton"])[
        "services"
    ]
    assert devices(services["vllm"]) == ["nvidia.com/gpu=1"]
    assert devices(services["triton"]) == ["nvidia.com/gpu=0"]
    assert not any(argument.startswith("--tensor-parallel-size") for argument in services["vllm"]["command"])


def test_on_replayed_cards_the_engines_run_on_the_cpu(tmp_path: Path) -> None:
    answer = {"status": "ok", "gpus": [GPU, {**GPU, "index": 1}], "replayed": True}
    release = render(tmp_path, __inference_stack_gpu_info=answer)
    assert release["x-plan"]["services"]["vllm"]["tensor_parallel_size"] == 2
    assert not any(devices(service) for service in release["services"].values())
    vllm = release["services"]["vllm"]
    assert "VLLM_CPU_KVCACHE_SPACE" in vllm["environment"]
    assert not any(argument.startswith("--tensor-parallel-size") for argument in vllm["command"])
    assert f"--max-model-len={release['x-plan']['services']['vllm']['context_length']}" in vllm["command"]


def test_an_argument_is_taken_as_it_is(tmp_path: Path) -> None:
    rendered = render(tmp_path, inference_stack_llama_cpp_extra_args=["--a=$HOME ${b}"])
    assert rendered["services"]["llama-cpp"]["command"][-1] == "--a=$$HOME $${b}"


def test_every_port_is_bound_to_the_lan_address(on_gpu: dict[str, Any]) -> None:
    ports = [port for service in on_gpu.values() for port in service["ports"]]
    assert len(ports) == 5
    assert all(port.startswith("192.168.1.11:") for port in ports)


def test_triton_is_shut(on_gpu: dict[str, Any]) -> None:
    """With model control and an open repository API, whoever reached it ran code in its container."""
    triton = on_gpu["triton"]
    assert "--model-control-mode=none" in triton["command"]
    assert not any(argument.startswith("--load-model") for argument in triton["command"])
    assert {"--allow-grpc=false", "--allow-sagemaker=false", "--allow-vertex-ai=false"} <= set(triton["command"])
    assert [port.rpartition(":")[2] for port in triton["ports"]] == ["8000", "8002"]
    program = triton["entrypoint"][2]
    restricted = "model-repository,shared-memory,logging,trace,statistics:ai-idp-nobody=$$(cat /proc/sys/kernel/random/"
    assert f"--http-restricted-api={restricted}" in program
    # The release's repository, which holds the planned models alone, and nobody in the container can change it.
    assert [(mount["target"], mount["read_only"]) for mount in triton["volumes"]] == [("/models", True)]


def test_every_service_is_confined(on_gpu: dict[str, Any]) -> None:
    for name, service in on_gpu.items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert "privileged" not in service, name
        assert service["image"].endswith(f"@{DIGEST}"), name


def test_llama_cpp_serves_the_file_of_the_catalogue(on_gpu: dict[str, Any]) -> None:
    command = on_gpu["llama-cpp"]["command"]
    assert command[1] == "/models/llama-3.1-8b-q4/Meta-Llama-3.1-8B-Instruct-Q4_K_M.gguf"
    assert command[command.index("--threads") + 1] == "12"
