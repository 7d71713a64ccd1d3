#!/usr/bin/env python3
"""Proves gpu_info, gpu_check and model_fit on a real GPU. It needs a machine with an NVIDIA GPU and its driver.

No network is used. One command does both parts; the second only where a llama.cpp build is named:

    python3 tools/gpu_proof.py --out proof --llama /path/to/build/bin

1. gpu_info by each backend (NVML, nvidia-smi) and gpu_check, run by Ansible against localhost, held against what
   nvidia-smi says in its csv format. Captures with UUIDs and serial numbers blanked go to ``OUT/captures``, the
   answers that gpu_info must give for them beside them: golden files. Ansible is the one of the Python that runs
   this (``python3 -m ansible``).
2. Random-weights GGUFs of the real shapes of Llama 3.2 1B, 3.2 3B and 3.1 8B, and of Qwen2.5 7B for a check on
   what was fitted to nothing, made here and quantised by llama-quantize, served by llama-server at each context,
   sequence count and KV type; the GPU memory really used (after a request, less what was used before) against
   ``model_fit`` and ``llama-fit-params``. The table goes to ``OUT/memory.md``, the figures to ``OUT/memory.json``. A
   second run goes on where the first one stopped, so a time limit (``--minutes``) does no harm. Needs about 28 GB of
   disk in ``--work`` while it runs.

Exit code 0: everything agrees; 1: something does not; 2: could not run.
"""

from __future__ import annotations

import argparse
import csv
import http.client
import itertools
import json
import os
import re
import subprocess
import sys
import time
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from random_gguf import Shape, write_gguf

ROOT = Path(__file__).resolve().parent.parent
MIB = 1 << 20
BACKENDS = ("nvml", "nvidia-smi")
ALLOWED_FRACTION, ALLOWED_MIB = 0.03, 150


def modules() -> Any:
    """The project's module_utils, also where ansible-core is not installed."""
    try:
        import ansible.module_utils as package
    except ImportError:
        package = types.ModuleType("ansible.module_utils")
        package.__path__ = []
        sys.modules["ansible"] = types.ModuleType("ansible")
        sys.modules["ansible.module_utils"] = package
    package.__path__.append(str(ROOT / "module_utils"))
    from ansible.module_utils.ai_idp import gpu_info, gpu_nvml, model_fit

    return types.SimpleNamespace(gpu_info=gpu_info, gpu_nvml=gpu_nvml, model_fit=model_fit)


