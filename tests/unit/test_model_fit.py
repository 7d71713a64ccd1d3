"""model_fit: projections against measured memory, the refusals, the sums, and the words."""

import json
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.ai_idp import model_fit
from gguf_models import LLAMA_1B, LLAMA_3B, LLAMA_8B, write_llama

MIB = 1024 * 1024
GOLDEN = Path(__file__).parent.parent / "golden" / "h100"
MEASURED = json.loads((GOLDEN / "vram.json").read_text())
CASES = next(value for value in MEASURED.values() if isinstance(value, list))

# What CUDA gives out of a 16 GB card is second-hand (about 15,850 of 16,303 MiB).
RTX_5070_TI = {
    "index": 0,
    "name": "NVIDIA GeForce RTX 5070 Ti",
    "memory_total_bytes": 16_303 * MIB,
    "memory_reserved_bytes": 453 * MIB,
}
H100 = {
    "index": 0,
    "name": "NVIDIA H100 80GB HBM3",
    "memory_total_bytes": 81_559 * MIB,
    "memory_used_bytes": 0,
    "memory_free_bytes": 81_079 * MIB,
}
FIGURES_8B = {
    "weights_bytes": 5_730_000_000,
    "layers": 32,
    "kv_heads": 8,
    "head_dim": 128,
    "parameters": 8_030_000_000,
}
FIGURES_70B = {
    "weights_bytes": 42_500_000_000,
    "layers": 80,
    "kv_heads": 8,
    "head_dim": 128,
    "quantizations": [
        {"name": "smallest", "weights_bytes": 16_800_000_000},
        {"name": "Q4_K_M", "weights_bytes": 42_500_000_000},
    ],
}
HOST = 128 * 1024 * MIB
VARIABLES = {
    "gpu_memory_utilization": "inference_stack_vllm_gpu_memory_utilization",
    "context_length": "inference_stack_vllm_context_length",
    "model": "inference_stack_vllm_model",
}


def vllm(**changes: Any) -> dict[str, Any]:
    model = {"name": "Llama 3.1 8B AWQ", "figures": FIGURES_8B}
    return {
        "name": "vllm",
        "engine": "vllm",
        "model": model,
        "context_length": 8192,
        "variables": VARIABLES,
        **changes,
    }


def llama(**changes: Any) -> dict[str, Any]:
    model = {"name": "Llama 3.1 8B Q4_K_M", "figures": {**FIGURES_8B, "weights_bytes": 4_920_733_632}}
    return {"name": "llama", "engine": "llama_cpp", "model": model, "context_length": 8192, **changes}


def triton(**changes: Any) -> dict[str, Any]:
    return {"name": "triton", "engine": "triton", "device": "gpu", "memory_bytes": 2 * 10**9, **changes}


def decide(*services: dict[str, Any], **parameters: Any) -> dict[str, Any]:
    given = {
        "services": list(services),
        "gpus": [RTX_5070_TI],
        "host_memory_bytes": HOST,
        **parameters,
    }
    inputs, problems = model_fit.parse(given)
    assert problems == []
    assert inputs is not None
    return model_fit.decide(inputs)


def refused(*services: dict[str, Any], **parameters: Any) -> list[str]:
    inputs, problems = model_fit.parse({"services": list(services), "gpus": [RTX_5070_TI], **parameters})
    assert inputs is None
    return problems


# --- projections against measurements ---------------------------------------------------------------


def case_name(case: dict[str, Any]) -> str:
    return f"{case['model']}-{case['ctx']}-{case['kv']}-ub{case['ubatch']}"


