"""`ai-idp fit`: whether a model fits GPUs that are there, here or in an inventory, or that are described."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ai_idp.errors import WRONG_SHAPE, FrontError, from_json
from ai_idp.progress import write_line
from ai_idp.project import Project

CATALOGUE = Path("playbooks") / "group_vars" / "all" / "models.yml"
GIB = 1 << 30
MIB = 1 << 20
ASK_TIMEOUT_S = 180

# Cards by name: GiB of memory and GB/s, from the vendors' data sheets. Written as a user would; the longest name that
# is part of what was asked for counts.
CARDS: dict[str, tuple[float, int]] = {
    "RTX 3060": (12, 360),
    "RTX 3090": (24, 936),
    "RTX 4060 Ti 16GB": (16, 288),
    "RTX 4070": (12, 504),
    "RTX 4090": (24, 1008),
    "RTX 5060 Ti 16GB": (16, 448),
    "RTX 5070": (12, 672),
    "RTX 5070 Ti": (16, 896),
    "RTX 5080": (16, 960),
    "RTX 5090": (32, 1792),
    "RTX 6000 Ada": (48, 960),
    "L4": (24, 300),
    "L40S": (48, 864),
    "A100 40GB": (40, 1555),
    "A100 80GB": (80, 2039),
    "H100": (80, 3350),
    "H200": (141, 4800),
}
# What CUDA gives out of a card's nominal memory: 15,850 of 16,384 MiB of an RTX 5070 Ti, the least of the cards known
# here (81,079 of 81,920 of an H100).
GIVEN_OUT = 0.967
_SIZED = re.compile(r"^(?:(?P<name>.*?)[ :=]+)?(?P<size>\d+(?:\.\d+)?) *(?P<unit>Gi?B|Mi?B)$", re.IGNORECASE)


@dataclass(frozen=True)
class Hardware:
    """What one host has: GPUs as gpu_info returns them and bytes of memory."""

    name: str
    gpus: list[dict[str, Any]]
    memory: int | None
    described: bool = False


@dataclass
class Answer:
    """model_fit's answer for one host."""

    hardware: Hardware
    engine: str
    row: dict[str, Any]
    problems: list[str] = field(default_factory=list)

    @property
    def verdict(self) -> str:
        return "does_not_fit" if self.problems else str(self.row["verdict"])


def _shared(project: Project) -> Any:
    """The project's own model_fit, which hosts run too."""
    import ansible.module_utils as package

    folder = str(project.root / "module_utils")
    if folder not in package.__path__:
        package.__path__.append(folder)
    from ansible.module_utils.ai_idp import model_fit

    return model_fit


# --- the model ------------------------------------------------------------------------------------------------------


def find_model(project: Project, wanted: str, engine: str | None) -> tuple[dict[str, Any], str]:
    """The model as model_fit takes it, and the engine that serves it: a file, a folder or a name of the catalogue."""
    path = Path(wanted).expanduser()
    if path.exists():
        folder = path.is_dir() and (path / "config.json").is_file()
        return {"name": path.name, "path": str(path)}, engine or ("vllm" if folder else "llama_cpp")
    catalogue = _catalogue(project)
    entry = next((entry for entry in catalogue if entry.get("name") == wanted), None)
    if entry is None:
        names = ", ".join(str(entry.get("name")) for entry in catalogue)
        raise FrontError(f"{wanted} is neither a file, nor a folder, nor a model of the catalogue, which has: {names}")
    figures = {**({"weights_bytes": entry["size_bytes"]} if entry.get("size_bytes") else {})}
    figures |= entry.get("figures") or {}
    serves = "llama_cpp" if entry.get("format") == "gguf" else "vllm"
    if engine and engine != serves:
        raise FrontError(f"{wanted} is of the format {entry.get('format')}: {serves} serves it and {engine} does not")
    return {"name": wanted, "figures": figures}, serves


def _catalogue(project: Project) -> list[dict[str, Any]]:
    path = project.root / CATALOGUE
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))["ai_idp_models"]
        return [entry for entry in found if isinstance(entry, dict)]
    except (OSError, yaml.YAMLError, *WRONG_SHAPE) as error:
        raise FrontError(f"{project.shown(path)} can't be read as the catalogue: {error}") from error


# --- the hardware ---------------------------------------------------------------------------------------------------


