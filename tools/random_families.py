"""GGUF files of other architectures than Llama with random weights: windows, latent attention, states, experts.

Small in layers and vocabulary, real in what decides memory: head sizes, windows, states, ranks, MXFP4 experts. The
tensors are those that llama.cpp's load_arch_tensors asks for (build 11434). Used by ``gpu_proof.py``.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from random_gguf import F16, F32, MXFP4, Entry, quantized, write_file, written_text

Tensors = list[Entry]


@dataclass(frozen=True)
class Recipe:
    """A model: its architecture, what its header says, its tensors, and how it is asked."""

    name: str
    architecture: str
    numbers: dict[str, int]
    tensors: Tensors
    lists: dict[str, list[Any]] = field(default_factory=dict)
    floats: dict[str, float] = field(default_factory=dict)
    vocabulary: int = 32_000
    embeddings: bool = False
    token_types: int = 0


def _plain(block: str, hidden: int, queries: int, keys: int, width: int) -> Iterator[Entry]:
    """Attention and a gated feed-forward, as most have them."""
    yield from (
        (f"{block}attn_norm.weight", (hidden,), F32),
        (f"{block}attn_q.weight", (hidden, queries), F16),
        (f"{block}attn_k.weight", (hidden, keys), F16),
        (f"{block}attn_v.weight", (hidden, keys), F16),
        (f"{block}attn_output.weight", (queries, hidden), F16),
    )
    yield from _feed_forward(block, hidden, width)


def _feed_forward(block: str, hidden: int, width: int, norm: str = "ffn_norm") -> Iterator[Entry]:
    yield f"{block}{norm}.weight", (hidden,), F32
    for name, size in (("gate", (hidden, width)), ("up", (hidden, width)), ("down", (width, hidden))):
        yield f"{block}ffn_{name}.weight", size, F16


def _whole(hidden: int, vocabulary: int, blocks: list[Entry], tied: bool = True, norm: str = "output_norm") -> Tensors:
    found: Tensors = [("token_embd.weight", (hidden, vocabulary), F16), (f"{norm}.weight", (hidden,), F32)]
    if not tied:
        found.append(("output.weight", (hidden, vocabulary), F16))
    return found + blocks


def _heads(layers: int, hidden: int, width: int, heads: int, kv_heads: int, length: int) -> dict[str, int]:
    return {
        "block_count": layers, "context_length": 131_072, "embedding_length": hidden, "feed_forward_length": width,
        "attention.head_count": heads, "attention.head_count_kv": kv_heads, "attention.key_length": length,
        "attention.value_length": length, "rope.dimension_count": length,
    }  # fmt: skip


def gemma3() -> Recipe:
    """Five of six layers slide over 1,024 tokens."""
    layers, hidden, width, heads, kv_heads, length = 12, 1536, 6144, 8, 4, 256
    blocks: list[Entry] = []
    for layer in range(layers):
        block = f"blk.{layer}."
        blocks += _plain(block, hidden, heads * length, kv_heads * length, width)
        blocks += [(f"{block}{name}_norm.weight", (length,), F32) for name in ("attn_q", "attn_k")]
        blocks += [(f"{block}post_{name}_norm.weight", (hidden,), F32) for name in ("attention", "ffw")]
    numbers = {**_heads(layers, hidden, width, heads, kv_heads, length), "attention.sliding_window": 1024}
    return Recipe("gemma3-window", "gemma3", numbers, _whole(hidden, 32_000, blocks))


def gpt_oss() -> Recipe:
    """Every second layer slides over 128 tokens; experts in MXFP4."""
    layers, hidden, width, heads, kv_heads, length, experts = 8, 2880, 2880, 64, 8, 64, 8
    blocks: list[Entry] = []
    for layer in range(layers):
        block = f"blk.{layer}."
        queries, keys = heads * length, kv_heads * length
        blocks += [(f"{block}{name}.weight", (hidden,), F32) for name in ("attn_norm", "post_attention_norm")]
        for name, rows in (("q", queries), ("k", keys), ("v", keys)):
            blocks += [(f"{block}attn_{name}.weight", (hidden, rows), F16), (f"{block}attn_{name}.bias", (rows,), F32)]
        blocks += [(f"{block}attn_output.weight", (queries, hidden), F16), (f"{block}attn_output.bias", (hidden,), F32)]
        blocks.append((f"{block}attn_sinks.weight", (heads,), F32))
        blocks += [
            (f"{block}ffn_gate_inp.weight", (hidden, experts), F32),
            (f"{block}ffn_gate_inp.bias", (experts,), F32),
        ]
        for name, rows, columns in (("gate", hidden, width), ("up", hidden, width), ("down", width, hidden)):
            blocks.append((f"{block}ffn_{name}_exps.weight", (rows, columns, experts), MXFP4))
            blocks.append((f"{block}ffn_{name}_exps.bias", (columns, experts), F32))
    numbers = {
        **_heads(layers, hidden, width, heads, kv_heads, length), "attention.sliding_window": 128,
        "expert_count": experts, "expert_used_count": 4, "expert_feed_forward_length": width,
    }  # fmt: skip
    return Recipe("gpt-oss-mxfp4", "gpt-oss", numbers, _whole(hidden, 32_000, blocks, tied=False))


def deepseek2() -> Recipe:
    """Latent attention of GLM-4.7-Flash's sizes, all layers dense."""
    layers, hidden, width, heads, latent, rotary, key, value = 8, 2048, 4096, 20, 512, 64, 256, 256
    query_rank = 768
    blocks: list[Entry] = []
    for layer in range(layers):
        block = f"blk.{layer}."
        blocks += [
            (f"{block}attn_norm.weight", (hidden,), F32),
            (f"{block}attn_kv_a_norm.weight", (latent,), F32),
            (f"{block}attn_q_a_norm.weight", (query_rank,), F32),
            (f"{block}attn_q_a.weight", (hidden, query_rank), F16),
            (f"{block}attn_q_b.weight", (query_rank, heads * key), F16),
            (f"{block}attn_kv_a_mqa.weight", (hidden, latent + rotary), F16),
            (f"{block}attn_k_b.weight", (key - rotary, latent, heads), F16),
            (f"{block}attn_v_b.weight", (latent, value, heads), F16),
            (f"{block}attn_output.weight", (heads * value, hidden), F16),
        ]
        blocks += _feed_forward(block, hidden, width)
    numbers = {
        **_heads(layers, hidden, width, heads, 1, latent + rotary), "attention.value_length": latent,
        "attention.key_length_mla": key, "attention.value_length_mla": value, "attention.kv_lora_rank": latent,
        "attention.q_lora_rank": query_rank,
        "rope.dimension_count": rotary, "leading_dense_block_count": layers, "expert_feed_forward_length": 1024,
        "expert_shared_count": 1, "vocab_size": 32_000,
    }  # fmt: skip
    return Recipe("deepseek2-latent", "deepseek2", numbers, _whole(hidden, 32_000, blocks, tied=False))