@pytest.mark.parametrize("case", CASES, ids=case_name)
def test_projection_holds_against_measured_memory(tmp_path: Path, case: dict[str, Any]) -> None:
    """Each buffer as llama-server logged it, the total as the driver counted it after a request."""
    shape = {"1b": LLAMA_1B, "8b": LLAMA_8B}[case["model"]]
    path = write_llama(tmp_path / "m.gguf", shape, case["quant"])
    answer = decide(
        llama(
            model={"name": "m", "path": str(path)},
            context_length=case["ctx"],
            sequences=case["parallel"],
            kv_cache_type=case["kv"],
            ubatch_size=case["ubatch"],
        ),
        gpus=[H100],
    )
    service = answer["services"][0]
    parts, buffers = service["breakdown"], case["buffers_mib"]
    assert parts["weights"] / MIB == pytest.approx(buffers["CUDA0 model"][0], abs=0.01)
    assert parts["kv_cache"] / MIB == pytest.approx(buffers["CUDA0 KV"][0], abs=0.01)
    assert parts["compute"] / MIB == pytest.approx(buffers["CUDA0 compute"][0], abs=0.2)

    measured = case["used_after_request_mib"] * MIB
    error = (service["required_bytes"] - measured) / measured
    print(f"projection is {100 * error:+.2f} % off")
    assert abs(error) <= service["error_bound_fraction"]
    assert error >= -0.03
    assert service["verdict"] == "fits"


@pytest.mark.parametrize("case", [case for case in CASES if case["model"] == "8b"], ids=case_name)
def test_catalogue_figures_stay_within_their_wider_bound(case: dict[str, Any]) -> None:
    figures = {**FIGURES_8B, "weights_bytes": case["file_bytes"]}
    service = decide(
        llama(
            model={"name": "m", "figures": figures},
            context_length=case["ctx"],
            kv_cache_type=case["kv"],
        ),
        gpus=[H100],
    )["services"][0]
    measured = case["used_after_request_mib"] * MIB
    error = (service["required_bytes"] - measured) / measured
    assert -0.03 <= error <= service["error_bound_fraction"]


@pytest.mark.parametrize(
    ("layers", "kv_heads", "head_dim", "kib"),
    [(16, 8, 64, 32), (28, 8, 128, 112), (32, 8, 128, 128), (80, 8, 128, 320), (28, 4, 128, 56), (48, 8, 128, 192)],
    ids=["llama-1b", "llama-3b", "llama-8b", "llama-70b", "qwen-7b", "qwen-14b"],
)
def test_kv_cache_per_token(layers: int, kv_heads: int, head_dim: int, kib: int) -> None:
    figures = {"weights_bytes": 10**9, "layers": layers, "kv_heads": kv_heads, "head_dim": head_dim}
    for kv_type, factor in (("f16", 1.0), ("q8_0", 34 / 64), ("q4_0", 18 / 64)):
        service = decide(llama(model={"name": "m", "figures": figures}, context_length=1024, kv_cache_type=kv_type))[
            "services"
        ][0]
        assert service["breakdown"]["kv_cache"] == 1024 * kib * 1024 * factor


def test_slots_share_the_context(tmp_path: Path) -> None:
    path = str(write_llama(tmp_path / "m.gguf", LLAMA_1B))
    one, four = (
        decide(llama(model={"name": "m", "path": path}, context_length=32768, sequences=count))["services"][0]
        for count in (1, 4)
    )
    assert one["breakdown"]["kv_cache"] == four["breakdown"]["kv_cache"]
    # The mask is of one slot's tokens: 1 MiB for each 1,024 of them.
    assert one["breakdown"]["compute"] - four["breakdown"]["compute"] == 24 * MIB


def test_the_input_embedding_stays_on_the_host(tmp_path: Path) -> None:
    tied, untied = (
        decide(llama(model={"name": "m", "path": str(write_llama(tmp_path / name, shape))}))["services"][0]
        for name, shape in (("t.gguf", LLAMA_1B), ("u.gguf", LLAMA_8B))
    )
    assert tied["breakdown"]["weights"] == 799_862_784
    assert untied["breakdown"]["weights"] == 4_912_898_048 - 295_501_824
    assert tied["host_bytes"] > 205 * MIB
    assert untied["host_bytes"] > 281 * MIB


