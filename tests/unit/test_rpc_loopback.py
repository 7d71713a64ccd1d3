"""What llama.cpp's RPC costs on a real GPU, without any link: the page says what was measured."""

import json
from pathlib import Path
from typing import Any

from ansible.module_utils.ai_idp.rpc_latency import offload_of
from ansible.module_utils.ai_idp.sample_statistics import Summary, summarize

ROOT = Path(__file__).parent.parent.parent
RESULTS = {
    result["id"]: result
    for result in json.loads((ROOT / "tests" / "golden" / "h100" / "rpc_loopback.json").read_text())
}
MODELS = {"llama-3-2-1b": "llama-3.2-1b", "llama-3-2-3b": "llama-3.2-3b"}
THROUGH = "127.0.0.1:50052"


def summary(result: dict[str, Any], metric: str) -> Summary:
    return summarize([run["metrics"][metric] for run in result["runs"]])


def text(found: Summary) -> str:
    return f"{found.mean:,.0f} [{found.ci95_low:,.0f}, {found.ci95_high:,.0f}]"


def test_it_was_measured_by_independent_processes_of_the_role_s_own_build() -> None:
    for result in RESULTS.values():
        assert (result["status"], len(result["runs"]), result["flags"]) == ("ok", 5, [])
        assert result["build"] == "llama.cpp 11434 (archive-b0a2feb64c6f)"
        assert result["command"][0] == "/opt/llama.cpp/current/bin/llama-bench"


def test_rpc_costs_more_than_it_gives_even_without_a_link() -> None:
    for model in MODELS:
        found = offload_of(RESULTS[f"rpc-{model}-local"], RESULTS[f"rpc-{model}-remote"], None, THROUGH, 1.0)
        assert found["verdict"] == "not_worth_it"
        assert found["decode"]["ci95_high"] < 0.8


def test_the_page_shows_it() -> None:
    lines = [
        "| tokens per second | without RPC | all layers through RPC | GPU and RPC share them |",
        "|---|---|---|---|",
    ]
    for model, name in MODELS.items():
        for metric in ("decode_tokens_per_second", "prompt_tokens_per_second"):
            cells = [text(summary(RESULTS[f"rpc-{model}-{how}"], metric)) for how in ("local", "remote", "both")]
            lines.append(f"| {name}, {metric.split('_')[0]} | {' | '.join(cells)} |")
    table = "\n".join(lines)
    assert table in (ROOT / "docs" / "week4.md").read_text(), table