def qwen35() -> Recipe:
    """Three of four layers hold a state of 2 MiB and a convolution for each slot."""
    layers, hidden, width, heads, kv_heads, length = 12, 2048, 6144, 16, 4, 256
    state, groups, values = 128, 16, 32
    inner, keys = state * values, state * groups
    blocks: list[Entry] = []
    for layer in range(layers):
        block = f"blk.{layer}."
        blocks += [(f"{block}{name}.weight", (hidden,), F32) for name in ("attn_norm", "post_attention_norm")]
        if (layer + 1) % 4:
            blocks += [
                (f"{block}attn_qkv.weight", (hidden, 2 * keys + inner), F16),
                (f"{block}attn_gate.weight", (hidden, inner), F16),
                (f"{block}ssm_conv1d.weight", (4, 2 * keys + inner), F32),
                (f"{block}ssm_dt.bias", (values,), F32),
                (f"{block}ssm_a", (values,), F32),
                (f"{block}ssm_beta.weight", (hidden, values), F16),
                (f"{block}ssm_alpha.weight", (hidden, values), F16),
                (f"{block}ssm_norm.weight", (state,), F32),
                (f"{block}ssm_out.weight", (inner, hidden), F16),
            ]
        else:
            blocks += [
                (f"{block}attn_q.weight", (hidden, 2 * heads * length), F16),
                (f"{block}attn_k.weight", (hidden, kv_heads * length), F16),
                (f"{block}attn_v.weight", (hidden, kv_heads * length), F16),
                (f"{block}attn_output.weight", (heads * length, hidden), F16),
            ]
            blocks += [(f"{block}attn_{name}_norm.weight", (length,), F32) for name in ("q", "k")]
        blocks += [entry for entry in _feed_forward(block, hidden, width) if "norm" not in entry[0]]
    numbers = {
        **_heads(layers, hidden, width, heads, kv_heads, length), "rope.dimension_count": 64,
        "full_attention_interval": 4, "ssm.conv_kernel": 4, "ssm.inner_size": inner, "ssm.state_size": state,
        "ssm.time_step_rank": values, "ssm.group_count": groups,
    }  # fmt: skip
    lists = {"rope.dimension_sections": [11, 11, 10, 0]}
    return Recipe("qwen35-states", "qwen35", numbers, _whole(hidden, 32_000, blocks), lists)


