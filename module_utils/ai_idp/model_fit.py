"""Decides whether services fit the memory of a host's GPUs and of the host, and what would fit instead.

Pure: nothing is run or changed; only model headers are read (``model_shape.load``).

``required_bytes`` is the projection itself. A service *fits* when the projection and its margin do, it does
*not fit* when the projection alone is above what there is; between the two, and without figures, the answer is
*unknown*.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from ansible.module_utils.ai_idp import engine_memory, fit_input, fit_plan, model_shape
from ansible.module_utils.ai_idp.engine_memory import project
from ansible.module_utils.ai_idp.fit_case import (
    DEFAULT_HOST_RESERVE,
    DOES_NOT_FIT,
    FITS,
    MAX_CONTEXT_SEARCH,
    UNKNOWN,
    Case,
    Inputs,
    build_cases,
    gpu_demand,
    holds,
    host_demand,
    judge,
    largest,
    largest_context,
    others_on_host,
    verdict_of,
)
from ansible.module_utils.ai_idp.fit_input import Gpu
from ansible.module_utils.ai_idp.fit_report import block, budget_text, gpu_text, parts_text, size_text

MAX_SEQUENCE_SEARCH = 4096


def max_context(case: Case, inputs: Inputs) -> int | None:
    """The largest context_length that fits with the same sequences, at most what the model was trained for."""
    shape, service = case.shape, case.service
    if shape is None or not shape.kv_layers or case.available is None or case.unreadable:
        return None
    most = shape.trained_context or MAX_CONTEXT_SEARCH
    if service.engine == "llama_cpp":
        most *= service.sequences  # -c is shared by the slots
    return largest_context(case, service, inputs, most)


def warm_context(case: Case, inputs: Inputs) -> int | None:
    """The context that vLLM's start would leave room for if it found its compiled kernels; None for other engines.

    It is told and never planned for: the length is part of the kernels' key, so a longer one starts cold.
    """
    if case.service.engine != "vllm" or case.projection is None or not case.projection.warm_saving:
        return None
    return max_context(replace(case, service=replace(case.service, compile_cache="warm")), inputs)


def max_sequences(case: Case, inputs: Inputs) -> int | None:
    """How many sequences of the present length fit at once.

    vLLM: how many full-length ones the KV cache holds (more than that wait or are preempted). llama.cpp: how
    many slots of the present size would fit.
    """
    shape, service, projection = case.shape, case.service, case.projection
    if shape is None or projection is None or not shape.kv_layers or case.available is None or case.unreadable:
        return None
    if service.engine == "llama_cpp":
        slot = math.ceil(service.context_length / service.sequences)
        return largest(
            lambda n: n == 0 or holds(case, replace(service, sequences=n, context_length=slot * n), inputs),
            MAX_SEQUENCE_SEARCH,
        )
    cache = engine_memory.vllm_cache(shape, service)
    one = cache.total - cache.spare
    if not one:
        return None
    space = case.available - (projection.required - projection.cache) - projection.margin
    if service.device == "cpu" and service.cpu_kv_cache_bytes:
        space = service.cpu_kv_cache_bytes
    return max(0, (space - cache.spare) // one)


def smaller_quantizations(case: Case, inputs: Inputs) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
    """The largest published quantisation below the present one that fits, and the smallest one of all."""
    shape, available = case.shape, case.available
    if shape is None or not shape.quantizations:
        return None, None
    rows: list[dict[str, Any]] = []
    for choice in shape.quantizations:
        projection = project(shape.quantized(choice), case.service, inputs.overhead)
        if projection is None:
            continue
        fits = available is not None and not case.unreadable and verdict_of(projection, available) == FITS
        rows.append(
            {
                "name": choice.name,
                "weights_bytes": choice.weights_bytes,
                "required_bytes": projection.required,
                "least_bytes": projection.weights + projection.overhead,
                "fits": fits,
            }
        )
    smaller = [row for row in rows if row["weights_bytes"] < shape.weights_bytes and row["fits"]]
    return (smaller[0] if smaller and case.verdict != FITS else None), (rows[-1] if rows else None)


def fitting_alternatives(case: Case, inputs: Inputs) -> list[dict[str, Any]]:
    """Which of the caller's alternatives fit with the same limits, largest first."""
    if case.available is None or case.service.engine == "triton":
        return []
    found = []
    for entry in inputs.alternatives:
        engines = entry.get("engines")
        if engines and case.service.engine not in engines:
            continue
        try:
            shape = model_shape.load(entry)
        except model_shape.ShapeError:
            continue
        if shape is None or not shape.kv_layers:
            continue
        projection = project(shape, case.service, inputs.overhead)
        if projection is not None and verdict_of(projection, case.available) == FITS:
            found.append(
                {
                    "name": shape.name,
                    "weights_bytes": shape.weights_bytes,
                    "required_bytes": projection.required,
                }
            )
    return sorted(found, key=lambda row: row["required_bytes"], reverse=True)


