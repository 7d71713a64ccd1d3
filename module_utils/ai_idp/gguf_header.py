"""Reads the header of a GGUF file: metadata and the list of tensors, never the tensors' data.

Format: ``docs/gguf.md`` of the ggml project (versions 2 and 3, little-endian). A header is not to be
trusted: every length is checked against the file before anything is read or kept, and both the header's
size and the number of elements are bounded, so a broken or hostile file gives a HeaderError in bounded time
and memory.
"""

from __future__ import annotations

import os
import re
import struct
from dataclasses import dataclass, field
from typing import Any, BinaryIO

MAGIC = b"GGUF"
SUPPORTED_VERSIONS = (2, 3)

# The largest real headers (vocabularies of 262,144 tokens with merges) are about 30 MB.
MAX_HEADER_BYTES = 256 * 1024 * 1024
MAX_METADATA_ENTRIES = 65_536
MAX_TENSORS = 1_000_000
# The largest vocabularies in use have about 262,000 entries, with about 500,000 merges. A hostile array of this many
# strings or empty arrays (a file of 15 or 22 MiB) is walked over in 1.2 or 2.6 s of one core, and needs no memory.
MAX_ARRAY_ELEMENTS = 2_000_000
MAX_NAME_BYTES = 65_536
MAX_DIMENSIONS = 4
MAX_ARRAY_DEPTH = 4
# Longer arrays (vocabularies, merges, scores) are walked over; only their length is kept.
KEEP_ARRAY_ELEMENTS = 4_096
# Of all arrays together: models have a few lists with an entry for each layer. A number takes some 40 bytes in Python,
# so 65,000 full arrays of bytes, a header of 249 MiB, would take 10 GB; with this bound they take 13 MiB.
# What takes most then is 250 MiB of text (750 MiB) or of tensor names (0.8 GiB): bounded by MAX_HEADER_BYTES.
KEEP_ELEMENTS = 65_536

# Tensor type number: (name, elements per block, bytes per block), as in ggml's type table.
TENSOR_TYPES: dict[int, tuple[str, int, int]] = {
    0: ("F32", 1, 4),
    1: ("F16", 1, 2),
    2: ("Q4_0", 32, 18),
    3: ("Q4_1", 32, 20),
    6: ("Q5_0", 32, 22),
    7: ("Q5_1", 32, 24),
    8: ("Q8_0", 32, 34),
    9: ("Q8_1", 32, 40),
    10: ("Q2_K", 256, 84),
    11: ("Q3_K", 256, 110),
    12: ("Q4_K", 256, 144),
    13: ("Q5_K", 256, 176),
    14: ("Q6_K", 256, 210),
    15: ("Q8_K", 256, 292),
    16: ("IQ2_XXS", 256, 66),
    17: ("IQ2_XS", 256, 74),
    18: ("IQ3_XXS", 256, 98),
    19: ("IQ1_S", 256, 50),
    20: ("IQ4_NL", 32, 18),
    21: ("IQ3_S", 256, 110),
    22: ("IQ2_S", 256, 82),
    23: ("IQ4_XS", 256, 136),
    24: ("I8", 1, 1),
    25: ("I16", 1, 2),
    26: ("I32", 1, 4),
    27: ("I64", 1, 8),
    28: ("F64", 1, 8),
    29: ("IQ1_M", 256, 56),
    30: ("BF16", 1, 2),
    34: ("TQ1_0", 256, 54),
    35: ("TQ2_0", 256, 66),
    39: ("MXFP4", 32, 17),
    40: ("NVFP4", 64, 36),
    41: ("Q1_0", 128, 18),
}

# Metadata value type number: struct format of the fixed-size ones.
_SCALARS = {
    0: "<B",
    1: "<b",
    2: "<H",
    3: "<h",
    4: "<I",
    5: "<i",
    6: "<f",
    7: "<?",
    10: "<Q",
    11: "<q",
    12: "<d",
}
_STRING = 8
_ARRAY = 9

_SPLIT_NAME = re.compile(r"^(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf$")


class HeaderError(ValueError):
    """The file is no GGUF that can be read, with a sentence that says why."""


@dataclass(frozen=True)
class LongArray:
    """Stands for an array of the metadata that is too long to keep, or that holds strings."""

    length: int