def test_partial_offload_moves_bytes_and_loses_none(tmp_path: Path) -> None:
    path = str(write_llama(tmp_path / "m.gguf", LLAMA_8B))
    sums, on_gpu = [], []
    for layers in (0, 1, 16, 33, -1):
        service = decide(llama(model={"name": "m", "path": path}, gpu_layers=layers))["services"][0]
        parts = service["breakdown"]
        sums.append(parts["weights"] + parts["kv_cache"] + service["host_bytes"])
        on_gpu.append(parts["weights"])
    assert len(set(sums)) == 1
    assert on_gpu == sorted(on_gpu)
    assert on_gpu[0] == 0
    assert on_gpu[-2] == on_gpu[-1]


# --- the refusal that matters most ------------------------------------------------------------------


@pytest.mark.parametrize("engine", ["vllm", "llama_cpp"])
def test_70b_on_16_gb_is_refused_in_words_that_help(engine: str) -> None:
    answer = decide(
        vllm(engine=engine, model={"name": "Llama 3.3 70B Q4_K_M", "figures": FIGURES_70B}),
        alternatives=[
            {"name": "Llama 3.1 8B AWQ", "figures": FIGURES_8B},
            {"name": "Llama 3.1 8B BF16", "figures": {**FIGURES_8B, "weights_bytes": 160_060_000_000}},
        ],
    )
    service = answer["services"][0]
    assert answer["fits"] is False
    assert answer["verdict"] == "does_not_fit"
    assert service["limited_by"] == "weights"
    assert service["max_context_length"] == 0
    assert service["next_smaller_quantization"] is None
    assert service["smallest_quantization"]["weights_bytes"] == 16_800_000_000
    assert [item["name"] for item in service["alternatives"]] == ["Llama 3.1 8B AWQ"]
    [problem] = answer["problems"]
    for words in (
        "Llama 3.3 70B Q4_K_M does not fit on GPU 0 (NVIDIA GeForce RTX 5070 Ti, 16,303 MiB = 17.1 GB)",
        "weights 42.5 GB",
        "KV cache 2.7 GB",
        "Smallest published quantisation: smallest, 16.8 GB of weights",
        "this model does not fit in any form",
        "What fits instead with the same limits: Llama 3.1 8B AWQ (",
        "On the CPU under llama.cpp it needs",
        "inference_stack_vllm_model",
    ):
        assert words in problem
    assert "BF16" not in problem
    assert ("inference_stack_vllm_gpu_memory_utilization" in problem) == (engine == "vllm")


def test_bf16_8b_does_not_fit_at_080_and_a_quantisation_is_named() -> None:
    figures = {
        **FIGURES_8B,
        "weights_bytes": 16_060_000_000,
        "quantizations": [
            {"name": "FP8", "weights_bytes": 9_080_000_000},
            {"name": "AWQ", "weights_bytes": 5_730_000_000},
        ],
    }
    answer = decide(vllm(model={"name": "Llama 3.1 8B", "figures": figures}))
    assert answer["services"][0]["next_smaller_quantization"]["name"] == "FP8"
    assert "FP8 (9.1 GB of weights)" in answer["problems"][0]


# --- what fits --------------------------------------------------------------------------------------


def test_what_is_said_to_be_the_largest_fits_and_one_step_more_does_not() -> None:
    for service in (vllm(), llama(), llama(sequences=4)):
        largest = decide(service)["services"][0]["max_context_length"]
        assert largest > 8192
        assert decide({**service, "context_length": largest})["verdict"] == "fits"
        assert decide({**service, "context_length": largest + 2048})["verdict"] != "fits"


