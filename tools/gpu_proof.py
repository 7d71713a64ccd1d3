#!/usr/bin/env python3
"""Proves gpu_info, gpu_check and model_fit on a real GPU. It needs a machine with an NVIDIA GPU and its driver.

No network is used. One command does both parts; the second only where a llama.cpp build is named:

    python3 tools/gpu_proof.py --out proof --llama /path/to/build/bin

1. gpu_info by each backend (NVML, nvidia-smi) and gpu_check, run by Ansible against localhost, held against what
   nvidia-smi says in its csv format. Captures with UUIDs and serial numbers blanked go to ``OUT/captures``, the
   answers that gpu_info must give for them beside them: golden files. Ansible is the one of the Python that runs
   this (``python3 -m ansible``).
   Further architectures follow: sliding windows, latent attention, recurrent states, MXFP4 experts, an encoder, and
   half of a model on the GPU (``random_families.py``), 47 cases whose predictions were written down before
   (``tests/golden/predicted/families.json``, ``--predict`` makes the file without a GPU): ``OUT/families.md``.
2. Random-weights GGUFs of the real shapes of Llama 3.2 1B, 3.2 3B and 3.1 8B, and of Qwen2.5 7B for a check on
   what was fitted to nothing, made here and quantised by llama-quantize, served by llama-server at each context,
   sequence count and KV type; the GPU memory really used (after a request, less what was used before) against
   ``model_fit`` and ``llama-fit-params``. The table goes to ``OUT/memory.md``, the figures to ``OUT/memory.json``. A
   second run goes on where the first one stopped, so a time limit (``--minutes``) does no harm. Needs about 28 GB of
   disk in ``--work`` while it runs.

3. vLLM, where a Python that has it is named: each model cold and warm, its own account of what it needs against
   ``model_fit``; ``OUT/vllm.md``. Inside vLLM's image:

       docker run --rm --gpus all -v "$PWD:/repo" -w /repo --entrypoint python3 vllm/vllm-openai:v0.30.0 \\
           tools/gpu_proof.py --skip-info --vllm python3 --out proof

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
import shutil
import subprocess
import sys
import tempfile
import time
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from random_families import RECIPES, write_recipe
from random_gguf import F16, Shape, write_gguf

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


def predicted_mib(path: Path, context: int, sequences: int, kv: str, total: int, layers: int = -1) -> float:
    """What model_fit projects for the GPU."""
    model_fit = modules().model_fit
    service = {
        "name": "proof", "engine": "llama_cpp", "device": "gpu", "model": {"name": path.stem, "path": str(path)},
        "context_length": context, "sequences": sequences, "kv_cache_type": kv, "gpu_layers": layers,
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


def card_name() -> str:
    """GPU 0 and its driver."""
    return run(["nvidia-smi", "-i", "0", "--query-gpu=name,driver_version", "--format=csv,noheader"]).stdout.strip()


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


PROMPT = "w1 w2 w3 " * 60
ASK_TEXT = ("/completion", {"prompt": PROMPT, "n_predict": 16, "cache_prompt": False})
ASK_EMBEDDING = ("/embedding", {"content": "w1 w2 w3 " * 20})


def measure(
    llama: Path,
    model: Path,
    options: list[str],
    log: Path,
    port: int = 18_080,
    question: tuple[str, dict[str, Any]] = ASK_TEXT,
) -> tuple[float, float]:
    """MiB that llama-server takes after it has loaded, and after a request to it."""
    before, _ = used_mib()
    command = [str(llama / "llama-server"), "-m", str(model), "--host", "127.0.0.1", "--port", str(port), "-lv", "4"]
    with log.open("w") as stream:
        server = subprocess.Popen([*command, *options], stdout=stream, stderr=subprocess.STDOUT)
        try:
            wait_for(server, port, log)
            loaded, _ = used_mib()
            # A prompt longer than one ubatch of 512 tokens, and shorter than the smallest slot of 1,024.
            status = ask(question[0], port, question[1])
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
    gpu = card_name()
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


# --- other architectures of llama.cpp ---------------------------------------------------------------


HALF = "llama-3.2-1b-half"
PREDICTED = ROOT / "tests" / "golden" / "predicted" / "families.json"
FAMILY_FRACTION, FAMILY_MIB = 0.01, 64
FamilyCase = tuple[str, int, int, str, int]
# Predicted after the first 30 were measured, with the rules that this run taught. A model's name ends with what its
# matrices are quantised to; without that they are of 16 bit.
UNMEASURED: list[FamilyCase] = [
    (HALF, 16_384, 2, "q8_0", 99),
    (HALF, 131_072, 1, "f16", 8),
    (f"{HALF}.Q8_0", 131_072, 1, "f16", 8),
    (f"{HALF}.Q8_0", 65_536, 4, "q8_0", 8),
    (f"{HALF}.Q4_K_M", 65_536, 1, "f16", 12),
    (f"{HALF}.Q4_K_M", 16_384, 2, "q4_0", 99),
    ("gemma3-window", 32_768, 1, "f16", 6),
    ("gemma3-window.Q8_0", 16_384, 2, "q8_0", 99),
    # The router of its experts is of 32 bit, whatever the other matrices are.
    ("gpt-oss-mxfp4.Q8_0", 16_384, 2, "f16", 99),
    ("deepseek2-latent", 32_768, 1, "f16", 4),
    ("deepseek2-latent.Q8_0", 131_072, 1, "f16", 99),
    ("qwen35-states", 32_768, 2, "f16", 6),
    ("qwen35-states.Q8_0", 16_384, 3, "f16", 99),
    ("granite-hybrid-states.Q8_0", 16_384, 2, "q8_0", 99),
    ("granite-hybrid-states.Q8_0", 32_768, 1, "f16", 6),
    ("lfm2-convolutions.Q8_0", 65_536, 2, "f16", 99),
    ("bert-embeddings.Q8_0", 2048, 2, "f16", 99),
]


def family_cases() -> list[FamilyCase]:
    """Model, context, sequences, KV type and layers on the GPU (99: all of them)."""
    found: list[FamilyCase] = []
    for name in ("gemma3-window", "gpt-oss-mxfp4", "deepseek2-latent", "qwen35-states", "granite-hybrid-states"):
        found += [(name, context, sequences, "f16", 99) for context in (8192, 65_536) for sequences in (1, 4)]
    found += [("gemma3-window", 65_536, 1, "q8_0", 99), ("gpt-oss-mxfp4", 131_072, 1, "f16", 99)]
    found += [("lfm2-convolutions", 32_768, sequences, "f16", 99) for sequences in (1, 4)]
    found += [("bert-embeddings", 2048, 1, "f16", 99), ("bert-embeddings", 2048, 4, "f16", 99)]
    found += [(HALF, context, 1, "f16", layers) for context in (4096, 32_768) for layers in (4, 8)]
    return found + UNMEASURED


def model_and_type(name: str) -> tuple[str, str]:
    """What a case's model is made from, and the type of its matrices."""
    kind = next((kind for kind in QUANTIZATIONS if name.endswith(f".{kind}")), F16)
    return name.removesuffix(f".{kind}"), kind


