"""What happens when keys are replaced.

The run that does it is the one that brings the lab back from replayed GPUs: it comes after their tests.
"""

import subprocess
from typing import Any

import openai
import pytest
from openai import OpenAI

from .conftest import SharedRuns, read_secrets, run_playbook
from .suite import ROOT


def test_rotated_keys_replace_the_old_ones(shared: SharedRuns, client: OpenAI, endpoints: dict[str, Any]) -> None:
    run, before = shared.rotation.run, shared.rotation.before
    assert run.code == 0, run.output
    assert not any(key in run.output for key in before.values())
    after = read_secrets()
    # What an engine wants is between it and its gate: a key of the platform is replaced without it.
    changed = {name for name in before if after.get(name) != before[name]}
    assert changed == {"engine_gate_key"}
    assert "engine_gate_key_before" not in after
    with pytest.raises(openai.AuthenticationError):
        client.with_options(api_key=before[endpoints["vllm"]["key"]]).models.list()
    # Clients of the gateway have keys of their own and notice nothing.
    well = subprocess.run(["ai-idp", "doctor"], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert well.returncode == 0, well.stdout
    again = run_playbook("playbooks/week2.yml")
    assert again.changed["schlimers-server"] == 0, again.output