def test_vllm_counts_full_length_sequences() -> None:
    service = decide(vllm())["services"][0]
    one = 8192 * 128 * 1024
    assert service["breakdown"]["kv_cache"] == one
    free = service["available_bytes"] - service["required_bytes"] - service["breakdown"]["margin"] + one
    assert service["max_sequences"] == free // one
    assert service["available_bytes"] == pytest.approx(0.8 * 15_850 * MIB, abs=1)


def test_a_context_that_is_too_long_names_the_one_that_fits() -> None:
    answer = decide(vllm(context_length=131072))
    assert answer["services"][0]["limited_by"] == "kv_cache"
    most = answer["services"][0]["max_context_length"]
    assert f"set inference_stack_vllm_context_length to at most {most:,}" in answer["problems"][0]


def test_context_is_bounded_by_what_the_model_was_trained_for(tmp_path: Path) -> None:
    path = str(write_llama(tmp_path / "m.gguf", LLAMA_1B))
    service = decide(llama(model={"name": "m", "path": path}), gpus=[H100])["services"][0]
    assert service["max_context_length"] == 131072


def test_roofline_is_bandwidth_over_weights_read(tmp_path: Path) -> None:
    path = str(write_llama(tmp_path / "m.gguf", LLAMA_3B))
    service = decide(llama(model={"name": "m", "path": path}), gpus=[H100])["services"][0]
    assert service["roofline_tokens_per_second"] == pytest.approx(3350e9 / 2_011_539_456, rel=0.001)
    unknown = {**H100, "name": "Some other card"}
    assert decide(llama(), gpus=[unknown])["services"][0]["roofline_tokens_per_second"] is None


# --- several services -------------------------------------------------------------------------------


def test_services_that_fit_alone_but_not_together_give_one_problem() -> None:
    answer = decide(vllm(), triton(memory_bytes=4 * 10**9))
    assert [service["verdict"] for service in answer["services"]] == ["fits", "does_not_fit"]
    assert answer["services"][1]["limited_by"] == "other_services"
    assert answer["gpus"][0]["fits"] is False
    [problem] = answer["problems"]
    assert "do not fit together" in problem
    assert "set inference_stack_vllm_gpu_memory_utilization to at most 0.67" in problem
    together = 0.67 * 15_850 * MIB + (2 * 527 + 237) * MIB + 4 * 10**9
    assert together <= 15_850 * MIB < together + 0.01 * 15_850 * MIB
    assert decide(vllm(gpu_memory_utilization=0.67), triton(memory_bytes=4 * 10**9))["fits"]


def test_two_vllm_over_the_budget_are_refused() -> None:
    answer = decide(vllm(), vllm(name="second"))
    [problem] = answer["problems"]
    assert "run fewer of them on this GPU" in problem


def test_llama_cpp_beside_vllm_has_what_is_left() -> None:
    service = decide(vllm(gpu_memory_utilization=0.5), llama())["services"][1]
    assert service["available_bytes"] == 15_850 * MIB - 15_850 * MIB // 2 - (527 + 237) * MIB
    assert service["verdict"] == "fits"
    assert decide(vllm(), llama())["services"][1]["limited_by"] == "other_services"
    assert decide(vllm(), llama(gpu_index=1), gpus=[RTX_5070_TI, {**RTX_5070_TI, "index": 1}])["fits"]


def test_cpu_services_share_the_host() -> None:
    eight = 8 * 1024 * MIB
    assert decide(llama(device="cpu"), host_memory_bytes=eight)["fits"]
    answer = decide(llama(device="cpu"), llama(name="other", device="cpu"), host_memory_bytes=eight, gpus=[])
    [problem] = answer["problems"]
    assert "do not fit this host's memory together" in problem
    assert answer["host"]["fits"] is False


def test_vllm_on_the_cpu_needs_one_sequence_in_its_kv_space() -> None:
    """One block of 16 tokens is never given out."""
    small = vllm(
        device="cpu", cpu_kv_cache_bytes=2**30, context_length=8176, variables={"cpu_kv_cache_bytes": "kv_space"}
    )
    assert decide(small, gpus=[])["services"][0]["max_sequences"] == 1
    [problem] = decide({**small, "context_length": 8177}, gpus=[])["problems"]
    assert "kv_space gives 1.1 GB" in problem
    assert "at most 7,936" in problem


