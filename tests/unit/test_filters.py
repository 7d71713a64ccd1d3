"""The filters of the project."""

from pathlib import Path

import inference_stack as stack
import pytest
import variables
from ansible.errors import AnsibleFilterError

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


FITTING = {
    **{"accelerator": "auto", "bind_address": "10.77.0.11", "lan_address": "10.77.0.11", "enabled": ["vllm"]},
    **{"catalogue": ["tiny-llama"], "models": ["tiny-llama"]},
    **{"triton_models": ["text_embedder"], "triton_known": ["text_embedder"], "texts": {}},
    "keys": {"vllm_api_key": "a$key'with\\\"all"},
    "sizes": {"vllm_memory_limit": "24g", "llama_cpp_memory_limit": "", "vllm_shm_size": "512m"},
}


@pytest.mark.parametrize(
    ("more", "gpus", "words"),
    [
        ({}, {"status": "ok", "gpus": []}, ""),
        ({"accelerator": "nvidia"}, {"status": "absent", "gpus": [], "messages": ["No driver."]}, "a: No driver. Inst"),
        ({}, {"status": "unknown", "gpus": []}, "Whether a has a GPU can not be told"),
        ({"bind_address": "0.0.0.0"}, {"status": "ok", "gpus": []}, "for example 10.77.0.11."),
        ({"models": ["tiny-lama"]}, {"status": "ok", "gpus": []}, "The model tiny-lama is not in the catalogue."),
        (
            {"sizes": {"vllm_memory_limit": "lots"}},
            {"gpus": [], "status": "ok"},
            'vllm_memory_limit is "lots"; it takes a',
        ),
        ({"sizes": {"vllm_memory_limit": "1e3"}}, {"gpus": [], "status": "ok"}, "or nothing for no limit."),
        ({"sizes": {"vllm_shm_size": ""}}, {"gpus": [], "status": "ok"}, 'vllm_shm_size is ""; it takes a number'),
        ({"bind_address": ""}, {"status": "ok", "gpus": []}, "which is every network"),
        ({"bind_address": "lan"}, {"status": "ok", "gpus": []}, 'is "lan"; it takes an address of the host'),
        ({"triton_models": ["embedder"]}, {"status": "ok", "gpus": []}, "names embedder; it takes text_embedder"),
        ({"keys": {"k": ""}}, {"status": "ok", "gpus": []}, "k is empty; it takes a key"),
        ({"keys": {"k": "secret\nline"}}, {"status": "ok", "gpus": []}, "It is not shown here."),
        ({"texts": {"d": ["/srv/a b", "folder"]}}, {"status": "ok", "gpus": []}, 'd is "/srv/a b"; it takes an abso'),
        ({"texts": {"p": ["AI", "project"]}}, {"status": "ok", "gpus": []}, 'p is "AI"; it takes lower-case'),
        ({"texts": {"i": ["vllm", "image"]}}, {"status": "ok", "gpus": []}, 'i is "vllm"; it takes a whole name'),
        ({"texts": {"u": ["a b", "account"]}}, {"status": "ok", "gpus": []}, 'u is "a b"; it takes the name of'),
        ({"texts": {"r": ["https://r", "registry"]}}, {"status": "ok", "gpus": []}, 'r is "https://r"; it takes a reg'),
        ({"enabled": []}, {"status": "ok", "gpus": []}, "Every service of the inference stack is switched off."),
    ],
)
def test_settings_of_the_stack_that_do_not_fit_are_named(more: dict, gpus: dict, words: str) -> None:
    said = stack.stack_problems("a", {**FITTING, **more}, gpus)
    assert len(said) == bool(words)
    assert words in " ".join(said).replace("answers on a. ", "answers on a: ")


@pytest.mark.parametrize(
    ("size", "found"),
    [("", None), ("24g", 24 * 2**30), ("1.5GB", 3 * 2**29), ("512 m", 2**29), ("6k", 6144), ("7b", 7), ("4096", 4096)],
)
def test_sizes_are_read_as_docker_reads_them(size: str, found: int | None) -> None:
    assert stack.size_bytes(size) == found


