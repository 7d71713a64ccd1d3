"""How much memory each engine takes for a model: one projection per engine and device.

Every constant says whether it was measured, and where; measured ones can be overridden by the caller
(``overhead_bytes``), because they belong to a card, a driver and a build.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from ansible.module_utils.ai_idp import vllm_memory
from ansible.module_utils.ai_idp.fit_input import Service
from ansible.module_utils.ai_idp.layer_kinds import KvLayer
from ansible.module_utils.ai_idp.model_shape import ModelShape, kv_bytes
from ansible.module_utils.ai_idp.vllm_cache import SequenceCache, sequence_cache

MIB = 1024 * 1024

DEFAULT_OVERHEAD = {
    # Measured: 608-612 MiB after the first request in five of six cases at -ub 512, whatever the model
    # (one H100 80GB, driver 580.159.04, CUDA 13.0, build 11434).
    "llama_cpp_gpu": 612 * MIB,
    # What cuBLAS takes where llama.cpp multiplies by it (ModelShape.cublas). Measured on one H100 80GB (same driver and
    # build): 91 to 107 MiB more than without. 64 MiB are cuBLAS's own workspace, gone with
    # CUBLAS_WORKSPACE_CONFIG=:0:0; 32 MiB are what llama.cpp gives it on compute capability 9.0 and above (4 MiB below:
    # cublas_handle in ggml-cuda/common.cuh). So this is an upper bound on older cards.
    "llama_cpp_cublas": 96 * MIB,
    # Measured there too: gone as soon as CUDA is initialised. vLLM takes its budget on top of it.
    "cuda_context": 527 * MIB,
    # Measured there: what vLLM 0.30.0 takes out of its budget beside weights, peak, graphs and sampler: 230 MiB that
    # are not torch's, a workspace of 32 MiB for cuBLAS and rests in torch's pool, 277 to 300 MiB in nine of the starts.
    "vllm_gpu": 286 * MIB,
    # Measured there: what it takes beyond its budget and CUDA's part after ordinary requests, 101 to 237 MiB.
    "vllm_beyond_budget": 237 * MIB,
    # Not measured here: NCCL's buffers and those of vLLM's own all-reduce, on each card of several.
    "vllm_tensor_parallel": 512 * MIB,
    # Measured on a CPU: 2.9 GB resident with a tiny model and 1 GiB of KV space.
    "vllm_cpu": 2048 * MIB,
    # Not measured: the process itself.
    "llama_cpp_cpu": 256 * MIB,
    "triton_cpu": 256 * MIB,
}


# llama.cpp's caches are of whole 256 cells.
CELL_PADDING = 256


@dataclass(frozen=True)
class Projection:
    """Bytes on the service's device; ``host`` is what a GPU service holds in host memory beside it.

    ``shortfall`` is the part by which the real need may be above this, ``error`` the bound on both sides;
    neither is below ``least_error`` bytes.
    """

    weights: int = 0
    kv_cache: int = 0
    # Recurrent states of all sequences, and what vLLM's block pool takes beside one sequence's tokens.
    states: int = 0
    pool: int = 0
    compute: int = 0
    graphs: int = 0
    overhead: int = 0
    reserved: int = 0
    host: int = 0
    # What a start needs less that finds vLLM's compiled kernels.
    warm_saving: int = 0
    shortfall: float = 0.0
    error: float = 0.0
    least_error: int = 0

    @property
    def cache(self) -> int:
        return self.kv_cache + self.states + self.pool

    @property
    def required(self) -> int:
        return self.weights + self.cache + self.compute + self.graphs + self.overhead + self.reserved

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
    on_host = embedding + shape.host_weights_bytes
    offloadable = shape.weights_bytes - shape.host_weights_bytes - (0 if tied else embedding)
    layers = shape.layers
    if gpu_layers < 0 or gpu_layers > layers or not layers:
        return offloadable, on_host
    per_layer = list(shape.layer_weights or [offloadable // layers] * layers)
    rest = offloadable - sum(per_layer)
    if gpu_layers == 0:
        return 0, shape.weights_bytes
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
        copy = service.sequences * max((_kv_of((layer,), service, 2) for layer in shape.kv_layers), default=0)
    # Sliding layers have a mask of their own.
    window = max((layer.window or 0 for layer in shape.kv_layers), default=0)
    mask = slot_tokens + (_padded(min(slot_tokens, window + ubatch), CELL_PADDING) if window else 0)
    # Latent attention works on as many latent vectors as there are heads; a recurrent layer holds its states twice.
    # Both are within 16 MiB of what llama-server logged for models of seven architectures on a CPU.
    latent = max((layer.k_elements for layer in shape.kv_layers if not layer.v_elements), default=0)
    attention = max(5 * hidden, 3 * (shape.heads or 0) * latent + hidden + latent)
    states = 2 * service.sequences * max((layer.state_bytes for layer in shape.kv_layers), default=0)
    peak = max(ubatch * 4 * (3 * feed_forward + 4 * hidden), ubatch * 4 * attention + copy) + states
    return ubatch * 2 * mask + peak + _copied_from_host(shape, service)


def _copied_from_host(shape: ModelShape, service: Service) -> int:
    """Bytes on the GPU of what a prompt's batch needs of one layer that stays on the host.

    The GPU multiplies these layers' matrices for 32 tokens and more (ggml_backend_cuda_device_offload_op). They are
    copied one after the other: ggml_backend_sched_split_graph (ggml-backend.cpp) begins a new split for each, so that
    their memory is used again. The attention between them has no weights, so the same function hands it the GPU of its
    neighbours, and the layer's whole K and V are copied for it. Matrix and cache are not there at the same time. On an
    H100 (build 11434) this is up to 15 MiB too much at 4k and 32k tokens; that it is the cache and not a second mask is
    read from the source, longer contexts are not measured.
    """
    if service.device != "gpu":
        return 0
    staying = shape.layers - _moved(shape, service)
    cache = (_kv_of((layer,), service, service.kv_element_bytes) for layer in shape.kv_layers[:staying])
    return max(max(shape.layer_largest[:staying], default=0), service.sequences * max(cache, default=0))


def _moved(shape: ModelShape, service: Service) -> int:
    """How many repeating layers are on the GPU; the output is one of ``gpu_layers``."""
    return shape.layers if service.gpu_layers < 0 else min(max(service.gpu_layers - 1, 0), shape.layers)


def _slot_tokens(service: Service) -> int:
    return _padded(math.ceil(service.context_length / service.sequences), CELL_PADDING)


def _kv_of(layers: tuple[KvLayer, ...], service: Service, element_bytes: float) -> int:
    """Bytes of one slot. A sliding layer holds its window and a batch of tokens, in whole 256 (llama_kv_cache_iswa)."""
    tokens = _slot_tokens(service)
    cells = tuple(
        layer
        if layer.window is None
        else replace(layer, window=_padded(min(tokens, layer.window + service.ubatch_size), CELL_PADDING))
        for layer in layers
    )
    return kv_bytes(cells, tokens, element_bytes, element_bytes)


def _llama_cpp_kv(layers: tuple[KvLayer, ...], service: Service) -> tuple[int, int]:
    """KV cache and recurrent states of all slots."""
    states = sum(layer.state_bytes for layer in layers)
    return service.sequences * _kv_of(layers, service, service.kv_element_bytes), service.sequences * states


def llama_cpp_slot(layers: tuple[KvLayer, ...], service: Service) -> int:
    """Bytes of these layers' cache and states for one slot."""
    own = replace(service, sequences=1, context_length=_slot_tokens(service))
    return sum(_llama_cpp_kv(layers, own))


