"""The sentences of model_fit: figures in decimal units, as catalogues and shops write them."""

from __future__ import annotations

from ansible.module_utils.ai_idp.engine_memory import Projection
from ansible.module_utils.ai_idp.fit_input import Gpu, Service

MIB = 1024 * 1024


def size_text(count: int) -> str:
    """42,520,000,000 -> 42.5 GB."""
    if abs(count) >= 10**9:
        return f"{count / 10**9:.1f} GB"
    if abs(count) >= 10**6:
        return f"{count / 10**6:.0f} MB"
    return f"{count:,} bytes"


def gpu_text(gpu: Gpu) -> str:
    if gpu.total_bytes is None:
        return f"GPU {gpu.index} ({gpu.name}, memory not known)"
    return f"GPU {gpu.index} ({gpu.name}, {gpu.total_bytes // MIB:,} MiB = {size_text(gpu.total_bytes)})"


def parts_text(projection: Projection, service: Service) -> str:
    """weights 42.5 GB + KV cache 2.7 GB (one sequence of 8,192 tokens) + ..."""
    kv = f"KV cache {size_text(projection.kv_cache)}"
    if service.engine == "vllm":
        kv += f" (one sequence of {service.context_length:,} tokens)"
    elif service.sequences > 1:
        kv += f" ({service.context_length:,} tokens over {service.sequences} slots)"
    else:
        kv += f" ({service.context_length:,} tokens)"
    parts = [
        (projection.weights, f"weights {size_text(projection.weights)}"),
        (projection.kv_cache, kv),
        (projection.states, f"recurrent states {size_text(projection.states)}"),
        (projection.pool, f"rest of the block pool {size_text(projection.pool)}"),
        (projection.compute, f"compute {size_text(projection.compute)}"),
        (projection.graphs, f"CUDA graphs {size_text(projection.graphs)}"),
        (projection.reserved, f"reserved {size_text(projection.reserved)}"),
        (projection.overhead, f"overhead {size_text(projection.overhead)}"),
    ]
    return " + ".join(text for count, text in parts if count)


def budget_text(service: Service, gpu: Gpu | None, available: int) -> str:
    """Where the available bytes come from, in the user's terms."""
    if gpu is None:
        return f"{size_text(available)} of host memory"
    usable = gpu.usable_bytes or 0
    if service.engine == "vllm":
        return (
            f"{size_text(available)} = {service.gpu_memory_utilization:g} "
            f"({service.variable('gpu_memory_utilization')}) of the {size_text(usable)} that CUDA can give out"
        )
    beside = usable - available
    text = f"{size_text(available)} of the {size_text(usable)} that CUDA can give out"
    return text + (f", {size_text(beside)} being taken by other services" if beside > 0 else "")


def block(first: str, lines: list[str]) -> str:
    """A sentence with its details under it."""
    return "\n".join([first, *(f"  - {line}" for line in lines if line)])
