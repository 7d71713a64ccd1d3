"""Week 1 against what week 2 serves: measured, judged, interrupted, repeated, and with what goes wrong.

In the quick profile the first two measurements are made anew, and what the lab has not measured yet; in the full
profile all of them.
"""

import csv
import signal
import subprocess
import time
from typing import Any

import pytest
import testinfra
import yaml

from .conftest import INVENTORY, extra, run_playbook
from .suite import FULL, ROOT

RESULTS = "/home/ubuntu/ai-idp/benchmark/results"
FIRST, SECOND = "cpu-events", "memory-bandwidth"
FINDINGS = ROOT / "benchmarks" / "week1_findings.csv"


def rows() -> dict[str, dict[str, str]]:
    """The findings by claim."""
    with FINDINGS.open(encoding="utf-8", newline="") as stream:
        return {row["claim_id"]: row for row in csv.DictReader(stream)}


@pytest.fixture(scope="module")
def interrupted(gpu_server: testinfra.host.Host) -> str:
    """A first run that is interrupted when its first measurement is finished; the time of that measurement."""
    # Two are enough to interrupt one run between them and to see what the next one does.
    gone = RESULTS if FULL else f"{RESULTS}/{FIRST}.json {RESULTS}/{SECOND}.json"
    gpu_server.run_test(f"rm -rf {gone}")
    process = subprocess.Popen(
        ["ansible-playbook", "-i", str(INVENTORY), "playbooks/week1.yml"],
        cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    until = time.monotonic() + 300
    while not gpu_server.file(f"{RESULTS}/{FIRST}.json").exists:
        assert process.poll() is None, "the run ended by itself"
        assert time.monotonic() < until, "nothing was measured within five minutes"
        time.sleep(2)
    process.send_signal(signal.SIGINT)
    process.wait(120)
    return measured_at(gpu_server, FIRST)


def measured_at(host: testinfra.host.Host, measurement: str) -> str:
    """When a finished measurement was made."""
    return str(yaml.safe_load(host.file(f"{RESULTS}/{measurement}.json").content_string)["measured_at"])


def test_a_run_goes_on_where_it_was_interrupted(interrupted: str, gpu_server: testinfra.host.Host) -> None:
    started = time.monotonic()
    run = run_playbook("playbooks/week1.yml")
    print(f"week 1 took {time.monotonic() - started:.0f} s")
    assert run.code == 0, run.output
    assert measured_at(gpu_server, FIRST) == interrupted
    assert measured_at(gpu_server, SECOND) > interrupted


@pytest.mark.usefixtures("interrupted")
def test_every_claim_has_a_row_that_tells_the_lab_apart() -> None:
    claims = yaml.safe_load((ROOT / "benchmarks" / "claims.yml").read_text(encoding="utf-8"))["claims"]
    found = rows()
    assert set(found) == {claim["id"] for claim in claims}
    assert {row["environment"] for row in found.values()} == {"lab"}
    assert found["llama-3.3-70b-hybrid"]["verdict"] == "impossible"
    assert {row["verdict"] for row in found.values()} == {"impossible", "not_measured"}
    assert all(row["reason"] for row in found.values())
    vllm = found["vllm-throughput"]
    assert vllm["model"] == "tiny-llama"
    assert "in the lab" in vllm["reason"]
    assert int(vllm["n"]) >= 2
    assert float(vllm["ci95_low"]) <= float(vllm["measured_mean"]) <= float(vllm["ci95_high"])
    assert (ROOT / "benchmarks" / "week1_report.html").stat().st_size > 10_000


@pytest.mark.usefixtures("interrupted")
def test_what_can_not_be_measured_says_why_and_nothing_is_lost(endpoints: dict[str, Any]) -> None:
    """vLLM down, a wrong key for llama.cpp; what was finished before stays on the host."""
    # As the host itself asks them, past its gate.
    vllm, llama_cpp = (
        {key: value for key, value in {**row, **row["own"]}.items() if key not in ("own", "reached_from")}
        for row in (endpoints["vllm"], endpoints["llama.cpp"])
    )
    asked = [{**vllm, "url": "http://10.77.0.11:9"}, llama_cpp]
    wanted = extra(
        benchmark_endpoints=asked,
        benchmark_api_keys={endpoint["key"]: "wrong" for endpoint in asked},
        benchmark_only=["vllm-c1", "llama-cpp-server-c1"],
        benchmark_again=True,
    )
    run = run_playbook("playbooks/week1.yml", "--limit", "schlimers-server", *wanted)
    assert run.code == 0, run.output
    assert "http://10.77.0.11:9 does not answer" in rows()["vllm-throughput"]["reason"]
    assert "Unauthorized (the endpoint refuses the API key)" in run.output
    assert "wrong" not in rows()["throughput-improvement-7x"]["reason"]
    again = run_playbook("playbooks/week1.yml", "--limit", "schlimers-server")
    assert again.code == 0, again.output
    # The findings, which are the controller's, tell of the new measurement.
    assert again.changed_roles("schlimers-server") == set(), again.output
    assert int(rows()["vllm-throughput"]["n"]) >= 2


def test_a_claim_with_a_wrong_unit_is_refused_before_anything_is_measured() -> None:
    claim = {
        "id": "mine", "description": "It is fast", "source": "me", "documented": 5, "unit": "ms",
        "metric": "decode_tokens_per_second", "better": "higher", "group": "gpu_servers",
        "measurement": "llama-bench-cpu", "how": "by hand",
    }  # fmt: skip
    before = FINDINGS.read_text(encoding="utf-8") if FINDINGS.exists() else ""
    run = run_playbook("playbooks/week1.yml", *extra(ai_idp_extra_claims=[claim]))
    assert run.code != 0
    assert "mine" in run.output
    assert "tok/s" in run.output
    assert (FINDINGS.read_text(encoding="utf-8") if FINDINGS.exists() else "") == before