def roofline(case: Case, inputs: Inputs) -> float | None:
    """Tokens per second that memory bandwidth allows one sequence: bandwidth / bytes read per token.

    A ceiling at an empty context, not a promise: measured decode reached 0.20 to 0.55 of it on an H100.
    """
    if case.shape is None or not case.shape.active_weights_bytes or case.verdict == DOES_NOT_FIT:
        return None
    if case.service.device == "cpu":
        bandwidth = inputs.host_bandwidth
    else:
        whole_model = case.service.engine == "vllm" or case.service.gpu_layers < 0
        bandwidth = case.gpu.bandwidth if case.gpu and whole_model else None
        bandwidth = bandwidth and bandwidth * case.service.tensor_parallel_size
    if not bandwidth:
        return None
    return round(bandwidth / case.shape.active_weights_bytes, 1)


def _on_cpu_text(case: Case, cases: list[Case], inputs: Inputs) -> str:
    """Whether the same model would fit the host's memory under llama.cpp, for a model that no GPU holds."""
    shape = case.shape
    engines = case.service.model.get("engines")
    if shape is None or inputs.host_budget is None or shape.source == "hugging_face":
        return ""
    if engines and "llama_cpp" not in engines:
        return ""
    service = replace(case.service, engine="llama_cpp", device="cpu", sequences=1, kv_cache_type="auto")
    projection = project(shape, service, inputs.overhead)
    room = inputs.host_budget - others_on_host(case, cases)
    if projection is None or verdict_of(projection, room) != FITS:
        return ""
    text = f"On the CPU under llama.cpp it needs {size_text(projection.required)} of {size_text(room)} host memory"
    if inputs.host_bandwidth and shape.active_weights_bytes:
        ceiling = inputs.host_bandwidth / shape.active_weights_bytes
        text += f" and gives at most {ceiling:.1f} tokens per second"
    return text + "."


def _quantization_text(case: Case, better: dict[str, Any] | None, smallest: dict[str, Any] | None) -> str:
    if better:
        return (
            f"Smaller quantisation: {better['name']} ({size_text(better['weights_bytes'])} of weights) "
            f"needs {size_text(better['required_bytes'])} and fits."
        )
    if not smallest:
        return ""
    text = (
        f"Smallest published quantisation: {smallest['name']}, {size_text(smallest['weights_bytes'])} of weights, "
        f"needs {size_text(smallest['required_bytes'])}"
    )
    usable = case.gpu.usable_bytes if case.gpu else case.available
    if usable and smallest["required_bytes"] > usable:
        where = f"all that the card can give ({size_text(usable)})" if case.gpu else "what the host has"
        text += f", which is above {where} too"
        if smallest["least_bytes"] > usable:
            return text + ", even with no context at all: this model does not fit in any form."
        return text + "."
    return text + ", which does not fit with these limits either."


def _advice(case: Case, context: int | None, alternatives: list[dict[str, Any]]) -> str:
    """What the user can do, most sensible first."""
    service, steps = case.service, []
    if case.limited_by == "kv_cache" and context:
        steps.append(f"set {service.variable('context_length')} to at most {context:,}")
    if service.engine == "vllm" and case.gpu and case.gpu.usable_bytes and case.projection:
        needed = (case.projection.required + case.projection.margin) / case.gpu.usable_bytes
        needed = math.ceil(needed * 100) / 100
        if service.gpu_memory_utilization < needed <= 0.92:
            steps.append(
                f"raise {service.variable('gpu_memory_utilization')} to {needed:.2f} if nothing else needs this GPU"
            )
    model_variable = service.variable("model")
    if alternatives:
        steps.append(f"choose one of the models above ({model_variable})")
    else:
        steps.append(f"choose a smaller model or quantisation ({model_variable})")
    steps.append("use a larger GPU" if case.gpu else "add memory")
    return "What to do: " + "; or ".join(steps) + "."


