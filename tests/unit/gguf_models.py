"""Writes GGUF headers of real shapes without their data, for tests of what reads headers only."""

from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np
from gguf import GGMLQuantizationType as T


@dataclass(frozen=True)
class Llama:
    """The shape of a Llama; tied models have no output matrix of their own."""

    layers: int
    hidden: int
    feed_forward: int
    heads: int
    kv_heads: int
    head_dim: int
    tied: bool
    vocabulary: int = 128_256
    trained_context: int = 131_072


LLAMA_1B = Llama(16, 2048, 8192, 32, 8, 64, tied=True)
LLAMA_3B = Llama(28, 3072, 8192, 24, 8, 128, tied=True)
LLAMA_8B = Llama(32, 4096, 14336, 32, 8, 128, tied=False)
LLAMA_70B = Llama(80, 8192, 28672, 64, 8, 128, tied=False)


def _more_bits(layer: int, layers: int) -> bool:
    """Which layers llama-quantize gives Q6_K instead of Q4_K in a Q4_K_M file."""
    return layer < layers // 8 or layer >= 7 * layers // 8 or (layer - layers // 8) % 3 == 2


def tensors(shape: Llama, quantization: str) -> list[tuple[str, tuple[int, ...], T]]:
    """Names, shapes (rows last, as NumPy has them) and types of a Q4_K_M or Q8_0 file."""
    base, more = (T.Q4_K, T.Q6_K) if quantization == "Q4_K_M" else (T.Q8_0, T.Q8_0)
    hidden, kv = shape.hidden, shape.kv_heads * shape.head_dim
    found = [("token_embd.weight", (shape.vocabulary, hidden), more if shape.tied else base)]
    found.append(("output_norm.weight", (hidden,), T.F32))
    if not shape.tied:
        found.append(("output.weight", (shape.vocabulary, hidden), more))
    for layer in range(shape.layers):
        high = more if _more_bits(layer, shape.layers) else base
        block = f"blk.{layer}."
        found += [
            (block + "attn_norm.weight", (hidden,), T.F32),
            (block + "ffn_norm.weight", (hidden,), T.F32),
            (block + "attn_q.weight", (shape.heads * shape.head_dim, hidden), base),
            (block + "attn_output.weight", (hidden, shape.heads * shape.head_dim), base),
            (block + "attn_k.weight", (kv, hidden), base),
            (block + "attn_v.weight", (kv, hidden), high),
            (block + "ffn_gate.weight", (shape.feed_forward, hidden), base),
            (block + "ffn_up.weight", (shape.feed_forward, hidden), base),
            (block + "ffn_down.weight", (hidden, shape.feed_forward), high),
        ]
    return found


def write_llama(
    path: Path, shape: Llama, quantization: str = "Q4_K_M", tokens: int = 16, architecture: str = "llama"
) -> Path:
    """Writes the header of such a model; the file ends where the data would begin."""
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_block_count(shape.layers)
    writer.add_context_length(shape.trained_context)
    writer.add_embedding_length(shape.hidden)
    writer.add_feed_forward_length(shape.feed_forward)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_key_length(shape.head_dim)
    writer.add_value_length(shape.head_dim)
    writer.add_vocab_size(shape.vocabulary)
    writer.add_token_list([f"token{number}" for number in range(tokens)])
    for name, dimensions, kind in tensors(shape, quantization):
        stored = gguf.quant_shape_to_byte_shape(dimensions, kind) if kind != T.F32 else dimensions
        size = int(np.prod([int(extent) for extent in stored])) * (4 if kind == T.F32 else 1)
        dtype = np.dtype(np.float32 if kind == T.F32 else np.uint8)
        writer.add_tensor_info(name, stored, dtype, size, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    return path
