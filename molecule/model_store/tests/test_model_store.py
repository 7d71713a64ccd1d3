"""The models are on the host, complete, and what their record says."""

import hashlib
import json
from typing import Any

import pytest

STORE = "/srv/models"


def manifest(host: Any, name: str) -> dict[str, Any]:
    return json.loads(host.file(f"{STORE}/{name}/.ai-idp-model.json").content_string)


@pytest.mark.parametrize("name", ["tiny-gguf", "tiny-url"])
def test_every_recorded_file_has_its_size_and_hash(host: Any, name: str) -> None:
    files = manifest(host, name)["files"]
    assert files
    for entry in files:
        file = host.file(f"{STORE}/{name}/{entry['path']}")
        assert file.is_file
        assert file.size == entry["size_bytes"]
        assert file.sha256sum == entry["sha256"]
        assert (file.user, file.group, file.mode) == ("root", "root", 0o644)


def test_model_is_a_gguf_file(host: Any) -> None:
    (entry, *_) = manifest(host, "tiny-gguf")["files"]
    assert host.check_output(f"head -c 4 {STORE}/tiny-gguf/{entry['path']}") == "GGUF"


def test_hashes_are_those_that_the_hub_publishes(host: Any) -> None:
    listing = json.loads(host.file(f"{STORE}/tiny-url/listing.json").content_string)
    published = {entry["path"]: entry["lfs"]["oid"] for entry in listing if entry.get("lfs")}
    recorded = {entry["path"]: entry["sha256"] for entry in manifest(host, "tiny-gguf")["files"]}
    assert recorded == {path: oid for path, oid in published.items() if path.endswith(".gguf")}


def test_nothing_half_done_and_nothing_unwanted_is_left(host: Any) -> None:
    assert not host.file(f"{STORE}/tiny-gguf/.partial").exists
    assert not host.file(f"{STORE}/not-wanted").exists


def test_record_has_no_secret_and_names_its_source(host: Any) -> None:
    record = manifest(host, "tiny-gguf")
    assert record["source"]["repository"] == "ai-idp/tiny-llama-GGUF"
    assert set(record) == {"version", "name", "source", "revision", "files"}


def test_record_is_the_hash_of_the_bytes(host: Any) -> None:
    """Asks the bytes themselves once, without trusting the target's sha256sum."""
    listing = host.file(f"{STORE}/tiny-url/listing.json").content
    (entry,) = manifest(host, "tiny-url")["files"]
    assert hashlib.sha256(listing).hexdigest() == entry["sha256"]
