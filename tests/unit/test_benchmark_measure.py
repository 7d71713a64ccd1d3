"""benchmark_measure: runs, faults and what is kept, with small scripts in place of the tools; and the role's plan."""

import contextlib
import errno
import json
import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import benchmark_measure as module
import pytest
from ansible.errors import AnsibleFilterError
from ansible.module_utils.ai_idp import benchmark_measure as engine
from ansible.module_utils.ai_idp.model_manifest import MANIFEST_NAME
from ansible.module_utils.ai_idp.rpc_latency import door_properties
from ansible.module_utils.testing import patch_module_args
from benchmark import (
    PROFILES,
    TOOLS,
    benchmark_asked,
    benchmark_door,
    benchmark_packages,
    benchmark_plan,
    benchmark_plan_text,
    benchmark_problems,
    benchmark_rounds,
)

ROOT = Path(__file__).resolve().parents[2]
FOLDER = tempfile.TemporaryDirectory
PROFILE = {
    "fingerprint": "1f0c3a5e7b9d2468",
    "cpu": {"model": "AMD Ryzen 9 9900X"},
    "gpus": [],
    "memory": {"total_bytes": 1 << 37},
}
GPU_PROFILE = {**PROFILE, "gpus": [{"name": "NVIDIA H100 80GB HBM3"}]}
KEYS = {
    *("schema", "id", "key", "status", "reason", "host", "environment", "tool", "method", "command", "parameters"),
    *("build", "model", "model_hash", "hardware_fingerprint", "hardware", "warmup_runs", "runs", "flags"),
    *("measured_at", "devices", "subject", "rounds"),
}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing waits for load, and no GPU of this machine is asked."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    monkeypatch.setattr(
        engine, "cpu_conditions", lambda: {"load_before": 0.1, "cpu_count": 24, "cpu_busy_before": 0.02}
    )
    monkeypatch.setattr(engine, "GpuWatch", lambda program: _NoGpu())
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


class _NoGpu:
    def now(self) -> list[dict[str, Any]]:
        return []

    def start(self) -> None:
        return

    def stop(self) -> list[dict[str, Any]]:
        return []


