"""Another card, none, two: each run says what changed and what it planned anew, and the next changes nothing.

In the quick profile the next run is made after one of the four changes, another one for each commit; in the full
profile after each.

The lab has no GPU: answers of gpu_info are replayed, and the engines run on the CPU with what is planned for the card.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import testinfra

from .conftest import STACK, Run, SharedRuns, extra, run_playbook
from .suite import ROOT, rotation

# Constructed from public outputs, as tests/golden/gpu/README.md says; the 24 GB card is it with another name and size.
CAPTURE = json.loads((ROOT / "tests/golden/gpu/constructed-rtx5070ti.json").read_text(encoding="utf-8"))
CARD_16 = {**CAPTURE["gpus"][0], "fingerprint": "0016"}
CARD_24 = {
    **CARD_16,
    "name": "NVIDIA GeForce RTX 4090",
    "memory_total_bytes": 24564 << 20,
    "memory_reserved_bytes": 450 << 20,
    "memory_used_bytes": 0,
    "memory_free_bytes": 24114 << 20,
    "fingerprint": "0024",
}
TWO_CARDS = [CARD_24, {**CARD_24, "index": 1, "fingerprint": "0025"}]

# The tiny model is no burden for any card; of a small part of the card its number of requests depends on the memory.
WISHES = {
    "inference_stack_accelerator": "auto",
    "inference_stack_vllm_gpu_memory_utilization": 0.035,
    "inference_stack_vllm_max_model_len": "auto",
    "inference_stack_vllm_max_num_seqs": "up to 64",
}


CARD_CHANGES = {"16 GB": [CARD_16], "24 GB": [CARD_24], "none": [], "two": TWO_CARDS}
TWICE = rotation("changes of GPUs that are run twice", list(CARD_CHANGES), 1)


class Lab:
    """Runs week 2 on replayed GPUs and tells which containers it made anew."""

    def __init__(self, folder: Path, host: testinfra.host.Host) -> None:
        self.capture = folder / "gpus.json"
        self.host = host

    def run(self, gpus: list[dict[str, Any]], *arguments: str, **variables: Any) -> Run:
        answer = {"status": "ok" if gpus else "none", "backend": "constructed", "gpus": gpus}
        self.capture.write_text(json.dumps(answer), encoding="utf-8")
        wanted = {**WISHES, "inference_stack_gpu_replay": str(self.capture), **variables}
        run = run_playbook("playbooks/week2.yml", *arguments, *extra(**wanted))
        assert run.code == 0, run.output
        return run

    def containers(self) -> dict[str, str]:
        """Of each service its container and when that was started."""
        started = (
            "docker ps --quiet | xargs docker inspect --format "
            "'{{index .Config.Labels \"com.docker.compose.service\"}} {{.Id}} {{.State.StartedAt}}'"
        )
        lines = self.host.check_output(started).splitlines()
        return dict(line.split(" ", 1) for line in lines)

    def change(self, name: str, **variables: Any) -> tuple[str, set[str]]:
        """Change the GPUs; return what was printed and which services were made anew. The next run changes nothing."""
        gpus = CARD_CHANGES[name]
        before = self.containers()
        run = self.run(gpus, **variables)
        after = self.containers()
        if name in TWICE:
            again = self.run(gpus, **variables)
            assert set(again.changed.values()) == {0}, again.output
            assert "The plan for" not in again.output
            assert self.containers() == after
        return run.output, {name for name in after if after[name] != before.get(name)}


@pytest.fixture
def lab(tmp_path: Path, gpu_server: testinfra.host.Host, shared: SharedRuns) -> Iterator[Lab]:
    yield Lab(tmp_path, gpu_server)
    run = shared.restore()
    assert run.code == 0, run.output


def said(output: str, *sentences: str) -> None:
    for sentence in sentences:
        assert sentence in output, f"{sentence!r} is not in:\n{output}"


def test_16_gb_then_24_gb_then_none_then_two(lab: Lab) -> None:
    output, anew = lab.change("16 GB")
    said(
        output,
        "The hardware of schlimers-server (replayed) is not that of the last run:",
        "GPU added: NVIDIA GeForce RTX 5070 Ti (15.9 GiB).",
        "GPUs (replayed): none -> NVIDIA GeForce RTX 5070 Ti (15.9 GiB)",
        "on the CPU -> on GPU 0",
        "context of 1,024 tokens -> context of 4,096 tokens: all that the model was trained for",
        "requests at once: as many as find room for 2,048 tokens each",
        "as before: llama_cpp, triton",
        "The GPUs are a replay: the engines run on the CPU",
    )
    assert anew == {"vllm"}

    output, anew = lab.change("24 GB")
    said(
        output,
        "GPU replaced: NVIDIA GeForce RTX 5070 Ti (15.9 GiB) by NVIDIA GeForce RTX 4090 (24.0 GiB).",
        "requests at once -> 64 requests at once: the most that was asked for",
        "as before: llama_cpp, triton",
    )
    assert anew == {"vllm"}
    assert "--max-num-seqs=64" in lab.host.check_output(f"cat {STACK}/current/compose.yml")

    # What is planned is said to be elsewhere; the numbers are the same, and so are the containers.
    output, anew = lab.change("none")
    said(output, "GPU removed: NVIDIA GeForce RTX 4090 (24.0 GiB).", "-> none", "on GPU 0 -> on the CPU")
    assert anew == set()

    # What two cards exchange is known less well, so the same small part would be too close to tell. The part is one of
    # vLLM's arguments.
    output, anew = lab.change("two", inference_stack_vllm_gpu_memory_utilization=0.05)
    said(
        output,
        "on the CPU -> on GPU 0, 1",
        "tensor parallel size 1 -> tensor parallel size 2: 2 equal GPUs, over which the model's 4 attention heads",
        "the engines run on the CPU, with tensor parallel size 1",
    )
    assert anew == {"vllm"}


def test_a_check_prints_the_plan_of_a_real_model_and_changes_nothing(
    tmp_path: Path, gpu_server: testinfra.host.Host
) -> None:
    lab = Lab(tmp_path, gpu_server)
    before = lab.containers()
    run = lab.run(
        [CARD_16],
        "--check",
        # By the catalogue's figures: the lab's hub has no such model.
        inference_stack_vllm_model="llama-3.1-8b-awq",
        inference_stack_vllm_gpu_memory_utilization=0.8,
        inference_stack_vllm_max_num_seqs=32,
        # The lab's engine compiles nothing, which would leave more of the card.
        inference_stack_vllm_extra_args=[],
        model_store_models=[],
    )
    said(run.output, "-> context of 41,472 tokens: the most that fits 13.3 GB", "on the CPU -> on GPU 0")
    assert lab.containers() == before