def family_path(work: Path, name: str, header_only: bool = False) -> Path:
    """The model's file, which is made where it is not there."""
    path = work / f"{name}.gguf"
    if not path.exists():
        partial = work / f"{name}.part"
        model, kind = model_and_type(name)
        if model == HALF:
            write_gguf(partial, SHAPES[0], header_only, kind)
        else:
            write_recipe(partial, RECIPES[model], header_only, kind)
        partial.rename(path)
    return path


def key_of(case: FamilyCase) -> str:
    name, context, sequences, kv, layers = case
    return f"{name} -c {context} -np {sequences} -ctk {kv} -ngl {layers}"


def predictions() -> dict[str, float]:
    """MiB on the GPU by case, from the models' headers alone."""
    with tempfile.TemporaryDirectory(prefix="gpu-proof-") as folder:
        paths = {case[0]: family_path(Path(folder), case[0], header_only=True) for case in family_cases()}
        return {
            key_of(case): round(
                predicted_mib(paths[case[0]], case[1], case[2], case[3], 1 << 40, -1 if case[4] == 99 else case[4]), 1
            )
            for case in family_cases()
        }


def write_predictions(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(predictions(), indent=1) + "\n")


def family_row(case: FamilyCase, measured: float, predicted: float, peer: float | None) -> dict[str, Any]:
    allowed = max(FAMILY_FRACTION * measured, FAMILY_MIB)
    error = predicted - measured
    return {
        "case": key_of(case), "measured_mib": measured, "predicted_mib": predicted, "error_mib": error,
        "allowed_mib": allowed, "llama_fit_params_mib": peer, "within": abs(error) <= allowed,
    }  # fmt: skip


