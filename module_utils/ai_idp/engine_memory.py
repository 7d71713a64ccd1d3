"""How much memory each engine takes for a model: one projection per engine and device.

Every constant says whether it was measured, and where; measured ones can be overridden by the caller
(``overhead_bytes``), because they belong to a card, a driver and a build.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from ansible.module_utils.ai_idp.fit_input import Service
from ansible.module_utils.ai_idp.model_shape import KvLayer, ModelShape, kv_bytes

MIB = 1024 * 1024

DEFAULT_OVERHEAD = {
    # Measured: 608-612 MiB after the first request in five of six cases at -ub 512, whatever the model
    # (one H100 80GB, driver 580.159.04, CUDA 13.0, build 11434).
    "llama_cpp_gpu": 612 * MIB,
    # Measured there too: gone as soon as CUDA is initialised. vLLM takes its budget on top of it.
    "cuda_context": 527 * MIB,
    # Not measured here: workspaces and captured CUDA graphs, which vLLM takes out of its budget.
    "vllm_gpu": 768 * MIB,
    # Not measured here: NCCL's buffers and those of vLLM's own all-reduce, on each card of several.
    "vllm_tensor_parallel": 512 * MIB,
    # Measured on a CPU: 2.9 GB resident with a tiny model and 1 GiB of KV space.
    "vllm_cpu": 2048 * MIB,
    # Not measured: the process itself.
    "llama_cpp_cpu": 256 * MIB,
    "triton_cpu": 256 * MIB,
}

LLAMA_CPP_CELL_PADDING = 256
VLLM_BLOCK_TOKENS = 16
UNKNOWN_VOCABULARY = 131_072


@dataclass(frozen=True)
class Projection:
    """Bytes on the service's device; ``host`` is what a GPU service holds in host memory beside it.

    ``shortfall`` is the part by which the real need may be above this, ``error`` the bound on both sides;
    neither is below ``least_error`` bytes.
    """

    weights: int = 0
    kv_cache: int = 0
    compute: int = 0
    overhead: int = 0
    reserved: int = 0
    host: int = 0
    shortfall: float = 0.0
    error: float = 0.0
    least_error: int = 0

    @property
    def required(self) -> int:
        return self.weights + self.kv_cache + self.compute + self.overhead + self.reserved

    @property
    def margin(self) -> int:
        if not self.shortfall:
            return 0
        return max(math.ceil(self.shortfall * self.required), self.least_error)

    @property
    def error_fraction(self) -> float:
        if not self.required:
            return 0.0
        return round(max(self.error, self.least_error / self.required if self.error else 0.0), 4)


def _padded(value: int, step: int) -> int:
    return -(-value // step) * step


def widths(shape: ModelShape) -> tuple[int, int]:
    """Hidden and feed-forward width; where nobody told them, what grouped-query attention makes likely.

    The widest common grouping is eight query heads for one KV head, and a feed-forward of 3.5 times the width.
    """
    hidden = shape.hidden or 8 * max((layer.k_elements for layer in shape.kv_layers), default=1024)
    return hidden, shape.feed_forward or math.ceil(3.5 * hidden)


def embedding_bytes(shape: ModelShape) -> int:
    """Bytes of the input embedding; 0 where it can't be told (which over-states the GPU's part)."""
    if shape.token_embedding_bytes is not None:
        return shape.token_embedding_bytes
    return 0


def llama_cpp_weights(shape: ModelShape, gpu_layers: int) -> tuple[int, int]:
    """Bytes of weights on the GPU and on the host.

    llama.cpp keeps the input embedding on the host. A model without an output matrix of its own (tied) has a
    second copy of it on the GPU. ``gpu_layers`` counts from the output backwards: the output matrix is one,
    then the last repeating layers (measured: 8B Q4_K_M untied, 4,404 of 4,685 MiB on the GPU; 1B Q4_K_M tied,
    all 763 MiB on the GPU and 205 MiB again on the host).
    """
    embedding = embedding_bytes(shape)
    tied = bool(shape.tied_embeddings) and shape.token_embedding_bytes is not None
    on_host = embedding
    offloadable = shape.weights_bytes - (0 if tied else embedding)
    layers = shape.layers
    if gpu_layers < 0 or gpu_layers > layers or not layers:
        return offloadable, on_host
    per_layer = list(shape.layer_weights or [offloadable // layers] * layers)
    rest = offloadable - sum(per_layer)
    if gpu_layers == 0:
        return 0, (shape.weights_bytes if tied else offloadable + embedding)
    moved = per_layer[layers - (gpu_layers - 1) :] if gpu_layers > 1 else []
    gpu = sum(moved) + rest
    return gpu, on_host + offloadable - gpu


def llama_cpp_compute(shape: ModelShape, service: Service) -> int:
    """Bytes of llama.cpp's compute buffer with flash attention.

    The attention mask (ubatch x 2 bytes for each token that a slot can hold) and the larger of two peaks:
    the feed-forward's, ubatch x 4 bytes x (3 x feed-forward + 4 x width); and the attention's, ubatch x 4 bytes x
    5 x width, which with a KV cache that is not f16 holds on a GPU a 16-bit copy of one layer's whole cache too
    (ggml_cuda_flash_attn_ext_get_alloc_size in llama.cpp's ggml-cuda/fattn.cu). Within 4 MiB of the 72 cases of
    docs/model-fit.md (H100, build 11434).
    """
    hidden, feed_forward = widths(shape)
    ubatch, slot_tokens = service.ubatch_size, _slot_tokens(service)
    copy = 0
    if service.device == "gpu" and service.kv_cache_type not in ("auto", "f16"):
        copy = service.sequences * max((kv_bytes((layer,), slot_tokens, 2, 2) for layer in shape.kv_layers), default=0)
    peak = max(ubatch * 4 * (3 * feed_forward + 4 * hidden), ubatch * 4 * 5 * hidden + copy)
    return ubatch * 2 * slot_tokens + peak


def _slot_tokens(service: Service) -> int:
    return _padded(math.ceil(service.context_length / service.sequences), LLAMA_CPP_CELL_PADDING)


def _llama_cpp_kv(layers: tuple[KvLayer, ...], service: Service) -> int:
    size = service.kv_element_bytes
    return service.sequences * kv_bytes(layers, _slot_tokens(service), size, size)


def llama_cpp(shape: ModelShape, service: Service, overhead: dict[str, int]) -> Projection:
    """llama-server. ``context_length`` is shared by the slots, so more slots take no more KV cache."""
    known = shape.source == "gguf"
    # From a header: 3 % or 150 MiB. From figures the file's size counts in full, which over-states the GPU's
    # part by the input embedding (5 % for an 8B at Q4_K_M), so the bound is wider, the shortfall is not.
    bounds = Projection(shortfall=0.03, error=0.03 if known else 0.08, least_error=150 * MIB)
    compute = llama_cpp_compute(shape, service)
    if service.device == "cpu":
        return replace(
            bounds,
            weights=shape.weights_bytes,
            kv_cache=_llama_cpp_kv(shape.kv_layers, service),
            compute=compute,
            overhead=overhead["llama_cpp_cpu"] + service.memory_bytes,
            error=max(bounds.error, 0.10),
        )
    gpu_weights, host_weights = llama_cpp_weights(shape, service.gpu_layers)
    layers = shape.layers
    moved = layers if service.gpu_layers < 0 else min(max(service.gpu_layers - 1, 0), layers)
    on_gpu, on_host = shape.kv_layers[layers - moved :], shape.kv_layers[: layers - moved]
    return replace(
        bounds,
        weights=gpu_weights,
        kv_cache=_llama_cpp_kv(on_gpu, service),
        compute=compute,
        overhead=overhead["llama_cpp_gpu"],
        host=host_weights + _llama_cpp_kv(on_host, service) + overhead["llama_cpp_cpu"] + service.memory_bytes,
    )


def vllm_sequence_kv(shape: ModelShape, service: Service) -> int:
    """KV cache of one sequence of full length, in whole blocks of 16 tokens.

    A sliding-window layer holds its window and the tokens of the running batch (vLLM's sliding-window cache).
    With tensor parallelism it is what one card holds: its share of the KV heads, but at least one of them.
    """
    tokens = _padded(service.context_length, VLLM_BLOCK_TOKENS)
    layers = tuple(
        layer if layer.window is None else replace(layer, window=layer.window + service.max_num_batched_tokens)
        for layer in shape.kv_layers
    )
    whole = kv_bytes(layers, tokens, service.kv_element_bytes, service.kv_element_bytes)
    return math.ceil(whole / min(service.tensor_parallel_size, shape.kv_heads or 1))


def vllm_compute(shape: ModelShape, service: Service) -> int:
    """Peak of activations in vLLM's profile run, 16-bit.

    batched tokens x 2 bytes x (3 x feed-forward + 4 x width), and three float32 copies of the logits of each
    sequence for the sampler. vLLM's own log for Llama 3 8B with 8,192 tokens and 256 sequences says 1.26 GiB
    (vllm-project/vllm pull request 10511); this gives 1.27 GiB.
    """
    hidden, feed_forward = widths(shape)
    vocabulary = shape.vocabulary or UNKNOWN_VOCABULARY
    own = math.ceil(feed_forward / service.tensor_parallel_size)
    activations = service.max_num_batched_tokens * 2 * (3 * own + 4 * hidden)
    return activations + service.sequences * vocabulary * 4 * 3


def vllm(shape: ModelShape, service: Service, overhead: dict[str, int]) -> Projection:
    """vLLM: weights, the profile run's peak and the KV cache of one full-length sequence.

    vLLM refuses to start when the KV cache that is left can't hold one sequence of max_model_len. On the CPU
    the KV cache is allocated at its whole size (VLLM_CPU_KVCACHE_SPACE). With tensor parallelism it is what each
    card holds.
    """
    sequence = vllm_sequence_kv(shape, service)
    compute = vllm_compute(shape, service)
    if service.device == "cpu":
        return Projection(
            weights=shape.weights_bytes,
            kv_cache=max(sequence, service.cpu_kv_cache_bytes or 0),
            compute=compute,
            overhead=overhead["vllm_cpu"],
            shortfall=0.05,
            error=0.15,
            least_error=256 * MIB,
        )
    return Projection(
        weights=math.ceil(shape.weights_bytes / service.tensor_parallel_size),
        kv_cache=sequence,
        compute=compute,
        overhead=overhead["vllm_gpu"] + (overhead["vllm_tensor_parallel"] if service.tensor_parallel_size > 1 else 0),
        shortfall=0.03,
        error=0.10,
        least_error=256 * MIB,
    )


def triton(service: Service, overhead: dict[str, int]) -> Projection:
    """Triton takes what its models take; the caller reserves it."""
    fixed = overhead["cuda_context"] if service.device == "gpu" else overhead["triton_cpu"]
    return Projection(reserved=service.memory_bytes, overhead=fixed)


def project(shape: ModelShape | None, service: Service, overhead: dict[str, int]) -> Projection | None:
    """The projection for a service; None when its model is not known."""
    if service.engine == "triton":
        return triton(service, overhead)
    if shape is None:
        return None
    return (vllm if service.engine == "vllm" else llama_cpp)(shape, service, overhead)