def _accept_text(case: Case) -> str:
    """The one line that lets a start go on whose outcome can't be told."""
    if case.service.model.get("accept_unknown"):
        return "accept_unknown is set for this model, so it is tried; what it really takes shows after the start."
    return f"To try it, write accept_unknown: true in the entry of this model ({case.service.variable('model')})."


def _explain(case: Case, cases: list[Case], inputs: Inputs, row: dict[str, Any]) -> str:
    """The message for one service."""
    service, projection = case.service, case.projection
    head = f"{service.name}: {service.model_name}" if service.engine != "triton" else service.name
    device = gpu_text(case.gpu) if case.gpu else "the CPU"
    if len(case.gpus) > 1:
        device = f"each of {len(case.gpus)} cards like {device}"
    if case.limited_by == "no_gpu":
        there = ", ".join(gpu_text(gpu) for gpu in inputs.gpus.values()) or "none"
        return (
            f"{head} is to run on GPU {service.gpu_index}, which this host does not have (GPUs found: {there}). "
            f"Choose one that is there ({service.variable('gpu_index')}), or run it on the CPU "
            f"({service.variable('device')})."
        )
    if case.limited_by == "cpu_kv_cache" and case.shape and service.cpu_kv_cache_bytes:
        one = engine_memory.vllm_sequence_kv(case.shape, service)
        return (
            f"{head} does not start: one sequence of {service.context_length:,} tokens needs "
            f"{size_text(one)} of KV cache, {service.variable('cpu_kv_cache_bytes')} gives "
            f"{size_text(service.cpu_kv_cache_bytes)}. Raise it to {one / (1 << 30):.2f} GiB or more, or set "
            f"{service.variable('context_length')} to at most {row['max_context_length'] or 0:,}."
        )
    if case.limited_by == "dtype":
        return (
            f"{head} would crash at its start: {service.variable('kv_cache_type')} is {service.kv_cache_type}, and "
            f"vLLM runs this model in float16, which can't have an 8-bit KV cache. Set {service.variable('dtype')} to "
            f"bfloat16, or {service.variable('kv_cache_type')} to auto."
        )
    if projection and case.gpu and case.limited_by == "memory_limit":
        return (
            f"{head} takes {size_text(projection.host)} of main memory beside {device}, and "
            f"{service.variable('memory_limit_bytes')} gives {size_text(service.memory_limit_bytes or 0)}: raise it to "
            f"{projection.host / (1 << 30):.2f} GiB or more, or leave it empty."
        )
    if projection is None or case.limited_by == "model_not_known":
        why = case.unreadable or "the model is not on the host yet and the catalogue has no figures for it"
        return (
            f"{head}: can't tell whether it fits on {device}: {why}. Give figures (weights_bytes, layers, kv_heads, "
            f"head_dim) in {service.variable('model')}, or download the model first."
        )
    if case.limited_by == "memory_not_known":
        return f"{head}: can't tell whether it fits: the memory of {device} is not known. {_accept_text(case)}"
    available = case.available or 0
    if case.limited_by == "layer_kinds" and case.least and case.shape:
        return block(
            f"{head}: can't tell whether it fits on {device}: {case.shape.uncertain}.",
            [
                f"Needed: at least {size_text(case.least.required)} = {parts_text(case.least, service)}; at most "
                f"{size_text(projection.required)}, if every layer keeps all of each attention head.",
                f"Available: {budget_text(service, case.gpu, available)}.",
                _accept_text(case),
            ],
        )
    needed = f"Needed: {size_text(projection.required)} = {parts_text(projection, service)}."
    if case.verdict == FITS:
        text = f"{head} fits on {device}: {size_text(projection.required)} of {size_text(available)}"
        if row["max_sequences"] and service.engine == "vllm":
            count = row["max_sequences"]
            text += f"; its KV cache holds {count} sequence{'s' if count > 1 else ''}"
            text += f" of {service.context_length:,} tokens"
        if row["warm_max_context_length"] and row["warm_max_context_length"] > (row["max_context_length"] or 0):
            text += f" (a start that finds its compiled kernels would have room for {row['warm_max_context_length']:,})"
        return text + "."
    budget = f"Available: {budget_text(service, case.gpu, available)}"
    if case.verdict == UNKNOWN:
        return block(
            f"{head}: too close to tell whether it fits on {device}.",
            [
                needed,
                f"{budget}; the projection may be {size_text(projection.margin)} too low.",
                _advice(case, row["max_context_length"], []),
                _accept_text(case),
            ],
        )
    alternatives = row["alternatives"]
    if alternatives:
        listed = ", ".join(f"{item['name']} ({size_text(item['required_bytes'])})" for item in alternatives[:5])
        instead = f"What fits instead with the same limits: {listed}."
    elif inputs.alternatives:
        instead = "None of the other models of the catalogue fits with these limits."
    else:
        instead = ""
    short = f"; short by {size_text(projection.required - available)}."
    if case.limited_by == "memory_limit":
        budget = f"Available: {size_text(available)} ({service.variable('memory_limit_bytes')})"
    return block(
        f"{head} does not fit on {device}.",
        [
            needed,
            budget + short,
            _quantization_text(case, row["next_smaller_quantization"], row["smallest_quantization"]),
            instead,
            _on_cpu_text(case, cases, inputs) if case.gpu else "",
            _advice(case, row["max_context_length"], alternatives),
        ],
    )


