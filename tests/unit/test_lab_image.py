"""What decides whether an image of the lab is built again."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

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


ROOT = Path(__file__).parent.parent.parent

# An engine that remembers images as files and tells what it was asked. Its builds take a while.
FAKE_DOCKER = """#!/bin/sh
cd "$(dirname "$0")"
name() { echo "$1" | tr '/:' '__'; }
case "$1" in
image) test -e "image-$(name "$3")" && echo '[{"Id": "sha256:'"$3"'"}]' || exit 1 ;;
pull) exit 0 ;;
tag) touch "image-$(name "$3")" ;;
build) sleep 0.5; echo built >>asked; touch "image-$(name "$3")" ;;
esac
"""


class Machine:
    """A machine with the engine above, on which the module runs as a program of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "bin").mkdir()
        (folder / "logs").mkdir()
        docker = folder / "bin" / "docker"
        docker.write_text(FAKE_DOCKER)
        docker.chmod(0o755)
        (folder / "context").mkdir()
        (folder / "context" / "Dockerfile").write_text("FROM scratch\n")

    def begin(self, *, check: bool = False, **options: Any) -> subprocess.Popen[str]:
        given = {"name": "thing", "context": str(self.folder / "context"), "suite": "trixie",
                 "log_dir": str(self.folder / "logs"), "_ansible_check_mode": check, **options}  # fmt: skip
        code = (
            "import runpy, sys; import ansible.module_utils as u; u.__path__.append(sys.argv[1])\n"
            "import ansible.module_utils.testing as t, json\n"
            "with t.patch_module_args(json.loads(sys.argv[3])):\n"
            "    runpy.run_path(sys.argv[2], run_name='__main__')\n"
        )
        return subprocess.Popen(
            [sys.executable, "-c", code, str(ROOT / "module_utils"), str(ROOT / "library" / "lab_image.py"),
             json.dumps(given)],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}"},
        )  # fmt: skip

    def run(self, **options: Any) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(self.begin(**options).communicate()[0])
        return answer

    @property
    def builds(self) -> int:
        asked = self.folder / "bin" / "asked"
        return asked.read_text().count("built") if asked.exists() else 0

    def has(self, image: str) -> bool:
        return (self.folder / "bin" / f"image-{image.replace('/', '_').replace(':', '_')}").exists()


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_what_is_there_is_not_built_again(machine: Machine) -> None:
    first, second = machine.run(), machine.run()
    assert (first["changed"], first["source"]) == (True, "debian:trixie-slim")
    assert (second["changed"], second["image"], second["source"]) == (False, first["image"], None)
    assert machine.builds == 1
    assert machine.has("ai-idp-lab/thing:current")


def test_of_two_at_once_one_builds(machine: Machine) -> None:
    answers = [json.loads(process.communicate()[0]) for process in [machine.begin(), machine.begin()]]
    assert sorted(answer["built"] for answer in answers) == [False, True]
    assert machine.builds == 1


def test_check_mode_only_tells(machine: Machine) -> None:
    assert machine.run(check=True)["changed"]
    assert machine.builds == 0
    assert not machine.has("ai-idp-lab/base:trixie")
    machine.run()
    assert not machine.run(check=True)["changed"]


def test_a_base_can_be_made_alone(machine: Machine) -> None:
    answer = machine.run(context=None)
    assert (answer["image"], answer["built"]) == ("ai-idp-lab/base:trixie", True)
    assert machine.builds == 0


def test_a_registry_that_is_away_fails_what_was_built(machine: Machine) -> None:
    answer = machine.run(push="127.0.0.1:1/org/thing:1")
    assert answer["failed"]
    assert answer["msg"].startswith("the image thing is built, but the registry 127.0.0.1:1 does not answer")