def run(arguments: list[str], timeout: float = 300, **more: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(arguments, capture_output=True, text=True, timeout=timeout, check=False, **more)


# --- 1. what the driver says ------------------------------------------------------------------------

# Field of nvidia-smi's csv: (key of gpu_info, how far they may be apart because time passes between the calls).
CSV_FIELDS: dict[str, tuple[str, float]] = {
    "name": ("name", 0),
    "uuid": ("uuid", 0),
    "pci.bus_id": ("pci_id", 0),
    "driver_version": ("driver_version", 0),
    "vbios_version": ("vbios_version", 0),
    "compute_cap": ("compute_capability", 0),
    "memory.total": ("memory_total_bytes", 0),
    # nvidia-smi rounds to whole MiB.
    "memory.reserved": ("memory_reserved_bytes", 1),
    "memory.used": ("memory_used_bytes", 64),
    "memory.free": ("memory_free_bytes", 64),
    "power.limit": ("power_limit_watts", 0.01),
    "power.max_limit": ("power_limit_max_watts", 0.01),
    "power.draw": ("power_draw_watts", 150),
    "temperature.gpu": ("temperature_celsius", 5),
    "clocks.max.sm": ("clock_sm_max_mhz", 0),
    "clocks.max.memory": ("clock_memory_max_mhz", 0),
    "pcie.link.gen.max": ("pcie_generation_max", 0),
    "pcie.link.width.current": ("pcie_width", 0),
    "pcie.link.width.max": ("pcie_width_max", 0),
    "ecc.mode.current": ("ecc_enabled", 0),
    "mig.mode.current": ("mig_enabled", 0),
    "persistence_mode": ("persistence_enabled", 0),
}


def csv_value(key: str, text: str) -> Any:
    """A csv cell under gpu_info's types; None for what is not supported."""
    text = text.strip()
    if text.strip("[]").lower() in ("n/a", "not supported", ""):
        return None
    if key.endswith("_enabled"):
        return text == "Enabled"
    if key.startswith("memory_"):
        return int(text) * MIB
    if key in ("name", "uuid", "pci_id", "driver_version", "vbios_version", "compute_capability"):
        return text
    return float(text)


def compare_csv(output: str, gpus: list[dict[str, Any]]) -> list[str]:
    """Sentences for each value that gpu_info and nvidia-smi's csv do not agree on."""
    rows = list(csv.reader(output.splitlines(), skipinitialspace=True))
    if len(rows) != len(gpus):
        return [f"nvidia-smi lists {len(rows)} GPUs, gpu_info {len(gpus)}"]
    problems = []
    for index, (row, gpu) in enumerate(zip(rows, gpus, strict=True)):
        for (field, (key, apart)), text in zip(CSV_FIELDS.items(), row, strict=True):
            expected, found = csv_value(key, text), gpu[key]
            if isinstance(expected, int | float) and isinstance(found, int | float) and apart:
                if abs(expected - found) <= apart * (MIB if key.startswith("memory_") else 1):
                    continue
            elif expected == found:
                continue
            problems.append(f"GPU {index} {field}: nvidia-smi says {expected!r}, gpu_info {found!r}")
    return problems


def blank(text: str) -> str:
    """Without what tells one card from another: UUIDs become numbered, serial numbers zeros."""
    seen: dict[str, str] = {}

    def number(match: re.Match[str]) -> str:
        return seen.setdefault(match.group(), f"{match.group(1)}-00000000-0000-0000-0000-{len(seen):012d}")

    text = re.sub(r"\b(GPU|MIG)-[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", number, text)
    for tag in ("serial", "pdi", "chassis_serial_number", "gpu_fabric_guid", "host_id", "clusterUuid"):
        text = re.sub(
            rf"(<{tag}>)([^<]*)(</{tag}>)",
            lambda match: (
                match[1] + (match[2] if match[2] == "N/A" else re.sub(r"[0-9a-zA-Z]", "0", match[2])) + match[3]
            ),
            text,
        )
    return text


def ansible(module: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """One module by Ansible against localhost; its result."""
    environment = {
        **os.environ,
        "ANSIBLE_CALLBACK_RESULT_FORMAT": "json",
        "ANSIBLE_LIBRARY": str(ROOT / "library"),
        "ANSIBLE_MODULE_UTILS": str(ROOT / "module_utils"),
        "LC_ALL": "C.UTF-8",
    }
    done = run(
        [sys.executable, "-m", "ansible", "adhoc", "localhost", "-i", "localhost,", "-c", "local", "-m", module,
         "-a", json.dumps(arguments), "-e", f"ansible_python_interpreter={sys.executable}"],
        cwd=ROOT, env=environment,
    )  # fmt: skip
    try:
        document, _ = json.JSONDecoder().raw_decode(done.stdout[done.stdout.index("{") :])
    except ValueError:
        raise SystemExit(f"{module} gave no answer by Ansible:\n{done.stdout}{done.stderr}") from None
    return dict(document)


def prove_info(out: Path) -> list[str]:
    """Part 1; returns what does not agree."""
    ours, problems = modules(), []
    captures = out / "captures"
    captures.mkdir(parents=True, exist_ok=True)
    query = ["nvidia-smi", f"--query-gpu={','.join(CSV_FIELDS)}", "--format=csv,noheader,nounits"]
    table = run(query).stdout
    answers = {}
    for backend in BACKENDS:
        answers[backend] = ansible("gpu_info", {"backend": backend})
        if answers[backend].get("backend") != backend:
            problems.append(f"gpu_info by {backend}: {answers[backend].get('messages') or answers[backend]}")
            continue
        problems += [f"{backend}: {problem}" for problem in compare_csv(table, answers[backend]["gpus"])]
    fingerprints = {answer.get("fingerprint") for answer in answers.values()}
    if len(fingerprints) != 1:
        problems.append(f"the backends give different fingerprints: {fingerprints}")
    checked = ansible("gpu_check", {"requirements": {"no_throttling": True, "no_xid_errors": True}})
    problems += [f"gpu_check: {problem}" for problem in checked.get("problems", [str(checked)])]
    document = blank(run(["nvidia-smi", "-q", "-x"]).stdout)
    nvml = json.loads(blank(json.dumps(ours.gpu_nvml.ask(ours.gpu_nvml.LIBRARY, 30))))
    probe = ours.gpu_info.Probe
    (captures / "nvidia-smi-q-x.xml").write_text(document)
    (captures / "nvidia-smi.csv").write_text(", ".join(CSV_FIELDS) + "\n" + blank(table))
    (captures / "nvml.json").write_text(json.dumps(nvml, indent=1) + "\n")
    golden = {
        "golden-nvidia-smi.json": probe(smi=ours.gpu_info.Answer(0, document)),
        "golden-nvml.json": probe(nvml=nvml),
    }
    for name, replayed in golden.items():
        (captures / name).write_text(json.dumps(ours.gpu_info.describe(replayed), indent=1) + "\n")
    (captures / "gpu_check.json").write_text(blank(json.dumps(checked, indent=1)) + "\n")
    return problems


# --- 2. what llama.cpp really takes -----------------------------------------------------------------


SHAPES = (
    Shape("llama-3.2-1b", 16, 2048, 8192, 32, 8, 64, True),
    Shape("llama-3.2-3b", 28, 3072, 8192, 24, 8, 128, True),
    Shape("llama-3.1-8b", 32, 4096, 14336, 32, 8, 128, False),
)
# What no formula was fitted to: another shape, other contexts, sequences and KV types.
HELD_OUT = Shape("qwen2.5-7b-shape", 28, 3584, 18944, 28, 4, 128, False, 152_064)
QUANTIZATIONS = ("Q4_K_M", "Q8_0")
CONTEXTS, SEQUENCES, KV_TYPES = (4096, 32768, 131072), (1, 4), ("f16", "q8_0")
Case = tuple[Shape, str, int, int, str]


def cases(names: list[str]) -> Iterator[Case]:
    """The 72 cases of the three Llamas, and with the name of HELD_OUT its own twelve."""
    llamas = [shape for shape in SHAPES if shape.name in names]
    yield from itertools.product(llamas, QUANTIZATIONS, CONTEXTS, SEQUENCES, KV_TYPES)
    if HELD_OUT.name in names:
        yield from itertools.product([HELD_OUT], ["Q4_K_M"], (16384, 65536), (1, 2), ("f16", "q8_0", "q4_0"))


def predicted_mib(path: Path, context: int, sequences: int, kv: str, total: int) -> float:
    """What model_fit projects for the GPU."""
    model_fit = modules().model_fit
    service = {
        "name": "proof", "engine": "llama_cpp", "device": "gpu", "model": {"name": path.stem, "path": str(path)},
        "context_length": context, "sequences": sequences, "kv_cache_type": kv, "gpu_layers": -1,
    }  # fmt: skip
    inputs, problems = model_fit.parse({"services": [service], "gpus": [{"index": 0, "memory_total_bytes": total}]})
    if inputs is None:
        raise SystemExit("\n".join(problems))
    return float(model_fit.decide(inputs)["services"][0]["required_bytes"]) / MIB


def peer_mib(output: str) -> float | None:
    """``llama-fit-params --fit-print on``: a line for each device with model, context and compute in MiB."""
    lines = re.findall(r"^CUDA\d+ +(\d+) +(\d+) +(\d+) *$", output, re.MULTILINE)
    return float(sum(int(value) for line in lines for value in line)) if lines else None


def used_mib() -> tuple[float, int]:
    """Memory in use on GPU 0 and its total in bytes."""
    done = run(["nvidia-smi", "-i", "0", "--query-gpu=memory.used,memory.total", "--format=csv,noheader,nounits"])
    used, total = done.stdout.split(",")
    return float(used), int(total) * MIB


def ask(path: str, port: int, body: dict[str, Any] | None = None) -> int:
    """The status of a request to the server."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    try:
        method, data = ("POST", json.dumps(body)) if body else ("GET", None)
        connection.request(method, path, data, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        answer.read()
        return answer.status
    finally:
        connection.close()


def wait_for(server: subprocess.Popen[bytes], port: int, log: Path) -> None:
    until = time.monotonic() + 180
    while server.poll() is None and time.monotonic() < until:
        try:
            if ask("/health", port) == 200:
                return
            time.sleep(0.2)
        except OSError:  # It does not listen yet.
            time.sleep(0.2)
    raise SystemExit(f"llama-server did not start; see {log}")


def measure(llama: Path, model: Path, options: list[str], log: Path, port: int = 18_080) -> tuple[float, float]:
    """MiB that llama-server takes after it has loaded, and after a request to it."""
    before, _ = used_mib()
    command = [str(llama / "llama-server"), "-m", str(model), "--host", "127.0.0.1", "--port", str(port), "-lv", "4"]
    with log.open("w") as stream:
        server = subprocess.Popen([*command, *options], stdout=stream, stderr=subprocess.STDOUT)
        try:
            wait_for(server, port, log)
            loaded, _ = used_mib()
            # A prompt longer than one ubatch of 512 tokens, and shorter than the smallest slot of 1,024.
            status = ask("/completion", port, {"prompt": "w1 w2 w3 " * 60, "n_predict": 16, "cache_prompt": False})
            if status != 200:
                raise SystemExit(f"llama-server answered {status} to a request; see {log}")
            return loaded - before, used_mib()[0] - before
        finally:
            server.terminate()
            server.wait(60)


def row_of(case: dict[str, Any]) -> dict[str, Any]:
    """A case with both errors and whether model_fit keeps what it promises."""
    measured = case["measured_mib"]
    allowed = max(ALLOWED_FRACTION * measured, ALLOWED_MIB)
    error = case["model_fit_mib"] - measured
    peer = None if case["llama_fit_params_mib"] is None else case["llama_fit_params_mib"] - measured
    return {**case, "error_mib": error, "peer_error_mib": peer, "allowed_mib": allowed, "within": abs(error) <= allowed}


def markdown(rows: list[dict[str, Any]], gpu: str) -> str:
    """The table, with how it was made."""

    def off(error: float | None, measured: float) -> str:
        return "-" if error is None else f"{error:+.0f} ({100 * error / measured:+.1f} %)"

    bad = sum(not row["within"] for row in rows)
    lines = [
        f"Measured on {gpu} by `tools/gpu_proof.py`: random weights of the real shapes, `llama-server -ngl 99 -fa on "
        "--fit off`, memory of the GPU after a request less what was used before. All in MiB. Allowed is 3 % or "
        f"150 MiB, whichever is larger: {len(rows) - bad} of {len(rows)} cases are within.",
        "",
        "| model | context | sequences | KV | measured | model_fit | error | llama-fit-params | error | within |",
        "|---|---:|---:|---|---:|---:|---:|---:|---:|---|",
    ]
    for row in rows:
        peer, measured = row["llama_fit_params_mib"], row["measured_mib"]
        lines.append(
            f"| {row['model']} {row['quantization']} | {row['context']:,} | {row['sequences']} | {row['kv']} "
            f"| {measured:,.0f} | {row['model_fit_mib']:,.0f} | {off(row['error_mib'], measured)} "
            f"| {'-' if peer is None else f'{peer:,.0f}'} | {off(row['peer_error_mib'], measured)} "
            f"| {'yes' if row['within'] else 'no'} |"
        )
    return "\n".join(lines) + "\n"


def prepare(llama: Path, work: Path, shape: Shape, quantization: str) -> Path:
    """The quantised model; the 16-bit one is made when it is needed and not there."""
    wanted = work / f"{shape.name}-{quantization}.gguf"
    if wanted.exists():
        return wanted
    whole = work / f"{shape.name}-f16.gguf"
    if not whole.exists():
        print(f"proof: making {whole.name}", flush=True)
        write_gguf(whole, shape)
    print(f"proof: quantising {wanted.name}", flush=True)
    partial = wanted.with_suffix(".part")
    done = run([str(llama / "llama-quantize"), str(whole), str(partial), quantization, str(os.cpu_count() or 1)], 1200)
    if done.returncode:
        raise SystemExit(f"llama-quantize failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    partial.rename(wanted)
    if shape is HELD_OUT or all((work / f"{shape.name}-{name}.gguf").exists() for name in QUANTIZATIONS):
        whole.unlink()
    return wanted


def prove_memory(out: Path, llama: Path, work: Path, names: list[str], minutes: float) -> list[str]:
    """Part 2; returns what does not agree."""
    out.mkdir(parents=True, exist_ok=True)
    work.mkdir(parents=True, exist_ok=True)
    store, until = out / "memory.json", time.monotonic() + minutes * 60
    rows: list[dict[str, Any]] = json.loads(store.read_text())["cases"] if store.exists() else []
    gpu = run(["nvidia-smi", "-i", "0", "--query-gpu=name,driver_version", "--format=csv,noheader"]).stdout.strip()
    version = run([str(llama / "llama-server"), "--version"])
    build = (version.stdout + version.stderr).strip().splitlines()[0]
    done = {(row["model"], row["quantization"], row["context"], row["sequences"], row["kv"]) for row in rows}
    problems: list[str] = []
    for shape, quantization, context, sequences, kv in cases(names):
        if (shape.name, quantization, context, sequences, kv) in done:
            continue
        if time.monotonic() > until:
            problems.append("the time was up before every case was measured: run the same command again to go on")
            break
        model = prepare(llama, work, shape, quantization)
        options = ["-c", str(context), "-np", str(sequences), "-ngl", "99", "-fa", "on", "-ctk", kv, "-ctv", kv]
        loaded, used = measure(llama, model, [*options, "--fit", "off"], out / "llama-server.log")
        peer = run([str(llama / "llama-fit-params"), "-m", str(model), *options, "--fit-print", "on"])
        case = {
            "model": shape.name, "quantization": quantization, "context": context, "sequences": sequences, "kv": kv,
            "measured_mib": used, "loaded_mib": loaded, "file_bytes": model.stat().st_size,
            "model_fit_mib": predicted_mib(model, context, sequences, kv, used_mib()[1]),
            "llama_fit_params_mib": peer_mib(peer.stdout),
        }  # fmt: skip
        rows.append(row_of(case))
        print(f"proof: {json.dumps(rows[-1])}", flush=True)
        store.write_text(json.dumps({"gpu": gpu, "build": build, "cases": rows}, indent=1) + "\n")
        (out / "memory.md").write_text(markdown(rows, f"{gpu}, {build}"))
    return problems + [
        f"{row['model']} {row['quantization']} -c {row['context']} -np {row['sequences']} {row['kv']}: model_fit is "
        f"off by {row['error_mib']:+.0f} MiB, allowed are {row['allowed_mib']:.0f}"
        for row in rows
        if not row["within"]
    ]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--out", type=Path, default=Path("proof"), help="folder for captures and tables")
    parser.add_argument("--llama", type=Path, help="folder with llama-server, llama-quantize and llama-fit-params")
    parser.add_argument("--work", type=Path, help="folder for the models (default: OUT/models)")
    names = [shape.name for shape in (*SHAPES, HELD_OUT)]
    parser.add_argument("--models", nargs="+", default=names, choices=names, help="which shapes")
    parser.add_argument("--minutes", type=float, default=60, help="stop before the next case after this time")
    parser.add_argument("--skip-info", action="store_true", help="only the memory part")
    options = parser.parse_args(arguments)
    if run(["sh", "-c", "command -v nvidia-smi"]).returncode:
        print("There is no nvidia-smi: this needs a machine with an NVIDIA GPU and its driver.", file=sys.stderr)
        return 2
    problems = [] if options.skip_info else prove_info(options.out)
    if options.llama:
        work = options.work or options.out / "models"
        problems += prove_memory(options.out, options.llama.resolve(), work, options.models, options.minutes)
    print("\n".join(problems) or "Everything agrees.")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
