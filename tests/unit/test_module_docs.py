"""The documentation that modules share is found, and says what the modules take."""

import importlib
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.module_utils.ai_idp.gpu_info import PROBE_ARGUMENTS
from ansible.plugins.loader import fragment_loader
from ansible.utils.plugin_docs import add_fragments

ROOT = Path(__file__).parent.parent.parent
PROBES = ["gpu_info", "gpu_check", "hardware_profile"]


def documentation(name: str) -> dict[str, Any]:
    fragment_loader.add_directory(str(ROOT / "doc_fragments"))
    module = importlib.import_module(name)
    found: dict[str, Any] = yaml.safe_load(module.DOCUMENTATION)
    add_fragments(found, str(module.__file__), fragment_loader=fragment_loader, is_module=True)
    return found


@pytest.mark.parametrize("name", PROBES)
def test_options_of_the_probe_are_documented_as_they_are_taken(name: str) -> None:
    options = documentation(name)["options"]
    for option, taken in PROBE_ARGUMENTS.items():
        said = {key: options[option][key] for key in taken}
        assert said == taken


@pytest.mark.parametrize("name", sorted(path.stem for path in (ROOT / "library").glob("*.py")))
def test_every_module_tells_check_and_diff_mode(name: str) -> None:
    attributes = documentation(name)["attributes"]
    assert {"check_mode", "diff_mode"} <= set(attributes)
    attributes.pop("platform", None)
    assert all(attribute["description"] for attribute in attributes.values())
