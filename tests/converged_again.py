"""A role in its scenario, run once more with other settings."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]


def converge(role: str, /, *options: str, **variables: Any) -> subprocess.CompletedProcess[str]:
    """Run a role's scenario's playbook on the host that Molecule has made.

    Args:
        role: the role.
        options: options of ``ansible-playbook``.
        variables: the role's variables.
    """
    return subprocess.run(
        [
            *("ansible-playbook", "-i", str(Path(os.environ["MOLECULE_INVENTORY_FILE"]).parent)),
            *(str(ROOT / f"molecule/{role}/converge.yml"), "-e", json.dumps(variables), *options),
        ],
        cwd=ROOT,
        env={**os.environ, "ANSIBLE_CACHE_PLUGIN": "memory", "ANSIBLE_NOCOLOR": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