def described(names: Sequence[str], memory_gib: float | None) -> Hardware:
    """GPUs by name, or with a size of their own as in "RTX 4090:24GiB" or "24GB"."""
    gpus = []
    for index, name in enumerate(names):
        sized = _SIZED.match(name.strip())
        known = max((card for card in CARDS if card.lower() in name.lower()), key=len, default=None)
        if sized and (known is None or (sized["name"] or "").strip()):
            unit = GIB if sized["unit"].lower().startswith("g") else MIB
            size, label, bandwidth = float(sized["size"]) * unit, (sized["name"] or name).strip(), None
            known = max((card for card in CARDS if card.lower() in label.lower()), key=len, default=None)
            bandwidth = CARDS[known][1] if known else None
        elif known:
            size, label, bandwidth = CARDS[known][0] * GIB, known, CARDS[known][1]
        else:
            raise FrontError(
                f"--gpu {name}: no such card is known here; write its memory with it, as in "
                f'--gpu "{name}:24GiB". Known are {", ".join(CARDS)}.'
            )
        gpus.append(
            {
                "index": index,
                "name": label,
                "memory_total_bytes": int(size),
                "memory_reserved_bytes": int(size * (1 - GIVEN_OUT)),
                "memory_bandwidth_bytes_per_second": bandwidth and bandwidth * 10**9,
            }
        )
    memory = None if memory_gib is None else int(memory_gib * GIB)
    return Hardware("described", gpus, memory, described=True)


def this_machine(project: Project) -> Hardware:
    """The GPUs and the memory of the machine that this runs on."""
    _shared(project)
    from ansible.module_utils.ai_idp import gpu_info, gpu_nvml

    smi = shutil.which("nvidia-smi") or shutil.which("nvidia-smi", path="/usr/lib/wsl/lib")
    tools = gpu_info.Tools(nvidia_smi=smi, nvml_library=gpu_nvml.LIBRARY)
    answer = gpu_info.describe(gpu_info.probe_machine(tools, "/", 30))
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return Hardware("this machine", answer["gpus"], memory)


def hosts_of(project: Project, inventory: str, group: str = "gpu_servers") -> list[Hardware]:
    """The GPUs and memory of an inventory's GPU servers, asked by the modules that a deployment uses."""
    source = project.inventory(inventory)
    found = []
    with tempfile.TemporaryDirectory(prefix="ai-idp-fit-") as folder:
        answers = {}
        for module, arguments in (("gpu_info", []), ("ansible.builtin.setup", ["-a", "filter=ansible_memtotal_mb"])):
            tree = Path(folder) / module
            command = [group, "-i", str(source), "-m", module, *arguments, "--tree", str(tree)]
            try:
                said = project.ask("ansible", *command, timeout=ASK_TIMEOUT_S)
            except subprocess.TimeoutExpired as error:
                raise FrontError(f"the hosts {group} of {inventory} gave no answer within {ASK_TIMEOUT_S} s") from error
            except OSError as error:
                raise FrontError(f"ansible can't be started: {error.strerror}: run `make setup`") from error
            answers[module] = {path.name: _said(path) for path in sorted(tree.glob("*"))} if tree.is_dir() else {}
            if not answers[module]:
                reason = (said.stderr or said.stdout).strip().splitlines()
                why = (reason or ["no reason given"])[-1]
                raise FrontError(f"the hosts {group} of {inventory} gave no answer: {why}")
    for host, answer in answers["gpu_info"].items():
        if not isinstance(answer.get("gpus"), list):
            raise FrontError(f"{host}: {answer.get('msg') or 'it did not say which GPUs it has'}")
        facts = answers["ansible.builtin.setup"].get(host, {}).get("ansible_facts") or {}
        megabytes = facts.get("ansible_memtotal_mb")
        found.append(Hardware(host, answer["gpus"], megabytes * MIB if isinstance(megabytes, int) else None))
    return found


def _said(path: Path) -> dict[str, Any]:
    try:
        answer = from_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise FrontError(f"{path.name}: its answer can't be read: {error}") from error
    return answer if isinstance(answer, dict) else {}


# --- the answer -----------------------------------------------------------------------------------------------------