def family_markdown(rows: list[dict[str, Any]], gpu: str) -> str:
    """The table of further architectures."""
    good = sum(row["within"] for row in rows)
    lines = [
        f"Measured on {gpu} by `tools/gpu_proof.py`: random weights, `llama-server -fa on --fit off`, memory of the "
        "GPU after a request less what was used before. In MiB. The predictions were written before. Allowed is 1 % or "
        f"64 MiB, whichever is larger: {good} of {len(rows)} cases are within.",
        "",
        "| case | measured | predicted | error | llama-fit-params | within |",
        "|---|---:|---:|---:|---:|---|",
    ]
    for row in rows:
        peer = "-" if row["llama_fit_params_mib"] is None else f"{row['llama_fit_params_mib']:,.0f}"
        off = f"{row['error_mib']:+.0f} ({100 * row['error_mib'] / row['measured_mib']:+.1f} %)"
        lines.append(
            f"| {row['case']} | {row['measured_mib']:,.0f} | {row['predicted_mib']:,.0f} | {off} | {peer} "
            f"| {'yes' if row['within'] else 'no'} |"
        )
    return "\n".join(lines) + "\n"


def prove_families(out: Path, llama: Path, work: Path, minutes: float) -> list[str]:
    """Measures what is not measured yet; returns what does not agree."""
    out.mkdir(parents=True, exist_ok=True)
    work.mkdir(parents=True, exist_ok=True)
    store, until = out / "families.json", time.monotonic() + minutes * 60
    rows: list[dict[str, Any]] = json.loads(store.read_text())["cases"] if store.exists() else []
    foretold = json.loads(PREDICTED.read_text()) if PREDICTED.exists() else predictions()
    (out / "predictions.json").write_text(json.dumps(foretold, indent=1) + "\n")
    gpu = card_name()
    version = run([str(llama / "llama-server"), "--version"])
    build = (version.stdout + version.stderr).strip().splitlines()[0]
    done = {row["case"] for row in rows}
    problems: list[str] = []
    for case in family_cases():
        if key_of(case) in done:
            continue
        if time.monotonic() > until:
            problems.append("the time was up before every architecture was measured: run the same command again")
            break
        name, context, sequences, kv, layers = case
        model = family_path(work, name)
        options = ["-c", str(context), "-np", str(sequences), "-ngl", str(layers), "-fa", "on", "-ctk", kv, "-ctv", kv]
        recipe = RECIPES.get(model_and_type(name)[0])
        embeds = recipe is not None and recipe.embeddings
        more, question = (["--embeddings"], ASK_EMBEDDING) if embeds else ([], ASK_TEXT)
        try:
            _, used = measure(llama, model, [*options, *more, "--fit", "off"], out / "families.log", question=question)
        except (SystemExit, OSError) as error:
            # One model that does not start or answer keeps no other from being measured.
            problems.append(f"{key_of(case)}: {error}")
            continue
        peer = run([str(llama / "llama-fit-params"), "-m", str(model), *options, "--fit-print", "on"])
        rows.append(family_row(case, used, foretold[key_of(case)], peer_mib(peer.stdout)))
        print(f"proof: {json.dumps(rows[-1])}", flush=True)
        store.write_text(json.dumps({"gpu": gpu, "build": build, "cases": rows}, indent=1) + "\n")
        (out / "families.md").write_text(family_markdown(rows, f"{gpu}, {build}"))
    return problems + [
        f"{row['case']}: model_fit is off by {row['error_mib']:+.0f} MiB, allowed are {row['allowed_mib']:.0f}"
        for row in rows
        if not row["within"]
    ]


# --- 3. what vLLM really takes ----------------------------------------------------------------------


VLLM_FRACTION, VLLM_MIB, VLLM_UTILIZATION = 0.01, 100, 0.8
AWQ = {"quant_method": "awq", "bits": 4, "group_size": 128, "zero_point": True, "version": "gemm"}
FP8 = {"quant_method": "fp8", "activation_scheme": "static", "ignored_layers": ["lm_head"]}