@pytest.mark.parametrize("size", ["lots", "1e3", "-1g", "4t", "g"])
def test_what_is_no_size_is_refused(size: str) -> None:
    with pytest.raises(AnsibleFilterError, match="is no size"):
        stack.size_bytes(size)


def test_the_repository_holds_the_planned_models_alone(tmp_path: Path) -> None:
    for name in ("planned/1/model.py", "planned/__pycache__/model.pyc", "other/1/model.py"):
        (tmp_path / "triton_models" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "triton_models" / name).write_text("x")
    assert stack.triton_repository(str(tmp_path), ["planned"]) == {"triton_models/planned/1/model.py": "x"}
    assert [*stack.triton_repository(str(tmp_path), [])] == ["triton_models/none"], "the folder is mounted"
    (tmp_path / "triton_models" / "planned" / "config.pbtxt").write_text("x")
    assert stack.triton_known(str(tmp_path)) == ["planned"]


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


def test_devices_are_named_by_index_all_or_instance() -> None:
    cut = {**ROW, "gpus": [2], "devices": ["0:2"]}
    plan = stack.stack_plan([cut, TRITON], [CARD], False, {})["services"]
    assert stack.cdi_devices(plan, 4)["vllm"] == ["nvidia.com/gpu=0:2"]
    plain = stack.stack_plan([{**ROW, "devices": ["0"]}], [CARD], False, {})["services"]
    # What runs on whole cards is planned as it was before instances were known.
    assert plain == stack.stack_plan([ROW], [CARD], False, {})["services"]
    assert stack.cdi_devices(plain, 1)["vllm"] == ["nvidia.com/gpu=all"]
    assert stack.cdi_devices(plain, 2)["vllm"] == ["nvidia.com/gpu=0"]


def test_an_option_s_value_is_read_from_arguments() -> None:
    assert stack.option_value([], "--dtype", "auto") == "auto"
    assert stack.option_value(["--dtype=half", "--dtype", "bfloat16"], "--dtype", "auto") == "bfloat16"
    assert stack.option_value(["--dtype"], "--dtype", "auto") == "auto"


def test_what_an_accepted_model_takes_is_said() -> None:
    row = {**ROW, "model": "new", "accepted": True, "least_bytes": 8 * GIB, "required_bytes": 24 * GIB}
    [text] = stack.taken_text([row, {**TRITON, "accepted": False}], [{**CARD, "memory_used_bytes": 12 * GIB}])
    assert text == "vllm: new: 12.0 GiB are in use on its GPUs now; thought were between 8.0 and 24.0 GiB."
    assert "not read" in stack.taken_text([{**row, "required_bytes": None}], [])[0]


def test_the_catalogue_says_which_model_is_tried_anyway() -> None:
    entries = [{"name": "m", "format": "gguf", "accept_unknown": True}, {"name": "n", "format": "gguf"}]
    found = stack.catalogue_figures(entries, "/models")
    assert found["m"]["accept_unknown"] is True
    assert "accept_unknown" not in found["n"]


@pytest.mark.parametrize("text", ["no", "false", "off", "0"])
def test_a_model_is_not_tried_when_the_text_says_no(text: str) -> None:
    """A catalogue whose values are quoted, or that the command line brings, holds text, and text is true."""
    found = stack.catalogue_figures([{"name": "m", "format": "gguf", "accept_unknown": text}], "/models")
    assert "accept_unknown" not in found["m"]


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


def test_defaults_of_a_role_are_read_and_what_others_take_of_them_are_values() -> None:
    stack, store = (variables.role_defaults(role, str(ROLES)) for role in ("inference_stack", "model_store"))
    taken = [stack[f"inference_stack_{engine}_model"] for engine in ("vllm", "llama_cpp")]
    taken += [store["model_store_dir"], store["model_store_keep_free_bytes"]]
    assert all(value and "{{" not in str(value) for value in taken)


def test_known_variables_pass() -> None:
    assert variables.unknown_variables(["inference_stack_vllm_port", "model_store_dir"], str(ROLES)) == []
