"""Mutated configurations and headers of every family: an answer or one sentence, in bounded time and memory.

A seeded thousand here; ``AI_IDP_PROFILE=full`` takes ten thousand, and ``AI_IDP_FUZZ_SEED`` another seed.
"""

import json
import os
import random
import time
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.ai_idp import gguf_header, hf_config, model_fit, model_shape
from model_configs import CONFIGS, write_config
from model_families import FAMILIES
from mutations import mutated
from test_model_fit import H100, llama, vllm

SEED = os.environ.get("AI_IDP_FUZZ_SEED", "4711")
ROUNDS = 10 if os.environ.get("AI_IDP_PROFILE") == "full" else 1
BATCHES, PER_BATCH = 20, 50
SECONDS_EACH = 5.0
BYTES_AT_MOST = 256 << 20

SHAPES: list[dict[str, Any]] = [family.shape for family in FAMILIES if family.engine == "vllm"]
SHAPES += [
    {"model_type": "outer", "text_config": shape, "vision_config": {"hidden_size": 1024}} for shape in SHAPES[::7]
]
SHAPES += list(CONFIGS.values())
HEADERS: list[dict[str, Any]] = [family.shape for family in FAMILIES if family.engine == "llama_cpp"]


def judged(service: dict[str, Any]) -> str:
    parameters = {"services": [service], "gpus": [dict(H100)], "host_memory_bytes": 1 << 37}
    inputs, problems = model_fit.parse(parameters)
    if inputs is None:
        return " ".join(problems)
    answer = model_fit.decide(inputs)
    json.dumps(answer)
    [row] = answer["services"]
    assert row["verdict"] in ("fits", "does_not_fit", "unknown")
    for key in ("required_bytes", "least_bytes", "available_bytes", "max_context_length"):
        assert row[key] is None or (isinstance(row[key], int) and row[key] >= 0), (key, row[key])
    if row["required_bytes"] is not None:
        assert row["least_bytes"] <= row["required_bytes"]
    return str(row["message"])


def of_configuration(chance: random.Random, folder: Path) -> str:
    config = mutated(chance.choice(SHAPES), chance)
    path = write_config(folder, config, chance.choice((0, 1, 10**9, 1 << 40)))
    return judged(vllm(model={"name": "m", "path": str(path)}, context_length=chance.choice(("auto", 8192))))


def of_header(chance: random.Random, folder: Path) -> str:
    shape = dict(chance.choice(HEADERS))
    architecture = shape.pop("architecture")
    changed = mutated(shape, chance)
    if not isinstance(changed, dict):
        return "no header"
    metadata = {"general.architecture": architecture, **{f"{architecture}.{key}": v for key, v in changed.items()}}
    tensors = [gguf_header.Tensor(f"blk.{index}.attn_q.weight", (32, 32), "F16", 10**8, 0) for index in range(3)]
    tensors.append(gguf_header.Tensor("token_embd.weight", (32, 32), "F16", 10**8, 0))
    header = gguf_header.GgufHeader(3, metadata, tensors, ["m"], 10**9, True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gguf_header, "read_model", lambda _path: header)
        path = folder / "m.gguf"
        path.touch()
        service = llama(model={"name": "m", "path": str(path)}, context_length=chance.choice(("auto", 8192)))
        return judged({**service, "sequences": chance.choice((1, 4)), "gpu_layers": chance.choice((-1, 0, 5))})


@pytest.mark.parametrize("batch", range(BATCHES))
def test_an_answer_or_one_sentence(tmp_path: Path, batch: int) -> None:
    read = of_configuration if batch % 2 else of_header
    said = set()
    tracemalloc.start()
    try:
        for number in range(PER_BATCH * ROUNDS):
            name = f"{SEED}/{batch}/{number}"
            chance, begun = random.Random(name), time.monotonic()
            try:
                words = read(chance, tmp_path / str(number % 8)) if batch % 2 else read(chance, tmp_path)
            except (model_shape.ShapeError, hf_config.ConfigError) as error:
                words = str(error)
            except Exception as error:
                pytest.fail(f"{name}: {error!r:.300}")
            assert words.strip(), name
            assert time.monotonic() - begun < SECONDS_EACH, name
            said.add(words)
        assert tracemalloc.get_traced_memory()[1] < BYTES_AT_MOST
    finally:
        tracemalloc.stop()
    # The mutations reach different answers, and not one early refusal.
    assert len(said) > PER_BATCH // 3
