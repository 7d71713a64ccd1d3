"""What memory bandwidth allows a model at best: ceilings, not promises."""

from __future__ import annotations

from dataclasses import dataclass

from ansible.module_utils.ai_idp.verdict import figure

GB = 10**9


@dataclass(frozen=True)
class Ceiling:
    """Tokens per second of one sequence at best (0: it can't be held at all), and the sentence that derives it."""

    tokens_per_second: float
    gpu_bytes: int
    host_bytes: int
    reason: str


def hybrid_ceiling(
    weights_bytes: int,
    gpu_budget: int,
    gpu_bandwidth: int,
    host_bandwidth: int,
    host_budget: int | None = None,
    kv_bytes_per_token: int = 0,
    context_tokens: int = 0,
    name: str = "the model",
    gpu_name: str = "the GPU",
) -> Ceiling:
    """The roofline of a model that is split between GPU and host memory.

    Each token reads all weights and the KV cache of the context once, and its layers run one after the other, so
    seconds per token >= bytes on the GPU / GPU bandwidth + bytes on the host / host bandwidth: the roofline model
    (Williams, Waterman, Patterson: "Roofline", CACM 52(4), 2009) for a memory-bound kernel, added over both memories.
    It is in favour of the claim: the GPU's whole memory holds nothing but weights and cache, and both memories give
    their full bandwidth. For a dense model and one sequence without speculative decoding.

    Bytes and bytes per second. ValueError for sizes below 0 and bandwidths that are not above 0.
    """
    if min(weights_bytes, gpu_budget, kv_bytes_per_token, context_tokens) < 0 or weights_bytes == 0:
        raise ValueError("the sizes of a split model are weights above 0 and nothing below 0")
    total = weights_bytes + kv_bytes_per_token * context_tokens
    on_gpu = min(total, gpu_budget)
    on_host = total - on_gpu
    if (on_gpu and gpu_bandwidth <= 0) or (on_host and host_bandwidth <= 0):
        raise ValueError("the bandwidth of a memory that is read is a number above 0")
    if host_budget is not None and on_host > host_budget:
        reason = (
            f"{name} needs {_size(total)}, but {gpu_name} gives {_size(gpu_budget)} and the host {_size(host_budget)}, "
            "so it can't be held at all"
        )
        return Ceiling(0.0, on_gpu, on_host, reason)
    parts, seconds = [], 0.0
    for size, bandwidth in ((on_gpu, gpu_bandwidth), (on_host, host_bandwidth)):
        if size:
            seconds += size / bandwidth
            parts.append(f"{_size(size)} / {figure(bandwidth / GB)} GB/s")
    rate = 1 / seconds
    held = f"{gpu_name} holds all of the {_size(total)} of {name}"
    if not on_gpu:
        held = f"all {_size(total)} of {name} are read from host memory for every token"
    elif on_host:
        held = (
            f"of the {_size(total)} of {name} {gpu_name} can hold {_size(on_gpu)}, so for every token {_size(on_host)} "
            "are read from host memory"
        )
    reason = f"at most {figure(rate)} tok/s: {held}; {' + '.join(parts)} = {figure(seconds * 1000)} ms per token"
    return Ceiling(rate, on_gpu, on_host, reason)


def _size(size: int) -> str:
    return f"{figure(size / GB)} GB"