def vllm_configs() -> dict[str, dict[str, Any]]:
    """Configurations of the shapes, in 16 bit, FP8 and AWQ."""
    found: dict[str, dict[str, Any]] = {}
    for shape in (*SHAPES, HELD_OUT):
        qwen = shape is HELD_OUT
        config: dict[str, Any] = {
            "architectures": ["Qwen2ForCausalLM" if qwen else "LlamaForCausalLM"],
            "model_type": "qwen2" if qwen else "llama", "torch_dtype": "bfloat16", "hidden_act": "silu",
            "num_hidden_layers": shape.layers, "hidden_size": shape.hidden, "intermediate_size": shape.feed_forward,
            "num_attention_heads": shape.heads, "num_key_value_heads": shape.kv_heads, "head_dim": shape.head_dim,
            "vocab_size": shape.vocabulary, "tie_word_embeddings": shape.tied, "rms_norm_eps": 1e-5,
            "max_position_embeddings": 32_768 if qwen else 131_072, "rope_theta": 500_000.0,
            "bos_token_id": 0, "eos_token_id": 1,
        }  # fmt: skip
        found[shape.name] = config
        found[f"{shape.name}-fp8"] = {**config, "tie_word_embeddings": False, "quantization_config": FP8}
        if shape.hidden > 3072:
            found[f"{shape.name}-awq"] = {**config, "torch_dtype": "float16", "quantization_config": AWQ}
    return found


def vllm_weights(config: dict[str, Any]) -> int:
    """Bytes of the model's files."""
    hidden, width, length = config["hidden_size"], config["intermediate_size"], config["head_dim"]
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    matrices = hidden * length * 2 * (heads + kv_heads) + 3 * hidden * width
    method = config.get("quantization_config", {}).get("quant_method")
    each = {"awq": 0.5 + 2 / 128 + 0.5 / 128, "fp8": 1.0}.get(method, 2.0)
    biases = (heads + 2 * kv_heads) * length if config["model_type"] == "qwen2" else 0
    layers = config["num_hidden_layers"] * (matrices * each + (2 * hidden + biases) * 2)
    embeddings = config["vocab_size"] * hidden * 2 * (1 if config["tie_word_embeddings"] else 2)
    return int(layers + embeddings + hidden * 2)


def vllm_row(name: str, folder: Path, arguments: dict[str, Any], cache: str, found: dict[str, Any]) -> dict[str, Any]:
    """A start with what model_fit says of it."""
    model_fit = modules().model_fit
    service = {
        "name": "proof", "engine": "vllm", "model": {"name": name, "path": str(folder)}, "compile_cache": cache,
        "context_length": arguments["max_model_len"], "sequences": arguments["max_num_seqs"],
        "max_num_batched_tokens": arguments["max_num_batched_tokens"],
        "gpu_memory_utilization": arguments["gpu_memory_utilization"],
    }  # fmt: skip
    gpu = {"index": 0, "memory_total_bytes": found["total_memory"]}
    inputs, problems = model_fit.parse({"services": [service], "gpus": [gpu]})
    if inputs is None:
        raise SystemExit("\n".join(problems))
    said = model_fit.decide(inputs)["services"][0]
    parts = said["breakdown"]
    needed = found["requested_memory"] - found["available_kv"] + parts["kv_cache"] + parts["states"] + parts["pool"]
    error = said["required_bytes"] - needed
    starts = {"fits": "starts", "does_not_fit": "refused"}.get(said["verdict"])
    return {
        "model": name, "compile_cache": cache, "vllm": found["verdict"], "model_fit": said["verdict"],
        "needed_mib": needed / MIB, "model_fit_mib": said["required_bytes"] / MIB, "error_mib": error / MIB,
        "within": abs(error) <= max(VLLM_FRACTION * needed, VLLM_MIB * MIB) and starts in (None, found["verdict"]),
        "captured": found, "arguments": arguments,
    }  # fmt: skip


def vllm_markdown(rows: list[dict[str, Any]], gpu: str) -> str:
    good = sum(row["within"] for row in rows)
    lines = [
        f"Measured on {gpu} by `tools/gpu_proof.py`: random weights, each start a new process. Needed is the budget "
        "less the KV cache that was left, and one sequence. In MiB. Allowed is 1 % or 100 MiB, and no wrong verdict: "
        f"{good} of {len(rows)} are within.",
        "",
        "| model | compiled kernels | needed | model_fit | error | vLLM | model_fit says | within |",
        "|---|---|---:|---:|---:|---|---|---|",
    ]
    lines += [
        f"| {row['model']} | {row['compile_cache']} | {row['needed_mib']:,.0f} | {row['model_fit_mib']:,.0f} "
        f"| {row['error_mib']:+.0f} | {row['vllm']} | {row['model_fit']} | {'yes' if row['within'] else 'no'} |"
        for row in rows
    ]
    return "\n".join(lines) + "\n"