class Lab:
    """A folder with a fake llama-bench that counts its calls, a model, and results."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self.capsys = capsys
        self.calls = folder / "calls"
        self.model = folder / "model.gguf"
        self.model.write_bytes(b"GGUF and weights")
        self.results = folder / "benchmark" / "results"
        self.program = folder / "llama-bench"
        self.write()

    def write(self, body: str = "", version: str = "11434", backends: str = "CPU") -> None:
        """``body`` runs before the fake answers."""
        answer = [
            {
                **{"n_prompt": prompt, "n_gen": 64 - prompt, "samples_ns": [1000000], "build_number": version},
                **{"build_commit": "abc", "cpu_info": "AMD", "backends": backends, "n_gpu_layers": 0},
            }
            for prompt in (64, 0)
        ]
        self.program.write_text(
            f"#!{sys.executable}\nimport os, signal, subprocess, sys, time\n"
            f"if '--version' in sys.argv:\n    print('version: 0.7.0 (build {version}, commit abc)')\n    sys.exit()\n"
            f"with open({str(self.calls)!r}, 'a') as stream:\n    stream.write('call\\n')\n"
            f"number = len(open({str(self.calls)!r}).readlines())\n{textwrap.dedent(body)}\n"
            f"print({json.dumps(json.dumps(answer))})\n"
        )
        self.program.chmod(0o755)

    @property
    def count(self) -> int:
        return len(self.calls.read_text().splitlines()) if self.calls.exists() else 0

    def arguments(self, **more: Any) -> dict[str, Any]:
        return {
            "id": "llama-bench-cpu",
            "tool": "llama_bench",
            "parameters": {"command": [str(self.program)], "model_path": str(self.model), "gpu_layers": 0},
            "runs": 2,
            "timeout": 5,
            "model": "a-model",
            "model_path": str(self.model),
            "results_dir": str(self.results),
            "host": "schlimers-server",
            "environment": "lab",
            "hardware_profile": PROFILE,
            **more,
        }

    def run(self, check: bool = False, **more: Any) -> dict[str, Any]:
        with patch_module_args({**self.arguments(**more), "_ansible_check_mode": check}), pytest.raises(SystemExit):
            module.main()
        answer: dict[str, Any] = json.loads(self.capsys.readouterr().out)
        return answer


@pytest.fixture
def lab(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Lab:
    return Lab(tmp_path, capsys)


# --- what is measured and kept --------------------------------------------------------------------------


def test_rounds_add_to_what_is_started_and_warm_up_once(lab: Lab) -> None:
    seen = []
    for number in (1, 2, 3):
        answer = lab.run(runs=5, rounds=3, round=number)
        assert answer["changed"] is True
        seen.append((answer["measurement"]["status"], len(answer["measurement"]["runs"]), lab.count))
        finished = (lab.results / "llama-bench-cpu.json").exists()
        assert finished is (number == 3)
    # ceil(5/3), ceil(10/3) and 5 runs, after one for warming up.
    assert seen == [("started", 2, 3), ("started", 4, 5), ("ok", 5, 6)]
    assert "in 3 rounds with the other measurements" in answer["measurement"]["method"]
    assert list(lab.results.glob("*.started")) == []
    assert lab.run(runs=5, rounds=3, round=1)["kept"] is True
    # What was done at one go does not tell how the machine changes; what was done in rounds answers both.
    assert lab.run(runs=5)["kept"] is True


def look(lab: Lab, *items: dict[str, Any], check: bool = False, **more: Any) -> dict[str, Any]:
    """Ask for several measurements at once; each is the usual one with other settings."""
    usual = lab.arguments()
    common = {name: usual.pop(name) for name in ("results_dir", "host", "environment", "hardware_profile")}
    given = {**common, "measurements": [{**usual, **item} for item in items], **more}
    with patch_module_args({**given, "_ansible_check_mode": check}), pytest.raises(SystemExit):
        module.main()
    answer: dict[str, Any] = json.loads(lab.capsys.readouterr().out)
    return answer


def test_several_are_looked_at_in_one_call_and_none_is_measured(lab: Lab) -> None:
    finished = lab.run()["measurement"]
    calls = lab.count
    items = [
        {},
        {"id": "another"},
        {"id": "on-gpu", "requires_gpu": True},
        {"id": "gone", "parameters": {"command": ["/no/such/program"], "model_path": "x"}},
    ]
    answer = look(lab, *items)
    assert (answer["pending"], answer["changed"]) == (["another"], False)
    assert answer["measurements"][0] == finished
    assert [each["status"] for each in answer["measurements"]] == ["ok", "planned", "skipped", "skipped"]
    assert answer["measurements"][2]["reason"] == "this host has no GPU that answers"
    # In check mode the program may be one that is still to be installed.
    checked = look(lab, *items, check=True)
    assert (checked["pending"], checked["changed"]) == (["another", "gone"], True)
    assert look(lab, {}, again=True)["pending"] == ["llama-bench-cpu"]
    assert look(lab, {}, rounds=2)["pending"] == ["llama-bench-cpu"]
    assert lab.count == calls


def test_what_is_started_is_pending_and_keys_are_not_told(lab: Lab) -> None:
    lab.run(rounds=2, round=1)
    answer = look(lab, {"secrets": {"OPENAI_API_KEY": "s3cret-key"}}, rounds=2)
    assert answer["pending"] == ["llama-bench-cpu"]
    assert "s3cret-key" not in json.dumps(answer)
    assert "interval needs at least 2" in look(lab, {"runs": 1})["msg"]
    assert not look(lab)["pending"]


def test_runs_of_one_moment_do_not_answer_for_rounds(lab: Lab) -> None:
    lab.run()
    assert lab.run(rounds=2, round=1)["measurement"]["status"] == "started"


def test_a_round_that_fails_ends_what_was_started_and_keeps_what_was_finished(lab: Lab) -> None:
    lab.run(rounds=2, round=1)
    lab.run(rounds=2, round=2)
    lab.run(rounds=2, round=1, again=True)
    lab.write("sys.exit('out of memory')")
    answer = lab.run(rounds=2, round=2)
    assert (answer["measurement"]["status"], answer["changed"]) == ("failed", False)
    assert list(lab.results.glob("*.started")) == []
    assert json.loads((lab.results / "llama-bench-cpu.json").read_text())["status"] == "ok"


def test_a_round_of_another_day_warms_up_again(lab: Lab) -> None:
    lab.run(rounds=2, round=1)
    started = lab.results / "llama-bench-cpu.json.started"
    os.utime(started, (time.time() - 86400, time.time() - 86400))
    lab.run(rounds=2, round=2)
    assert lab.count == 4


def test_a_round_that_is_none_is_refused(lab: Lab) -> None:
    assert "round is 3; it is between 1 and rounds, which is 2." in lab.run(rounds=2, round=3)["msg"]


def test_the_full_profile_lets_measurements_take_turns() -> None:
    plan = [{"id": "a", "runs": 5}, {"id": "b", "runs": 3}]
    assert benchmark_rounds(plan, "full") == 5
    assert benchmark_rounds(plan, "quick") == 1
    assert benchmark_rounds([], "full") == 1


def test_a_result_is_that_of_the_contract(lab: Lab) -> None:
    answer = lab.run()
    result = answer["measurement"]
    assert answer["changed"] is True
    assert set(result) == KEYS
    assert (result["schema"], result["status"], result["reason"], result["flags"]) == (1, "ok", None, [])
    assert (result["host"], result["environment"], result["model"]) == ("schlimers-server", "lab", "a-model")
    assert result["hardware"] == {"cpu": "AMD Ryzen 9 9900X", "gpus": [], "memory_bytes": 1 << 37}
    assert result["hardware_fingerprint"] == PROFILE["fingerprint"]
    assert result["build"] == "llama.cpp 11434 (abc)"
    assert result["model_hash"].startswith("sha256:")
    assert [run["metrics"]["decode_tokens_per_second"] for run in result["runs"]] == [64000.0, 64000.0]
    assert all(run["conditions"]["cpu_count"] == 24 for run in result["runs"])
    assert "2 processes after 1 for warming up" in result["method"]
    assert json.loads((lab.results / "llama-bench-cpu.json").read_text()) == result
    # The one for warming up ran and does not count.
    assert lab.count == 3


def test_a_finished_measurement_is_kept(lab: Lab) -> None:
    first = lab.run()["measurement"]
    again = lab.run()
    assert (again["changed"], again["kept"], again["measurement"]) == (False, True, first)
    assert lab.count == 3
    assert lab.run(again=True)["changed"] is True
    assert lab.count == 6


@pytest.mark.parametrize(
    "change",
    [
        lambda lab: lab.write(version="11435"),
        lambda lab: lab.model.write_bytes(b"GGUF and other weights") and None,
        lambda lab: {"hardware_profile": {**PROFILE, "fingerprint": "another"}},
        lambda lab: {"parameters": {**lab.arguments()["parameters"], "depth": 2048}},
    ],
    ids=["build", "model", "hardware", "parameters"],
)
def test_what_has_changed_is_measured_anew(lab: Lab, change: Callable[[Lab], dict[str, Any] | None]) -> None:
    first = lab.run()["measurement"]
    answer = lab.run(**(change(lab) or {}))
    assert answer["changed"] is True
    assert answer["measurement"]["key"] != first["key"]


def test_more_of_the_same_is_kept_and_less_is_not(lab: Lab) -> None:
    def asked(**more: Any) -> dict[str, Any]:
        return lab.run(**{"runs": 3, "parameters": {**lab.arguments()["parameters"], "num_prompts": 16}, **more})

    first = asked()["measurement"]
    less = {**lab.arguments()["parameters"], "num_prompts": 8}
    for kept in (asked(), asked(parameters=less), asked(runs=2), asked(warmup_runs=0)):
        assert (kept["kept"], kept["measurement"]) == (True, first)
    for more in ({"runs": 4}, {"warmup_runs": 2}, {"parameters": {**less, "num_prompts": 17}}):
        assert asked(**more)["changed"] is True
    # One whose amount is not known is no substitute, nor is another device.
    assert asked(parameters=lab.arguments()["parameters"])["changed"] is True
    assert lab.run(runs=3, parameters={**lab.arguments()["parameters"], "device": "gpu"})["changed"] is True


def test_check_mode_hashes_and_probes_nothing_in_vain(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    hashed: list[str] = []

    def remember(path: str, *_: Any) -> str:
        hashed.append(path)
        return "sha256:0"

    monkeypatch.setattr(engine, "model_hash", remember)
    assert lab.run(check=True)["changed"] is True
    assert hashed == []
    lab.run()
    assert lab.run(check=True)["changed"] is False
    assert len(hashed) == 2
    monkeypatch.setattr(engine, "reads_direct", lambda directory: pytest.fail("a file was written"))
    parameters = {"command": [str(lab.program)], "directory": str(lab.folder), "size_mib": 1}
    answer = lab.run(check=True, id="disk", tool="fio_read", parameters=parameters, model_path=None)
    assert answer["measurement"]["status"] == "planned"


def test_check_mode_sends_no_load_and_writes_nothing(lab: Lab) -> None:
    answer = lab.run(check=True, expected_seconds=40)
    assert (answer["changed"], answer["measurement"]["status"]) == (True, "planned")
    assert answer["plan"] == "llama-bench-cpu: 2 runs after 1 for warming up, about 40 s"
    assert lab.count == 0
    assert not lab.results.parent.exists()
    lab.run()
    after = lab.run(check=True)
    assert (after["changed"], after["expected_seconds"]) == (False, 0)


def test_an_interrupted_run_keeps_what_was_finished(lab: Lab) -> None:
    finished = lab.run(id="first")["measurement"]
    started, ended = lab.folder / "started", lab.folder / "ended"
    lab.write(f"open({str(started)!r}, 'w').close(); time.sleep(30); open({str(ended)!r}, 'w').close()")
    code = (
        f"import sys; sys.path[:0] = [{str(ROOT / 'library')!r}]\n"
        f"import ansible.module_utils\nansible.module_utils.__path__.append({str(ROOT / 'module_utils')!r})\n"
        "from ansible.module_utils.testing import patch_module_args\nimport benchmark_measure\n"
        f"with patch_module_args({lab.arguments(id='second', timeout=60)!r}):\n    benchmark_measure.main()\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.DEVNULL)
    until = time.monotonic() + 20
    while not started.exists() and time.monotonic() < until:
        time.sleep(0.02)
    process.terminate()
    assert process.wait(10) == 128 + signal.SIGTERM
    # The load has ended with it, and what was not finished is measured when it is run again.
    assert not _runs(str(lab.program))
    lab.write()
    assert lab.run(id="first")["measurement"] == finished
    assert lab.run(id="second")["changed"] is True


def _runs(program: str) -> bool:
    """Whether it still does; what was killed takes a moment to be gone."""
    until = time.monotonic() + 2
    while time.monotonic() < until:
        if not any(program in command for command in _commands()):
            return False
        time.sleep(0.02)
    return True


def _commands() -> Iterator[str]:
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            yield path.read_text()


def test_two_at_a_time_would_measure_each_other(lab: Lab) -> None:
    lab.run()
    said = rf"runs on this host already: vllm-c1 \(process {os.getpid()}\); run this again"
    with (
        engine.only_one(str(lab.results), "vllm-c1"),
        pytest.raises(engine.MeasurementError, match=said),
        engine.only_one(str(lab.results), "vllm-c4", patience=0.0),
    ):
        pass
    with engine.only_one(str(lab.results), "vllm-c4"):
        assert (lab.results / ".lock").read_text() == f"vllm-c4 (process {os.getpid()})\n"


# --- what goes wrong ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("print('no such model', file=sys.stderr); sys.exit(1)", "llama-bench ended with code 1: no such model"),
        ("print('Segmentation fault'); sys.exit(0)", "llama-bench printed no JSON but: Segmentation fault"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "was ended by SIGKILL; the kernel does that when memory runs out"),
        ("sys.exit(0)", "llama-bench printed no JSON but: nothing"),
    ],
)
def test_a_fault_is_a_result_with_its_reason(lab: Lab, body: str, reason: str) -> None:
    before = lab.run()["measurement"]
    # Only the second process that counts fails.
    lab.write(f"if number == 6:\n    {body}")
    answer = lab.run(again=True)
    assert answer["changed"] is False
    assert answer["measurement"]["status"] == "failed"
    assert answer["measurement"]["reason"].startswith("run 2 of 2: ")
    assert reason in answer["measurement"]["reason"]
    # What was finished before is still there.
    assert json.loads((lab.results / "llama-bench-cpu.json").read_text()) == before


def test_a_hang_ends_with_everything_that_it_started(lab: Lab) -> None:
    lab.write("subprocess.Popen(['sleep', '41.25']); time.sleep(41)")
    answer = lab.run(timeout=0.5)
    assert answer["measurement"]["status"] == "failed"
    assert "the run for warming up: llama-bench did not end within 0.5 s" in answer["measurement"]["reason"]
    assert not _runs("41.25")
    assert not list(lab.results.glob("*.json"))


def test_a_container_that_hangs_is_ended_with_its_command(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    docker, killed = lab.folder / "docker", lab.folder / "killed"
    # `docker run` writes the id of the container, which lives on without it.
    docker.write_text(
        f'#!/bin/sh\n[ "$1" = kill ] && {{ echo "$2" > {killed}; exit; }}\n'
        'for word; do case "$word" in --version) exit;; --cidfile=*) echo c0ffee > "${word#--cidfile=}";; esac; done\n'
        "exec sleep 42.25\n"
    )
    docker.chmod(0o755)
    monkeypatch.setenv("PATH", f"{lab.folder}:/usr/bin:/bin")
    lab.program.unlink()
    answer = lab.run(timeout=0.5, parameters={"model_path": str(lab.model), "image": "i:1"})
    assert "did not end within 0.5 s" in answer["measurement"]["reason"]
    assert killed.read_text() == "c0ffee\n"
    assert not _runs("42.25")


def test_a_missing_program_is_skipped(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(lab.folder / "nothing"))
    answer = lab.run(tool="fio_read", parameters={"command": ["fio-x"], "directory": str(lab.folder), "size_mib": 1})
    assert (answer["changed"], answer["measurement"]["status"]) == (False, "skipped")
    assert answer["measurement"]["reason"] == "fio-x is not in the path: install the package fio"
    without = lab.run(parameters={"model_path": str(lab.model), "image": "i:1"})
    assert "Docker" in without["measurement"]["reason"]


def test_a_missing_gpu_or_peer_is_skipped(lab: Lab) -> None:
    for check in (True, False):
        answer = lab.run(check=check, requires_gpu=True)
        assert answer["measurement"]["reason"] == "this host has no GPU that answers"
        assert answer["changed"] is False
    assert lab.run(unavailable="xps15 is off")["measurement"]["reason"] == "xps15 is off"
    # A build for the CPU alone would measure the CPU and say GPU.
    answer = lab.run(requires_gpu=True, hardware_profile=GPU_PROFILE)
    assert "without a backend for GPUs" in answer["measurement"]["reason"]
    assert lab.count == 1


def test_a_server_s_build_is_that_of_the_result(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "probe_endpoint", lambda *_: "triton 2.60.0")
    parameters = {**lab.arguments()["parameters"], "url": "http://h"}
    assert lab.run(parameters=parameters)["measurement"]["build"] == "triton 2.60.0"
    assert lab.run(parameters=parameters, build="mine", again=True)["measurement"]["build"] == "mine"


def no_space(*_: Any, **__: Any) -> Any:
    raise OSError(errno.ENOSPC, "No space left on device", "/some/where")


def test_a_folder_that_can_not_be_written_to_is_a_result(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    # A file where the folder should be, which not even root writes to.
    lab.results.parent.write_text("")
    answer = lab.run()
    assert (answer["changed"], answer["measurement"]["status"]) == (False, "failed")
    assert answer["measurement"]["reason"] == f"results can't be kept in {lab.results}: Not a directory"
    # The same for the folder of the hashes: without them only time is lost.
    assert answer["measurement"]["model_hash"]
    lab.results.parent.unlink()
    assert lab.count == 0
    monkeypatch.setattr(engine, "write_json", no_space)
    answer = lab.run()
    assert (answer["changed"], answer["measurement"]["status"], answer["measurement"]["measured_at"]) == (
        False, "failed", None,
    )  # fmt: skip
    assert answer["measurement"]["reason"].endswith("/some/where: No space left on device")


def test_a_disk_that_can_not_be_written_to_is_skipped(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    parameters = {"command": [str(lab.program)], "directory": str(lab.folder), "size_mib": 1}
    said = f"no file to measure with can be put into {lab.folder}: No space left on device"

    def full_there(**where: Any) -> Any:
        return no_space() if where.get("dir") else FOLDER(**where)

    for name in ("mkstemp", "TemporaryDirectory"):
        with monkeypatch.context() as patch:
            if name == "TemporaryDirectory":
                patch.setattr(engine, "probe_build", lambda *_: None)
                patch.setattr(tempfile, name, full_there)
            else:
                patch.setattr(tempfile, name, no_space)
            answer = lab.run(tool="fio_read", parameters=parameters, model_path=None)
            assert (answer["measurement"]["status"], answer["measurement"]["reason"]) == ("skipped", said)
    # Where not even a folder for temporary files is left.
    with monkeypatch.context() as patch:
        patch.setattr(tempfile, "TemporaryDirectory", no_space)
        answer = lab.run()
    assert answer["measurement"]["status"] == "failed"
    assert answer["measurement"]["reason"] == "it can't be prepared: /some/where: No space left on device"


def test_an_endpoint_that_is_down_fails_before_load_is_sent(lab: Lab) -> None:
    parameters = {"command": [str(lab.program)], "url": "http://127.0.0.1:9", "model": "m", "tokenizer": "/t"}
    answer = lab.run(tool="vllm_bench_serve", parameters=parameters)
    assert answer["measurement"]["status"] == "failed"
    assert answer["measurement"]["reason"].startswith("http://127.0.0.1:9 does not answer")
    assert lab.count == 0


def test_what_is_out_of_sight_keeps_its_result(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Week 1 runs before the weeks that repair an engine or a model; its findings would change there and back."""
    url, down = "http://127.0.0.1:9", engine.probe_endpoint
    options: dict[str, Any] = {"parameters": {**lab.arguments()["parameters"], "url": url}}
    entry = {"path": lab.model.name, "size_bytes": lab.model.stat().st_size, "mtime_ns": lab.model.stat().st_mtime_ns}
    (lab.folder / MANIFEST_NAME).write_text(json.dumps({"files": [entry]}))
    monkeypatch.setattr(engine, "probe_endpoint", lambda *_: "triton 2.60.0")
    first = lab.run(**options)["measurement"]
    assert first["status"] == "ok"

    def kept(**more: Any) -> tuple[str, list[str]]:
        answers = [lab.run(check=check, **{**options, **more})["measurement"] for check in (True, False)]
        return answers[1]["status"], [answer["measured_at"] for answer in answers]

    same = ("ok", [first["measured_at"]] * 2)
    monkeypatch.setattr(engine, "probe_endpoint", down)
    assert kept() == same
    assert kept(parameters={**options["parameters"], "gpu_layers": 1})[0] == "failed"
    assert kept(again=True)[0] == "failed"
    assert kept(runs=3)[0] == "failed"
    assert kept(hardware_profile={**PROFILE, "fingerprint": "0" * 16})[0] == "failed"
    assert kept(build="another")[0] == "failed"
    monkeypatch.setattr(engine, "probe_endpoint", lambda *_: "triton 2.60.0")
    lab.model.write_bytes(b"GGUF and other weights")
    assert kept() == same
    lab.model.unlink()
    assert kept() == same
    lab.program.unlink()
    assert kept() == same


