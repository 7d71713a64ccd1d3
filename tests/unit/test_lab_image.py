"""What decides whether an image of the lab is built again."""

from pathlib import Path

import pytest
from ansible.module_utils.ai_idp.lab_image import content_hash, context_files, split_reference


@pytest.fixture
def context(tmp_path: Path) -> Path:
    (tmp_path / "Dockerfile").write_text("FROM scratch\n")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "run.sh").write_text("true\n")
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / "__pycache__" / "x.pyc").write_text("")
    return tmp_path


def tag(context: Path, base: str = "sha256:base") -> str:
    return content_hash({name: str(context / name) for name in context_files(context)}, base, {})


def test_caches_are_not_part_of_an_image(context: Path) -> None:
    assert context_files(context) == ["Dockerfile", "sub/run.sh"]


def test_the_same_content_has_the_same_hash(context: Path) -> None:
    assert tag(context) == tag(context)


@pytest.mark.parametrize("change", ["content", "name", "mode", "base"])
def test_every_change_gives_another_hash(context: Path, change: str) -> None:
    before = tag(context)
    base = "sha256:base"
    script = context / "sub" / "run.sh"
    if change == "content":
        script.write_text("false\n")
    elif change == "name":
        script.rename(context / "sub" / "start.sh")
    elif change == "mode":
        script.chmod(0o755)
    else:
        base = "sha256:other"
    assert tag(context, base) != before


def test_a_folder_without_a_dockerfile_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no Dockerfile in"):
        context_files(tmp_path)


def test_references() -> None:
    name = "127.0.0.1:15000/docker.io/vllm/vllm-openai:v0.30.0"
    assert split_reference(name) == ("127.0.0.1:15000", "docker.io/vllm/vllm-openai", "v0.30.0")


@pytest.mark.parametrize("wrong", ["vllm", "docker.io/vllm", "10.77.0.5:5000/vllm"])
def test_references_without_a_tag_are_refused(wrong: str) -> None:
    with pytest.raises(ValueError, match="REGISTRY/REPOSITORY:TAG"):
        split_reference(wrong)