def llama_cpp(shape: ModelShape, service: Service, overhead: dict[str, int]) -> Projection:
    """llama-server. ``context_length`` is shared by the slots, so more slots take no more KV cache."""
    known = shape.source == "gguf"
    # From a header: 3 % or 150 MiB, and at most 1 % or 150 MiB too low: today's rules are at most 13 MiB too low in the
    # 149 measured cases. From figures the file's size counts in full, which over-states the GPU's part by the input
    # embedding (5 % for an 8B at Q4_K_M), so the bound is wider.
    bounds = Projection(shortfall=0.01 if known else 0.03, error=0.03 if known else 0.08, least_error=150 * MIB)
    compute = llama_cpp_compute(shape, service)
    if service.device == "cpu":
        kv_cache, states = _llama_cpp_kv(shape.kv_layers, service)
        return replace(
            bounds,
            weights=shape.weights_bytes,
            kv_cache=kv_cache,
            states=states,
            compute=compute,
            overhead=overhead["llama_cpp_cpu"] + service.memory_bytes,
            error=max(bounds.error, 0.10),
        )
    gpu_weights, host_weights = llama_cpp_weights(shape, service.gpu_layers)
    layers, moved = shape.layers, _moved(shape, service)
    on_gpu, on_host = shape.kv_layers[layers - moved :], shape.kv_layers[: layers - moved]
    kv_cache, states = _llama_cpp_kv(on_gpu, service)
    return replace(
        bounds,
        weights=gpu_weights,
        kv_cache=kv_cache,
        states=states,
        compute=compute,
        overhead=overhead["llama_cpp_gpu"] + (overhead["llama_cpp_cublas"] if shape.cublas else 0),
        host=host_weights + sum(_llama_cpp_kv(on_host, service)) + overhead["llama_cpp_cpu"] + service.memory_bytes,
    )


