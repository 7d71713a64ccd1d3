"""The KV cache of one sequence in vLLM, as its block pool counts it.

Follows vLLM 0.30.0: the specifications of layers in v1/kv_cache_interface.py (``max_memory_usage_bytes``), their groups
in v1/core/kv_cache_utils.py (``get_kv_cache_groups``, ``unify_kv_cache_spec_page_size``,
``_get_kv_cache_groups_uniform_page_size``, ``_max_memory_usage_bytes_from_groups``), the block size of models with a
recurrent state in platforms/interface.py (``_align_hybrid_block_size``). A start is refused when the cache can't hold
one sequence of full length, counted like this, and the one block that is never given out.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, replace

from ansible.module_utils.ai_idp.layer_kinds import KvLayer

BLOCK_TOKENS = 16
# TRTLLM's and FlashInfer's kernels for latent attention want blocks of 128 tokens beside a recurrent state.
LATENT_BLOCK_TOKENS = 128
# Sparse latent attention with a KV cache of 8 bit packs one token into so many bytes (mla_attention.py, fp8_ds_mla).
FP8_SPARSE_LATENT_BYTES = 656
# Prefix caching, which is on, keeps two states of each sequence (MambaModelConfig sets "align").
STATE_BLOCKS = 2
# Asynchronous scheduling, which is on, has two batches in flight (VllmConfig.max_concurrent_batches).
BATCHES_IN_FLIGHT = 2


@dataclass(frozen=True)
class SequenceCache:
    """Bytes on each card: KV of one sequence, its recurrent states, and what the block pool takes beside them.

    ``spare`` is the part of the pool that no sequence gets, however many there are: one block.
    """

    kv: int
    states: int
    pool: int
    spare: int = 0

    @property
    def total(self) -> int:
        return self.kv + self.states + self.pool


@dataclass(frozen=True)
class _Spec:
    """One layer's cache: its kind, the bytes of a page and the tokens that one page holds."""

    kind: str  # full, sliding, chunked or state
    page: int
    block: int
    window: int = 0
    token_bytes: float = 0.0


def _blocks(tokens: int, block: int) -> int:
    return -(-tokens // block)


def _token_bytes(layer: KvLayer, element_bytes: float, cards: int) -> float:
    """Bytes of one token in one layer on one card; a KV head that can't be shared out stands on each."""
    part = 1.0
    if layer.kv_heads:
        part = max(1, -(-layer.kv_heads // cards)) / layer.kv_heads
    if layer.bytes_per_token and element_bytes == 1:
        return FP8_SPARSE_LATENT_BYTES
    return layer.elements * part * element_bytes


def _specs(layers: tuple[KvLayer, ...], element_bytes: float, cards: int) -> list[_Spec]:
    token_bytes = [_token_bytes(layer, element_bytes, cards) for layer in layers]
    state = max((-(-layer.state_bytes // cards) for layer in layers), default=0)
    widest = max((size for size, layer in zip(token_bytes, layers, strict=True) if layer.window is None), default=0.0)
    block = BLOCK_TOKENS
    if state and widest:
        latent = any(layer.elements and not layer.kv_heads for layer in layers)
        align = LATENT_BLOCK_TOKENS if latent else BLOCK_TOKENS
        block = align * math.ceil(state / (align * widest))
    found = []
    for layer, size in zip(layers, token_bytes, strict=True):
        if size and layer.window is None:
            found.append(_Spec("full", math.ceil(size * block), block, token_bytes=size))
        elif size:
            kind = "chunked" if layer.chunked else "sliding"
            page = math.ceil(size * BLOCK_TOKENS)
            found.append(_Spec(kind, page, BLOCK_TOKENS, layer.window or 0, token_bytes=size))
        if layer.bytes_per_token:
            found.append(_Spec("full", layer.bytes_per_token * block, block, token_bytes=layer.bytes_per_token))
        if layer.state_bytes:
            found.append(_Spec("state", max(math.ceil(widest * block), state), block))
    return found


def _needed_blocks(spec: _Spec, length: int, in_flight: int, alone: bool) -> int:
    if spec.kind == "state":
        return 1 if alone else STATE_BLOCKS
    if spec.kind == "sliding":
        return _blocks(min(spec.window - 1 + in_flight, length), spec.block) + 1
    if spec.kind == "chunked":
        return _blocks(min(spec.window + in_flight, length), spec.block)
    return _blocks(length, spec.block)


def _unified(specs: list[_Spec]) -> list[_Spec]:
    """Pages of one size: more tokens in a page where that comes out even, else padding."""
    largest = max(spec.page for spec in specs)
    found = []
    for spec in specs:
        if spec.kind != "state" and spec.page != largest and largest % spec.page == 0:
            found.append(replace(spec, page=largest, block=spec.block * (largest // spec.page)))
        else:
            found.append(replace(spec, page=largest))
    return found


def _pool(specs: list[_Spec], length: int, in_flight: int) -> tuple[int, int]:
    """Blocks of the pool that one sequence takes, and the bytes of a block."""
    alone = all(spec.kind == "state" for spec in specs)
    kinds = {(spec.kind, spec.window) for spec in specs}
    if len(kinds) == 1:
        per_block = sum(spec.page for spec in specs)
        return max(_needed_blocks(spec, length, in_flight, alone) for spec in specs), per_block
    specs = _unified(specs)
    groups = Counter(specs)
    size = min(groups.values())
    if max(groups.values()) < size * 1.5:
        size = max(groups.values())
    blocks, widest = 0, 0
    for spec, layers in groups.items():
        parts = _blocks(layers, size)
        widest = max(widest, _blocks(layers, parts))
        blocks += parts * _needed_blocks(spec, length, in_flight, alone)
    return blocks, specs[0].page * widest


def sequence_cache(
    layers: tuple[KvLayer, ...], length: int, batched: int, element_bytes: float, cards: int = 1
) -> SequenceCache:
    """What one sequence of ``length`` tokens takes, ``batched`` being the tokens of one step."""
    specs = _specs(layers, element_bytes, cards)
    if not specs:
        return SequenceCache(0, 0, 0)
    kv = 0.0
    for spec in specs:
        if spec.kind != "state":
            block = BLOCK_TOKENS
            kv += _needed_blocks(replace(spec, block=block), length, batched, False) * block * spec.token_bytes
    states = sum(-(-layer.state_bytes // cards) for layer in layers)
    blocks, per_block = _pool(specs, length, BATCHES_IN_FLIGHT * batched)
    held = math.ceil(kv)
    return SequenceCache(held, states, max(0, (blocks + 1) * per_block - held - states), per_block)
