"""Turns what the caller wrote into checked services and GPUs, or into sentences about what is wrong.

A sentence names the variable that the user sets, its value, what is allowed and what to do.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field, replace
from typing import Any

ENGINES = ("vllm", "llama_cpp", "triton")
DEVICES = ("gpu", "cpu")

# KV cache types by engine, with the bytes of one element. Block types: ggml's type table, 32 elements.
KV_BYTES: dict[str, dict[str, float]] = {
    "llama_cpp": {
        "auto": 2.0,
        "f32": 4.0,
        "f16": 2.0,
        "bf16": 2.0,
        "q8_0": 34 / 32,
        "q5_1": 24 / 32,
        "q5_0": 22 / 32,
        "q4_1": 20 / 32,
        "q4_0": 18 / 32,
        "iq4_nl": 18 / 32,
    },
    "vllm": {"auto": 2.0, "f16": 2.0, "bf16": 2.0, "fp8": 1.0, "fp8_e4m3": 1.0, "fp8_e5m2": 1.0},
    "triton": {"auto": 2.0},
}

# Types of activations that vLLM runs a model in.
DTYPES = ("auto", "bfloat16", "float16", "half", "float32", "float")

DEFAULT_UTILIZATION = 0.80
DEFAULT_BATCHED_TOKENS = 4096
DEFAULT_UBATCH = 512
DEFAULT_SEQUENCES = {"vllm": 32, "llama_cpp": 1, "triton": 1}
# The most that ``auto`` takes: what one user's platform was corrected to.
AUTO_SEQUENCES = {"vllm": 32, "llama_cpp": 4, "triton": 1}
DEFAULT_CONTEXT = 4096

_PERCENT = re.compile(r"^\s*(\d+(?:[.,]\d+)?)\s*%\s*$")
_UP_TO = re.compile(r"^up to (.+)$")


class InputError(ValueError):
    """One sentence about one value."""


@dataclass(frozen=True)
class Wish:
    """What a user asked for: exactly a number, or as much as fits and at most ``most`` (None: no end)."""

    exact: int | None = None
    most: int | None = None


@dataclass(frozen=True)
class Service:
    """A checked service. For llama.cpp ``context_length`` is ``-c``, shared by all slots (``-np``).

    ``context_length``, ``sequences`` and ``tensor_parallel_size`` are exact; where the wish leaves them open,
    ``fit_plan`` puts the number in. ``gpu_indices`` are the cards of a service that is spread over several.
    """

    name: str
    engine: str
    device: str
    gpu_index: int
    model: dict[str, Any]
    context_length: int
    sequences: int
    kv_cache_type: str
    gpu_memory_utilization: float
    max_num_batched_tokens: int
    ubatch_size: int
    gpu_layers: int
    memory_bytes: int
    cpu_kv_cache_bytes: int | None
    memory_limit_bytes: int | None
    variables: dict[str, str] = field(default_factory=dict)
    # Whether vLLM's compiled kernels are there already: cold is how every new setting starts.
    compile_cache: str = "cold"
    enforce_eager: bool = False
    dtype: str = "auto"
    context_wish: Wish = Wish()
    sequences_wish: Wish = Wish()
    tensor_parallel_wish: Wish = Wish(exact=1)
    tensor_parallel_size: int = 1
    gpu_indices: tuple[int, ...] = ()
    # What runs now: kept while next to nothing would be gained by another number.
    planned: dict[str, int] = field(default_factory=dict)

    def variable(self, parameter: str) -> str:
        """The name under which the user sets a parameter."""
        return variable_name(self.name, self.variables, parameter)

    @property
    def kv_element_bytes(self) -> float:
        return KV_BYTES[self.engine][self.kv_cache_type]

    @property
    def model_name(self) -> str:
        return str(self.model.get("name") or self.model.get("path") or "the model")


@dataclass(frozen=True)
class Gpu:
    """A card: ``usable_bytes`` is what CUDA can give out, None where its memory is not known."""

    index: int
    name: str
    total_bytes: int | None
    usable_bytes: int | None
    taken_bytes: int
    shared_with_host: bool
    bandwidth: int | None
    # As CDI names it behind "nvidia.com/gpu=": the card's index, or card and instance where it is cut up (MIG).
    device: str = ""
    is_instance: bool = False


def variable_name(service: str, variables: dict[str, str], parameter: str) -> str:
    return str(variables.get(parameter) or f"{parameter} of service {service}")


def _missing(value: Any) -> bool:
    return value is None or (isinstance(value, str) and not value.strip())


def fraction(value: Any, variable: str, default: float) -> float:
    """A part of a whole: above 0, at most 1."""
    if _missing(value):
        return default
    allowed = "a number above 0 and at most 1, the part of the GPU's memory (the default is 0.80)"
    percent = _PERCENT.match(value) if isinstance(value, str) else None
    number = _number(value)
    if percent:
        part = float(percent.group(1).replace(",", ".")) / 100
        hint = f"Write {part:.2f} for {value.strip()}." if 0 < part <= 1 else "Write 0.80 for 80 %."
    elif number is not None and 0 < number <= 1:
        return number
    elif number is not None and 1 < number <= 100 and number >= 2:
        hint = f"Write {number / 100:.2f} if {number:g} % is meant."
    elif number is not None and number > 1:
        hint = "Set 0.80: a GPU has no more memory than all of it, and other services and CUDA need some too."
    else:
        hint = "Set 0.80."
    raise InputError(f"{variable} is {value!r}; allowed is {allowed}. {hint}")


def _number(value: Any) -> float | None:
    if isinstance(value, bool):
        return None
    try:
        number = float(value)
    except (OverflowError, TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def whole(value: Any, variable: str, default: int | None, least: int, most: int, what: str, advice: str) -> int | None:
    """A whole number within bounds, also when it was written as text."""
    if _missing(value):
        return default
    number = _number(value)
    if number is None or number != int(number) or not least <= number <= most:
        raise InputError(
            f"{variable} is {value!r}; allowed is a whole number from {least:,} to {most:,} ({what}). {advice}"
        )
    return int(number)


def wish(value: Any, variable: str, default: int, least: int, most: int, what: str, advice: str) -> Wish:
    """A whole number, ``auto`` for as much as fits, or ``up to N``."""
    text = " ".join(value.split()).lower() if isinstance(value, str) else ""
    if text == "auto":
        return Wish()
    limited = _UP_TO.match(text)
    number = limited.group(1) if limited else value
    try:
        found = whole(number, variable, default, least, most, what, advice)
    except InputError:
        raise InputError(
            f"{variable} is {value!r}; allowed is a whole number from {least:,} to {most:,} ({what}), auto for as much "
            f'as fits, or "up to N" for as much as fits and at most N. {advice}'
        ) from None
    return Wish(most=found) if limited else Wish(exact=found)


def choice(value: Any, variable: str, default: str, allowed: tuple[str, ...], advice: str) -> str:
    if _missing(value):
        return default
    text = str(value).strip()
    if text not in allowed:
        raise InputError(f"{variable} is {value!r}; allowed is one of {', '.join(allowed)}. {advice}")
    return text


def truth(value: Any, variable: str, default: bool) -> bool:
    """Yes or no, also when it was written as text."""
    if _missing(value):
        return default
    text = str(value).strip().lower()
    if text not in ("true", "false", "yes", "no"):
        raise InputError(f"{variable} is {value!r}; allowed is true or false. Set false where nobody asked for it.")
    return text in ("true", "yes")


def _mapping(value: Any, variable: str) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InputError(f"{variable} is {value!r}; allowed is a mapping. Write it as key: value pairs.")
    return value


BYTES_MOST = 1 << 50


def parse_service(raw: dict[str, Any]) -> tuple[Service | None, list[str]]:
    """One service, or every sentence about what is wrong with it."""
    name = str(raw.get("name") or "").strip()
    if not name:
        return None, [f"A service has no name: {raw!r}. Give each service a name."]
    problems: list[str] = []
    variables = raw.get("variables") or {}
    if not isinstance(variables, dict):
        return None, [f"variables of service {name} is {variables!r}; allowed is a mapping of names."]

    def called(parameter: str) -> str:
        return variable_name(name, variables, parameter)

    def read(parse: Any, parameter: str, default: Any, *rest: Any) -> Any:
        try:
            return parse(raw.get(parameter), called(parameter), default, *rest)
        except InputError as error:
            problems.append(str(error))
            return default

    if _missing(raw.get("engine")):
        return None, [f"{called('engine')} is not set; allowed is one of {', '.join(ENGINES)}. Name the engine."]
    engine = read(choice, "engine", "", ENGINES, "Name an engine that the platform runs.")
    if not engine:
        return None, problems
    device = read(choice, "device", "gpu", DEVICES, "Set gpu where the service holds memory of a GPU, else cpu.")
    types = tuple(KV_BYTES[engine])
    try:
        model = _mapping(raw.get("model"), called("model"))
        figures = _mapping(model.get("figures"), called("model") + " (figures)")
        model = {**model, "figures": figures}
    except InputError as error:
        problems.append(str(error))
        model = {}
    if engine != "triton" and not raw.get("model"):
        problems.append(f"{called('model')} is not set. Give the model's name with a path or figures.")

    def read_wish(parameter: str, default: int, most: int, what: str, advice: str) -> Wish:
        try:
            return wish(raw.get(parameter), called(parameter), default, 1, most, what, advice)
        except InputError as error:
            problems.append(str(error))
            return Wish(exact=default)

    advice = "Set the longest text that you need, such as 8192."
    context = read_wish("context_length", DEFAULT_CONTEXT, 1 << 27, "tokens", advice)
    most_at_once = "requests at the same time"
    sequences = read_wish("sequences", DEFAULT_SEQUENCES[engine], 65_536, most_at_once, "Set 1 or more.")
    parallel = read_wish("tensor_parallel_size", 1, 64, "GPUs that one model is spread over", "Set auto or 1.")
    planned = raw.get("planned") if isinstance(raw.get("planned"), dict) else {}
    service = Service(
        name=name,
        engine=engine,
        device=device,
        gpu_index=read(whole, "gpu_index", 0, 0, 63, "the GPU's index", "Set the index that nvidia-smi -L shows."),
        model=model,
        context_length=context.exact or min(context.most or DEFAULT_CONTEXT, DEFAULT_CONTEXT),
        sequences=sequences.exact or min(sequences.most or AUTO_SEQUENCES[engine], 65_536),
        kv_cache_type=read(
            choice, "kv_cache_type", "auto", types, f"These are the types that {engine} has; auto is 16 bit."
        ),
        gpu_memory_utilization=read(fraction, "gpu_memory_utilization", DEFAULT_UTILIZATION),
        max_num_batched_tokens=read(
            whole, "max_num_batched_tokens", DEFAULT_BATCHED_TOKENS, 1, 1 << 22, "tokens", "Set 4096."
        ),
        ubatch_size=read(whole, "ubatch_size", DEFAULT_UBATCH, 1, 1 << 16, "tokens", "Set 512."),
        gpu_layers=read(whole, "gpu_layers", -1, -1, 1 << 16, "layers; -1 is all", "Set -1 for all layers."),
        memory_bytes=read(
            whole, "memory_bytes", 0, 0, BYTES_MOST, "bytes", "Set how many bytes this service may take."
        ),
        cpu_kv_cache_bytes=read(
            whole,
            "cpu_kv_cache_bytes",
            None,
            1,
            BYTES_MOST,
            "bytes",
            "Set what VLLM_CPU_KVCACHE_SPACE gives, in bytes.",
        ),
        memory_limit_bytes=read(
            whole, "memory_limit_bytes", None, 1, BYTES_MOST, "bytes", "Set the container's memory limit in bytes."
        ),
        variables={str(key): str(value) for key, value in variables.items()},
        dtype=read(choice, "dtype", "auto", DTYPES, "Set auto, which is the type that the model was made for."),
        enforce_eager=read(truth, "enforce_eager", False),
        compile_cache=read(choice, "compile_cache", "cold", ("cold", "warm"), "Set cold: a new setting is compiled."),
        context_wish=context,
        sequences_wish=sequences,
        tensor_parallel_wish=parallel,
        planned={key: value for key, value in (planned or {}).items() if isinstance(value, int)},
    )
    if engine == "triton" and device == "gpu" and not service.memory_bytes and not problems:
        problems.append(
            f"{called('memory_bytes')} is not set, but {name} runs on the GPU: "
            "set how many bytes of it Triton may take, or run it on the CPU."
        )
    if engine == "llama_cpp" and (sequences.exact or 1) > (context.exact or context.most or sequences.exact or 1):
        problems.append(
            f"{called('sequences')} is {sequences.exact}, more than the {context.exact or context.most} tokens of "
            f"{called('context_length')} that the slots share: raise the context or lower the number of slots."
        )
    return (None, problems) if problems else (service, [])


def parse_services(raw: list[dict[str, Any]]) -> tuple[list[Service], list[str]]:
    """All services; the problems of all of them together, so that one run shows every mistake."""
    services: list[Service] = []
    problems: list[str] = []
    for entry in raw:
        service, found = parse_service(entry)
        problems += found
        if service is None:
            continue
        if any(other.name == service.name for other in services):
            problems.append(f"Two services are named {service.name}: give each its own name.")
        services.append(service)
    return services, problems


# Memory bandwidth in bytes per second by a part of the name, from the vendor's data sheets.
BANDWIDTH_BY_NAME = {
    "RTX 5070 Ti": 896 * 10**9,
    "H100 80GB HBM3": 3350 * 10**9,
    "Orin Nano": 102 * 10**9,
}


def parse_gpu(raw: dict[str, Any]) -> Gpu:
    """One GPU as gpu_info returns it.

    CUDA gives out less than the card's total: the driver keeps a part (``reserved`` of nvidia-smi). An H100
    with 81,559 MiB and 480 MiB reserved shows 81,079 MiB to CUDA, which is used + free as well, and that is
    the total that vLLM's utilisation is a fraction of.
    """
    index = whole(raw.get("index"), "index of a GPU", None, 0, 63, "as nvidia-smi -L shows", "Give the index.")
    if index is None:
        raise InputError(f"A GPU has no index: {raw!r}. Pass the list that gpu_info returns.")
    called = f"of GPU {index}"

    def size(key: str) -> int | None:
        return whole(raw.get(key), f"{key} {called}", None, 0, BYTES_MOST, "bytes", "Pass what gpu_info returns.")

    total, reserved = size("memory_total_bytes"), size("memory_reserved_bytes")
    used, free = size("memory_used_bytes"), size("memory_free_bytes")
    usable = total
    if total and reserved is not None:
        usable = total - reserved
    elif total and used is not None and free is not None:
        usable = min(total, used + free)
    name = str(raw.get("name") or f"GPU {index}")
    known = (rate for part, rate in BANDWIDTH_BY_NAME.items() if part in name)
    return Gpu(
        index=index,
        name=name,
        total_bytes=total or None,
        usable_bytes=usable or None,
        taken_bytes=size("other_processes_bytes") or 0,
        shared_with_host=bool(raw.get("memory_is_shared")),
        bandwidth=size("memory_bandwidth_bytes_per_second") or next(known, None),
        device=str(index),
    )


def _instances(raw: dict[str, Any], card: Gpu) -> list[Gpu]:
    """The MIG instances of a card, each a GPU of its own; their share of the bandwidth is not known."""
    found = []
    devices = raw.get("mig_devices")
    for place, device in enumerate(devices if isinstance(devices, list) else []):
        if not isinstance(device, dict):
            raise InputError(f"mig_devices of GPU {card.index} has {device!r:.60}. Pass what gpu_info returns.")
        number = whole(
            device.get("index"), f"a MIG device of GPU {card.index}", place, 0, 63, "its index", "Give its index."
        )
        part = parse_gpu(
            {**device, "index": card.index, "name": f"{card.name} MIG {number}", "memory_reserved_bytes": None}
        )
        found.append(replace(part, device=f"{card.index}:{number}", is_instance=True, bandwidth=None))
    return found


# Beside the driver's own answer, by what a card's name has in it: its memory is the host's.
UNIFIED_NAMES = ("GB10",)


def parse_gpus(raw: list[dict[str, Any]], host_memory: int | None = None) -> tuple[list[Gpu], list[str]]:
    """The GPUs that a service can run on.

    A card that is cut into MIG instances is none: its instances are, counted on in the cards' order. A GPU that has
    the host's memory has all of it.
    """
    gpus: list[Gpu] = []
    problems: list[str] = []
    cut = False
    for entry in raw:
        try:
            card = parse_gpu(entry)
            if any(name in card.name.split() for name in UNIFIED_NAMES):
                card = replace(card, shared_with_host=True)
            if card.shared_with_host and card.total_bytes is None and host_memory:
                card = replace(card, total_bytes=host_memory, usable_bytes=host_memory)
            instances = _instances(entry, card) if entry.get("mig_enabled") else []
        except InputError as error:
            problems.append(str(error))
            continue
        cut = cut or bool(instances)
        gpus += instances or [card]
    return [replace(gpu, index=place) for place, gpu in enumerate(gpus)] if cut else gpus, problems