def test_a_damaged_model_is_not_measured(lab: Lab) -> None:
    entry = {"path": lab.model.name, "size_bytes": 1, "mtime_ns": lab.model.stat().st_mtime_ns}
    (lab.folder / MANIFEST_NAME).write_text(json.dumps({"files": [entry]}))
    answer = lab.run()["measurement"]
    assert (answer["status"], lab.count) == ("skipped", 0)
    assert answer["reason"] == f"{lab.model} is not as it was downloaded: week 2 makes it anew"


def test_keys_are_in_the_environment_alone(lab: Lab) -> None:
    lab.write("print('key', os.environ['OPENAI_API_KEY'], 'is wrong', file=sys.stderr); sys.exit(1)")
    answer = lab.run(secrets={"OPENAI_API_KEY": "s3cret-key"})
    assert "is wrong" in answer["measurement"]["reason"]
    assert "s3cret" not in json.dumps(answer)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"runs": 1}, "runs is 1; an interval needs at least 2"),
        ({"id": "../x"}, "it names a file"),
        ({"parameters": {}}, "lack model_path, which llama_bench needs"),
        ({"timeout": 0}, "timeout is 0"),
    ],
)
def test_bad_settings_are_refused(lab: Lab, more: dict[str, Any], said: str) -> None:
    answer = lab.run(**more)
    assert answer["failed"] is True
    assert said in answer["msg"]


