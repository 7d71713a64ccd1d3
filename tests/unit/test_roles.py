"""What every role promises: a spec that says what the defaults say, an README made from it, a state, a preflight."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
ROLES = sorted(path.name for path in (ROOT / "roles").iterdir())


def load(role: str, file: str) -> Any:
    return yaml.safe_load((ROOT / "roles" / role / file).read_text(encoding="utf-8"))


@pytest.mark.parametrize("role", ROLES)
def test_spec_and_defaults_say_the_same(role: str) -> None:
    options = load(role, "meta/argument_specs.yml")["argument_specs"]["main"]["options"]
    defaults = load(role, "defaults/main.yml")
    required = {name for name, option in options.items() if option.get("required")}
    assert {name: option.get("default") for name, option in options.items() if name not in required} == {
        name: value for name, value in defaults.items() if name not in required
    }


@pytest.mark.parametrize("role", ROLES)
def test_every_variable_carries_the_name_of_its_role(role: str) -> None:
    options = load(role, "meta/argument_specs.yml")["argument_specs"]["main"]["options"]
    assert all(name.startswith(f"{role}_") for name in options)
    assert options[f"{role}_state"]["choices"] == ["present", "absent"]


@pytest.mark.parametrize("role", ROLES)
def test_every_role_is_tested(role: str) -> None:
    scenario = ROOT / "molecule" / role
    assert (scenario / "converge.yml").is_file()
    assert list((scenario / "tests").glob("test_*.py"))


def test_readmes_are_up_to_date() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "tools" / "role_readmes.py", "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"run make docs: {done.stdout}"


def test_the_table_of_doors_is_up_to_date() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "tools" / "doors.py", "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"run make docs: {done.stdout}{done.stderr}"


def test_both_inventories_share_the_wiring() -> None:
    wiring = ROOT / "inventory" / "wiring.yml"
    for name in ("lab", "production"):
        assert (ROOT / "inventory" / name / "group_vars" / "all" / "wiring.yml").resolve() == wiring


def test_no_image_tag_is_latest() -> None:
    versions = yaml.safe_load((ROOT / "playbooks" / "group_vars" / "all" / "versions.yml").read_text(encoding="utf-8"))
    for image in versions["ai_idp_images"].values():
        assert ":" in image.rpartition("/")[2]
        assert not image.endswith(":latest")