# Copies of its windows and states that llama-server keeps of each slot in host memory (--ctx-checkpoints).
CHECKPOINTS = 32


def notes(case: Case) -> list[str]:
    """What makes the projection less exact, or stands beside it."""
    shape, service = case.shape, case.service
    found = list(shape.notes) if shape else []
    if shape and service.engine == "llama_cpp":
        copied = tuple(layer for layer in shape.kv_layers if layer.window is not None or layer.state_bytes)
        each = engine_memory.llama_cpp_slot(copied, service)
        if each:
            most = CHECKPOINTS * service.sequences * each
            found.append(
                f"llama-server keeps up to {CHECKPOINTS} copies of windows and states of each slot in host memory, "
                f"at most {size_text(most)} more (--ctx-checkpoints)"
            )
    return found


def _service_row(case: Case, cases: list[Case], inputs: Inputs, reasons: dict[str, str]) -> dict[str, Any]:
    projection = case.projection
    better, smallest = smaller_quantizations(case, inputs)
    row: dict[str, Any] = {
        "name": case.service.name,
        "engine": case.service.engine,
        "device": case.service.device,
        "model": case.service.model_name if case.service.engine != "triton" else None,
        "gpus": [gpu.index for gpu in case.gpus],
        "devices": [gpu.device for gpu in case.gpus],
        "context_length": case.service.context_length if "context_length" in reasons else None,
        "sequences": case.service.sequences if "sequences" in reasons else None,
        "tensor_parallel_size": case.service.tensor_parallel_size if "tensor_parallel_size" in reasons else None,
        "reasons": reasons,
        "verdict": case.verdict,
        "accepted": case.verdict == UNKNOWN and bool(case.service.model.get("accept_unknown")),
        "required_bytes": projection.required if projection else None,
        "least_bytes": (case.least or projection).required if projection else None,
        "warm_required_bytes": projection.required - projection.warm_saving if projection else None,
        "warm_max_context_length": warm_context(case, inputs),
        "available_bytes": case.available,
        "host_bytes": projection.host if projection else None,
        "breakdown": {
            "weights": projection.weights,
            "kv_cache": projection.kv_cache,
            "states": projection.states,
            "pool": projection.pool,
            "compute": projection.compute,
            "graphs": projection.graphs,
            "reserved": projection.reserved,
            "overhead": projection.overhead,
            "margin": projection.margin,
        }
        if projection
        else None,
        "limited_by": case.limited_by,
        "max_context_length": max_context(case, inputs),
        "max_sequences": max_sequences(case, inputs),
        "next_smaller_quantization": better,
        "smallest_quantization": smallest,
        "alternatives": fitting_alternatives(case, inputs) if case.verdict == DOES_NOT_FIT else [],
        "roofline_tokens_per_second": roofline(case, inputs),
        "error_bound_fraction": projection.error_fraction if projection else None,
        "figures_source": case.shape.source if case.shape else None,
        "notes": notes(case),
    }
    row["message"] = _explain(case, cases, inputs, row)
    return row