def prove_vllm(out: Path, python: str, work: Path, names: list[str], minutes: float) -> list[str]:
    """Part 3; returns what does not agree."""
    out.mkdir(parents=True, exist_ok=True)
    store, until = out / "vllm.json", time.monotonic() + minutes * 60
    rows: list[dict[str, Any]] = json.loads(store.read_text())["cases"] if store.exists() else []
    gpu = card_name()
    _, total = used_mib()
    problems: list[str] = []
    done = {(row["model"], row["compile_cache"]) for row in rows}
    for name, config in vllm_configs().items():
        weights = vllm_weights(config)
        if not any(name.startswith(wanted) for wanted in names) or weights > 0.7 * VLLM_UTILIZATION * total:
            continue
        folder = work / "vllm" / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(json.dumps(config))
        (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {"total_size": weights}}))
        caches = {key: str(work / "vllm-cache" / name / key) for key in ("VLLM_CACHE_ROOT", "TORCHINDUCTOR_CACHE_DIR")}
        arguments = {
            "model": str(folder), "max_model_len": 8192, "max_num_seqs": 32, "max_num_batched_tokens": 4096,
            "gpu_memory_utilization": VLLM_UTILIZATION,
        }  # fmt: skip
        for cache in ("cold", "warm"):
            if (name, cache) in done:
                continue
            if time.monotonic() > until:
                return [*problems, "the time was up before every start of vLLM: run the same command again to go on"]
            if cache == "cold":
                shutil.rmtree(work / "vllm-cache" / name, ignore_errors=True)
            command = [python, str(ROOT / "tools" / "vllm_case.py"), json.dumps(arguments)]
            with (out / "vllm.log").open("a") as log:
                start = subprocess.run(
                    command, stdout=subprocess.PIPE, stderr=log, text=True, timeout=900, check=False,
                    env={**os.environ, **caches},
                )  # fmt: skip
            line = next((line for line in start.stdout.splitlines() if line.startswith("RESULT ")), None)
            found = json.loads(line.removeprefix("RESULT ")) if line else {}
            if "available_kv" not in found:
                problems.append(f"{name}, {cache}: no figures: {found.get('error') or f'see {out}/vllm.log'}")
                break
            rows.append(vllm_row(name, folder, arguments, cache, found))
            print(f"proof: {json.dumps({key: rows[-1][key] for key in rows[-1] if key != 'captured'})}", flush=True)
            store.write_text(json.dumps({"gpu": gpu, "cases": rows}, indent=1) + "\n")
            (out / "vllm.md").write_text(vllm_markdown(rows, gpu))
    return problems + [
        f"vLLM {row['model']} {row['compile_cache']}: off by {row['error_mib']:+.0f} MiB, it {row['vllm']}, "
        f"model_fit says {row['model_fit']}"
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
    parser.add_argument("--families", action="store_true", help="of llama.cpp only the further architectures")
    parser.add_argument("--vllm", metavar="PYTHON", help="the Python that has vLLM")
    parser.add_argument("--predict", type=Path, metavar="FILE", help="write the predictions and end; needs no GPU")
    options = parser.parse_args(arguments)
    if options.predict:
        write_predictions(options.predict)
        return 0
    if run(["sh", "-c", "command -v nvidia-smi"]).returncode:
        print("There is no nvidia-smi: this needs a machine with an NVIDIA GPU and its driver.", file=sys.stderr)
        return 2
    problems = [] if options.skip_info else prove_info(options.out)
    work, until = options.work or options.out / "models", time.monotonic() + options.minutes * 60
    if options.llama:
        llama = options.llama.resolve()
        problems += prove_families(options.out, llama, work, options.minutes)
        if not options.families:
            problems += prove_memory(options.out, llama, work, options.models, (until - time.monotonic()) / 60)
    if options.vllm:
        problems += prove_vllm(options.out, options.vllm, work, options.models, (until - time.monotonic()) / 60)
    print("\n".join(problems) or "Everything agrees.")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
