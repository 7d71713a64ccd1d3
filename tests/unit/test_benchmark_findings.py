"""The module benchmark_findings as Ansible runs it: files, check mode, second runs, stale findings, bad claims."""

import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent.parent
CLAIMS_FILE = ROOT / "benchmarks" / "claims.yml"
FILES = ["history.jsonl", "week1_findings.json", "week1_mlflow.json", "week1_findings.csv"]
OLD, NEW = "a" * 16, "b" * 16


RUN = """
import runpy, sys, json; import ansible.module_utils as u; u.__path__.append(sys.argv[1])
from ansible.module_utils.testing import patch_module_args
with patch_module_args(json.load(sys.stdin)):
    runpy.run_path(sys.argv[2], run_name='__main__')
"""


def module_run(arguments: dict[str, Any], *, check: bool = False) -> dict[str, Any]:
    """The module in a process of its own, as Ansible runs it on the controller."""
    given = {**arguments, "_ansible_check_mode": check, "_ansible_diff": True}
    done = subprocess.run(
        [sys.executable, "-c", RUN, str(ROOT / "module_utils"), str(ROOT / "library" / "benchmark_findings.py")],
        input=json.dumps(given), capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.stdout, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def result(**changes: Any) -> dict[str, Any]:
    runs = [{"metrics": {"output_tokens_per_second": value}} for value in (81.2, 82.9, 81.7, 83.4, 82.3)]
    return {
        "schema": 1, "id": "vllm-c1", "status": "ok", "host": "gpu", "environment": "production", "runs": runs,
        "model": "qwen2.5-7b-awq", "build": "vllm 0.30.0", "hardware_fingerprint": OLD, "parameters": {},
        "hardware": {"cpu": "Ryzen", "gpus": ["NVIDIA GeForce RTX 5070 Ti"]}, "measured_at": "2026-11-23T15:00:09Z",
        **changes,
    }  # fmt: skip


@pytest.fixture
def wanted(tmp_path: Path) -> dict[str, Any]:
    return {
        "environment": "production",
        "claims_file": str(CLAIMS_FILE),
        "output_dir": str(tmp_path / "benchmarks"),
        "hosts": [{"host": "gpu", "groups": ["gpu_servers"], "hardware_fingerprint": OLD}],
        "results": [result()],
    }


def rows(folder: Path) -> dict[str, dict[str, str]]:
    with (folder / "week1_findings.csv").open(encoding="utf-8", newline="") as stream:
        return {row["claim_id"]: row for row in csv.DictReader(stream)}


def test_findings_are_written_kept_and_made_stale(tmp_path: Path, wanted: dict[str, Any]) -> None:
    folder = tmp_path / "benchmarks"
    predicted = module_run(wanted, check=True)
    assert (predicted["changed"], folder.exists()) == (True, False)
    assert predicted["counts"]["within_expected"] == 1
    assert "vllm-throughput" in predicted["diff"]["after"]
    assert len(predicted["findings"]) == len(yaml.safe_load(CLAIMS_FILE.read_text())["claims"])

    first = module_run(wanted)
    assert (first["changed"], [Path(path).name for path in first["changed_files"]]) == (True, FILES)
    assert sorted(path.name for path in folder.iterdir()) == sorted(FILES)
    assert rows(folder)["vllm-throughput"]["verdict"] == "within_expected"
    assert len((folder / "history.jsonl").read_text().splitlines()) == 1

    before = {path.name: (path.read_bytes(), path.stat().st_ino) for path in folder.iterdir()}
    # Neither the same again nor a run of other hosts' measurements touches a file.
    assert module_run(wanted)["changed"] is False
    assert module_run({**wanted, "results": []})["changed"] is False
    assert {path.name: (path.read_bytes(), path.stat().st_ino) for path in folder.iterdir()} == before

    stale = {"state": "stale", "output_dir": str(folder), "host": "gpu", "hardware_fingerprint": OLD,
             "changes": ["GPU replaced: A by B."]}  # fmt: skip
    predicted = module_run(stale, check=True)
    assert (predicted["changed"], predicted["stale"]) == (True, 4)
    assert rows(folder)["vllm-throughput"]["verdict"] == "within_expected"
    assert module_run(stale)["stale"] == 4
    row = rows(folder)["vllm-throughput"]
    assert (row["verdict"], row["measured_mean"]) == ("not_measured", "82.3")
    assert row["reason"].startswith("stale: measured on other hardware (fingerprint aaaaaaaaaaaa): GPU replaced")
    again = module_run(stale)
    assert (again["changed"], again["stale"]) == (False, 0)
    # Measured anew on the new card, the row has a verdict again and the history both runs.
    anew = {**wanted, "hosts": [{**wanted["hosts"][0], "hardware_fingerprint": NEW}],
            "results": [result(hardware_fingerprint=NEW, measured_at="2026-11-24T00:00:00Z")]}  # fmt: skip
    assert module_run(anew)["changed"] is True
    assert rows(folder)["vllm-throughput"]["verdict"] == "within_expected"
    assert len((folder / "history.jsonl").read_text().splitlines()) == 2


def test_findings_of_another_environment_are_kept_beside(tmp_path: Path, wanted: dict[str, Any]) -> None:
    folder = tmp_path / "benchmarks"
    measured = result(environment="lab", model="tiny-llama", measured_at="2026-11-24T00:00:00Z")
    lab = {**wanted, "environment": "lab", "results": [measured]}
    module_run(wanted)
    (folder / "week1_report.html").write_text("of production")
    production = {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "history.jsonl"}

    before = {path: path.read_bytes() for path in folder.iterdir()}
    predicted = module_run(lab, check=True)
    assert (predicted["changed"], len(predicted["moved"])) == (True, 4)
    assert "moves to" in predicted["diff"]["after"]
    assert {path: path.read_bytes() for path in folder.iterdir()} == before

    # The claims are looked at first, with no hosts, and nothing moves for that.
    assert module_run({**lab, "hosts": [], "results": []}, check=True)["changed"] is True
    assert module_run(lab)["changed"] is True
    assert {path.name: path.read_bytes() for path in (folder / "production").iterdir()} == production
    assert sorted(path.name for path in folder.iterdir()) == sorted([*FILES, "production"])
    assert rows(folder)["vllm-throughput"]["environment"] == "lab"
    assert module_run(lab)["changed"] is False

    # Back in production nothing is measured, and everything is as it was.
    again = {**wanted, "results": []}
    assert (module_run(again, check=True)["counts"]["within_expected"], (folder / "lab").exists()) == (1, False)
    back = module_run(again)
    assert (back["changed"], back["changed_files"]) == (True, [])
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.name in production} == production
    assert sorted(path.name for path in (folder / "lab").iterdir()) == sorted(set(FILES) - {"history.jsonl"})
    assert module_run(again)["changed"] is False
    assert len((folder / "history.jsonl").read_text().splitlines()) == 2
    assert "it names a folder" in module_run({**wanted, "environment": "../x"})["msg"]