def _gpu_problem(gpu: Gpu, cases: list[Case], inputs: Inputs, room: int, required: int) -> str:
    """One sentence block about services that fit alone but not together."""
    lines, budgets, rest = [], [], 0
    for case in cases:
        demand = gpu_demand(case, inputs) or 0
        service = case.service
        if service.engine == "vllm":
            budgets.append(service)
            context = inputs.overhead["cuda_context"] + inputs.overhead["vllm_beyond_budget"]
            rest += context
            lines.append(
                f"{service.name}: {size_text(demand - context)}, its share of "
                f"{service.gpu_memory_utilization:g}, and {size_text(context)} for CUDA itself and "
                "what vLLM takes beyond its share"
            )
        else:
            rest += demand
            projection = case.projection
            details = f" = {parts_text(projection, service)}" if projection else ""
            lines.append(f"{service.name}: {size_text(demand)}{details}")
    if len(budgets) == 1 and gpu.usable_bytes and room > rest:
        share = math.floor((room - rest) / gpu.usable_bytes * 100) / 100
        lines.append(
            f"What to do: set {budgets[0].variable('gpu_memory_utilization')} to at most {share:.2f}, "
            "or let another service run on the CPU "
            f"({' or '.join(sorted({case.service.variable('device') for case in cases}))})."
        )
    else:
        names = " or ".join(sorted({case.service.variable("device") for case in cases}))
        lines.append(f"What to do: run fewer of them on this GPU ({names}), or use another GPU.")
    first = (
        f"The services on {gpu_text(gpu)} do not fit together: they need {size_text(required)}, "
        f"{size_text(room)} can be given out"
    )
    return block(first + f"; short by {size_text(required - room)}.", lines)


def _gpu_rows(cases: list[Case], inputs: Inputs) -> tuple[list[dict[str, Any]], list[str]]:
    rows: list[dict[str, Any]] = []
    problems: list[str] = []
    for gpu in inputs.gpus.values():
        here = [case for case in cases if any(its is gpu for its in case.gpus)]
        room = None if gpu.usable_bytes is None else max(0, gpu.usable_bytes - gpu.taken_bytes)
        demands = [gpu_demand(case, inputs) for case in here]
        required = sum(demand or 0 for demand in demands)
        if gpu.shared_with_host:
            # One memory for both: what runs on the CPU is taken from the GPU too.
            required += sum(host_demand(case) for case in cases)
        fits: bool | None = None
        if room is not None:
            fits = required <= room if required > room or None not in demands else None
            if any(case.verdict == DOES_NOT_FIT for case in here):
                fits = False
        rows.append(
            {
                "index": gpu.index,
                "device": gpu.device,
                "name": gpu.name,
                "memory_total_bytes": gpu.total_bytes,
                "budget_bytes": room,
                "required_bytes": required,
                "fits": fits,
                "services": [case.service.name for case in here],
            }
        )
        # A service that can't fit even alone has its own message; the sum then says nothing new.
        alone = [case for case in here if case.verdict != DOES_NOT_FIT or case.limited_by == "other_services"]
        together = sum(gpu_demand(case, inputs) or 0 for case in alone)
        if gpu.shared_with_host:
            together += sum(host_demand(case) for case in cases)
        if room is not None and alone and together > room:
            involved = alone + ([case for case in cases if case.gpu is None] if gpu.shared_with_host else [])
            problems.append(_gpu_problem(gpu, involved, inputs, room, together))
    return rows, problems


