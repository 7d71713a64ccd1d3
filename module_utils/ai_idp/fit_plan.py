"""Puts numbers in the place of ``auto`` and ``up to N``: what the hardware that is there allows.

GPUs come first, then the longest context, then as many requests at once as it leaves room for. What a user set to a
number stays that number; whether it fits is judged afterwards, as for any other.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ansible.module_utils.ai_idp import engine_memory
from ansible.module_utils.ai_idp.engine_memory import project
from ansible.module_utils.ai_idp.fit_case import (
    Case,
    Inputs,
    build_cases,
    holds,
    judge,
    largest,
    largest_context,
    load_shape,
)
from ansible.module_utils.ai_idp.fit_input import AUTO_SEQUENCES, Gpu, Service
from ansible.module_utils.ai_idp.fit_report import size_text
from ansible.module_utils.ai_idp.model_shape import ModelShape

# Where nobody knows what the model or the memory can take.
CAREFUL_CONTEXT = 8192
# Less than this is of no use; then it is said that the model does not fit.
LEAST_CONTEXT = 1024
# What a request at least finds room for when the number of requests is left open.
REQUEST_TOKENS = 2048
# A kernel or a driver takes a little more or less with each release: not worth a restart.
WORTH_A_CHANGE = 0.05

Reasons = dict[str, str]
AS_SET = "as set"


def _several(count: int, noun: str) -> str:
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


# --- GPUs -------------------------------------------------------------------------------------------


def equal_gpus(gpus: list[Gpu]) -> list[Gpu]:
    """The cards that a model can be spread over: of one kind, those with the most memory together."""
    kinds: dict[tuple[Any, ...], list[Gpu]] = {}
    for gpu in gpus:
        # MIG instances can't work together.
        kind = (gpu.device,) if gpu.is_instance else (gpu.name, gpu.total_bytes)
        kinds.setdefault(kind, []).append(gpu)
    return max(
        kinds.values(), key=lambda group: (len(group) * (group[0].total_bytes or 0), -group[0].index), default=[]
    )


def divides_heads(shape: ModelShape | None, size: int) -> bool:
    """Whether vLLM can share the attention heads out over ``size`` cards; a KV head may stand on several of them."""
    if size == 1:
        return True
    if shape is None or not shape.heads or shape.heads % size:
        return False
    return not shape.kv_heads or shape.kv_heads % size == 0 or size % shape.kv_heads == 0


def _heads_text(shape: ModelShape | None) -> str:
    return f"the model's {shape.heads} attention heads" if shape and shape.heads else "attention heads"


def _why_not(service: Service, shape: ModelShape | None, group: list[Gpu], inputs: Inputs) -> str:
    """Why a number of cards that was asked for can't be had; empty when it can."""
    wanted = service.tensor_parallel_wish.exact or 1
    if wanted > len(inputs.gpus):
        return f"the host has {_several(len(inputs.gpus), 'GPU')}"
    if wanted > len(group):
        return f"only {len(group)} of its {len(inputs.gpus)} GPUs are equal"
    if shape is not None and shape.heads and not divides_heads(shape, wanted):
        return f"{_heads_text(shape)} can't be shared out over {wanted}"
    return ""


def _spread(service: Service, inputs: Inputs) -> tuple[Service, str, str]:
    """The service on its cards, why on so many, and what is wrong with the number that was asked for."""
    wanted = service.tensor_parallel_wish.exact
    if wanted == 1 or service.engine != "vllm" or service.device != "gpu" or not inputs.gpus:
        return service, AS_SET if wanted else "no GPU", ""
    shape, _ = load_shape(service)
    group = equal_gpus(list(inputs.gpus.values()))
    if wanted:
        problem = _why_not(service, shape, group, inputs)
        if problem:
            sizes = [size for size in range(1, len(group) + 1) if divides_heads(shape, size)]
            problem = (
                f"{service.variable('tensor_parallel_size')} is {wanted}, but {problem}. "
                f"Set auto, or one of {', '.join(map(str, sizes))}."
            )
            return service, AS_SET, problem
        size, why = wanted, AS_SET
    else:
        size = max(size for size in range(1, len(group) + 1) if divides_heads(shape, size))
        if len(inputs.gpus) == 1:
            why = "there is one GPU"
        elif size > 1:
            why = f"{size} equal GPUs, over which {_heads_text(shape)} can be shared out"
        elif len(group) == 1:
            why = "the GPUs are not equal: the largest alone"
        elif shape is None or not shape.heads:
            why = "how many attention heads the model has is not known before it is downloaded"
        else:
            why = f"{_heads_text(shape)} can't be shared out over {len(group)} GPUs"
    chosen = tuple(gpu.index for gpu in group[:size])
    return replace(service, tensor_parallel_size=size, gpu_index=chosen[0], gpu_indices=chosen), why, ""


# --- context and sequences --------------------------------------------------------------------------


def _keep(planned: int | None, best: int, fits: Any) -> bool:
    """Whether what runs now stays: it still fits, and next to nothing would be gained."""
    return planned is not None and (1 - WORTH_A_CHANGE) * best <= planned < best and bool(fits(planned))