# --- the disk -------------------------------------------------------------------------------------------


def test_the_file_on_the_measured_disk_goes_also_when_it_fails(lab: Lab) -> None:
    disk = lab.folder / "models"
    leftover = disk / ".ai-idp-benchmark-old"
    leftover.mkdir(parents=True)
    (disk / "weights").write_text("stay")
    lab.write("open(sys.argv[2].partition('=')[2], 'w').close(); sys.exit(1)")
    parameters = {"command": [str(lab.program)], "directory": str(disk), "size_mib": 1}
    answer = lab.run(tool="fio_read", parameters=parameters, model_path=None)
    assert answer["measurement"]["status"] == "failed"
    assert [path.name for path in disk.iterdir()] == ["weights"]
    assert str(disk) not in " ".join(answer["measurement"]["command"])


def test_a_disk_is_never_filled(lab: Lab) -> None:
    parameters = {"command": [str(lab.program)], "directory": str(lab.folder), "size_mib": 1 << 40}
    answer = lab.run(tool="fio_read", parameters=parameters, model_path=None)
    assert answer["measurement"]["status"] == "skipped"
    assert "would leave too little" in answer["measurement"]["reason"]


# --- conditions -----------------------------------------------------------------------------------------

SAMPLES = """\
0, 3, 1980, 2619, 120.50, 41, 0x0000000000000001
0, 99, 1410, 2619, 701.25, 63, 0x0000000000000004
0, 98, 1395, 2619, 699.00, 64, 0x0000000000000024
1, [N/A], [N/A], [N/A], [N/A], 30, [N/A]
0, 98, 13
"""