def _host_row(cases: list[Case], inputs: Inputs) -> tuple[dict[str, Any], list[str]]:
    required = sum(host_demand(case) for case in cases)
    on_cpu = [case for case in cases if case.service.device == "cpu"]
    budget = inputs.host_budget
    fits = None if budget is None else required <= budget
    problems = []
    crowded = [case for case in on_cpu if case.limited_by == "other_services"]
    if fits is False and (crowded or not any(case.verdict == DOES_NOT_FIT for case in on_cpu)):
        lines = [f"{case.service.name}: {size_text(host_demand(case))}" for case in cases if host_demand(case)]
        lines.append(
            "What to do: lower contexts, choose smaller models ("
            + ", ".join(sorted({case.service.variable("model") for case in on_cpu}))
            + ") or run fewer services on this host."
        )
        problems.append(
            block(
                f"The services do not fit this host's memory together: they need {size_text(required)}, "
                f"{size_text(budget or 0)} can be used; short by {size_text(required - (budget or 0))}.",
                lines,
            )
        )
    return {"budget_bytes": budget, "required_bytes": required, "fits": fits}, problems


def decide(inputs: Inputs) -> dict[str, Any]:
    """The whole answer; see RETURN of the module."""
    inputs, reasons, wish_problems = fit_plan.plan(inputs)
    cases = build_cases(inputs)
    for case in cases:
        judge(case, cases, inputs)
    rows = [_service_row(case, cases, inputs, reasons[case.service.name]) for case in cases]
    gpus, gpu_problems = _gpu_rows(cases, inputs)
    host, host_problems = _host_row(cases, inputs)
    problems = wish_problems + [
        row["message"] for row in rows if row["verdict"] == DOES_NOT_FIT and row["limited_by"] != "other_services"
    ]
    problems += gpu_problems + host_problems
    unknowns = [row["message"] for row in rows if row["verdict"] == UNKNOWN]
    # A model that is not there yet and has no figures is judged by its files, once they are.
    stops = [
        row["message"]
        for row, case in zip(rows, cases, strict=True)
        if row["verdict"] == UNKNOWN and not row["accepted"] and (case.shape or case.unreadable)
    ]
    return {
        "fits": not problems and not unknowns,
        "verdict": DOES_NOT_FIT if problems else UNKNOWN if unknowns else FITS,
        "services": rows,
        "gpus": gpus,
        "host": host,
        "problems": problems,
        "unknowns": unknowns,
        "unaccepted": stops,
    }


def check_overhead(raw: dict[str, Any] | None) -> tuple[dict[str, int], list[str]]:
    """The fixed parts with the caller's measured ones in their place."""
    overhead, problems = dict(engine_memory.DEFAULT_OVERHEAD), []
    for key, value in (raw or {}).items():
        if key not in overhead:
            problems.append(f"overhead_bytes has the unknown key {key!r}; known are {', '.join(overhead)}.")
            continue
        try:
            size = fit_input.whole(
                value, f"overhead_bytes {key}", overhead[key], 0, 1 << 40, "bytes", "Give the measured bytes."
            )
        except fit_input.InputError as error:
            problems.append(str(error))
        else:
            overhead[key] = size if size is not None else overhead[key]
    return overhead, problems


def parse(parameters: dict[str, Any]) -> tuple[Inputs | None, list[str]]:
    """Checked inputs, or every sentence about what is wrong with them."""
    services, problems = fit_input.parse_services(parameters.get("services") or [])
    gpus, gpu_problems = fit_input.parse_gpus(parameters.get("gpus") or [], parameters.get("host_memory_bytes"))
    overhead, overhead_problems = check_overhead(parameters.get("overhead_bytes"))
    problems = problems + gpu_problems + overhead_problems
    alternatives = parameters.get("alternatives") or []
    for entry in alternatives:
        if not isinstance(entry, dict) or not (entry.get("figures") or entry.get("path")):
            problems.append(f"The alternative {entry!r} needs a name and figures, or a path.")
    reserved = parameters.get("host_reserved_bytes")
    if problems:
        return None, problems
    return (
        Inputs(
            services,
            gpus,
            parameters.get("host_memory_bytes"),
            DEFAULT_HOST_RESERVE if reserved is None else reserved,
            overhead,
            alternatives,
            parameters.get("host_memory_bandwidth_bytes_per_second"),
        ),
        [],
    )
