"""What is planned where numbers are left open: GPUs, context and requests at once, and why."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.module_utils.ai_idp import model_fit

ROOT = Path(__file__).resolve().parents[2]
MIB = 1024 * 1024
CATALOGUE = {
    entry["name"]: entry
    for entry in yaml.safe_load((ROOT / "playbooks/group_vars/all/models.yml").read_text())["ai_idp_models"]
}
CARD_16 = {"name": "NVIDIA GeForce RTX 5070 Ti", "memory_total_bytes": 16_303 * MIB, "memory_reserved_bytes": 453 * MIB}
CARD_24 = {"name": "NVIDIA GeForce RTX 4090", "memory_total_bytes": 24_564 * MIB, "memory_reserved_bytes": 450 * MIB}


def model(name: str) -> dict[str, Any]:
    return {"name": name, "figures": CATALOGUE[name]["figures"]}


def vllm(name: str = "llama-3.1-8b-awq", **changes: Any) -> dict[str, Any]:
    return {
        "name": "vllm",
        "engine": "vllm",
        "model": model(name),
        "context_length": "auto",
        "sequences": 32,
        "tensor_parallel_size": "auto",
        "variables": {"tensor_parallel_size": "inference_stack_vllm_tensor_parallel_size"},
        **changes,
    }


def llama(**changes: Any) -> dict[str, Any]:
    return {
        "name": "llama_cpp",
        "engine": "llama_cpp",
        "device": "cpu",
        "model": model("llama-3.1-8b-q4"),
        "context_length": "up to 16384",
        "sequences": 4,
        **changes,
    }


def plan(*services: dict[str, Any], gpus: tuple[dict[str, Any], ...] = (CARD_16,), host_gib: int = 128) -> Any:
    inputs, problems = model_fit.parse(
        {
            "services": list(services),
            "gpus": [{"index": index, **gpu} for index, gpu in enumerate(gpus)],
            "host_memory_bytes": host_gib * 1024 * MIB,
        }
    )
    assert inputs is not None, problems
    return model_fit.decide(inputs)


def test_a_larger_card_gives_a_larger_context() -> None:
    small, large = (plan(vllm(), gpus=(card,)) for card in (CARD_16, CARD_24))
    for answer in (small, large):
        assert answer["fits"], answer["problems"] + answer["unknowns"]
    contexts = [answer["services"][0]["context_length"] for answer in (small, large)]
    assert 8192 < contexts[0] < contexts[1] <= 131_072
    assert "the most that fits" in small["services"][0]["reasons"]["context_length"]


def test_the_planned_context_fits_and_one_step_more_does_not() -> None:
    found = plan(vllm())["services"][0]["context_length"]
    assert plan(vllm(context_length=found))["fits"]
    assert not plan(vllm(context_length=found + 512))["fits"]


def test_a_wish_has_an_end_and_so_has_the_model() -> None:
    row = plan(vllm(context_length="up to 16384"), gpus=(CARD_24,))["services"][0]
    assert (row["context_length"], row["reasons"]["context_length"]) == (16_384, "the most that was asked for")
    row = plan(vllm("qwen2.5-7b-awq"), gpus=(CARD_24,))["services"][0]
    assert (row["context_length"], row["reasons"]["context_length"]) == (32_768, "all that the model was trained for")


def test_a_number_stays_a_number_and_is_refused_where_it_does_not_fit() -> None:
    answer = plan(vllm(context_length=131_072))
    assert answer["services"][0]["context_length"] == 131_072
    assert "does not fit" in answer["problems"][0]


def test_what_fits_in_no_form_is_refused_though_the_context_is_open() -> None:
    answer = plan(vllm("llama-3.3-70b-awq"))
    assert "does not fit" in answer["problems"][0]


def test_two_equal_cards_share_the_model() -> None:
    one, two = (plan(vllm(), gpus=cards) for cards in ((CARD_16,), (CARD_16, CARD_16)))
    row = two["services"][0]
    assert two["fits"], two["problems"]
    assert (row["tensor_parallel_size"], row["gpus"]) == (2, [0, 1])
    assert row["context_length"] > one["services"][0]["context_length"]
    assert "32 attention heads" in row["reasons"]["tensor_parallel_size"]
    assert [gpu["services"] for gpu in two["gpus"]] == [["vllm"], ["vllm"]]


def test_a_model_too_large_for_one_card_fits_over_four() -> None:
    four = plan(vllm("llama-3.3-70b-awq", gpu_memory_utilization=0.9), gpus=(CARD_16,) * 4)
    assert four["fits"], four["problems"] + four["unknowns"]
    assert four["services"][0]["tensor_parallel_size"] == 4


@pytest.mark.parametrize(
    ("name", "cards", "size", "gpus", "why"),
    [
        ("llama-3.1-8b-awq", (CARD_16, CARD_24), 1, [1], "not equal"),
        ("llama-3.1-8b-awq", (CARD_24, CARD_16, CARD_16), 2, [1, 2], "2 equal GPUs"),
        # 28 query heads go over 7 or 14 as well, but 4 KV heads do not.
        ("qwen2.5-7b-awq", (CARD_16,) * 3, 2, [0, 1], "28 attention heads"),
        ("llama-3.1-8b-awq", (CARD_16,), 1, [0], "there is one GPU"),
    ],
)
def test_which_cards_a_model_is_spread_over(
    name: str, cards: tuple[dict[str, Any], ...], size: int, gpus: list[int], why: str
) -> None:
    row = plan(vllm(name), gpus=cards)["services"][0]
    assert (row["tensor_parallel_size"], row["gpus"]) == (size, gpus)
    assert why in row["reasons"]["tensor_parallel_size"]


@pytest.mark.parametrize(
    ("wanted", "cards", "words"),
    [
        (2, (CARD_16,), "the host has 1 GPU. Set auto, or one of 1."),
        (2, (CARD_16, CARD_24), "only 1 of its 2 GPUs are equal"),
        (3, (CARD_16,) * 3, "can't be shared out over 3. Set auto, or one of 1, 2."),
    ],
)
def test_a_number_of_cards_that_can_not_be_had_is_refused(
    wanted: int, cards: tuple[dict[str, Any], ...], words: str
) -> None:
    problem = plan(vllm(tensor_parallel_size=wanted), gpus=cards)["problems"][0]
    assert problem.startswith(f"inference_stack_vllm_tensor_parallel_size is {wanted}, but ")
    assert words in problem


def test_without_a_gpu_the_kv_space_is_the_limit() -> None:
    row = plan(vllm(device="cpu", cpu_kv_cache_bytes=2 << 30), gpus=())["services"][0]
    assert row["context_length"] == 16_128
    assert row["reasons"]["context_length"] == "the most that fits the KV cache of 2.1 GB"
    assert (row["tensor_parallel_size"], row["reasons"]["tensor_parallel_size"]) == (1, "no GPU")


def test_open_requests_are_as_many_as_find_room() -> None:
    small, large = (
        plan(vllm(context_length=16_384, sequences="up to 64"), gpus=(card,))["services"][0]
        for card in (CARD_16, CARD_24)
    )
    assert 1 < small["sequences"] < large["sequences"] <= 64
    assert plan(vllm(sequences="auto"), gpus=(CARD_24,))["services"][0]["sequences"] <= 32


def test_open_slots_have_something_of_the_context_each() -> None:
    assert plan(llama(sequences="auto"))["services"][0]["sequences"] == 4
    assert plan(llama(sequences="auto", context_length=4096))["services"][0]["sequences"] == 2
    assert plan(llama(sequences="up to 16"))["services"][0]["sequences"] == 8


def test_less_memory_gives_llama_cpp_less_context() -> None:
    row = plan(llama(), host_gib=8)["services"][0]
    assert 1024 <= row["context_length"] < 16_384
    assert plan(llama(), host_gib=16)["services"][0]["context_length"] == 16_384


def test_a_little_less_or_more_restarts_nothing() -> None:
    best = plan(vllm())["services"][0]["context_length"]
    slightly = best - 512
    row = plan(vllm(planned={"context_length": slightly}))["services"][0]
    assert (row["context_length"], row["reasons"]["context_length"][:5]) == (slightly, "kept:")
    assert plan(vllm(planned={"context_length": best // 2}))["services"][0]["context_length"] == best
    # What no longer fits is not kept.
    assert plan(vllm(planned={"context_length": best + 512}))["services"][0]["context_length"] == best
    # An end that was set is an end, not a measure of memory.
    row = plan(vllm(context_length="up to 8192", planned={"context_length": 8000}))["services"][0]
    assert row["context_length"] == 8192


def test_what_is_not_known_is_planned_with_care() -> None:
    figures = {**CATALOGUE["llama-3.1-8b-awq"]["figures"]}
    figures.pop("context_length")
    row = plan(vllm(model={"name": "m", "figures": figures}))["services"][0]
    assert (row["context_length"], "not known" in row["reasons"]["context_length"]) == (8192, True)
    row = plan(vllm(model={"name": "m"}), gpus=(CARD_16, CARD_16))["services"][0]
    assert (row["verdict"], row["context_length"], row["tensor_parallel_size"]) == ("unknown", 8192, 1)
    row = plan(llama(model={"name": "m"}, context_length="auto", sequences="auto"))["services"][0]
    assert (row["verdict"], row["context_length"], row["sequences"]) == ("unknown", 8192, 4)


@pytest.mark.parametrize("value", ["as much as possible", "up to many", "up to 0", "auto 5", 0, -1, 1.5])
def test_other_words_are_refused(value: object) -> None:
    _, problems = model_fit.parse({"services": [vllm(context_length=value)]})
    assert len(problems) == 1
    assert repr(value) in problems[0]
    assert 'auto for as much as fits, or "up to N"' in problems[0]