def granite_hybrid() -> Recipe:
    """Two of twelve layers are attention, the others Mamba 2 of Granite 4 H Tiny's sizes."""
    layers, hidden, width, heads, kv_heads, length = 12, 1536, 4096, 12, 4, 128
    inner, state, values = 2 * hidden, 128, 48
    attention = (4, 10)
    blocks: list[Entry] = []
    for layer in range(layers):
        block = f"blk.{layer}."
        if layer in attention:
            blocks += _plain(block, hidden, heads * length, kv_heads * length, width)
            continue
        blocks += [
            (f"{block}attn_norm.weight", (hidden,), F32),
            (f"{block}ssm_in.weight", (hidden, 2 * inner + 2 * state + values), F16),
            (f"{block}ssm_conv1d.weight", (4, inner + 2 * state), F32),
            (f"{block}ssm_conv1d.bias", (inner + 2 * state,), F32),
            (f"{block}ssm_dt.bias", (values,), F32),
            (f"{block}ssm_a", (1, values), F32),
            (f"{block}ssm_d", (1, values), F32),
            (f"{block}ssm_norm.weight", (inner, 1), F32),
            (f"{block}ssm_out.weight", (inner, hidden), F16),
        ]
        blocks += _feed_forward(block, hidden, width)
    numbers = {
        **_heads(layers, hidden, width, heads, kv_heads, length), "ssm.conv_kernel": 4, "ssm.inner_size": inner,
        "ssm.state_size": state, "ssm.time_step_rank": values, "ssm.group_count": 1,
    }  # fmt: skip
    del numbers["attention.head_count_kv"]
    lists = {"attention.head_count_kv": [kv_heads if layer in attention else 0 for layer in range(layers)]}
    return Recipe("granite-hybrid-states", "granitehybrid", numbers, _whole(hidden, 32_000, blocks), lists)