def test_samples_of_a_gpu_become_one_row() -> None:
    rows = engine.parse_gpu_samples(SAMPLES)
    assert rows[0] == {
        "index": 0,
        "utilization_percent": 99.0,
        "clock_sm_mhz": 1410.0,
        "clock_memory_mhz": 2619.0,
        "power_draw_watts": 701.25,
        "temperature_celsius": 64.0,
        "throttle_reasons": ["sw_power_cap", "sw_thermal_slowdown"],
    }
    assert rows[1]["clock_sm_mhz"] is None
    assert rows[1]["throttle_reasons"] == []


def test_the_board_tells_its_temperature_and_power(tmp_path: Path) -> None:
    """Constructed as the kernel's documentation of these files has it, not captured."""
    sensors = {
        "thermal/thermal_zone0/temp": "51250",
        "thermal/thermal_zone1/temp": "-256000",
        "hwmon/hwmon0/name": "k10temp",
        "hwmon/hwmon0/temp1_input": "63000",
        "hwmon/hwmon1/name": "ina3221",
        "hwmon/hwmon1/in1_label": "VDD_IN",
        "hwmon/hwmon1/in1_input": "5000",
        "hwmon/hwmon1/curr1_input": "2400",
        "hwmon/hwmon1/in2_label": "VDD_SOC",
        "hwmon/hwmon1/in2_input": "900",
        "hwmon/hwmon1/curr2_input": "1000",
    }
    for name, text in sensors.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text + "\n")
    assert engine.board_now(str(tmp_path)) == {"temperature_celsius": 63.0, "power_draw_watts": 12.0}
    assert engine.board_now(str(tmp_path / "none")) == {}


