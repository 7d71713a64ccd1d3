"""The GGUF header reader against files of the gguf package, and against broken and hostile ones."""

import random
import struct
import time
from pathlib import Path

import gguf
import numpy as np
import pytest
from ansible.module_utils.ai_idp import gguf_header
from ansible.module_utils.ai_idp.gguf_header import MAX_ARRAY_ELEMENTS, HeaderError, LongArray
from gguf_models import LLAMA_1B, LLAMA_8B, write_llama


def header(entries: bytes = b"", count: int = 0, tensors: int = 0, version: int = 3) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", version, tensors, count) + entries


def text(value: bytes) -> bytes:
    return struct.pack("<Q", len(value)) + value


def small_model(path: Path) -> Path:
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(2)
    writer.add_float32("llama.attention.layer_norm_rms_epsilon", 1e-5)
    writer.add_bool("general.flag", True)
    writer.add_array("llama.widths", [1, 2, 3])
    writer.add_token_list(["a", "b", "c"])
    writer.add_tensor("blk.0.ffn_up.weight", np.zeros((4, 32), dtype=np.float32))
    writer.add_tensor("blk.1.ffn_up.weight", np.zeros((3, 32), dtype=np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_type_table_is_the_one_of_the_gguf_package() -> None:
    theirs = {int(kind): (kind.name, *sizes) for kind, sizes in gguf.GGML_QUANT_SIZES.items()}
    assert theirs == gguf_header.TENSOR_TYPES


def test_reads_metadata_and_tensors(tmp_path: Path) -> None:
    read = gguf_header.read_file(str(small_model(tmp_path / "m.gguf")))
    assert read.architecture == "llama"
    assert read.value("block_count") == 2
    assert read.value("attention.layer_norm_rms_epsilon") == pytest.approx(1e-5)
    assert read.metadata["general.flag"] is True
    assert read.value("widths") == [1, 2, 3]
    assert read.metadata["tokenizer.ggml.tokens"] == LongArray(3)
    assert [(t.name, t.shape, t.type_name, t.bytes) for t in read.tensors] == [
        ("blk.0.ffn_up.weight", (32, 4), "F32", 512),
        ("blk.1.ffn_up.weight", (32, 3), "F16", 192),
    ]
    assert read.complete


@pytest.mark.parametrize(("shape", "loaded"), [(LLAMA_1B, 799_862_784), (LLAMA_8B, 4_912_898_048)])
def test_real_shapes_have_the_bytes_that_llama_bench_reported(tmp_path: Path, shape, loaded: int) -> None:
    """``model_size`` of llama-bench on the H100 for the same Q4_K_M models."""
    assert gguf_header.read_file(str(write_llama(tmp_path / "m.gguf", shape))).tensor_bytes == loaded


def test_a_download_that_was_cut_off_in_its_data_is_readable_and_marked(tmp_path: Path) -> None:
    path = small_model(tmp_path / "m.gguf")
    path.write_bytes(path.read_bytes()[:-64])
    assert not gguf_header.read_file(str(path)).complete


def test_every_cut_through_the_header_is_an_error(tmp_path: Path) -> None:
    path = small_model(tmp_path / "m.gguf")
    whole = path.read_bytes()
    for length in range(gguf_header.read_file(str(path)).header_bytes):
        path.write_bytes(whole[:length])
        with pytest.raises(HeaderError):
            gguf_header.read_file(str(path))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "not a GGUF"),
        (b"PK\x03\x04" + bytes(60), "not a GGUF"),
        (header(version=1) + bytes(64), "version 1"),
        (header(version=0x03000000) + bytes(64), "version"),
        (header(count=1 << 40) + bytes(64), "claims"),
        (header(tensors=1 << 40) + bytes(64), "claims"),
        (header(struct.pack("<Q", 2_000_000_000_000) + bytes(64), count=1), "a name of 2000000000000 bytes"),
        (header(text(b"k") + struct.pack("<IQ", 8, 2_000_000_000_000), count=1), "cut off or broken"),
        (header(text(b"k") + struct.pack("<IIQ", 9, 4, 1 << 62), count=1), "array that claims"),
        (header(text(b"k") + struct.pack("<IIQ", 9, 8, MAX_ARRAY_ELEMENTS + 1), count=1), "array that claims 2000001"),
        (header(text(b"k") + struct.pack("<IIQ", 9, 4, MAX_ARRAY_ELEMENTS), count=1), "cut off or broken"),
        (header(text(b"k") + struct.pack("<I", 99), count=1), "unknown type 99"),
        (header(text(b"k") + struct.pack("<I", 9) + struct.pack("<IQ", 9, 1) * 9, count=1), "nested"),
        (header((text(b"k") + struct.pack("<IB", 0, 1)) * 2, count=2), "twice"),
        (header(text(b"t") + struct.pack("<I", 9) + bytes(64), tensors=1), "9 dimensions"),
        (header(text(b"t") + struct.pack("<IQIQ", 1, 32, 999, 0), tensors=1), "unknown type 999"),
        (header(text(b"t") + struct.pack("<IQIQ", 1, 33, 2, 0), tensors=1), "not whole Q4_0 blocks"),
        (header(text(b"t") + struct.pack("<I4QIQ", 4, *[1 << 20] * 4, 0, 0), tensors=1), "impossible shape"),
        (header(text(b"t") + struct.pack("<IQIQ", 1, 0, 0, 0), tensors=1), "impossible shape"),
    ],
)
def test_broken_and_hostile_headers_are_refused(tmp_path: Path, data: bytes, reason: str) -> None:
    path = tmp_path / "bad.gguf"
    path.write_bytes(data)
    with pytest.raises(HeaderError, match=reason):
        gguf_header.read_file(str(path))


def test_changed_bytes_never_give_anything_but_a_header_error(tmp_path: Path) -> None:
    """A small fuzz: any answer or a HeaderError, in bounded time; the seed makes it repeatable."""
    path = small_model(tmp_path / "m.gguf")
    whole = path.read_bytes()
    end = gguf_header.read_file(str(path)).header_bytes
    chance = random.Random(7)
    started = time.monotonic()
    for _ in range(2000):
        damaged = bytearray(whole)
        for _ in range(chance.randint(1, 4)):
            damaged[chance.randrange(end)] = chance.randrange(256)
        path.write_bytes(damaged)
        try:
            gguf_header.read_file(str(path))
        except HeaderError:
            continue
    assert time.monotonic() - started < 30


def test_split_models_are_read_as_one(tmp_path: Path) -> None:
    for number, tensor in enumerate(("blk.0.a.weight", "blk.1.a.weight"), start=1):
        writer = gguf.GGUFWriter(tmp_path / f"big-{number:05d}-of-00002.gguf", "llama")
        writer.add_uint16("split.no", number - 1)
        writer.add_uint16("split.count", 2)
        writer.add_int32("split.tensors.count", 2)
        writer.add_tensor(tensor, np.zeros((2, 32), dtype=np.float32))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    for part in ("big-00001-of-00002.gguf", "big-00002-of-00002.gguf"):
        read = gguf_header.read_model(str(tmp_path / part))
        assert [tensor.name for tensor in read.tensors] == ["blk.0.a.weight", "blk.1.a.weight"]
        assert read.tensor_bytes == 512
    (tmp_path / "big-00002-of-00002.gguf").unlink()
    with pytest.raises(HeaderError, match="1 of 2 parts are not there, first big-00002"):
        gguf_header.read_model(str(tmp_path / "big-00001-of-00002.gguf"))
