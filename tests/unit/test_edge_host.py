"""What an edge host has is read from its files."""

from pathlib import Path

import pytest
from ansible.module_utils.ai_idp import edge_host


def test_a_model_is_known_by_size_and_readability(tmp_path: Path) -> None:
    model = tmp_path / "m.gguf"
    assert edge_host.model_of(str(model)) is None
    model.write_bytes(b"1234")
    model.chmod(0o600)
    found = edge_host.model_of(str(model))
    assert found is not None
    assert (found["size"], found["everybody_reads"]) == (4, False)


def test_a_build_says_what_it_is(tmp_path: Path) -> None:
    release = tmp_path / "release.json"
    assert edge_host.release_of(str(release)) == {}
    release.write_text('{"build": 1}')
    assert edge_host.release_of(str(release)) == {"build": 1}
    release.write_text("{")
    with pytest.raises(ValueError, match="Expecting"):
        edge_host.release_of(str(release))


def test_units_that_are_not_there_have_no_text(tmp_path: Path) -> None:
    (tmp_path / "a.service").write_text("[Unit]")
    paths = [str(tmp_path / "a.service"), str(tmp_path / "b.service")]
    assert edge_host.unit_texts(paths) == {"a.service": "[Unit]", "b.service": ""}


def test_only_nodes_of_the_gpu_are_listed(tmp_path: Path) -> None:
    for name in ("nvidia0", "nvidiactl", "nvgpu/igpu0/ctrl", "dri/renderD128", "dri/card0", "sda", "nvhost-gpu"):
        (tmp_path / "dev" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "dev" / name).write_text("")
    assert edge_host.device_nodes(str(tmp_path)) == [
        "/dev/dri/renderD128",
        "/dev/nvgpu/igpu0/ctrl",
        "/dev/nvhost-gpu",
        "/dev/nvidia0",
        "/dev/nvidiactl",
    ]
