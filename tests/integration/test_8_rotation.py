"""What happens when keys are replaced.

The run that does it is the one that brings the lab back from replayed GPUs: it comes after their tests.
"""

import subprocess
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import openai
import pytest
from openai import OpenAI

from tests import stream_timing as timing

from .conftest import INVENTORY, SharedRuns, extra, read_secrets, run_playbook
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


def test_nobody_notices_that_keys_are_replaced(secrets: dict[str, str]) -> None:
    """Of hundreds of streams through the gateway none fails and none is cut while both keys are good, and after it."""
    target = timing.Target(
        "https://10.77.0.12", secrets["gateway_client_key_load"], str(INVENTORY / "state" / "ca.crt")
    )
    told: list[timing.Load] = []
    with ThreadPoolExecutor(1) as pool:
        rotating = pool.submit(run_playbook, "playbooks/week2.yml", *extra(rotate_keys=True))
        while not rotating.done():
            told.append(timing.load(target, "tiny-llama", concurrency=4, streams=40, tokens=64))
    run = rotating.result()
    assert run.code == 0, run.output
    assert read_secrets()["engine_gate_key"] != secrets["engine_gate_key"]
    streams = sum(one.streams for one in told)
    print(
        f"{streams} streams of 64 tokens, the slowest first token after {max(one.first['max'] for one in told):.0f} ms"
    )
    assert streams >= 200
    assert [problem for one in told for problem in one.problems] == []