def test_a_container_limit_counts() -> None:
    [problem] = decide(llama(device="cpu", memory_limit_bytes=4 * 2**30), gpus=[])["problems"]
    assert "memory_limit_bytes of service llama" in problem


def test_a_container_limit_counts_beside_a_gpu() -> None:
    given = llama(memory_bytes=8 * 2**30, variables={"memory_limit_bytes": "the_limit"})
    assert decide({**given, "memory_limit_bytes": 64 * 2**30})["problems"] == []
    [problem] = decide({**given, "memory_limit_bytes": 4 * 2**30})["problems"]
    assert "GB of main memory beside" in problem
    assert "the_limit gives 4.3 GB: raise it to " in problem


def test_shared_memory_counts_both_sides() -> None:
    jetson = {
        "index": 0,
        "name": "Orin Nano",
        "memory_total_bytes": 8 * 10**9,
        "memory_is_shared": True,
    }
    assert decide(llama(), gpus=[jetson], host_memory_bytes=8 * 10**9)["fits"]
    both = decide(llama(), triton(device="cpu", memory_bytes=2 * 10**9), gpus=[jetson], host_memory_bytes=8 * 10**9)
    assert not both["fits"]


# --- can't tell -------------------------------------------------------------------------------------


def test_no_figures_is_unknown_and_no_problem(tmp_path: Path) -> None:
    answer = decide(vllm(model={"name": "new", "path": str(tmp_path / "not-there")}))
    assert answer["fits"] is False
    assert answer["verdict"] == "unknown"
    assert answer["problems"] == []
    assert "can't tell whether it fits" in answer["unknowns"][0]


def test_weights_alone_can_refuse_and_never_admit() -> None:
    for weights, verdict in ((10**9, "unknown"), (42 * 10**9, "does_not_fit")):
        answer = decide(vllm(model={"name": "m", "figures": {"weights_bytes": weights}}))
        assert answer["verdict"] == verdict


def test_closer_than_the_margin_is_unknown() -> None:
    service = decide(llama())["services"][0]
    tight = {"index": 0, "memory_total_bytes": service["required_bytes"] + 10 * MIB}
    answer = decide(llama(), gpus=[tight])
    assert answer["services"][0]["limited_by"] == "margin"
    assert "too close to tell" in answer["unknowns"][0]


def test_a_card_without_known_memory_is_unknown() -> None:
    assert decide(vllm(), gpus=[{"index": 0, "name": "x", "memory_total_bytes": None}])["verdict"] == "unknown"


def test_a_broken_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(b"GGUF")
    answer = decide(llama(model={"name": "m", "path": str(tmp_path / "m.gguf")}))
    assert answer["verdict"] == "unknown"
    assert "not a GGUF file" in answer["unknowns"][0]


