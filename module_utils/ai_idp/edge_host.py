# Copyright: AI-IDP contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What an edge host has for llama.cpp's services: build, model, units as they are, and the nodes of its GPU."""

from __future__ import annotations

import glob
import grp
import os
import re
import stat
from typing import Any

from ansible.module_utils.ai_idp.documents import from_json, mapping_of

# Nodes of NVIDIA's driver on a PC and of L4T's on a Jetson.
DEVICE = re.compile(
    r"/dev/(nvidia(\d+|ctl|-uvm|-uvm-tools)|nvmap|nvhost-.+|nvsciipc|host1x-fence|nvgpu/.+|dri/renderD\d+)"
)
DEVICE_GROUPS = ("video", "render")
DEVICE_DEPTH = 3


def model_of(path: str) -> dict[str, Any] | None:
    """Size, time of change and readability of the model's file; None where there is none."""
    try:
        info = os.stat(path)
    except OSError:
        return None
    return {
        "size": info.st_size,
        "mtime": int(info.st_mtime),
        "everybody_reads": bool(info.st_mode & stat.S_IROTH),
    }


def release_of(path: str) -> dict[str, Any]:
    """What the build of the programs says of itself; empty where it says nothing.

    Raises:
        OSError: the file can't be read.
        ValueError: it is no JSON.
    """
    try:
        with open(path, encoding="utf-8") as stream:
            return mapping_of(from_json(stream.read()))
    except FileNotFoundError:
        return {}


def unit_texts(paths: list[str]) -> dict[str, str]:
    """Texts of the units by name; empty where there is no such file."""
    texts = {}
    for path in paths:
        texts[os.path.basename(path)] = ""
        if os.path.isfile(path):
            with open(path, encoding="utf-8", errors="replace") as stream:
                texts[os.path.basename(path)] = stream.read()
    return texts


def device_nodes(root: str = "/") -> list[str]:
    """Nodes that a service on the GPU talks to, in order.

    Args:
        root: folder that stands for the host's, in tests.
    """
    root = root.rstrip("/")
    found = []
    for depth in range(1, DEVICE_DEPTH + 1):
        for path in glob.glob(os.path.join(root, "dev", *["*"] * depth)):
            name = path[len(root) :]
            if DEVICE.fullmatch(name) and not os.path.isdir(path):
                found.append(name)
    return sorted(found)


def device_groups() -> list[str]:
    """Groups that own those nodes on a Jetson, as far as the host has them."""
    return [name for name in DEVICE_GROUPS if name in {entry.gr_name for entry in grp.getgrall()}]
