"""Public models of many families against an arithmetic of its own, and the page's table of them."""

import re
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.ai_idp import engine_memory
from model_configs import write_config
from model_families import FAMILIES, GIB, MIB, Family
from test_layer_kinds import gguf_shape, projected

PAGE = Path(__file__).parent.parent.parent / "docs" / "model-fit.md"


def projection_of(family: Family, folder: Path) -> engine_memory.Projection:
    from ansible.module_utils.ai_idp import model_shape

    options: dict[str, Any] = {"context_length": family.context, "sequences": 1, **family.options}
    if family.engine == "llama_cpp":
        shape = gguf_shape(family.shape["architecture"], {k: v for k, v in family.shape.items() if k != "architecture"})
    else:
        shape = model_shape.from_path("m", str(write_config(folder, family.shape)))
        options["max_num_batched_tokens"] = 4096
    assert shape.least_layers is None, shape.uncertain
    return projected(shape, family.engine, **options)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: f"{family.family} {family.name} {family.engine}")
def test_the_cache_is_what_arithmetic_says(tmp_path: Path, family: Family) -> None:
    found = projection_of(family, tmp_path)
    assert abs(found.kv_cache - family.kv) <= max(0.001 * family.kv, MIB)
    assert abs(found.states - family.states) <= max(0.001 * family.states, MIB)


def test_forty_models_of_fifteen_families_are_there() -> None:
    assert len(FAMILIES) >= 40
    assert len({family.family for family in FAMILIES}) >= 15


def table(folder: Path) -> str:
    """The page's table."""
    lines = [
        "| family | model | engine | context | KV cache | model_fit | recurrent states | model_fit | block pool |",
        "|---|---|---|---:|---:|---:|---:|---:|---:|",
    ]
    for number, family in enumerate(FAMILIES):
        found = projection_of(family, folder / str(number))
        states = [f"{value / MIB:,.1f}" if family.states else "" for value in (family.states, found.states)]
        pool = f"{found.pool / MIB:,.0f}" if family.engine == "vllm" else ""
        lines.append(
            f"| {family.family} | {family.name} | {family.engine} | {family.context:,} | {family.kv / MIB:,.1f} "
            f"| {found.kv_cache / MIB:,.1f} | {states[0]} | {states[1]} | {pool} |"
        )
    return "\n".join(lines) + "\n"


def test_the_page_shows_today_s_figures(tmp_path: Path) -> None:
    """After a change of the projection: put this table into the page, and read it."""
    assert table(tmp_path) in PAGE.read_text()


def test_what_a_row_promises_is_in_the_table() -> None:
    """Families that the page names as known have a model here."""
    named = set(re.findall(r"^\| ([^|]+?) \|", PAGE.read_text(), re.MULTILINE))
    assert {family.family for family in FAMILIES} <= named
    assert max(family.kv for family in FAMILIES) > 64 * GIB
