"""What an image of the lab is made of, as one hash: the tag that decides whether it has to be built again."""

from __future__ import annotations

import hashlib
import json
import os

from ansible.module_utils.ai_idp.files import hash_file

HASH_LENGTH = 16
"""Hexadecimal digits of a tag: 64 bits, far more than a few dozen images need."""


def context_files(context):
    """List the files below a build context.

    :param context: folder of the Dockerfile.
    :returns: sorted list of paths relative to the folder, Python's caches left out.
    :raises FileNotFoundError: when the folder holds no Dockerfile.
    """
    if not os.path.isfile(os.path.join(context, "Dockerfile")):
        raise FileNotFoundError(f"no Dockerfile in {context}")
    found = []
    for folder, subfolders, names in os.walk(context):
        subfolders[:] = sorted(name for name in subfolders if name != "__pycache__")
        found += [os.path.relpath(os.path.join(folder, name), context) for name in names]
    return sorted(found)


def content_hash(files, base_id, build_args):
    """Hash everything that an image is made of.

    :param files: mapping of the path inside the context to the path on this machine.
    :param base_id: identifier of the base image (``sha256:...``), or an empty string.
    :param build_args: mapping of build arguments.
    :returns: ``HASH_LENGTH`` hexadecimal digits that change when a file's name, mode or content, the base image or
        a build argument changes, and with nothing else.
    """
    digest = hashlib.sha256()
    digest.update(json.dumps([base_id, sorted(build_args.items())]).encode())
    for name in sorted(files):
        executable = bool(os.stat(files[name]).st_mode & 0o100)
        digest.update(json.dumps([name, executable]).encode())
        digest.update(bytes.fromhex(hash_file(files[name]).sha256))
    return digest.hexdigest()[:HASH_LENGTH]


def split_reference(reference):
    """Split ``host[:port]/path:tag`` into its registry, repository and tag.

    :raises ValueError: when the reference has no registry or no tag.
    """
    registry, _slash, rest = reference.partition("/")
    repository, colon, tag = rest.rpartition(":")
    if not colon or "/" in tag or not repository:
        raise ValueError(f"{reference!r} is not of the form REGISTRY/REPOSITORY:TAG")
    return registry, repository, tag
