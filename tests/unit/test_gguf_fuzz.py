"""A fuzz over the GGUF header reader: whatever the file says, an answer or a HeaderError, in bounded time and memory.

Seeded, so that a failure can be repeated. The mutations know the format: lengths and counts are what a hostile
file lies about. The whole file takes at most 10 seconds, or says so.
"""

import random
import struct
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np
import pytest
from ansible.module_utils.ai_idp import gguf_header, model_shape
from ansible.module_utils.ai_idp.gguf_header import MAX_ARRAY_ELEMENTS, HeaderError
from gguf_models import LLAMA_1B, write_llama

SEEDS = range(6)
SECONDS_PER_SEED = 1.2
# A file of a few kilobytes has no business with more: what is kept is bounded by what is there.
MOST_MEMORY = 16 << 20
SLOWEST = 0.5

# What lengths and counts are set to: edges of 8 to 64 bits, bounds of the reader, a 2-TB claim.
NUMBERS = (
    0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 1 << 20, MAX_ARRAY_ELEMENTS, MAX_ARRAY_ELEMENTS + 1, 0x7FFFFFFF,
    0xFFFFFFFF, 1 << 32, 2_000_000_000_000, 1 << 40, (1 << 62) - 1, 1 << 62, (1 << 63) - 1, 1 << 63, (1 << 64) - 1,
)  # fmt: skip