@dataclass(frozen=True)
class Tensor:
    """Name, shape and size of one tensor; ``offset`` counts from the start of the data section."""

    name: str
    shape: tuple[int, ...]
    type_name: str
    bytes: int
    offset: int


@dataclass
class GgufHeader:
    """What the header of a GGUF file, or of all parts of a split one, says."""

    version: int
    metadata: dict[str, Any]
    tensors: list[Tensor]
    files: list[str]
    file_bytes: int
    # False where the file ends before its last tensor does: a download that was cut off.
    complete: bool
    header_bytes: int = field(default=0)

    @property
    def architecture(self) -> str:
        return str(self.metadata.get("general.architecture", ""))

    def value(self, key: str, default: Any = None) -> Any:
        """The value of ``{architecture}.{key}``."""
        return self.metadata.get(f"{self.architecture}.{key}", default)

    @property
    def tensor_bytes(self) -> int:
        return sum(tensor.bytes for tensor in self.tensors)


class _Cursor:
    """Reads forward and refuses what the file, or the bound on headers, can't hold."""

    def __init__(self, stream: BinaryIO, size: int, path: str) -> None:
        self._stream = stream
        self._limit = min(size, MAX_HEADER_BYTES)
        self._size = size
        self._path = path
        self.position = 0
        self.may_keep = KEEP_ELEMENTS

    def fail(self, reason: str) -> HeaderError:
        return HeaderError(f"{self._path}: {reason} (at byte {self.position} of {self._size})")

    def _reserve(self, count: int) -> None:
        if count < 0 or self.position + count > self._limit:
            if self._limit < self._size:
                raise self.fail(f"the header is longer than {MAX_HEADER_BYTES} bytes, which no model needs")
            raise self.fail(f"the header wants {count} more bytes than the file has: it is cut off or broken")

    def take(self, count: int) -> bytes:
        self._reserve(count)
        data = self._stream.read(count)
        if len(data) != count:
            raise self.fail("the file ended while it was read")
        self.position += count
        return data

    def skip(self, count: int) -> None:
        self._reserve(count)
        self._stream.seek(count, os.SEEK_CUR)
        self.position += count

    def number(self, layout: str) -> Any:
        return struct.unpack(layout, self.take(struct.calcsize(layout)))[0]

    def text(self) -> str:
        length = self.number("<Q")
        return self.take(length).decode("utf-8", "replace")

    def name(self) -> str:
        length = self.number("<Q")
        if length > MAX_NAME_BYTES:
            raise self.fail(f"a name of {length} bytes")
        return self.take(length).decode("utf-8", "replace")


def _read_value(cursor: _Cursor, kind: int, depth: int = 0) -> Any:
    if kind in _SCALARS:
        return cursor.number(_SCALARS[kind])
    if kind == _STRING:
        return cursor.text()
    if kind != _ARRAY:
        raise cursor.fail(f"metadata of the unknown type {kind}")
    if depth >= MAX_ARRAY_DEPTH:
        raise cursor.fail(f"arrays nested more than {MAX_ARRAY_DEPTH} deep")
    element, length = cursor.number("<I"), cursor.number("<Q")
    if length > MAX_ARRAY_ELEMENTS:
        raise cursor.fail(f"an array that claims {length} elements")
    if element in _SCALARS:
        layout = _SCALARS[element]
        size = struct.calcsize(layout)
        if length > min(KEEP_ARRAY_ELEMENTS, cursor.may_keep):
            cursor.skip(length * size)
            return LongArray(length)
        cursor.may_keep -= length
        data = cursor.take(length * size)
        return [struct.unpack_from(layout, data, index * size)[0] for index in range(length)]
    if element == _STRING:
        for _ in range(length):
            cursor.skip(cursor.number("<Q"))
        return LongArray(length)
    for _ in range(length):
        _read_value(cursor, element, depth + 1)
    return LongArray(length)


