"""Reads a Hugging Face model folder: ``config.json`` and how many bytes its weights take.

Weights are counted from the headers of the ``*.safetensors`` files (eight bytes little-endian with the
header's length, then JSON with ``dtype``, ``shape`` and ``data_offsets`` of each tensor: the format's own
README), else from ``metadata.total_size`` of the index. Nothing but headers is read.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from typing import Any

from ansible.module_utils.ai_idp.documents import WRONG_SHAPE, from_json
from ansible.module_utils.ai_idp.sample_statistics import is_finite

MAX_JSON_BYTES = 64 * 1024 * 1024
# The format's own limit on a header.
MAX_SAFETENSORS_HEADER_BYTES = 100_000_000
INDEX_NAME = "model.safetensors.index.json"


class ConfigError(ValueError):
    """The folder is no model that can be read, with a sentence that says why."""


@dataclass(frozen=True)
class HfModel:
    """A model's configuration and the bytes of its weights, by the type they are stored in."""

    config: dict[str, Any]
    weights_bytes: int | None
    bytes_by_dtype: dict[str, int]
    token_embedding_bytes: int | None


def load_json(path: str) -> dict[str, Any]:
    try:
        size = os.path.getsize(path)
        if size > MAX_JSON_BYTES:
            raise ConfigError(f"{path}: {size} bytes is too long for such a file")
        with open(path, encoding="utf-8") as stream:
            data = from_json(stream.read())
    except OSError as error:
        raise ConfigError(f"{path}: it can't be read: {error.strerror}") from error
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(f"{path}: not valid JSON: {error}") from error
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: a JSON object is needed")
    return data


def read_safetensors_header(path: str) -> dict[str, tuple[str, int]]:
    """Each tensor's dtype and size in bytes."""
    size = os.path.getsize(path)
    with open(path, "rb") as stream:
        prefix = stream.read(8)
        if len(prefix) < 8:
            raise ConfigError(f"{path}: this is not a safetensors file")
        length = struct.unpack("<Q", prefix)[0]
        if length > MAX_SAFETENSORS_HEADER_BYTES or 8 + length > size:
            raise ConfigError(f"{path}: the header claims {length} bytes, the file has {size}: cut off or broken")
        try:
            header = from_json(stream.read(length))
        except ValueError as error:
            raise ConfigError(f"{path}: the header is not valid JSON: {error}") from error
    if not isinstance(header, dict):
        raise ConfigError(f"{path}: the header is no JSON object")
    tensors: dict[str, tuple[str, int]] = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        try:
            start, end = entry["data_offsets"]
            dtype = str(entry["dtype"])
            if not 0 <= int(start) <= int(end):
                raise ValueError("offsets run backwards")
        except WRONG_SHAPE as error:
            raise ConfigError(f"{path}: the entry of tensor {name!r} is broken: {error}") from error
        tensors[name] = (dtype, int(end) - int(start))
    return tensors


def _weight_files(folder: str) -> list[str]:
    """The safetensors files that make up the model; an index names them, extra copies are left out."""
    index_path = os.path.join(folder, INDEX_NAME)
    if os.path.isfile(index_path):
        weight_map = load_json(index_path).get("weight_map")
        if isinstance(weight_map, dict) and weight_map:
            # A file name out of a downloaded index never leads out of the folder.
            return sorted({os.path.basename(str(name)) for name in weight_map.values()})
    if os.path.isfile(os.path.join(folder, "model.safetensors")):
        return ["model.safetensors"]
    return sorted(name for name in os.listdir(folder) if name.endswith(".safetensors"))


def read_folder(folder: str) -> HfModel:
    """Reads ``config.json`` and the weights' sizes; raises ConfigError with what is wrong."""
    config_path = os.path.join(folder, "config.json")
    if not os.path.isfile(config_path):
        raise ConfigError(f"{folder}: there is no config.json")
    config = load_json(config_path)
    names = _weight_files(folder)
    paths = [os.path.join(folder, name) for name in names]
    if paths and all(os.path.isfile(path) for path in paths):
        by_dtype: dict[str, int] = {}
        embedding = None
        for path in paths:
            for name, (dtype, size) in read_safetensors_header(path).items():
                by_dtype[dtype] = by_dtype.get(dtype, 0) + size
                if name.endswith("embed_tokens.weight"):
                    embedding = size
        return HfModel(config, sum(by_dtype.values()), by_dtype, embedding)
    index_path = os.path.join(folder, INDEX_NAME)
    if os.path.isfile(index_path):
        # Weights that are not downloaded yet: the index says how large they will be.
        metadata = load_json(index_path).get("metadata")
        total = metadata.get("total_size") if isinstance(metadata, dict) else None
        if is_finite(total) and total > 0:
            return HfModel(config, int(total), {}, None)
    return HfModel(config, None, {}, None)
