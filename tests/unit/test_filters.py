"""The filters of the project."""

from pathlib import Path

import inference_stack as stack
import pytest
import variables

ROLES = Path(__file__).resolve().parents[2] / "roles"
IMAGES = {
    "vllm": "docker.io/vllm/vllm-openai:v0.30.0",
    "triton": "nvcr.io/nvidia/tritonserver:26.08-py3",
    "dcgm_exporter": "nvcr.io/nvidia/k8s/dcgm-exporter:4.6.0-4.8.3-distroless",
}
DIGEST = "sha256:" + "a" * 64


def test_images_come_from_the_vendors_or_from_a_registry_of_ones_own() -> None:
    assert stack.image_requests(["vllm"], IMAGES, "", None) == [{"reference": IMAGES["vllm"], "digest": None}]
    own = stack.image_requests(["vllm"], IMAGES, "10.77.0.5:5000", {"images": None})
    assert own[0]["reference"] == f"10.77.0.5:5000/{IMAGES['vllm']}"


def test_a_recorded_digest_is_enforced_and_kept() -> None:
    lock = {"images": {IMAGES["vllm"]: DIGEST, "other:1": "sha256:b"}}
    assert stack.image_requests(["vllm"], IMAGES, "", lock)[0]["digest"] == DIGEST
    pulled = [{"reference": IMAGES["triton"], "digest": "sha256:c", "pulled": True}]
    assert stack.image_lock(pulled, lock)["images"] == {**lock["images"], IMAGES["triton"]: "sha256:c"}


def test_what_has_no_digest_is_not_recorded() -> None:
    pulled = [{"reference": IMAGES["vllm"], "digest": None, "pulled": True}]
    assert stack.image_lock(pulled, None) == {"images": {}}
    assert stack.image_references(pulled, ["vllm"]) == {"vllm": IMAGES["vllm"]}


def test_only_registries_of_missing_images_must_answer() -> None:
    services = list(IMAGES)
    assert stack.registry_urls(services, IMAGES, "", "https", "") == [
        "https://registry-1.docker.io/v2/",
        "https://nvcr.io/v2/",
    ]
    running = "\n".join(f"image: {image}@{DIGEST}" for image in IMAGES.values())
    assert stack.registry_urls(services, IMAGES, "", "https", running) == []
    # The vendors' images are not those of a registry of one's own.
    assert stack.registry_urls(services, IMAGES, "lab:5000", "http", running) == ["http://lab:5000/v2/"]
    assert stack.registry_urls(services, IMAGES, "lab:5000", "http", running.replace(": ", ": lab:5000/")) == []
    assert stack.registry_urls(services, IMAGES, "lab:5000", "http", "") == ["http://lab:5000/v2/"]


def test_the_report_names_keys_and_holds_none() -> None:
    endpoint = {"name": "vllm", "kind": "openai", "url": "http://h:1", "key": "inference_stack_vllm_api_key"}
    assert stack.with_keys([endpoint], {"inference_stack_vllm_api_key": "k"})[0]["api_key"] == "k"
    report = stack.endpoint_report([endpoint], "server", ["vllm"])[0]
    assert (report["key"], report["host"], report["replay"]) == ("inference_stack_vllm_api_key", "server", True)
    assert "api_key" not in report


GIB = 1 << 30
ROW = {
    "name": "vllm",
    "device": "gpu",
    "gpus": [0],
    "context_length": 8192,
    "sequences": 32,
    "tensor_parallel_size": 1,
    "reasons": {"context_length": "the most that fits 13.3 GB", "sequences": "as set"},
}
TRITON = {
    "name": "triton",
    "device": "cpu",
    "gpus": [],
    "context_length": None,
    "sequences": None,
    "tensor_parallel_size": None,
    "reasons": {},
}
CARD = {"index": 0, "name": "Card", "memory_total_bytes": 16 * GIB}


def test_a_plan_says_what_changes_and_why() -> None:
    before = stack.stack_plan([ROW, TRITON], [CARD], False, {})
    rows = [{**ROW, "context_length": 16384}, TRITON]
    plan = stack.stack_plan(rows, [{**CARD, "memory_total_bytes": 24 * GIB}], False, {})
    assert stack.plan_text(plan, before, rows, "server", False).splitlines() == [
        "The plan for server changes:",
        "  GPUs: Card (16.0 GiB) -> Card (24.0 GiB)",
        "  vllm:",
        "    context of 8,192 tokens -> context of 16,384 tokens: the most that fits 13.3 GB",
        "  as before: triton",
    ]


def test_a_plan_is_said_when_it_is_new_and_when_it_is_asked_for() -> None:
    rows = [ROW, TRITON]
    plan = stack.stack_plan(rows, [CARD], False, {"vllm": {"threads": 8}})
    first = stack.plan_text(plan, {}, rows, "server", False)
    assert first.startswith("The plan for server is:")
    assert "  vllm on GPU 0:" in first
    assert "    32 requests at once: as set" in first
    assert "    8 threads" in first
    assert "replay" not in first
    assert stack.plan_text(plan, plan, rows, "server", False) == ""
    assert stack.plan_text(plan, plan, rows, "server", True).startswith("The plan for server is the one that runs:")


def test_a_plan_names_what_it_is_made_for() -> None:
    before = stack.stack_plan([ROW, TRITON], [CARD], True, {})
    row = {**ROW, "device": "cpu", "gpus": []}
    text = stack.plan_text(stack.stack_plan([row], [], True, {}), before, [row], "server", False)
    assert "(replayed)" in text
    assert "GPUs (replayed): Card (16.0 GiB) -> none" in text
    assert "on GPU 0 -> on the CPU" in text
    assert "triton: not planned any more" in text


@pytest.mark.parametrize("text", ["", "x-plan: 3", "[]", "a: [", "name: x"])
def test_a_release_without_a_plan_has_none(text: str) -> None:
    assert stack.running_plan(text) == {}


def test_the_plan_of_a_release_is_read() -> None:
    assert stack.running_plan("x-plan: {gpus: []}") == {"gpus": []}


@pytest.mark.parametrize(
    ("name", "hint"),
    [("inference_stack_vlm_enabled", "inference_stack_vllm_enabled"), ("docker_engine_sauce", "docker_engine_source")],
)
def test_a_typing_error_is_named_with_what_was_meant(name: str, hint: str) -> None:
    (problem,) = variables.unknown_variables([name, "ansible_user", "my_own"], str(ROLES))
    assert f"variable {name} is set" in problem
    assert f"Did you mean {hint}?" in problem


def test_known_variables_pass() -> None:
    assert variables.unknown_variables(["inference_stack_vllm_port", "model_store_dir"], str(ROLES)) == []