def test_the_highest_of_a_run_is_kept() -> None:
    readings = iter([{"temperature_celsius": value} for value in (40.0, 61.0, 90.0, 55.0)])
    last: dict[str, float] = {}
    watch = engine.BoardWatch(lambda: next(readings, last), seconds=0.01)
    watch.start()
    time.sleep(0.2)
    assert watch.stop() == {"temperature_celsius": 90.0}


def test_busy_and_throttled_runs_are_named() -> None:
    conditions = {"cpu_busy_before": 0.6, "cpu_count": 24, "gpus": engine.parse_gpu_samples(SAMPLES)}
    before = [{"index": 0, "utilization_percent": 35.0}, {"index": 1, "utilization_percent": 10.0}]
    assert engine.flags_of(2, conditions, before) == [
        "busy: load 14.4 on 24 CPUs before run 2",
        "busy: GPU 0 was 35 % in use before run 2",
        "throttled: sw_power_cap, sw_thermal_slowdown on GPU 0 during run 2",
    ]
    assert engine.flags_of(2, {"cpu_busy_before": 0.5, "cpu_count": 24, "cpu_throttle_events": 0}, []) == []
    assert engine.flags_of(1, {"cpu_throttle_events": 3}, []) == ["throttled: the CPU became too hot during run 1"]


def test_a_flag_reaches_the_result(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "cpu_conditions", lambda: {"cpu_busy_before": 1.0, "cpu_count": 2})
    result = lab.run()["measurement"]
    assert result["status"] == "ok"
    assert result["flags"] == [f"busy: load 2.0 on 2 CPUs before run {number}" for number in (1, 2)]


def test_cpu_use_is_told_by_ticks() -> None:
    before = engine.cpu_times("cpu  100 0 50 800 50 0 0 0 0 0\ncpu0 1 2 3\n")
    after = engine.cpu_times("cpu  160 0 70 810 60 0 0 0 0 0\n")
    assert (before, after) == ((150, 1000), (230, 1100))
    assert engine.cpu_share(before, after) == 0.8
    assert engine.cpu_share(before, before) is None
    assert engine.cpu_times(None) is None


def test_one_nvidia_smi_watches_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    program = tmp_path / "nvidia-smi"
    # Of a driver that has the older name of the last column.
    program.write_text(
        "#!/bin/sh\ncase \"$1\" in *clocks_event*) echo 'not a valid field'; exit 2;; esac\n"
        "echo '0, 5, 1980, 2619, 70.00, 35, 0x0000000000000001'\n"
        "case \"$*\" in *loop-ms*) echo '0, 99, 1980, 2619, 700.00, 60, 0x0000000000000008'; exec sleep 30;; esac\n"
    )
    program.chmod(0o755)
    watch = engine.GpuWatch(str(program))
    assert watch.now()[0]["utilization_percent"] == 5.0
    watch.start()
    time.sleep(0.2)
    row = watch.stop()[0]
    assert (row["power_draw_watts"], row["throttle_reasons"]) == (700.0, ["hw_slowdown"])
    assert engine.GpuWatch(None).now() == []


# --- models ---------------------------------------------------------------------------------------------


