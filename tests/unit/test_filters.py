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