def seed_file(path: Path) -> Path:
    """A small model with every kind of metadata: numbers, text, arrays of both, nested arrays."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(2)
    writer.add_context_length(4096)
    writer.add_embedding_length(64)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_float32("llama.attention.layer_norm_rms_epsilon", 1e-5)
    writer.add_bool("general.flag", True)
    writer.add_array("llama.widths", [1, 2, 3])
    writer.add_array("llama.scores", [0.5] * 40)
    writer.add_array("llama.nested", [[1, 2], [3]])
    writer.add_token_list([f"token{number}" for number in range(64)])
    for layer in range(2):
        for name in ("attn_q", "attn_k", "ffn_up"):
            writer.add_tensor_info(f"blk.{layer}.{name}.weight", (64, 64), np.dtype(np.float32), 16384)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    return path


def flip(data: bytearray, chance: random.Random) -> None:
    for _ in range(chance.randint(1, 8)):
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)


def lie_about_a_length(data: bytearray, chance: random.Random) -> None:
    for _ in range(chance.randint(1, 3)):
        place = chance.randrange(len(data) - 8)
        data[place : place + 8] = struct.pack("<Q", chance.choice(NUMBERS))


def lie_about_a_type(data: bytearray, chance: random.Random) -> None:
    place = chance.randrange(len(data) - 4)
    data[place : place + 4] = struct.pack("<I", chance.choice((0, 1, 6, 7, 8, 9, 10, 12, 13, 40, 99, 0xFFFFFFFF)))


def lie_about_counts(data: bytearray, chance: random.Random) -> None:
    data[8:24] = struct.pack("<QQ", chance.choice(NUMBERS), chance.choice(NUMBERS))


def cut(data: bytearray, chance: random.Random) -> None:
    del data[chance.randrange(len(data)) :]


def repeat_a_part(data: bytearray, chance: random.Random) -> None:
    start = chance.randrange(len(data))
    part = bytes(data[start : start + chance.randint(1, 256)])
    data[start:start] = part * chance.randint(1, 64)


def drop_a_part(data: bytearray, chance: random.Random) -> None:
    start = chance.randrange(len(data))
    del data[start : start + chance.randint(1, 64)]


def nest_arrays(data: bytearray, chance: random.Random) -> None:
    place = chance.randrange(24, len(data))
    data[place:place] = struct.pack("<IQ", 9, chance.choice((0, 1, 2, 1 << 20))) * chance.randint(1, 200)


MUTATIONS: tuple[Callable[[bytearray, random.Random], None], ...] = (
    flip, lie_about_a_length, lie_about_a_type, lie_about_counts, cut, repeat_a_part, drop_a_part, nest_arrays,
)  # fmt: skip


def read_bounded(path: Path) -> str:
    """Reads header and shape; returns what came of it and fails on anything that is not bounded."""
    tracemalloc.reset_peak()
    started = time.process_time()
    try:
        header = gguf_header.read_file(str(path))
        model_shape.load({"name": "fuzz", "path": str(path)})
        outcome = "read" if header.complete else "read, cut off"
    except HeaderError as error:
        outcome = str(error)
        assert str(path) in outcome
        assert len(outcome) < 70_000
    except model_shape.ShapeError:
        outcome = "no shape"
    assert time.process_time() - started < SLOWEST, outcome
    assert tracemalloc.get_traced_memory()[1] < MOST_MEMORY, outcome
    return outcome


@pytest.mark.parametrize("seed", SEEDS)
def test_any_bytes_give_an_answer_or_one_clear_error(tmp_path: Path, seed: int) -> None:
    whole = seed_file(tmp_path / "seed.gguf").read_bytes()
    path = tmp_path / "fuzz.gguf"
    chance = random.Random(seed)
    outcomes: set[str] = set()
    tries = 0
    tracemalloc.start()
    try:
        until = time.monotonic() + SECONDS_PER_SEED
        while time.monotonic() < until:
            data = bytearray(whole)
            for mutate in chance.choices(MUTATIONS, k=chance.randint(1, 3)):
                if len(data) > 32:
                    mutate(data, chance)
            path.write_bytes(data)
            outcomes.add(read_bounded(path).partition(": ")[2][:24])
            tries += 1
    finally:
        tracemalloc.stop()
    # A mutator that only ever breaks the magic would test nothing.
    assert tries > 50
    assert len(outcomes) > 8


HOSTILE = {
    "empty": b"",
    "not a GGUF": b"\x7fELF" + bytes(4096),
    "text": b"<!DOCTYPE html><html>404 Not Found</html>" * 10,
    "header only": b"GGUF" + struct.pack("<IQQ", 3, 0, 1),
    "2 TB of text": b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q", 1) + b"k"
    + struct.pack("<IQ", 8, 2_000_000_000_000),
    "2 TB of numbers": b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q", 1) + b"k"
    + struct.pack("<IIQ", 9, 12, 250_000_000_000),
    "most elements allowed, none there": b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q", 1) + b"k"
    + struct.pack("<IIQ", 9, 8, MAX_ARRAY_ELEMENTS),
    "65,536 entries, none there": b"GGUF" + struct.pack("<IQQ", 3, 0, 65_536) + bytes(64),
    "a million tensors, none there": b"GGUF" + struct.pack("<IQQ", 3, 1_000_000, 0) + bytes(64),
    "2 TB of tensors": b"GGUF" + struct.pack("<IQQ", 3, 1 << 41, 0) + bytes(64),
    "arrays in arrays": b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q", 1) + b"k" + struct.pack("<I", 9)
    + struct.pack("<IQ", 9, MAX_ARRAY_ELEMENTS) * 4096,
    "empty arrays, counted to the bound": b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q", 1) + b"k"
    + struct.pack("<IIQ", 9, 9, MAX_ARRAY_ELEMENTS) + struct.pack("<IQ", 0, 0) * 20_000,
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_refused_at_once(tmp_path: Path, name: str) -> None:
    path = tmp_path / "hostile.gguf"
    path.write_bytes(HOSTILE[name])
    tracemalloc.start()
    try:
        outcome = read_bounded(path)
    finally:
        tracemalloc.stop()
    assert outcome.startswith(str(path)), outcome


def test_many_arrays_that_are_short_enough_to_keep_are_not_all_kept(tmp_path: Path) -> None:
    """200 arrays of 4,096 bytes: as Python numbers they would take over 30 MB."""
    path = tmp_path / "arrays.gguf"
    with path.open("wb") as stream:
        stream.write(b"GGUF" + struct.pack("<IQQ", 3, 0, 200))
        for number in range(200):
            stream.write(struct.pack("<Q", 4) + b"%04d" % number + struct.pack("<IIQ", 9, 1, 4096) + b"\x80" * 4096)
    tracemalloc.start()
    try:
        metadata = gguf_header.read_file(str(path)).metadata
        assert tracemalloc.get_traced_memory()[1] < MOST_MEMORY
    finally:
        tracemalloc.stop()
    assert metadata["0000"] == [-128] * 4096
    assert metadata["0199"] == gguf_header.LongArray(4096)


def test_a_real_header_is_read_in_little_time_and_memory(tmp_path: Path) -> None:
    """128,256 tokens, as a Llama has them: they are walked over, not kept."""
    path = write_llama(tmp_path / "m.gguf", LLAMA_1B, tokens=128_256)
    tracemalloc.start()
    try:
        started = time.process_time()
        header = gguf_header.read_file(str(path))
        taken = time.process_time() - started
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(header.tensors) == 2 + 16 * 9
    assert peak < 2 << 20
    assert taken < 10


def test_a_sparse_file_of_a_terabyte_is_not_read(tmp_path: Path) -> None:
    """The size on disk is no licence: a header that claims it all is refused by the bound on headers."""
    path = tmp_path / "sparse.gguf"
    with path.open("wb") as stream:
        stream.write(b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q", 1) + b"k")
        stream.write(struct.pack("<IQ", 8, 1 << 39))
        stream.truncate(1 << 40)
    tracemalloc.start()
    try:
        assert "longer than" in read_bounded(path)
    finally:
        tracemalloc.stop()