def lfm2() -> Recipe:
    """Six of sixteen layers are attention, the others a convolution over two tokens."""
    layers, hidden, width, heads, kv_heads, length = 16, 1536, 6144, 24, 8, 64
    attention = (2, 5, 8, 10, 12, 14)
    blocks: list[Entry] = []
    for layer in range(layers):
        block = f"blk.{layer}."
        if layer in attention:
            blocks += _plain(block, hidden, heads * length, kv_heads * length, width)
            blocks += [(f"{block}attn_{name}_norm.weight", (length,), F32) for name in ("q", "k")]
            continue
        blocks += [
            (f"{block}attn_norm.weight", (hidden,), F32),
            (f"{block}shortconv.conv.weight", (3, hidden), F32),
            (f"{block}shortconv.in_proj.weight", (hidden, 3 * hidden), F16),
            (f"{block}shortconv.out_proj.weight", (hidden, hidden), F16),
        ]
        blocks += _feed_forward(block, hidden, width)
    numbers = {**_heads(layers, hidden, width, heads, kv_heads, length), "shortconv.l_cache": 3}
    del numbers["attention.head_count_kv"]
    lists = {"attention.head_count_kv": [kv_heads if layer in attention else 0 for layer in range(layers)]}
    whole = _whole(hidden, 32_000, blocks, norm="token_embd_norm")
    return Recipe("lfm2-convolutions", "lfm2", numbers, whole, lists)


def bert() -> Recipe:
    """An encoder for embeddings: no cache at all."""
    layers, hidden, width, heads = 12, 1024, 4096, 16
    blocks: list[Entry] = []
    for layer in range(layers):
        block = f"blk.{layer}."
        blocks += [(f"{block}attn_{name}.weight", (hidden, hidden), F16) for name in ("q", "k", "v", "output")]
        blocks += [(f"{block}ffn_up.weight", (hidden, width), F16), (f"{block}ffn_down.weight", (width, hidden), F16)]
        for name in ("attn_output_norm", "layer_output_norm"):
            blocks += [(f"{block}{name}.{kind}", (hidden,), F32) for kind in ("weight", "bias")]
    numbers = {
        **_heads(layers, hidden, width, heads, heads, hidden // heads),
        "context_length": 2048,
        "pooling_type": 1,
    }
    whole: Tensors = [
        ("token_embd.weight", (hidden, 32_000), F16), ("token_types.weight", (hidden, 2), F32),
        ("position_embd.weight", (hidden, 2048), F16), ("token_embd_norm.weight", (hidden,), F32),
        ("token_embd_norm.bias", (hidden,), F32),
    ]  # fmt: skip
    floats = {"attention.layer_norm_epsilon": 1e-12}
    return Recipe("bert-embeddings", "bert", numbers, whole + blocks, {}, floats, embeddings=True, token_types=2)


RECIPES = {recipe.name: recipe for recipe in (
    gemma3(), gpt_oss(), deepseek2(), qwen35(), granite_hybrid(), lfm2(), bert(),
)}  # fmt: skip


def entries(recipe: Recipe) -> list[bytes]:
    """The header's metadata."""
    prefix = recipe.architecture
    found = [written_text("general.architecture") + struct.pack("<I", 8) + written_text(prefix)]
    numbers = {"vocab_size": recipe.vocabulary, **recipe.numbers}
    found += [written_text(f"{prefix}.{key}") + struct.pack("<II", 4, value) for key, value in numbers.items()]
    for key, values in recipe.lists.items():
        packed = struct.pack("<IIQ", 9, 5, len(values)) + struct.pack(f"<{len(values)}i", *values)
        found.append(written_text(f"{prefix}.{key}") + packed)
    floats = {"attention.layer_norm_rms_epsilon": 1e-5, "rope.freq_base": 500_000.0, **recipe.floats}
    found += [written_text(f"{prefix}.{key}") + struct.pack("<If", 6, value) for key, value in floats.items()]
    if recipe.token_types:
        found.append(written_text("tokenizer.ggml.token_type_count") + struct.pack("<II", 4, recipe.token_types))
        found.append(written_text(f"{prefix}.attention.causal") + struct.pack("<I?", 7, False))
    return found


def write_recipe(path: Path, recipe: Recipe, header_only: bool = False, kind: str = F16) -> None:
    """The model with random weights, or its header alone, which is what a projection reads."""
    tensors = recipe.tensors if kind == F16 else quantized(recipe.tensors, kind)
    write_file(path, entries(recipe), recipe.vocabulary, tensors, header_only)