def test_half_a_download_leaves_the_figures_in_force(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    service = decide(vllm(model={"name": "m", "path": str(tmp_path), "figures": FIGURES_8B}))["services"][0]
    assert (service["figures_source"], service["verdict"]) == ("figures", "fits")
    assert "has no num_hidden_layers" in service["notes"][0]


def test_a_gpu_that_is_not_there_is_named() -> None:
    [problem] = decide(vllm(gpu_index=1))["problems"]
    assert "GPU 1, which this host does not have (GPUs found: GPU 0 (NVIDIA GeForce RTX 5070 Ti" in problem
    assert "GPUs found: none" in decide(vllm(), gpus=[])["problems"][0]


def test_files_win_over_figures(tmp_path: Path) -> None:
    path = str(write_llama(tmp_path / "m.gguf", LLAMA_1B))
    service = decide(llama(model={"name": "m", "path": path, "figures": FIGURES_70B}))["services"][0]
    assert service["figures_source"] == "gguf"
    assert service["verdict"] == "fits"
    folder = decide(llama(model={"name": "m", "path": str(tmp_path)}))["services"][0]
    assert folder["required_bytes"] == service["required_bytes"]


# --- bad input --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("80%", "is '80%'; allowed is a number above 0 and at most 1"),
        ("80%", "Write 0.80 for 80%."),
        ("80 %", "Write 0.80 for 80 %."),
        (80, "Write 0.80 if 80 % is meant"),
        (1.2, "is 1.2; allowed is a number above 0 and at most 1"),
        ("1.2", "Set 0.80"),
        (0, "Set 0.80"),
        (-0.5, "Set 0.80"),
        ("most", "Set 0.80"),
        (True, "Set 0.80"),
        ("nan", "Set 0.80"),
        ([0.8], "Set 0.80"),
    ],
)
def test_wrong_utilization_is_one_sentence_with_the_users_variable(value: object, words: str) -> None:
    [problem] = refused(vllm(gpu_memory_utilization=value))
    assert problem.startswith("inference_stack_vllm_gpu_memory_utilization is ")
    assert words in problem


@pytest.mark.parametrize("value", [0.8, "0.8", " 0.80 ", None, "", 1, 1.0])
def test_right_utilization_passes(value: object) -> None:
    decide(vllm(gpu_memory_utilization=value))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"sequences": -1}, "sequences of service vllm is -1; allowed is a whole number from 1"),
        ({"sequences": "many"}, "sequences of service vllm is 'many'"),
        ({"context_length": 0}, "inference_stack_vllm_context_length is 0"),
        ({"context_length": 10.5}, "inference_stack_vllm_context_length is 10.5"),
        ({"engine": "tgi"}, "engine of service vllm is 'tgi'; allowed is one of vllm, llama_cpp, triton"),
        ({"engine": None}, "engine of service vllm is not set"),
        ({"device": "tpu"}, "allowed is one of gpu, cpu"),
        ({"kv_cache_type": "q8_0"}, "kv_cache_type of service vllm is 'q8_0'"),
        ({"max_num_batched_tokens": 0}, "max_num_batched_tokens of service vllm is 0"),
        ({"gpu_index": -1}, "gpu_index of service vllm is -1"),
        ({"model": None}, "inference_stack_vllm_model is not set"),
        ({"model": "llama"}, "inference_stack_vllm_model is 'llama'; allowed is a mapping"),
        ({"name": ""}, "A service has no name"),
        ({"variables": "x"}, "variables of service vllm"),
    ],
)
def test_bad_values_are_named(changes: dict[str, Any], words: str) -> None:
    [problem] = refused(vllm(**changes))
    assert words in problem


def test_all_mistakes_are_shown_at_once() -> None:
    assert len(refused(vllm(sequences=-1, gpu_memory_utilization="80%"), llama(gpu_layers="x"))) == 3


def test_other_bad_input_is_named() -> None:
    assert "Two services are named" in refused(vllm(), vllm())[0]
    assert "more than the 4 tokens" in refused(llama(sequences=8, context_length=4))[0]
    assert "memory_bytes of service triton is not set" in refused(triton(memory_bytes=None))[0]
    assert "A GPU has no index" in refused(vllm(), gpus=[{"memory_total_bytes": 1}])[0]
    assert "unknown key 'vlm'" in refused(vllm(), overhead_bytes={"vlm": 1})[0]
    assert "alternative" in refused(vllm(), alternatives=[{"name": "x"}])[0]


def test_measured_overhead_takes_the_place_of_the_built_in_one() -> None:
    first, second = (
        decide(llama(), overhead_bytes=given)["services"][0]["required_bytes"]
        for given in ({}, {"llama_cpp_gpu": 512 * MIB})
    )
    assert first - second == 100 * MIB
