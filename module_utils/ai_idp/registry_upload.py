# Copyright: AI-IDP contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Puts an image into a registry with its layers as they are: ``docker push`` would pack 2 GB with one processor, and
whoever pulls them would unpack them again.

The registry asks for no login and no TLS, like the lab's.
"""

from __future__ import annotations

import hashlib
import http.client
import io
import json
import posixpath
import tarfile
import urllib.parse
from collections.abc import Mapping
from typing import IO, Any

from ansible.module_utils.ai_idp.documents import WRONG_SHAPE, from_json, mapping_of
from ansible.module_utils.ai_idp.http_exchange import NO_HTTP, reason_of

MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar"
# What Docker on the machine that uploaded it calls the image: the digest of its settings, or (since 29) of more.
IMAGE_ID = "ai-idp.lab.image-id"
_PUSHED_BY_DOCKER = "application/vnd.docker.distribution.manifest.v2+json"
_GZIP = b"\x1f\x8b"
# What may lie between a layer's first byte and the registry's answer to its last one.
_TIMEOUT_S = 300.0
_BLOCK_BYTES = 1 << 20
# Larger files of a saved image are layers, and are uploaded as they come; smaller ones are kept until their part is
# known.
_SMALL_BYTES = 1 << 20


class UploadError(Exception):
    """The registry did not take something, or the saved image is not one."""


class _Hashed:
    """A stream that remembers what was read from it: its digest, its size and how it begins."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._hash = hashlib.sha256()
        self.size = 0
        self.begin = b""

    def read(self, size: int = -1) -> bytes:
        block = self._stream.read(size)
        self._hash.update(block)
        self.begin = self.begin or block[: len(_GZIP)]
        self.size += len(block)
        return block

    @property
    def blob(self) -> dict[str, Any]:
        """The blob's entry in a manifest, as a layer."""
        return {
            "mediaType": f"{LAYER_TYPE}+gzip" if self.begin == _GZIP else LAYER_TYPE,
            "size": self.size,
            "digest": f"sha256:{self._hash.hexdigest()}",
        }


class Repository:
    """One repository of a registry, by the registry's HTTP API."""

    def __init__(self, registry: str, name: str) -> None:
        """
        Args:
            registry: ``HOST:PORT``.
            name: the repository, for example ``docker.io/vllm/vllm-openai``.
        """
        self._name = name
        self._registry = registry
        try:
            self._connection = http.client.HTTPConnection(registry, timeout=_TIMEOUT_S, blocksize=_BLOCK_BYTES)
        except http.client.InvalidURL as error:
            raise UploadError(f"{registry} is no HOST:PORT of a registry: {error}") from error

    def _ask(
        self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, http.client.HTTPMessage, bytes]:
        try:
            self._connection.request(method, path, body=body, headers=dict(headers or {}))
            answer = self._connection.getresponse()
            return answer.status, answer.headers, answer.read()
        except NO_HTTP as error:
            self._connection.close()
            raise UploadError(f"the registry {self._registry} does not answer: {reason_of(error)}") from error

    def has_image(self, tag: str, image_id: str) -> bool:
        """Whether a tag names the image that Docker on this machine calls ``image_id`` (``sha256:...``)."""
        status, _headers, body = self._ask(
            "GET",
            f"/v2/{self._name}/manifests/{tag}",
            headers={"Accept": f"{MANIFEST_TYPE}, {_PUSHED_BY_DOCKER}"},
        )
        if status == 404:
            return False
        if status != 200:
            raise self._refused(f"tell about {self._name}:{tag}", status, body)
        try:
            manifest = mapping_of(from_json(body))
        except ValueError as error:
            raise UploadError(f"what answers at {self._registry} is no registry: it sends no JSON ({error})") from error
        annotations, config = mapping_of(manifest.get("annotations")), mapping_of(manifest.get("config"))
        return image_id in (annotations.get(IMAGE_ID), config.get("digest"))

    def upload(self, stream: IO[bytes], size: int) -> dict[str, Any]:
        """Upload a blob whose digest is not known before its end.

        Returns:
            Its entry in a manifest: ``mediaType`` (of a layer), ``size`` in bytes, ``digest``.
        """
        status, headers, body = self._ask("POST", f"/v2/{self._name}/blobs/uploads/", headers={"Content-Length": "0"})
        if status != 202:
            raise self._refused("begin an upload", status, body)
        hashed = _Hashed(stream)
        status, headers, body = self._ask(
            "PATCH",
            self._path(headers),
            hashed,
            {"Content-Length": str(size), "Content-Type": "application/octet-stream"},
        )
        if status != 202:
            raise self._refused("take a layer", status, body)
        blob = hashed.blob
        path = self._path(headers)
        path += f"{'&' if '?' in path else '?'}digest={urllib.parse.quote(blob['digest'])}"
        status, _headers, body = self._ask("PUT", path, headers={"Content-Length": "0"})
        if status != 201:
            raise self._refused("keep a layer", status, body)
        return blob

    def _path(self, headers: http.client.HTTPMessage) -> str:
        """The path of the URL to go on with, which the registry may give whole."""
        try:
            parts = urllib.parse.urlsplit(headers["Location"] or "")
        except ValueError:
            parts = urllib.parse.urlsplit("")
        if not parts.path:
            raise UploadError(f"what answers at {self._registry} is no registry: it does not say where an upload goes")
        return urllib.parse.urlunsplit(("", "", parts.path, parts.query, ""))

    def put_manifest(self, tag: str, manifest: Mapping[str, Any]) -> None:
        """Let a tag name an image whose blobs are all there."""
        status, _headers, body = self._ask(
            "PUT", f"/v2/{self._name}/manifests/{tag}", json.dumps(manifest).encode(), {"Content-Type": MANIFEST_TYPE}
        )
        if status != 201:
            raise self._refused(f"name the image {self._name}:{tag}", status, body)

    def _refused(self, what: str, status: int, body: bytes) -> UploadError:
        said = body.decode("utf-8", "replace").strip()[:300]
        return UploadError(f"the registry {self._registry} did not {what}: HTTP {status} {said}".strip())


