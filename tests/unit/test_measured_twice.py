"""Two whole runs of the role benchmark on a real GPU: their intervals overlap, and the page says what they are."""

import json
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.ai_idp.sample_statistics import Summary, summarize

ROOT = Path(__file__).parent.parent.parent
TWICE = json.loads((ROOT / "tests" / "golden" / "h100" / "measured_twice.json").read_text())
PAIRS = [
    (first, second, metric)
    for first, second in zip(TWICE["first"], TWICE["second"], strict=True)
    for metric in ("prompt_tokens_per_second", "decode_tokens_per_second")
]


def summary(result: dict[str, Any], metric: str) -> Summary:
    return summarize([run["metrics"][metric] for run in result["runs"]])


def text(found: Summary) -> str:
    return f"{found.mean:,.0f} [{found.ci95_low:,.0f}, {found.ci95_high:,.0f}]"


@pytest.mark.parametrize(
    ("first", "second", "metric"), PAIRS, ids=[f"{first['id']} {metric}" for first, _, metric in PAIRS]
)
def test_the_intervals_of_two_runs_overlap(first: dict[str, Any], second: dict[str, Any], metric: str) -> None:
    assert first["key"] == second["key"]
    assert (first["status"], first["rounds"], first["flags"]) == ("ok", 5, [])
    one, two = summary(first, metric).interval, summary(second, metric).interval
    assert one
    assert two
    assert max(one.low, two.low) <= min(one.high, two.high)


def test_the_page_shows_them() -> None:
    lines = ["| measured | first run | second run |", "|---|---|---|"]
    for first, second, metric in PAIRS:
        model = first["model"].split("-random")[0]
        depth = first["parameters"]["depth"]
        what = f"{model}, {metric.split('_')[0]}" + (f" after {depth:,} tokens" if depth else "")
        lines.append(f"| {what} | {text(summary(first, metric))} | {text(summary(second, metric))} |")
    table = "\n".join(lines)
    assert table in (ROOT / "docs" / "week1.md").read_text(), table