def test_nothing_is_stale_where_nothing_was_found(tmp_path: Path) -> None:
    stale = {"state": "stale", "output_dir": str(tmp_path), "host": "gpu", "hardware_fingerprint": OLD}
    found = module_run(stale)
    assert (found["changed"], found["stale"]) == (False, 0)


def test_broken_files_are_told_and_lose_nothing(tmp_path: Path, wanted: dict[str, Any]) -> None:
    folder = tmp_path / "benchmarks"
    folder.mkdir()
    (folder / "history.jsonl").write_text('{"host": "gp\n')
    (folder / "week1_findings.json").write_text("{")
    found = module_run(wanted)
    assert found["changed"] is True
    assert len(found["warnings"]) == 2
    lines = (folder / "history.jsonl").read_text().splitlines()
    assert (len(lines), lines[0]) == (2, '{"host": "gp')


def test_bad_claims_end_in_one_sentence_each(tmp_path: Path, wanted: dict[str, Any]) -> None:
    claims = yaml.safe_load(CLAIMS_FILE.read_text())
    claims["claims"][0]["unit"] = "ms"
    claims["claims"][1]["colour"] = "red"
    claims["claims"][3]["documented"] = {"low": 40, "high": 30}
    path = tmp_path / "claims.yml"
    path.write_text(yaml.safe_dump(claims, sort_keys=False))
    extra = [{**claims["claims"][4]}]
    found = module_run({**wanted, "claims_file": str(path), "extra_claims": extra})
    assert found["failed"] is True
    assert len(found["problems"]) == 4
    assert found["msg"] == "\n".join(found["problems"])
    for sentence in (
        f"{path}: claim vllm-throughput: unit is 'ms'; allowed is 'tok/s', the unit of the metric output_tokens_per_s",
        f"{path}: claim vllm-ttft: colour is no key of a claim; allowed are baseline, better, ",
        f"{path}: claim llama-3.3-70b-hybrid: documented is {{'low': 40, 'high': 30}}: its low end is above its high",
        "claim usb4-rpc-latency: id is 'usb4-rpc-latency' for two claims; give each its own.",
    ):
        assert sentence in found["msg"]
    assert not (tmp_path / "benchmarks").exists()


def test_input_that_is_wrong_is_refused(tmp_path: Path, wanted: dict[str, Any]) -> None:
    twice = module_run({**wanted, "hosts": wanted["hosts"] * 2})
    assert twice["msg"] == "hosts names gpu twice; name each host once."
    assert "environment" in module_run({"output_dir": str(tmp_path), "claims_file": "x"})["msg"]
    derived = module_run({**wanted, "derived": [{"claim_id": "nope", "fit": {}}]})
    assert derived["msg"].startswith("derived: claim_id is 'nope'; allowed is the id of a claim: ")


def test_a_folder_that_can_t_be_written_is_named(tmp_path: Path, wanted: dict[str, Any]) -> None:
    """A file where the folder should be, which not even root writes to."""
    (tmp_path / "benchmarks").write_text("")
    assert "can't be" in module_run(wanted)["msg"]
