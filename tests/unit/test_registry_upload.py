"""An image that was saved reaches a registry whole, its layers as they are."""

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest
from ansible.module_utils.ai_idp.registry_upload import LAYER_TYPE, Repository, UploadError, upload_saved

BIG = bytes(range(256)) * 8192  # 2 MiB: more than what is kept in memory.
SMALL = b"a small layer"
CONFIG = json.dumps({"rootfs": {"type": "layers"}}).encode()


def sha256(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


class FakeRegistry:
    """The calls of a registry that an upload needs; it checks digests as a real one does."""

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.manifests: dict[str, dict[str, Any]] = {}
        self.full = False
        registry, parts = self, {}

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def body(self) -> bytes:
                return self.rfile.read(int(self.headers["Content-Length"]))

            def do_POST(self) -> None:
                assert self.path == "/v2/org/image/blobs/uploads/"
                location = f"http://{self.headers['Host']}/v2/org/image/blobs/uploads/{len(parts)}?_state=x"
                parts[str(len(parts))] = b""
                self.answer(202, Location=location)

            def do_PATCH(self) -> None:
                content = self.body()
                if registry.full:
                    self.answer(500, b"no space left on device")
                    return
                number = self.path.rpartition("/")[2].partition("?")[0]
                parts[number] = content
                self.answer(202, Location=f"/v2/org/image/blobs/uploads/{number}?_state=y")

            def do_PUT(self) -> None:
                content = self.body()
                if "/manifests/" in self.path:
                    registry.manifests[self.path.rpartition("/")[2]] = json.loads(content)
                    self.answer(201)
                    return
                number, _, query = self.path.rpartition("/")[2].partition("?")
                digest = query.rpartition("digest=")[2].replace("%3A", ":")
                assert "_state=y" in query
                assert sha256(parts[number]) == digest
                registry.blobs[digest] = parts[number]
                self.answer(201)

            def do_GET(self) -> None:
                found = registry.manifests.get(self.path.rpartition("/")[2])
                if found is None:
                    self.answer(404, b"{}")
                else:
                    self.answer(200, json.dumps(found).encode())

            def log_message(self, *arguments: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def repository(self) -> Repository:
        return Repository(f"127.0.0.1:{self.server.server_port}", "org/image")


@pytest.fixture
def registry() -> Iterator[FakeRegistry]:
    fake = FakeRegistry()
    yield fake
    fake.server.shutdown()
    fake.server.server_close()


def saved(files: dict[str, bytes], links: dict[str, str] | None = None) -> io.BytesIO:
    """An archive like that of docker save."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        for name, target in (links or {}).items():
            member = tarfile.TarInfo(name)
            member.type = tarfile.SYMTYPE
            member.linkname = target
            archive.addfile(member)
    stream.seek(0)
    return stream


def described(config: str, *layers: str) -> bytes:
    return json.dumps([{"Config": config, "RepoTags": ["image:1"], "Layers": list(layers)}]).encode()


def test_an_image_of_a_folder_for_each_layer(registry: FakeRegistry) -> None:
    archive = saved(
        {
            "a/layer.tar": BIG,
            "b/layer.tar": SMALL,
            "0.json": CONFIG,
            "manifest.json": described("0.json", "a/layer.tar", "b/layer.tar", "c/layer.tar"),
        },
        links={"c/layer.tar": "../b/layer.tar"},
    )
    assert not registry.repository.has_image("1", "sha256:1d")
    upload_saved(archive, registry.repository, "1", "sha256:1d")
    assert registry.repository.has_image("1", "sha256:1d")
    assert not registry.repository.has_image("1", "sha256:other")
    layers = registry.manifests["1"]["layers"]
    assert [layer["digest"] for layer in layers] == [sha256(BIG), sha256(SMALL), sha256(SMALL)]
    assert {layer["mediaType"] for layer in layers} == {LAYER_TYPE}
    assert [layer["size"] for layer in layers] == [len(BIG), len(SMALL), len(SMALL)]
    assert registry.blobs == {sha256(content): content for content in (BIG, SMALL, CONFIG)}


def test_an_image_in_the_layout_of_oci(registry: FakeRegistry) -> None:
    packed = gzip.compress(SMALL)
    names = {content: f"blobs/sha256/{sha256(content).partition(':')[2]}" for content in (BIG, packed, CONFIG)}
    archive = saved(
        {
            **{name: content for content, name in names.items()},
            "index.json": b"{}",
            "manifest.json": described(names[CONFIG], names[BIG], names[packed]),
        }
    )
    upload_saved(archive, registry.repository, "1", "sha256:1d")
    assert [layer["mediaType"] for layer in registry.manifests["1"]["layers"]] == [LAYER_TYPE, f"{LAYER_TYPE}+gzip"]
    assert registry.manifests["1"]["config"]["digest"] == sha256(CONFIG)


def test_an_image_that_docker_pushed_is_known(registry: FakeRegistry) -> None:
    registry.manifests["1"] = {"schemaVersion": 2, "config": {"digest": "sha256:1d"}}
    assert registry.repository.has_image("1", "sha256:1d")
    assert not registry.repository.has_image("1", "sha256:other")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "can't be read"),
        (saved({"a/layer.tar": BIG, "0.json": CONFIG}).getvalue(), "no manifest.json: it is no image"),
        (saved({"a/layer.tar": BIG}).getvalue()[:-1500000], "can't be read: unexpected end of data"),
    ],
)
def test_what_is_no_image_names_no_tag(registry: FakeRegistry, content: bytes, said: str) -> None:
    with pytest.raises(UploadError, match=said):
        upload_saved(io.BytesIO(content), registry.repository, "1", "sha256:1d")
    assert not registry.manifests


def test_a_registry_that_refuses_is_quoted(registry: FakeRegistry) -> None:
    registry.full = True
    with pytest.raises(UploadError, match=r"did not take a layer: HTTP 500 no space left on device"):
        upload_saved(saved({"a/layer.tar": BIG}), registry.repository, "1", "sha256:1d")


def test_a_registry_that_is_away_is_named() -> None:
    with pytest.raises(UploadError, match=r"the registry 127\.0\.0\.1:1 does not answer"):
        Repository("127.0.0.1:1", "org/image").has_image("1", "sha256:1d")
