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


# Tensor types of ggml: number, elements and bytes of a block.
F32, F16, MXFP4, Q8_0, Q4_K, Q6_K = "F32", "F16", "MXFP4", "Q8_0", "Q4_K", "Q6_K"
TYPES = {
    F32: (0, 1, 4), F16: (1, 1, 2), MXFP4: (39, 32, 17), Q8_0: (8, 32, 34), Q4_K: (12, 256, 144), Q6_K: (14, 256, 210),
}  # fmt: skip
# The bytes of a block that are its scales, which random bytes could make infinite.
SCALES = {MXFP4: {0: 121}, Q8_0: {0: 0, 1: 12}, Q4_K: {0: 0, 1: 12, 2: 0, 3: 12}, Q6_K: {208: 0, 209: 4}}
Entry = tuple[str, tuple[int, ...], str]


def quantized(sizes: list[Entry], kind: str) -> list[Entry]:
    """The tensors with the types that llama-quantize gives them: ``Q8_0``, or ``Q4_K_M`` for a tied Llama.

    Of Q4_K_M it makes the values and ffn_down of half of the layers Q6_K, and the embedding that is the output too
    (use_more_bits in llama-quant.cpp). What is of 32 bit stays, and what is read by position or kind of token.
    """
    layers = 1 + max(int(name.split(".")[1]) for name, _, _ in sizes if name.startswith("blk."))

    def of(name: str, size: tuple[int, ...], was: str) -> str:
        if was != F16 or name.split(".")[0] in ("position_embd", "token_types") or size[0] % 32:
            return was
        if kind == Q8_0:
            return Q8_0
        parts = name.split(".")
        layer = int(parts[1]) if parts[0] == "blk" else 0
        more = layer < layers // 8 or layer >= 7 * layers // 8 or (layer - layers // 8) % 3 == 2
        return Q6_K if parts[0] == "token_embd" or (parts[-2] in ("attn_v", "ffn_down") and more) else Q4_K

    return [(name, size, of(name, size, was)) for name, size, was in sizes]


def written_text(value: str) -> bytes:
    """A string as GGUF has it."""
    data = value.encode()
    return struct.pack("<Q", len(data)) + data


def vocabulary_entries(size: int) -> list[bytes]:
    """A byte-level vocabulary that has no meaning."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = [chr(code) for code in printable] + [chr(256 + n) for n in range(256 - len(printable))]
    control = 128_000 if size > 128_000 else size - 2
    words = letters + [f"w{number}" for number in range(size - len(letters))]
    kinds = [3 if number >= control else 1 for number in range(size)]
    found = []
    for key, value in (("model", "gpt2"), ("pre", "llama-bpe")):
        found.append(written_text(f"tokenizer.ggml.{key}") + struct.pack("<I", 8) + written_text(value))
    for key, strings in (("tokens", words), ("merges", ["w 0", "w 1"])):
        head = written_text(f"tokenizer.ggml.{key}") + struct.pack("<IIQ", 9, 8, len(strings))
        found.append(head + b"".join(map(written_text, strings)))
    head = written_text("tokenizer.ggml.token_type") + struct.pack("<IIQ", 9, 5, len(kinds))
    found.append(head + struct.pack(f"<{len(kinds)}i", *kinds))
    for key, token in (("bos_token_id", control), ("eos_token_id", control + 1)):
        found.append(written_text(f"tokenizer.ggml.{key}") + struct.pack("<II", 4, token))
    return found


def metadata(shape: Shape) -> list[bytes]:
    """Metadata of a Llama."""
    numbers = {
        "block_count": shape.layers, "context_length": 131_072, "embedding_length": shape.hidden,
        "feed_forward_length": shape.feed_forward, "attention.head_count": shape.heads,
        "attention.head_count_kv": shape.kv_heads, "attention.key_length": shape.head_dim,
        "attention.value_length": shape.head_dim, "rope.dimension_count": shape.head_dim,
        "vocab_size": shape.vocabulary,
    }  # fmt: skip
    found = [written_text("general.architecture") + struct.pack("<I", 8) + written_text("llama")]
    found += [written_text(f"llama.{key}") + struct.pack("<II", 4, value) for key, value in numbers.items()]
    found.append(written_text("llama.attention.layer_norm_rms_epsilon") + struct.pack("<If", 6, 1e-5))
    found.append(written_text("llama.rope.freq_base") + struct.pack("<If", 6, 500_000.0))
    return found


def random_halves(size: int) -> bytes:
    """16-bit floats of random sign and fraction between 1/32 and 1/16, cheaply: the values do not matter."""
    data = bytearray(size)
    data[0::2] = os.urandom(size // 2)
    data[1::2] = os.urandom(size // 2).translate(bytes((byte & 0x83) | 0x28 for byte in range(256)))
    return bytes(data)


def random_blocks(kind: str) -> bytes:
    """Blocks of a small scale and random elements."""
    wide = TYPES[kind][2]
    count = MIB // 16
    data = bytearray(os.urandom(count * wide))
    for place, value in SCALES[kind].items():
        data[place::wide] = bytes([value]) * count
    return bytes(data)


def write_file(
    path: Path, entries: list[bytes], vocabulary: int, sizes: list[Entry], header_only: bool = False
) -> None:
    """A GGUF of these tensors with random weights, or its header alone with a hole where they would be."""
    entries = entries + vocabulary_entries(vocabulary)
    infos, offset, lengths = b"", 0, []
    for name, size, kind in sizes:
        number, block, wide = TYPES[kind]
        infos += written_text(name) + struct.pack(f"<I{len(size)}QIQ", len(size), *size, number, offset)
        lengths.append((math.prod(size) // block * wide, kind))
        offset += -(-lengths[-1][0] // 32) * 32
    with path.open("wb") as stream:
        stream.write(b"GGUF" + struct.pack("<IQQ", 3, len(lengths), len(entries)) + b"".join(entries) + infos)
        stream.write(bytes(-stream.tell() % 32))
        if header_only:
            stream.truncate(stream.tell() + offset)
            return
        data = {F16: random_halves(32 * MIB), F32: struct.pack("<f", 1.0) * (MIB // 4)}
        data |= {kind: random_blocks(kind) for kind in {kind for _, kind in lengths} & set(SCALES)}
        for length, kind in lengths:
            left = length
            while left:
                part = min(left, len(data[kind]))
                stream.write(data[kind][:part])
                left -= part
            stream.write(bytes(-length % 32))


def write_gguf(path: Path, shape: Shape, header_only: bool = False, kind: str = F16) -> None:
    """A GGUF of a Llama with random weights, of 16 bit where ``kind`` says nothing else."""
    sizes = [(name, size, F16 if len(size) > 1 else F32) for name, size in tensors(shape)]
    if kind != F16:
        sizes = quantized(sizes, kind)
    write_file(path, metadata(shape), shape.vocabulary, sizes, header_only)