def test_hashes_of_unchanged_files_are_remembered(tmp_path: Path) -> None:
    folder, cache = tmp_path / "model", str(tmp_path / "hashes.json")
    (folder / ".partial").mkdir(parents=True)
    (folder / "a.safetensors").write_bytes(b"a")
    (folder / ".partial" / "b").write_bytes(b"b")
    first = engine.model_hash(str(folder), cache)
    known = json.loads(Path(cache).read_text())
    assert list(known) == [str(folder / "a.safetensors")]
    status = (folder / "a.safetensors").stat()
    known[str(folder / "a.safetensors")]["sha256"] = "0" * 64
    Path(cache).write_text(json.dumps(known))
    # Taken from there, since nothing about the file has changed.
    assert engine.model_hash(str(folder), cache) != first
    os.utime(folder / "a.safetensors", ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    assert engine.model_hash(str(folder), cache) == first
    with pytest.raises(engine.CannotMeasure, match="can't be read"):
        engine.model_hash(str(tmp_path / "nothing"), cache)


# --- the role's plan ------------------------------------------------------------------------------------

ENDPOINTS = json.loads(
    """[
    {"name": "vllm", "host": "schlimers-server", "kind": "openai", "url": "http://h:8000", "model": "tiny-llama",
     "key": "vllm_key"},
    {"name": "llama.cpp", "host": "schlimers-server", "kind": "openai", "url": "http://h:8080", "model": "tiny-gguf"},
    {"name": "triton", "host": "schlimers-server", "kind": "triton", "url": "http://h:8010", "model": null,
     "models": ["text_embedder"]},
    {"name": "dcgm-exporter", "host": "schlimers-server", "kind": "metrics", "url": "http://h:9400", "model": null},
    {"name": "vllm", "host": "another", "kind": "openai", "url": "http://a:8000", "model": "m"}
]"""
)


def given(**more: Any) -> dict[str, Any]:
    whole: dict[str, Any] = {
        **{"host": "schlimers-server", "profile": "quick", "runs": 5, "warmup_runs": 1, "timeout": 300, "only": []},
        **{"measurements": [], "extra_measurements": [], "endpoints": ENDPOINTS, "client_command": []},
        **{"client_image": "vllm:1", "models_dir": "/models", "tokenizer": "", "llama_bench_command": []},
        **{"llama_bench_image": "full:1", "llama_bench_docker_options": ["--device=gpu"], "depths": []},
        "llama_models": [
            {"name": "llama-8b", "path": "/models/a.gguf"},
            {"name": "Llama 1B", "path": "/models/b.gguf"},
        ],
        "peers": [{"name": "xps15", "address": "10.77.0.12"}, {"name": "jetson", "address": "10.77.0.13"}],
        "ports": {"iperf3": 5201, "sockperf": 11111},
    }
    return {**whole, **more}


def test_the_plan_has_what_claims_ask_for() -> None:
    plan = {item["id"]: item for item in benchmark_plan(given())}
    assert list(plan) == [
        *("cpu-events", "memory-bandwidth", "model-store-read", "llama-bench-cpu", "llama-bench-gpu"),
        *("llama-bench-cpu-llama-1b", "llama-bench-gpu-llama-1b", "vllm-c1", "vllm-c4", "llama-cpp-server-c1"),
        *("triton-infer", "network-throughput", "network-latency"),
    ]
    assert plan["vllm-c4"]["parameters"]["tokenizer"] == "/models/tiny-llama"
    assert plan["vllm-c4"]["key"] == "vllm_key"
    assert plan["llama-bench-gpu"]["requires_gpu"] is True
    assert "docker_options" not in plan["llama-bench-cpu"]["parameters"]
    assert plan["network-latency"]["peer"] == "xps15"
    assert plan["cpu-events"]["label"] == "1 of 13: cpu-events, about 9 s"


def test_the_full_plan_measures_the_way_to_every_peer() -> None:
    plan = [item["id"] for item in benchmark_plan(given(profile="full"))]
    assert {"network-latency", "network-latency-jetson"} <= set(plan)


def test_the_full_plan_sweeps_context_on_the_gpu_and_concurrency() -> None:
    names = [item["id"] for item in benchmark_plan(given(profile="full"))]
    assert {"llama-bench-gpu-d2048", "llama-bench-gpu-d8192", "vllm-c8", "llama-cpp-server-c4"} <= set(names)
    assert "llama-bench-cpu-d2048" not in names


@pytest.mark.parametrize("profile", sorted(PROFILES))
def test_every_planned_measurement_can_be_asked_for(profile: str, lab: Lab) -> None:
    for item in benchmark_plan(given(profile=profile)):
        options = {name: value for name, value in item.items() if name not in ("key", "peer", "label")}
        wanted = engine.wanted_from({**options, "results_dir": "/r"})
        assert wanted.problem() == ""
    assert "In all about" in benchmark_plan_text(benchmark_plan(given(profile=profile)))


def test_only_some_are_measured_and_only_their_packages_installed() -> None:
    plan = benchmark_plan(given(only=["llama-bench-cpu", "cpu-events"]))
    assert [item["id"] for item in plan] == ["cpu-events", "llama-bench-cpu"]
    assert benchmark_packages(plan, ["fio", "sysbench"]) == ["sysbench"]
    assert benchmark_packages(benchmark_plan(given(only=["llama-bench-cpu"])), ["fio", "sysbench"]) == []


def names(**more: Any) -> list[str]:
    return [item["id"] for item in benchmark_plan(given(**more))]


def test_a_peer_admits_who_measures_as_long_as_the_other_side_runs() -> None:
    [item] = benchmark_plan(given(only=["network-throughput"]))
    parameters = item["parameters"]
    same = door_properties(parameters["peer_address"], parameters["port"], ["10.77.0.11"], 60)
    assert benchmark_door(parameters, "10.77.0.11", 60) == same
    far = benchmark_door({**parameters, "peer_address": "fd00::2"}, "fd00::1", 60)
    assert all("measuring6 { fd00::1 . fd00::2 . 5201" in text for text in far)
    assert benchmark_door(parameters, "", 60) == []


def test_names_may_be_a_text_and_those_of_other_hosts_are_nothing_to_do() -> None:
    assert names(only="vllm-c1, vllm-c4,") == ["vllm-c1", "vllm-c4"]
    assert names(only="") == names()
    others = ["llama-bench-gpu-d2048", "llama-bench-cpu-other", "network-latency-x", "triton-infer-x", "mine"]
    for name in others:
        assert names(only=[name, "cpu-events"], elsewhere=[{"id": "mine"}, "broken"]) == ["cpu-events"]
    # The gateway has neither models nor endpoints, and before week 2 nobody has any.
    bare = {"endpoints": [], "models_dir": "", "llama_models": []}
    wanted = "model-store-read,vllm-c1,llama-cpp-server-c1,triton-infer"
    plan = benchmark_plan(given(only=wanted, **bare))
    assert (plan, benchmark_plan_text(plan)) == ([], "Nothing is to be measured on this host.")


def test_both_profiles_ask_the_same() -> None:
    amounts = {"num_prompts", "seconds", "requests", "size_mib"}
    quick, full = ({item["id"]: item for item in benchmark_plan(given(profile=name))} for name in ("quick", "full"))
    assert set(quick) <= set(full)
    for name, item in quick.items():
        asked, more = item["parameters"], full[name]["parameters"]
        assert {key for key in asked if asked[key] != more[key]} <= amounts
        assert all(asked[key] <= more[key] for key in amounts & set(asked))
        assert (item["runs"], item["warmup_runs"] <= full[name]["warmup_runs"]) == (full[name]["runs"], True)
    assert quick["vllm-c1"]["parameters"]["num_prompts"] == 4


def test_the_plan_knows_the_tools_of_the_module() -> None:
    assert sorted(TOOLS) == sorted(engine.TOOLS)


def test_the_module_is_asked_with_keys_and_without_names() -> None:
    own = {"id": "mine", "tool": "apache_bench", "key": "engine", "parameters": {"url": "http://x"}}
    plan = benchmark_plan(given(measurements=[own, {"id": "far", "tool": "iperf3", "peer": "xps15"}]))
    first, second = benchmark_asked(plan, {"engine": "s3cret"})
    assert first["secrets"] == {"OPENAI_API_KEY": "s3cret"}
    assert {"key", "peer", "label"}.isdisjoint({*first, *second})
    assert "secrets" not in second


def test_settings_that_make_no_sense_are_named_all_at_once() -> None:
    peer = {"name": "a", "address": "192.0.2.1"}
    assert benchmark_problems(given(runs=2, warmup_runs=0, timeout=1, peers=[peer]), ["a"]) == []
    wrong = given(runs=1, warmup_runs=-1, timeout=0, peers=[{**peer, "name": "b"}], only=["vllm-c2"])
    said = " ".join(benchmark_problems(wrong, ["a"]))
    for words in (
        "benchmark_runs is 1",
        "benchmark_warmup_runs is -1",
        "benchmark_timeout is 0",
        "benchmark_peers names b",
        "benchmark_only names vllm-c2",
    ):
        assert words in said


def test_measurements_of_ones_own_replace_or_join() -> None:
    own = {"id": "mine", "tool": "sysbench_cpu", "runs": 7}
    assert [item["id"] for item in benchmark_plan(given(measurements=[own]))] == ["mine"]
    assert benchmark_plan(given(extra_measurements=[own]))[-1]["runs"] == 7


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"only": ["vllm-c2"]}, r"benchmark_only names vllm-c2, which is no .* any host\. Did you mean vllm-c"),
        ({"only": ["vllm-c8"]}, r"vllm-c8.*add -e benchmark_profile=full"),
        ({"only": "cpu-events,memory-bandwith"}, r"memory-bandwith.*Did you mean memory-bandwidth"),
        ({"extra_measurements": ["vllm-c1"]}, "Entry 1 of benchmark_extra_measurements is 'vllm-c1'; each is a map"),
        ({"extra_measurements": [{"tool": "sysbench_cpu"}]}, "Entry 1 of benchmark_extra_measurements has no id"),
        ({"measurements": [{"id": "x"}]}, r"Entry 1 of benchmark_measurements \(x\) has no tool: known are"),
        ({"measurements": [{"id": "x", "tool": "abc"}]}, "the tool 'abc', which is unknown: known are apache_bench"),
        ({"measurements": [{"id": "A b", "tool": "iperf3"}]}, "has the id 'A b': it names a file"),
        ({"measurements": [{"id": 5, "tool": "iperf3"}]}, "has the id 5: it names a file"),
        ({"measurements": [{"id": "x", "tool": "iperf3", "runs": 1}]}, "has runs 1: it is 2 or more; an interval"),
        ({"measurements": [{"id": "x", "tool": "iperf3", "runs": "many"}]}, "has runs 'many', which is no number"),
        ({"measurements": [{"id": "x", "tool": "iperf3", "parameters": []}, 5]}, "Entry 2 of benchmark_measurements"),
        ({"extra_measurements": [{"id": "vllm-c1", "tool": "sysbench_cpu"}]}, "planned twice"),
        ({"measurements": [{"id": "x", "tool": "sysbench_cpu", "rums": 3}]}, "has the key rums, which is unknown"),
    ],
)
def test_a_plan_that_makes_no_sense_is_refused(more: dict[str, Any], said: str) -> None:
    with pytest.raises(AnsibleFilterError, match=said):
        benchmark_plan(given(**more))