def judge(
    project: Project,
    model: dict[str, Any],
    engine: str,
    hardware: Hardware,
    *,
    context: str = "auto",
    sequences: int | None = None,
    utilization: float | None = None,
) -> Answer:
    """What model_fit says. FrontError with its sentences where a value is wrong."""
    model_fit = _shared(project)
    variables = {"context_length": "--context", "sequences": "--sequences", "model": "MODEL", "engine": "--engine"}
    service = {
        "name": "fit",
        "engine": engine,
        "device": "gpu" if hardware.gpus else "cpu",
        "model": model,
        "context_length": context,
        "sequences": sequences,
        "tensor_parallel_size": "auto" if engine == "vllm" and hardware.gpus else 1,
        "gpu_memory_utilization": utilization,
        "variables": {**variables, "gpu_memory_utilization": "--utilization", "device": "--gpu", "gpu_index": "--gpu"},
    }
    alternatives = []
    for entry in _catalogue(project):
        figures = {**({"weights_bytes": entry["size_bytes"]} if entry.get("size_bytes") else {})}
        figures |= entry.get("figures") or {}
        serves = "llama_cpp" if entry.get("format") == "gguf" else "vllm"
        if figures.get("weights_bytes") and serves == engine and entry.get("name") != model["name"]:
            alternatives.append({"name": entry["name"], "figures": figures, "engines": [serves]})
    parameters = {
        "services": [service],
        "gpus": hardware.gpus,
        "host_memory_bytes": hardware.memory,
        "alternatives": alternatives,
    }
    inputs, problems = model_fit.parse(parameters)
    if inputs is None:
        raise FrontError(" ".join(problems))
    answer = model_fit.decide(inputs)
    return Answer(hardware, engine, answer["services"][0], answer["problems"])


PARTS = {
    "weights": "weights",
    "kv_cache": "KV cache",
    "states": "recurrent states",
    "pool": "rest of the block pool",
    "compute": "working memory",
    "graphs": "CUDA graphs",
    "overhead": "CUDA and engine",
}
WORDS = {
    "fits": ("fits", "green"),
    "does_not_fit": ("does not fit", "bold red"),
    "unknown": ("can't be told", "yellow"),
}


def _gib(count: int | None) -> str:
    return "-" if count is None else f"{count / GIB:,.2f} GiB"


def show(console: Console, answer: Answer) -> None:
    """One host's answer: a table of what it takes, and what to know beside it."""
    row, hardware = answer.row, answer.hardware
    word, style = WORDS[answer.verdict]
    cards = ", ".join(str(gpu.get("name")) for gpu in hardware.gpus) or "no GPU: the CPU"
    console.print(Text.assemble((f"{row['model']} ", "bold"), (word, style), f" on {hardware.name} ({cards})"))
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    table.add_column(f"{answer.engine}, {row['context_length']:,} tokens, {row['sequences']} at once", no_wrap=True)
    table.add_column("each GPU" if len(row["gpus"]) > 1 else "bytes", justify="right", no_wrap=True)
    for key, label in PARTS.items():
        if (row["breakdown"] or {}).get(key):
            table.add_row(label, _gib(row["breakdown"][key]))
    table.add_row(Text("needed", "bold"), Text(_gib(row["required_bytes"]), "bold"))
    if row["least_bytes"] != row["required_bytes"]:
        table.add_row("needed at least", _gib(row["least_bytes"]))
    table.add_row("available", _gib(row["available_bytes"]))
    if row["host_bytes"]:
        table.add_row("beside it, of the host's memory", _gib(row["host_bytes"]))
    console.print(table)
    lines = [f"context: {row['reasons'].get('context_length', '')}"]
    if row["max_context_length"]:
        lines.append(f"longest context: {row['max_context_length']:,} tokens")
    if row["warm_max_context_length"]:
        lines.append(f"where compiled kernels are found: {row['warm_max_context_length']:,} tokens")
    if row["tensor_parallel_size"] and row["tensor_parallel_size"] > 1:
        lines.append(f"spread over {row['tensor_parallel_size']} GPUs")
    if row["roofline_tokens_per_second"]:
        lines.append(f"at most {row['roofline_tokens_per_second']:,.0f} tokens per second for one request (bandwidth)")
    lines += [f"note: {note}" for note in row["notes"]]
    if row["error_bound_fraction"]:
        lines.append(f"the projection may be off by {100 * row['error_bound_fraction']:.0f} %")
    if hardware.described:
        lines.append(f"the card is described: {100 * GIVEN_OUT:.1f} % of its memory are counted as CUDA's to give out")
    for line in lines:
        write_line(console, f"  {line}", "dim")
    if answer.verdict != "fits":
        for text in answer.problems or [row["message"]]:
            write_line(console, text)


def as_json(answers: Sequence[Answer]) -> str:
    """The answers for programs."""
    rows = [
        {
            "host": answer.hardware.name,
            "described": answer.hardware.described,
            "verdict": answer.verdict,
            "gpus": [
                {"name": gpu.get("name"), "memory_total_bytes": gpu.get("memory_total_bytes")}
                for gpu in answer.hardware.gpus
            ],
            "host_memory_bytes": answer.hardware.memory,
            "problems": answer.problems,
            **{key: value for key, value in answer.row.items() if key not in ("verdict", "gpus", "name")},
        }
        for answer in answers
    ]
    return json.dumps({"fits": all(answer.verdict == "fits" for answer in answers), "answers": rows}, indent=2)