def upload_saved(stream: IO[bytes], repository: Repository, tag: str, image_id: str) -> None:
    """Upload what ``docker save`` of one image writes, without a copy of it on the disk.

    Args:
        stream: the archive. Both of Docker's layouts are known: a folder for each layer, and (since 25) OCI's.
        repository: where it goes to.
        tag: its tag there.
        image_id: what Docker on this machine calls the image.

    Raises:
        UploadError: the registry refused something, or this is no image.
    """
    small: dict[str, bytes] = {}
    blobs: dict[str, dict[str, Any]] = {}
    links: dict[str, str] = {}
    try:
        with tarfile.open(fileobj=stream, mode="r|", bufsize=_BLOCK_BYTES) as archive:
            for member in archive:
                if member.issym():
                    # A layer that occurs twice.
                    links[member.name] = posixpath.normpath(
                        posixpath.join(posixpath.dirname(member.name), member.linkname)
                    )
                content = archive.extractfile(member) if member.isreg() else None
                if content is None:
                    continue
                if member.size > _SMALL_BYTES:
                    blobs[member.name] = repository.upload(content, member.size)
                else:
                    small[member.name] = content.read()
    except tarfile.TarError as error:
        raise UploadError(f"what docker save wrote can't be read: {error}") from error
    if "manifest.json" not in small:
        raise UploadError("what docker save wrote has no manifest.json: it is no image")
    try:
        described = from_json(small["manifest.json"])[0]
        config, layers = str(described["Config"]), [str(name) for name in described["Layers"]]
        lacking = [name for name in (config, *layers) if links.get(name, name) not in {*blobs, *small}]
    except WRONG_SHAPE as error:
        raise UploadError("what docker save wrote has a manifest.json of another form: it is no image") from error
    if lacking:
        raise UploadError(f"what docker save wrote lacks {', '.join(lacking)}: it was cut off; run this again")

    def blob(name: str) -> dict[str, Any]:
        name = links.get(name, name)
        if name not in blobs:
            blobs[name] = repository.upload(io.BytesIO(small[name]), len(small[name]))
        return blobs[name]

    repository.put_manifest(
        tag,
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "config": {**blob(config), "mediaType": CONFIG_TYPE},
            "layers": [blob(name) for name in layers],
            "annotations": {IMAGE_ID: image_id},
        },
    )