def _read_tensor(cursor: _Cursor) -> Tensor:
    name = cursor.name()
    dimensions = cursor.number("<I")
    if not 1 <= dimensions <= MAX_DIMENSIONS:
        raise cursor.fail(f"tensor {name!r} with {dimensions} dimensions")
    shape = tuple(cursor.number("<Q") for _ in range(dimensions))
    kind = cursor.number("<I")
    offset = cursor.number("<Q")
    if kind not in TENSOR_TYPES:
        raise cursor.fail(f"tensor {name!r} of the unknown type {kind}: a newer format than this reader knows")
    type_name, block, block_bytes = TENSOR_TYPES[kind]
    elements = 1
    for extent in shape:
        elements *= extent
        if extent == 0 or elements >= 1 << 62:
            raise cursor.fail(f"tensor {name!r} with the impossible shape {list(shape)}")
    if shape[0] % block:
        raise cursor.fail(f"tensor {name!r}: rows of {shape[0]} elements are not whole {type_name} blocks")
    return Tensor(name, shape, type_name, elements // block * block_bytes, offset)


def read_file(path: str) -> GgufHeader:
    """Reads the header of one file. Raises HeaderError, or OSError when the file can't be opened."""
    size = os.path.getsize(path)
    with open(path, "rb") as stream:
        cursor = _Cursor(stream, size, path)
        if size < 24 or cursor.take(4) != MAGIC:
            raise cursor.fail("this is not a GGUF file")
        version = cursor.number("<I")
        if version not in SUPPORTED_VERSIONS:
            raise cursor.fail(f"GGUF version {version} is not one of {list(SUPPORTED_VERSIONS)}")
        tensor_count, entry_count = cursor.number("<Q"), cursor.number("<Q")
        if tensor_count > MAX_TENSORS or entry_count > MAX_METADATA_ENTRIES:
            raise cursor.fail(f"the header claims {tensor_count} tensors and {entry_count} metadata entries")
        metadata: dict[str, Any] = {}
        for _ in range(entry_count):
            key = cursor.name()
            if key in metadata:
                raise cursor.fail(f"the metadata key {key!r} stands there twice")
            metadata[key] = _read_value(cursor, cursor.number("<I"))
        tensors: list[Tensor] = []
        names: set[str] = set()
        for _ in range(tensor_count):
            tensor = _read_tensor(cursor)
            if tensor.name in names:
                raise cursor.fail(f"the tensor {tensor.name!r} stands there twice")
            names.add(tensor.name)
            tensors.append(tensor)
        alignment = metadata.get("general.alignment", 32)
        if not isinstance(alignment, int) or not 1 <= alignment <= 1 << 20:
            raise cursor.fail(f"the alignment {alignment!r} is none")
        data_start = -(-cursor.position // alignment) * alignment
        data_bytes = max((tensor.offset + tensor.bytes for tensor in tensors), default=0)
        return GgufHeader(
            version=version,
            metadata=metadata,
            tensors=tensors,
            files=[path],
            file_bytes=size,
            complete=data_start + data_bytes <= size,
            header_bytes=cursor.position,
        )


def split_parts(path: str) -> list[str]:
    """All parts of the split model that ``path`` belongs to, in order; ``[path]`` when it is not split.

    Parts are named ``STEM-00001-of-00003.gguf`` (llama.cpp's llama-gguf-split).
    """
    folder, name = os.path.split(path)
    match = _SPLIT_NAME.match(name)
    if not match:
        return [path]
    stem, count = match["stem"], int(match["count"])
    if not 1 <= count <= 10_000:
        raise HeaderError(f"{path}: a model in {count} parts")
    return [os.path.join(folder, f"{stem}-{part:05d}-of-{count:05d}.gguf") for part in range(1, count + 1)]


def read_model(path: str) -> GgufHeader:
    """Reads a model from one file or, given any part of a split model, from all of its parts."""
    parts = split_parts(path)
    missing = [part for part in parts if not os.path.isfile(part)]
    if missing:
        raise HeaderError(
            f"{path}: {len(missing)} of {len(parts)} parts are not there, first {os.path.basename(missing[0])}"
        )
    headers = [read_file(part) for part in parts]
    first = headers[0]
    tensors = [tensor for header in headers for tensor in header.tensors]
    claimed = first.metadata.get("split.tensors.count", len(tensors))
    if claimed != len(tensors):
        raise HeaderError(f"{path}: the parts hold {len(tensors)} tensors, the first says {claimed}")
    return GgufHeader(
        version=first.version,
        metadata=first.metadata,
        tensors=tensors,
        files=parts,
        file_bytes=sum(header.file_bytes for header in headers),
        complete=all(header.complete for header in headers),
        header_bytes=sum(header.header_bytes for header in headers),
    )