def vllm_cache(shape: ModelShape, service: Service) -> SequenceCache:
    """What one sequence of full length takes of vLLM's KV cache; with tensor parallelism on each card."""
    return sequence_cache(
        shape.kv_layers,
        service.context_length,
        service.max_num_batched_tokens,
        service.kv_element_bytes,
        service.tensor_parallel_size,
    )


def vllm_sequence_kv(shape: ModelShape, service: Service) -> int:
    """KV cache that vLLM asks for before it serves one sequence of full length."""
    return vllm_cache(shape, service).total


def vllm(shape: ModelShape, service: Service, overhead: dict[str, int]) -> Projection:
    """vLLM: weights, the profile run's peak and the KV cache of one full-length sequence.

    vLLM refuses to start when the KV cache that is left can't hold one sequence of max_model_len. On the CPU
    the KV cache is allocated at its whole size (VLLM_CPU_KVCACHE_SPACE). With tensor parallelism it is what each
    card holds. Every new setting starts cold, so that is what is needed.
    """
    cache = vllm_cache(shape, service)
    cards = service.tensor_parallel_size
    hidden, feed_forward = widths(shape)
    start = vllm_memory.start(shape, hidden, feed_forward, service.sequences, service.max_num_batched_tokens, cards)
    if service.device == "cpu":
        return Projection(
            weights=shape.weights_bytes,
            kv_cache=max(cache.total, service.cpu_kv_cache_bytes or 0),
            compute=start.compute_warm + start.buffers,
            overhead=overhead["vllm_cpu"],
            shortfall=0.05,
            error=0.15,
            least_error=256 * MIB,
        )
    recurrent = any(layer.state_bytes for layer in shape.kv_layers)
    # Measured are dense models of 16, 8 and 4 bit on one card; of others the peak is the same formula's.
    dense = not (shape.experts or shape.other_parts or recurrent)
    measured = shape.source != "figures" and dense and cards == 1
    warm = service.compile_cache == "warm" or service.enforce_eager
    saving = start.compute - start.compute_warm + start.remains
    return Projection(
        weights=start.weights,
        kv_cache=cache.kv,
        states=cache.states,
        pool=cache.pool,
        compute=start.buffers + (start.compute_warm if warm else start.compute + start.remains),
        graphs=0 if service.enforce_eager else start.graphs,
        overhead=overhead["vllm_gpu"] + (overhead["vllm_tensor_parallel"] if cards > 1 else 0),
        warm_saving=0 if warm else saving,
        shortfall=0.01 if measured else 0.03,
        error=0.01 if measured else 0.10,
        least_error=(100 if measured else 256) * MIB,
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