KEPT = "kept: next to nothing more would fit"


def _context(case: Case, inputs: Inputs) -> tuple[int, str]:
    service, shape = case.service, case.shape
    wish = service.context_wish
    if wish.exact:
        return wish.exact, AS_SET
    trained = shape.trained_context if shape else None
    # llama.cpp's slots share the context, so each of them may have what the model was trained for.
    slots = service.sequences_wish.exact or 1 if service.engine == "llama_cpp" else 1
    ends = [(wish.most, "the most that was asked for")] if wish.most else []
    if trained:
        text = "all that the model was trained for" + (f", for each of {slots} slots" if slots > 1 else "")
        ends.append((trained * slots, text))
    else:
        ends.append((CAREFUL_CONTEXT, "what the model was trained for is not known before it is downloaded"))
    most, why = min(ends)
    if shape is None or shape.uncertain or case.unreadable or case.available is None:
        return min(most, CAREFUL_CONTEXT), "careful: whether more fits can't be told"
    planning = replace(service, sequences=slots) if service.engine == "llama_cpp" else service
    best = largest_context(case, planning, inputs, most)
    if best == most:
        return best, why
    if best < min(LEAST_CONTEXT, most):
        # Nothing of use fits; the judgement says why.
        return min(LEAST_CONTEXT, most), "the least that is of use"
    planned = service.planned.get("context_length")
    if planned and _keep(planned, best, lambda n: holds(case, replace(planning, context_length=n), inputs)):
        return planned, KEPT
    if service.device == "cpu" and service.engine == "vllm" and service.cpu_kv_cache_bytes:
        return best, f"the most that fits the KV cache of {size_text(service.cpu_kv_cache_bytes)}"
    return best, f"the most that fits {size_text(case.available)}"


def _vllm_holds(case: Case, service: Service, inputs: Inputs) -> bool:
    """Whether the KV cache has room for so many requests of ordinary length at once."""
    shape = case.shape
    if shape is None or case.available is None:
        return False
    ordinary = replace(service, context_length=min(REQUEST_TOKENS, service.context_length))
    cache = engine_memory.vllm_cache(shape, ordinary)
    needed = service.sequences * (cache.total - cache.spare) + cache.spare
    projection = project(shape, service, inputs.overhead)
    if projection is None:
        return False
    if service.device == "cpu" and service.cpu_kv_cache_bytes:
        return needed <= service.cpu_kv_cache_bytes and holds(case, service, inputs)
    beside = projection.required - projection.cache + projection.margin
    return beside + max(projection.cache, needed) <= case.available


def _sequences(case: Case, inputs: Inputs) -> tuple[int, str]:
    service = case.service
    wish = service.sequences_wish
    if wish.exact:
        return wish.exact, AS_SET
    most = wish.most or AUTO_SEQUENCES[service.engine]
    why_most = "the most that was asked for" if wish.most else "enough for the platform"
    room = max(1, service.context_length // REQUEST_TOKENS)
    if case.shape is None or case.shape.uncertain or case.unreadable or case.available is None:
        known = min(most, room) if service.engine == "llama_cpp" else most
        return known, "whether so many fit can't be told"
    if service.engine == "llama_cpp":
        fitting = (n for n in range(min(most, room), 1, -1) if holds(case, replace(service, sequences=n), inputs))
        best = next(fitting, 1)
    else:
        best = max(1, largest(lambda n: n == 0 or _vllm_holds(case, replace(service, sequences=n), inputs), most))
    if best == most:
        return best, why_most
    planned = service.planned.get("sequences")
    if (
        service.engine == "vllm"
        and planned
        and _keep(planned, best, lambda n: _vllm_holds(case, replace(service, sequences=n), inputs))
    ):
        return planned, KEPT
    return best, f"as many as find room for {REQUEST_TOKENS:,} tokens each"


def plan(inputs: Inputs) -> tuple[Inputs, dict[str, Reasons], list[str]]:
    """The inputs with a number for every wish, why each number, and what is wrong with the wishes.

    A service whose turn has not come counts with the least context, so that the first does not depend on it.
    """
    reasons: dict[str, Reasons] = {service.name: {} for service in inputs.services}
    problems: list[str] = []
    services = []
    for service in inputs.services:
        placed, why, problem = _spread(service, inputs)
        if service.engine == "vllm":
            reasons[service.name]["tensor_parallel_size"] = why
        problems += [problem] if problem else []
        if not service.context_wish.exact:
            least = min(LEAST_CONTEXT, service.context_wish.most or LEAST_CONTEXT)
            placed = replace(placed, context_length=least)
        services.append(placed)
    planned = inputs.with_services(services)
    for index, service in enumerate(services):
        if service.engine == "triton":
            continue
        for parameter, find in (("context_length", _context), ("sequences", _sequences)):
            cases = build_cases(planned)
            judge(cases[index], cases, planned)
            number, reasons[service.name][parameter] = find(cases[index], planned)
            services[index] = replace(services[index], **{parameter: number})
            planned = planned.with_services(services)
    return planned, reasons, problems
