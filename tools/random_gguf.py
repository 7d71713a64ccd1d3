"""Writes GGUF files of real model shapes with random weights, by the standard library alone.

They take the memory of the real model and say nonsense. Used by ``gpu_proof.py`` on machines without a network.
"""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

MIB = 1 << 20


@dataclass(frozen=True)
class Shape:
    """A Llama; tied models have no output matrix of their own."""

    name: str
    layers: int
    hidden: int
    feed_forward: int
    heads: int
    kv_heads: int
    head_dim: int
    tied: bool
    vocabulary: int = 128_256


def tensors(shape: Shape) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names and shapes (rows first, as GGUF counts) of a model's tensors; one dimension is 32-bit, two are 16-bit."""
    hidden, kv = shape.hidden, shape.kv_heads * shape.head_dim
    yield "token_embd.weight", (hidden, shape.vocabulary)
    yield "output_norm.weight", (hidden,)
    yield "rope_freqs.weight", (shape.head_dim // 2,)
    if not shape.tied:
        yield "output.weight", (hidden, shape.vocabulary)
    for layer in range(shape.layers):
        for name, size in (
            ("attn_norm", (hidden,)), ("ffn_norm", (hidden,)), ("attn_q", (hidden, shape.heads * shape.head_dim)),
            ("attn_k", (hidden, kv)), ("attn_v", (hidden, kv)), ("attn_output", (shape.heads * shape.head_dim, hidden)),
            ("ffn_gate", (hidden, shape.feed_forward)), ("ffn_up", (hidden, shape.feed_forward)),
            ("ffn_down", (shape.feed_forward, hidden)),
        ):  # fmt: skip
            yield f"blk.{layer}.{name}.weight", size


def _text(value: str) -> bytes:
    data = value.encode()
    return struct.pack("<Q", len(data)) + data


def metadata(shape: Shape) -> list[bytes]:
    """Metadata of a Llama with a byte-level vocabulary that has no meaning."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = [chr(code) for code in printable] + [chr(256 + n) for n in range(256 - len(printable))]
    control = 128_000 if shape.vocabulary > 128_000 else shape.vocabulary - 2
    words = letters + [f"w{number}" for number in range(shape.vocabulary - len(letters))]
    kinds = [3 if number >= control else 1 for number in range(shape.vocabulary)]
    numbers = {
        "block_count": shape.layers, "context_length": 131_072, "embedding_length": shape.hidden,
        "feed_forward_length": shape.feed_forward, "attention.head_count": shape.heads,
        "attention.head_count_kv": shape.kv_heads, "attention.key_length": shape.head_dim,
        "attention.value_length": shape.head_dim, "rope.dimension_count": shape.head_dim,
        "vocab_size": shape.vocabulary,
    }  # fmt: skip
    found = [_text("general.architecture") + struct.pack("<I", 8) + _text("llama")]
    found += [_text(f"llama.{key}") + struct.pack("<II", 4, value) for key, value in numbers.items()]
    found.append(_text("llama.attention.layer_norm_rms_epsilon") + struct.pack("<If", 6, 1e-5))
    found.append(_text("llama.rope.freq_base") + struct.pack("<If", 6, 500_000.0))
    for key, value in (("model", "gpt2"), ("pre", "llama-bpe")):
        found.append(_text(f"tokenizer.ggml.{key}") + struct.pack("<I", 8) + _text(value))
    for key, strings in (("tokens", words), ("merges", ["w 0", "w 1"])):
        head = _text(f"tokenizer.ggml.{key}") + struct.pack("<IIQ", 9, 8, len(strings))
        found.append(head + b"".join(map(_text, strings)))
    head = _text("tokenizer.ggml.token_type") + struct.pack("<IIQ", 9, 5, len(kinds))
    found.append(head + struct.pack(f"<{len(kinds)}i", *kinds))
    for key, token in (("bos_token_id", control), ("eos_token_id", control + 1)):
        found.append(_text(f"tokenizer.ggml.{key}") + struct.pack("<II", 4, token))
    return found


def random_halves(size: int) -> bytes:
    """16-bit floats of random sign and fraction between 1/32 and 1/16, cheaply: the values do not matter."""
    data = bytearray(size)
    data[0::2] = os.urandom(size // 2)
    data[1::2] = os.urandom(size // 2).translate(bytes((byte & 0x83) | 0x28 for byte in range(256)))
    return bytes(data)


def write_gguf(path: Path, shape: Shape) -> None:
    """A 16-bit GGUF of the shape with random weights."""
    entries, infos, offset, sizes = metadata(shape), b"", 0, []
    for name, size in tensors(shape):
        count = math.prod(size)
        kind, wide = (1, 2) if len(size) > 1 else (0, 4)
        infos += _text(name) + struct.pack(f"<I{len(size)}QIQ", len(size), *size, kind, offset)
        length = count * wide
        sizes.append((length, kind))
        offset += -(-length // 32) * 32
    block = random_halves(32 * MIB)
    with path.open("wb") as stream:
        stream.write(b"GGUF" + struct.pack("<IQQ", 3, len(sizes), len(entries)) + b"".join(entries) + infos)
        stream.write(bytes(-stream.tell() % 32))
        for length, kind in sizes:
            left = length
            while left:
                part = min(left, len(block))
                stream.write(block[:part] if kind == 1 else struct.pack("<f", 1.0) * (part // 4))
                left -= part
            stream.write(bytes(-length % 32))
